"""The network against hand arithmetic, numpy and TF-Slim."""

import itertools

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import tf_slim

import resnet

pytestmark = pytest.mark.usefixtures("graph", "whole_network")

COUNTS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def build(layers=50, mini=True, size=33, classes=10, is_train=False, **options):
    demos = (resnet.ResNet_mini_demo if mini else resnet.ResNet_demo)["layer_%d" % layers]
    shape = [None, size, size, 3]
    if options.get("data_format") == "NCHW":
        shape = [None, 3, size, size]
    images = tf.placeholder(tf.float32, shape)
    return images, resnet.inference(images, demos, classes, is_train, **options)


def trainable_parameters():
    return sum(v.shape.num_elements() for v in tf.trainable_variables())


def parameters_by_hand(layers, mini, shortcut, classes, stem=7):
    total = stem * stem * 3 * 64 + 64  # stem with bias
    channels = 64
    for depth, bottlenecks in zip((256, 512, 1024, 2048), COUNTS[layers]):
        depth = depth // 2 if mini else depth
        inner = depth // 4
        for _ in range(bottlenecks):
            total += channels * inner + 2 * inner  # 1x1, then scale and offset of its batch norm
            total += 9 * inner * inner + 2 * inner  # 3x3, likewise
            total += inner * depth + depth  # 1x1 with bias
            if shortcut == "projection_all" or (shortcut == "projection" and channels != depth):
                total += channels * depth + 2 * depth  # 1x1 and its batch norm
            channels = depth
    return total + 2 * channels + channels * classes + classes  # last batch norm; classifier


@pytest.mark.parametrize(
    "layers, mini, shortcut",
    [
        *itertools.product([50], [False, True], resnet.SHORTCUTS),
        pytest.param(101, False, "zero_pad", marks=pytest.mark.slow),
        pytest.param(152, True, "projection", marks=pytest.mark.slow),
    ],
)
def test_parameter_count(layers, mini, shortcut):
    build(layers, mini, 32, 1000, shortcut=shortcut)
    assert trainable_parameters() == parameters_by_hand(layers, mini, shortcut, 1000)


@pytest.mark.parametrize("shortcut", ["zero_pad", "projection"])
def test_parameter_count_with_the_small_stem(shortcut):
    build(50, True, 32, 1000, shortcut=shortcut, stem="small")
    assert trainable_parameters() == parameters_by_hand(50, True, shortcut, 1000, stem=3)
    assert parameters_by_hand(50, True, shortcut, 1000) - trainable_parameters() == 9408 - 1728


def test_parameter_count_written_out():
    # One network with nothing but numbers, so that a mistake shared by the formula would show:
    # stem 9,472; the groups of bottlenecks, each first one apart; batch norm 4,096; classifier.
    group_1 = (64 * 64 + 128 + 36864 + 128 + 16384 + 256) + 2 * (16384 + 128 + 36864 + 128 + 16384 + 256)
    group_2 = (32768 + 256 + 147456 + 256 + 65536 + 512) + 3 * (65536 + 256 + 147456 + 256 + 65536 + 512)
    group_3 = (131072 + 512 + 589824 + 512 + 262144 + 1024) + 5 * (
        262144 + 512 + 589824 + 512 + 262144 + 1024
    )
    group_4 = (524288 + 1024 + 2359296 + 1024 + 1048576 + 2048) + 2 * (
        1048576 + 1024 + 2359296 + 1024 + 1048576 + 2048
    )
    build(50, False, 32, 1000)
    assert trainable_parameters() == 9472 + group_1 + group_2 + group_3 + group_4 + 4096 + 2049000
    assert trainable_parameters() == 22769384


@pytest.mark.parametrize(
    "stem, size, sides",  # after the first convolution, the pool and the four groups
    [
        ("article", 224, (112, 55, 28, 14, 7, 7)),
        ("article", 65, (33, 16, 8, 4, 2, 2)),
        ("article", 33, (17, 8, 4, 2, 1, 1)),
        ("article", 32, (16, 7, 4, 2, 1, 1)),
        ("small", 32, (32, 32, 16, 8, 4, 4)),
        ("small", 33, (33, 33, 17, 9, 5, 5)),
    ],
)
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_shape_of_each_stage(graph, stem, size, sides, data_format):
    _, logits = build(50, False, size, data_format=data_format, stem=stem)
    names = ["conv_1_out", "pool_1"] + ["resnet/group_%d" % n for n in (1, 2, 3, 4)]
    for name, side, depth in zip(names, sides, (64, 64, 256, 512, 1024, 2048)):
        shape = graph.get_tensor_by_name(name + ":0").shape.as_list()
        assert shape == ([None, side, side, depth] if data_format == "NHWC" else [None, depth, side, side])
    assert logits.shape.as_list() == [None, 10]


def test_mini_is_half_as_deep():
    assert [group["depth"] for group in resnet.ResNet_mini_demo["layer_152"]] == [128, 256, 512, 1024]
    for layers, counts in COUNTS.items():
        for demo in (resnet.ResNet_demo, resnet.ResNet_mini_demo):
            assert tuple(group["num_class"] for group in demo["layer_%d" % layers]) == counts


@pytest.mark.parametrize("depth, before, after", [(5, 1, 1), (6, 1, 2), (3, 0, 0)])
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_depthFilling_pads_zeros_around(depth, before, after, data_format):
    axis = data_format.index("C")
    values = np.moveaxis(np.random.RandomState(0).rand(2, 4, 4, 3).astype("f"), 3, axis)
    with tf.Session() as session:
        filled = session.run(resnet.depthFilling(tf.constant(values), depth, data_format))
    filled, values = np.moveaxis(filled, axis, 3), np.moveaxis(values, axis, 3)
    assert (filled[..., :before] == 0).all()
    assert (filled[..., before : before + 3] == values).all()
    assert (filled[..., before + 3 :] == 0).all() and filled.shape[3] == depth == before + 3 + after


def test_depthFilling_does_not_reduce():
    with pytest.raises(ValueError, match="cannot reduce"):
        resnet.depthFilling(tf.zeros([1, 2, 2, 8]), 4)


@pytest.mark.parametrize("size", [6, 7])
def test_sampling_keeps_every_second_pixel(size):
    values = np.random.RandomState(0).randn(2, size, size, 3).astype("f")
    with tf.Session() as session:
        assert (session.run(resnet.sampling(tf.constant(values))) == values[:, ::2, ::2]).all()


@pytest.mark.parametrize("stride", [1, 2])
def test_zero_pad_shortcut_of_a_bottleneck(stride):
    """With all kernels zero, what is left of a bottleneck is its shortcut."""
    values = np.random.RandomState(0).rand(2, 7, 7, 8).astype("f")
    data = resnet.bottleneck(tf.constant(values), 16, stride, False)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run([v.assign(tf.zeros_like(v)) for v in tf.trainable_variables() if "kernel" in v.name])
        result = session.run(data)
    assert (result[..., 4:12] == values[:, ::stride, ::stride]).all()
    assert (result[..., :4] == 0).all() and (result[..., 12:] == 0).all()


@pytest.mark.parametrize("kernel_size, stride, size", [(1, 1, 6), (3, 1, 5), (3, 2, 5), (3, 2, 6), (7, 2, 9)])
def test_conv2d_same_against_numpy(kernel_size, stride, size):
    rng = np.random.RandomState(0)
    values = rng.randn(2, size, size, 3).astype("f")
    data = resnet.conv2d_same(tf.constant(values), 4, kernel_size, stride, False, None, None)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        result, kernel = session.run([data, tf.trainable_variables()[0]])
    half = (kernel_size - 1) // 2
    padded = np.pad(values, [(0, 0), (half, half), (half, half), (0, 0)], "constant")
    out = -(-size // stride)
    expected = np.zeros([2, out, out, 4])
    for y in range(out):
        for x in range(out):
            top, left = y * stride, x * stride
            window = padded[:, top : top + kernel_size, left : left + kernel_size]
            expected[:, y, x] = np.tensordot(window, kernel, 3)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_zero_init_residual_begins_as_the_shortcut(graph):
    values = np.random.RandomState(0).rand(2, 7, 7, 16).astype("f")
    data = resnet.bottleneck(tf.constant(values), 16, 1, True, zero_init_residual=True)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(session.run(data), values)


def test_a_normalised_convolution_has_no_bias():
    resnet.conv2d_same(tf.zeros([1, 4, 4, 3]), 4, 3, 1, True)
    names = [v.op.name for v in tf.trainable_variables()]
    assert names == ["kernel", "batch_norm/gamma", "batch_norm/beta"]


def test_is_train_is_static():
    build(is_train=True)
    operations = {operation.type for operation in tf.get_default_graph().get_operations()}
    assert not operations & {"Switch", "Merge", "If"}
    # Two moving statistics for each of 2 x 16 + 1 batch norms.
    assert len(tf.get_collection(tf.GraphKeys.UPDATE_OPS)) == 2 * 33


def test_unknown_shortcut():
    with pytest.raises(ValueError, match="zero_pad, projection, projection_all"):
        build(shortcut="identity")


def test_unknown_stem():
    with pytest.raises(ValueError, match="stem is 'large', must be one of article, small"):
        build(stem="large")


@pytest.mark.slow
@pytest.mark.versions
@pytest.mark.parametrize("stem, size", [("article", 65), ("small", 32)])
def test_preactivation_is_TF_Slims_resnet_v2(stem, size):
    """The same random weights in both networks give the same logits."""
    slim, resnet_v2 = tf_slim("resnet_v2")
    images = tf.constant(np.random.RandomState(0).rand(2, size, size, 3).astype("f"))
    demos = resnet.ResNet_demo["layer_50"]
    ours = resnet.inference(images, demos, 10, False, "projection", True, stem=stem)
    our_variables = tf.global_variables()
    with slim.arg_scope(resnet_v2.resnet_arg_scope()):
        if stem == "article":
            slims, _ = resnet_v2.resnet_v2_50(images, 10, is_training=False)
        else:  # its own stem left out, and a plain convolution in place of that
            block, strides = resnet_v2.resnet_v2_block, (2, 2, 2, 1)
            units = zip((64, 128, 256, 512), COUNTS[50], strides)
            blocks = [block("block%d" % (i + 1), *each) for i, each in enumerate(units)]
            stem_out = slim.conv2d(images, 64, 3, activation_fn=None, normalizer_fn=None)
            slims, _ = resnet_v2.resnet_v2(stem_out, blocks, 10, False, include_root_block=False)
    slim_variables = tf.global_variables()[len(our_variables) :]

    rng = np.random.RandomState(1)
    feed = {}
    for our, their in zip(our_variables, slim_variables):  # both are made in the same order
        shape = our.shape.as_list()
        assert shape == their.shape.as_list(), (our.name, their.name)
        value = 0.5 + rng.rand(*shape) if len(shape) == 1 else 0.05 * rng.randn(*shape)
        feed[our.initial_value] = feed[their.initial_value] = value
    assert len(feed) == len(our_variables) + len(slim_variables)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer(), feed)
        one, other = session.run([ours, tf.reshape(slims, [2, 10])])
    assert np.abs(one).max() > 0.1
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(one).max())


def test_cnn_to_fc():
    values = np.random.RandomState(0).rand(3, 2, 2, 5).astype("f")
    with tf.variable_scope("head"):
        logits = resnet.cnn_to_fc(tf.constant(values), 7, regularizer=tf.nn.l2_loss)
    with tf.variable_scope("head", reuse=True):
        dropped = resnet.cnn_to_fc(tf.constant(values), 7, train=True)
    weights, bias = tf.trainable_variables()
    assert [weights.op.name, bias.op.name] == ["head/layer-fc/weight", "head/layer-fc/bias"]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        w, got, loss = session.run([weights, logits, tf.get_collection("losses")[0]])
        samples = np.stack([session.run(dropped) for _ in range(400)])
    np.testing.assert_allclose(got, values.reshape(3, 20) @ w, rtol=1e-5, atol=1e-6)
    assert 0.05 < w.std() < 0.11 and np.abs(w).max() <= 0.2  # truncated at two deviations
    np.testing.assert_allclose(loss, (w**2).sum() / 2, rtol=1e-5)
    # Dropping features, not logits: no logit is zero, and their mean is that without dropping.
    assert (samples != 0).all() and samples.std(0).min() > 0
    assert np.abs(samples.mean(0) - got).max() < 0.1
