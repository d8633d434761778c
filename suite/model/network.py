"""The network that model.json describes, and its weights. Of the suite, this file alone imports resnet.py."""

import contextlib
import itertools
import os

import numpy as np

from suite.model import modelfolder
from suite.process import device, tf_versions
from suite.process.errors import UserError
from suite.process.tf_versions import tf

FORMER = {"stem": "article", "zero_init_residual": False, "dropout": 0}  # of before there were these options


def complete(network):
    """The "network" of a model.json, with what one of an earlier version does not say."""
    return {**FORMER, **network}


def build_logits(images, network, classes, is_train, data_format=None, **options):
    """The network that model.json describes, over normalised pictures.

    Args:
        images: float32 [batch, size, size, 3].
        network: {"layers": 50, "mini": False, "shortcut": "zero_pad", "preactivation": False} at least; see
            FORMER for the rest.
        data_format: "NHWC" or "NCHW" inside; by default the faster one on this machine, which for training
            on the CPU also gets other gradients, see cpu_gradients.py.
        options: more options of resnet.inference.
    """
    import resnet  # here, because TensorFlow comes with it
    from suite.model import cpu_gradients

    network = complete(network)
    demos = resnet.ResNet_mini_demo if network["mini"] else resnet.ResNet_demo
    data_format = data_format or device.data_format()
    if data_format == "NCHW":
        images = tf.transpose(images, [0, 3, 1, 2])
    on_cpu = data_format == "NHWC" and not device.gpus() and not tf_versions.has_onednn()
    with cpu_gradients.instead() if is_train and on_cpu else contextlib.nullcontext():
        return resnet.inference(
            images,
            demos["layer_%d" % network["layers"]],
            len(classes),
            is_train,
            network["shortcut"],
            network["preactivation"],
            network["zero_init_residual"],
            network["dropout"],
            data_format=data_format,
            stem=network["stem"],
            **options,
        )


def add_mirror_option(parser):
    """--mirror, of the scripts that answer."""
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="the mean of the answers for a picture and its mirror image: a little better, twice the time",
    )


def restore_session(model, images, data_format=None, mirror=False, cpu_only=False):
    """Build the model's network over `images` and restore its weights; `data_format`: see `build_logits`.

    Args:
        mirror: answer with the mean for a picture and its mirror image.
        cpu_only: leave GPUs alone.
    Returns:
        A session on the default graph, and the float32 probabilities [batch, classes].
    Raises:
        UserError: the checkpoint is damaged or does not fit model.json.
    """
    if mirror:
        images = tf.concat([images, tf.reverse(images, [2])], 0)
    logits = build_logits(images, model.network, model.classes, False, data_format)
    probabilities = tf.nn.softmax(logits / model.temperature)
    if mirror:
        probabilities = tf.add_n(tf.split(probabilities, 2)) / 2
    session = tf.Session(config=device.session_config(cpu_only=cpu_only))
    load_weights(session, model.checkpoint)
    return session, probabilities


def features_and_maps(data_format=None):
    """What the network that `build_logits` built on the default graph goes by, and where it looked.

    Args:
        data_format: the one that `build_logits` was given.
    Returns:
        float32 features [batch, channels], the means of the last activations; and float32 maps [batch, h, w,
        classes]: the classifier at each of their positions. Mean, then a linear classifier, is the same as a
        linear classifier, then the mean: over h and w a map's mean is the logit (Zhou et al. 2015, "Learning
        Deep Features for Discriminative Localization").
    """
    activations = tf.get_default_graph().get_tensor_by_name("resnet/activations:0")
    if (data_format or device.data_format()) == "NCHW":
        activations = tf.transpose(activations, [0, 2, 3, 1])
    kernel, bias = tf.trainable_variables("logits/")
    kernel = tf.reshape(kernel, [1, 1, *kernel.shape[-2:]])
    maps = tf.nn.bias_add(tf.nn.conv2d(activations, kernel, 1, "SAME"), bias)
    return tf.reduce_mean(activations, [1, 2]), maps


def lead(maps, answers):
    """What speaks for an answer at each place: what its map is ahead of all other classes' by there.

    What a map holds for all classes alike says nothing; benchmarks/understanding.md has what that changes.

    Args:
        maps: float [n, h, w, classes], see `features_and_maps`; of two classes or more.
        answers: int64 [n].
    Returns:
        Float [n, h, w].
    """
    own = np.arange(maps.shape[3]) == np.reshape(answers, [-1, 1, 1, 1])
    return maps[np.broadcast_to(own, maps.shape)].reshape(maps.shape[:3]) - np.where(own, -np.inf, maps).max(
        3
    )


# By stem, in pixels of the input: where the first position of a map lies, and how far it is to the next,
# so 2, 34, 66, ... or 0, 8, 16, ...
PLACES = {"article": (2, 32), "small": (0, 8)}
POINTS = 32  # down and across, of what is drawn of a map


def spread(values, model):
    """A map of a model's, linearly between its positions, all over what was seen.

    Args:
        values: float [h, h].
    Returns:
        float [POINTS, POINTS].
    """
    first, distance = PLACES[complete(model.network)["stem"]]
    positions = first + distance * np.arange(len(values))
    points = (np.arange(POINTS) + 0.5) * model.image_size / POINTS
    weights = np.stack([np.interp(points, positions, row) for row in np.eye(len(values))], 1)
    return weights @ values @ weights.T


FINE = 4  # fewer positions of a map, down and across, are too coarse to say where


def finer_from(model):
    """The --image_size from which on a model's maps have FINE x FINE positions; None where they have."""

    def positions(size):
        if complete(model.network)["stem"] == "article":
            size = -(-size // 2)  # the first convolution's
            size = -(-size // 2) if model.network.get("preactivation") else (size - 1) // 2  # and its pool's
        return -(-size // 8)

    if positions(model.image_size) >= FINE:
        return None
    return next(size for size in itertools.count(model.image_size) if positions(size) >= FINE)


STATISTICS = ("moving_mean", "moving_variance")  # what the names of batch norms' end with
AVERAGED = "/ExponentialMovingAverage"  # suffix of the averages that train.py --ema keeps


def load_weights(session, checkpoint):
    """Give the default graph's variables their values in a checkpoint, or the averages of them that it holds.

    Raises:
        UserError: the checkpoint is damaged or does not fit the graph.
    """
    try:
        reader = tf.train.load_checkpoint(modelfolder.literal(checkpoint))
        shapes, values = reader.get_variable_to_shape_map(), {}
        for variable in tf.global_variables():
            name, shape = variable.op.name, variable.shape.as_list()
            name += AVERAGED if reader.has_tensor(name + AVERAGED) else ""
            if shapes.get(name) != shape:
                values = checkpoint, name, shape
                raise UserError(
                    "%s: has no %s of %s, which model.json says; was one of them replaced?" % values
                )
            values[variable.initializer.inputs[1]] = reader.get_tensor(name)
        session.run([variable.initializer for variable in tf.global_variables()], values)
    except tf_versions.checkpoint_errors() as error:
        reason = tf_versions.reason(error)
        if not os.path.exists(checkpoint + ".index"):
            reason = "it is gone, train.py may have replaced it meanwhile; run the same command again"
        raise UserError("%s: cannot be restored: %s" % (checkpoint, reason)) from error
