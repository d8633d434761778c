"""ResNet-50, 101 and 152 as the article builds them: bottlenecks stacked from a dictionary.

The names `ResNet_demo`, `sampling`, `depthFilling`, `conv2d_same`, `bottleneck`, `inference` and
`cnn_to_fc` are the article's own ("TensorFlow 复现ResNet系列模型", section 2), so that it can be
read beside this file. The papers: He et al. 2015, "Deep Residual Learning for Image Recognition"
(arXiv:1512.03385), and He et al. 2016, "Identity Mappings in Deep Residual Networks"
(arXiv:1603.05027) for `preactivation`.

Every function adds to the default graph and takes and returns float32 tensors, [batch, height,
width, channels] or, with data_format="NCHW", [batch, channels, height, width]. Shapes are written in
the former order below. The number of channels must be known, that of pixels need not.
docs/walkthrough.md goes through all of it, with the shapes for 224 pixels.
"""

import functools

import tensorflow.compat.v1 as tf

# One list per network, one entry per group: its output channels and its number of bottlenecks.
ResNet_demo = {
    "layer_50": [
        {"depth": 256, "num_class": 3},
        {"depth": 512, "num_class": 4},
        {"depth": 1024, "num_class": 6},
        {"depth": 2048, "num_class": 3},
    ],
    "layer_101": [
        {"depth": 256, "num_class": 3},
        {"depth": 512, "num_class": 4},
        {"depth": 1024, "num_class": 23},
        {"depth": 2048, "num_class": 3},
    ],
    "layer_152": [
        {"depth": 256, "num_class": 3},
        {"depth": 512, "num_class": 8},
        {"depth": 1024, "num_class": 36},
        {"depth": 2048, "num_class": 3},
    ],
}

# Half as wide: what the article's author trains on pictures of 32 pixels.
ResNet_mini_demo = {
    layers: [{"depth": group["depth"] // 2, "num_class": group["num_class"]} for group in groups]
    for layers, groups in ResNet_demo.items()
}

SHORTCUTS = ("zero_pad", "projection", "projection_all")  # options A, B and C of He et al. 2015
STEMS = ("article", "small")  # what comes before the groups, see `inference`


def batch_norm(input_tensor, is_train, momentum=0.97, epsilon=1e-3, data_format="NHWC", scale=1):
    """Batch normalisation over all but the channels (Ioffe and Szegedy 2015); the shape stays.

    Args:
        is_train: a Python bool. True normalises with the batch's statistics and adds the updates
            of the moving ones to `tf.GraphKeys.UPDATE_OPS`; False normalises with the moving ones.
        momentum: from 0 to 1, a float or a scalar tensor: what an update keeps of the moving ones.
        epsilon: added to the variance.
        scale: what the learned factor (gamma) starts from.
    """
    return tf.layers.batch_normalization(
        input_tensor,
        axis=_channel_axis(data_format),
        momentum=momentum,
        epsilon=epsilon,
        gamma_initializer=tf.constant_initializer(scale),
        training=is_train,
        fused=True,
        name="batch_norm",
    )


def sampling(input_tensor, ksize=1, stride=2, padding="VALID", data_format="NHWC"):
    """Max pool; with ksize 1 it keeps every stride-th pixel: n pixels become ceil(n / stride).

    In general n become floor((n - ksize) / stride) + 1 with 'VALID', ceil(n / stride) with 'SAME'.
    """
    window, step = _spatial(ksize, data_format), _spatial(stride, data_format)
    return tf.nn.max_pool(input_tensor, window, step, padding, data_format=data_format)


def depthFilling(input_tensor, depth, data_format="NHWC"):
    """Pad the channels with zeros up to `depth`, half before and half (the odd one too) after.

    Option A of He et al. 2015: a shortcut without weights.

    Returns:
        [batch, height, width, depth].
    Raises:
        ValueError: the tensor has more than `depth` channels already.
    """
    missing = depth - _channels(input_tensor, data_format)
    if missing < 0:
        raise ValueError("depthFilling cannot reduce %s to %d channels" % (input_tensor.shape, depth))
    paddings = [[0, 0]] * 4
    paddings[_channel_axis(data_format)] = [missing // 2, missing - missing // 2]
    return tf.pad(input_tensor, paddings)


def conv2d_same(
    input_tensor,
    num_outputs,
    kernel_size,
    stride,
    is_train,
    activation_fn=tf.nn.relu,
    normalizer_fn=batch_norm,
    data_format="NHWC",
):
    """Convolve so that n pixels become ceil(n / stride), whatever the parity of n.

    'SAME' pads on the right first when it strides, which shifts the result by a pixel between
    even and odd sizes; here the padding is explicit, (kernel_size - 1) // 2 before.

    Args:
        num_outputs: channels of the result.
        kernel_size, stride: the same down and across.
        is_train: see `batch_norm`.
        normalizer_fn: called with (tensor, is_train); the convolution then has no bias, which
            the normaliser would cancel. None or False: a bias instead.
        activation_fn: applied last; None for none.
    Returns:
        [batch, ceil(height / stride), ceil(width / stride), num_outputs].
    """
    padding = "SAME"
    if stride > 1:
        before = (kernel_size - 1) // 2
        sides = [[0, 0]] * 4
        for axis in _spatial_axes(data_format):
            sides[axis] = [before, kernel_size - 1 - before]
        input_tensor = tf.pad(input_tensor, sides)
        padding = "VALID"
    depth = _channels(input_tensor, data_format)
    kernel = tf.get_variable("kernel", [kernel_size, kernel_size, depth, num_outputs])
    strides = _spatial(stride, data_format)
    data = tf.nn.conv2d(input_tensor, kernel, strides, padding, data_format=data_format)
    if normalizer_fn:
        data = normalizer_fn(data, is_train)
    else:
        bias = tf.get_variable("bias", [num_outputs], initializer=tf.zeros_initializer())
        data = tf.nn.bias_add(data, bias, data_format=data_format)
    return activation_fn(data) if activation_fn else data


def bottleneck(
    input_tensor,
    output_depth,
    stride,
    is_train,
    shortcut="zero_pad",
    preactivation=False,
    zero_init_residual=False,
    normalizer_fn=batch_norm,
    data_format="NHWC",
):
    """A residual of three convolutions (1x1, 3x3 with the stride, 1x1) added to a shortcut.

    The second of the two versions that the article prints: the one that is given the stride.

    Args:
        output_depth: channels of the result; the two inner convolutions have a quarter of them.
        shortcut: one of SHORTCUTS. "zero_pad" fills missing channels with zeros; "projection"
            makes them by a 1x1 convolution and leaves equal depths alone; "projection_all"
            convolves always.
        preactivation: False, the article's: batch norm inside the residual and after a projection,
            ReLU after the sum. True (He et al. 2016, as in TF-Slim's resnet_v2): batch norm and
            ReLU before the residual and before a projection, which carries a bias instead.
        zero_init_residual: also batch norm after the third convolution, as in He et al. 2015, with
            a scale that starts from zero: the block begins as its shortcut (Goyal et al. 2017).
    Returns:
        [batch, ceil(height / stride), ceil(width / stride), output_depth].
    Raises:
        ValueError: a shortcut without weights cannot reduce the channels, see `depthFilling`.
    """
    convolve = functools.partial(conv2d_same, is_train=is_train, data_format=data_format)
    data = identity = input_tensor
    if preactivation:
        with tf.variable_scope("preactivation"):
            data = tf.nn.relu(normalizer_fn(data, is_train))

    deepens = _channels(input_tensor, data_format) != output_depth
    if shortcut == "projection_all" or (shortcut == "projection" and deepens):
        normalizer = None if preactivation else normalizer_fn
        with tf.variable_scope("shortcut"):
            identity = convolve(data, output_depth, 1, stride, activation_fn=None, normalizer_fn=normalizer)
    else:
        if deepens:
            identity = depthFilling(identity, output_depth, data_format)
        if stride > 1:
            identity = sampling(identity, 1, stride, data_format=data_format)

    with tf.variable_scope("conv_1"):
        data = convolve(data, output_depth // 4, 1, 1, normalizer_fn=normalizer_fn)
    with tf.variable_scope("conv_2"):
        data = convolve(data, output_depth // 4, 3, stride, normalizer_fn=normalizer_fn)
    with tf.variable_scope("conv_3"):
        normalizer = functools.partial(normalizer_fn, scale=0) if zero_init_residual else None
        data = convolve(data, output_depth, 1, 1, activation_fn=None, normalizer_fn=normalizer)
    data = data + identity
    return data if preactivation else tf.nn.relu(data)


def inference(
    input_tensor,
    demos,
    num_output,
    is_train,
    shortcut="zero_pad",
    preactivation=False,
    zero_init_residual=False,
    dropout=0,
    bn_momentum=0.97,
    data_format="NHWC",
    stem="article",
):
    """The whole network, from pictures to logits.

    The stages can be fetched by name: `conv_1_out`, `pool_1`, `resnet/group_1` to `resnet/group_4`,
    `resnet/activations` (of the last batch norm and ReLU), `resnet/features` (pooled) and `logits_out`, with
    ":0" and the enclosing name scope.

    Args:
        input_tensor: float32 pictures, normalised, height and width known and at least 32.
        demos: a list of groups, such as `ResNet_demo["layer_101"]`.
        num_output: number of classes.
        is_train: a Python bool, see `batch_norm`; the updates of its moving statistics are in
            `tf.GraphKeys.UPDATE_OPS` and must be run with each training step.
        shortcut, preactivation, zero_init_residual: see `bottleneck`.
        dropout: from 0 to below 1; above 0 the head is `cnn_to_fc`, which drops this share of the features.
        bn_momentum: how much of the moving statistics each training step keeps; a float or a tensor.
        stem: "article": a 7x7 convolution and a 3x3 pool, which both halve the pixels; "small": a 3x3
            convolution and no pool (`pool_1` is then `conv_1_out`), as He et al. 2015, section 4.2, have it
            for 32 pixels, so that the groups see all of them.
    Returns:
        float32 logits, [batch, num_output].
    Raises:
        ValueError: `shortcut` is not one of SHORTCUTS, or `stem` none of STEMS.
    """
    for name, value, known in (("shortcut", shortcut, SHORTCUTS), ("stem", stem, STEMS)):
        if value not in known:
            raise ValueError("%s is %r, must be one of %s" % (name, value, ", ".join(known)))
    normalizer_fn = functools.partial(
        batch_norm,
        momentum=bn_momentum,
        epsilon=1e-5 if preactivation else 1e-3,
        data_format=data_format,
    )
    with tf.variable_scope("conv_1"):
        kernel_size, stride = (3, 1) if stem == "small" else (7, 2)
        data = conv2d_same(input_tensor, 64, kernel_size, stride, is_train, None, None, data_format)
    data = tf.identity(data, "conv_1_out")
    if stem == "article":
        data = sampling(data, 3, 2, "SAME" if preactivation else "VALID", data_format)
    data = tf.identity(data, "pool_1")
    with tf.variable_scope("resnet"):
        for number, group in enumerate(demos, 1):
            for i in range(1, group["num_class"] + 1):
                downsamples = i == group["num_class"] and number < len(demos)
                with tf.variable_scope("group_%d/bottleneck_%d" % (number, i)):
                    data = bottleneck(
                        data,
                        group["depth"],
                        2 if downsamples else 1,
                        is_train,
                        shortcut,
                        preactivation,
                        zero_init_residual,
                        normalizer_fn,
                        data_format,
                    )
            data = tf.identity(data, "group_%d" % number)
        data = tf.identity(tf.nn.relu(normalizer_fn(data, is_train)), "activations")
        data = tf.reduce_mean(data, _spatial_axes(data_format), keepdims=True, name="features")
    with tf.variable_scope("logits"):
        if dropout:
            data = cnn_to_fc(data, num_output, is_train, rate=dropout)
        else:
            data = conv2d_same(data, num_output, 1, 1, is_train, None, None, data_format)
    return tf.reshape(data, [-1, num_output], "logits_out")


def cnn_to_fc(input_tensor, num_output, train=False, regularizer=None, rate=0.5):
    """Flatten and classify by one dense layer: the article's other head, for [batch, h, w, c].

    Its variables are `layer-fc/weight` and `layer-fc/bias`; height, width and channels must be known.

    Args:
        train: drop the share `rate` of the features; the article drops logits, which only adds noise
            to them.
        regularizer: function of the weights whose result joins the collection "losses"; or None.
    Returns:
        float32 logits, [batch, num_output].
    """
    nodes = input_tensor.shape[1:].num_elements()
    features = tf.reshape(input_tensor, [-1, nodes])
    with tf.variable_scope("layer-fc"):
        weights = tf.get_variable(
            "weight", [nodes, num_output], initializer=tf.truncated_normal_initializer(stddev=0.1)
        )
        biases = tf.get_variable("bias", [num_output], initializer=tf.zeros_initializer())
    if regularizer:
        tf.add_to_collection("losses", regularizer(weights))
    if train:
        features = tf.nn.dropout(features, rate=rate)
    return tf.matmul(features, weights) + biases


def _channel_axis(data_format):
    return data_format.index("C")


def _spatial_axes(data_format):
    return [data_format.index("H"), data_format.index("W")]


def _channels(tensor, data_format):
    return tensor.shape.as_list()[_channel_axis(data_format)]


def _spatial(size, data_format):
    """`size` for height and width, 1 for the other two dimensions."""
    return [size if name in "HW" else 1 for name in data_format]
