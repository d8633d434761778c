"""The quick gradients on the CPU are TensorFlow's own."""

import contextlib

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import resnet
from suite.model import cpu_gradients
from suite.model.network import build_logits
from suite.process import tf_versions


def gradients(size, kernel_size, depth, stride, static, quick):
    """Of a convolution with respect to its input and its kernel, as tensors."""
    values = np.random.RandomState(0).randn(3, size, size, depth).astype("f")
    data = tf.constant(values) if static else tf.placeholder_with_default(values, [None, size, size, depth])
    with tf.variable_scope("net", reuse=tf.AUTO_REUSE), quick:
        result = resnet.conv2d_same(data, 6, kernel_size, stride, True, tf.nn.tanh, None)
    return tf.gradients(result, [data, tf.trainable_variables()[0]])


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("depth", [3, 8])
@pytest.mark.parametrize(
    "kernel_size, stride, size",
    [(1, 1, 5), (1, 2, 5), (3, 1, 5), (3, 1, 1), (3, 2, 5), (3, 2, 6), (7, 2, 9), (7, 2, 8)],
)
def test_quick_gradients_are_tensorflows_own(graph, kernel_size, stride, size, depth, static):
    case = size, kernel_size, depth, stride, static
    own, quick = gradients(*case, contextlib.nullcontext()), gradients(*case, cpu_gradients.instead())
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for one, other in zip(*session.run([own, quick])):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "shortcut, stem", [*((shortcut, "article") for shortcut in resnet.SHORTCUTS), ("zero_pad", "small")]
)
def test_the_whole_network_has_the_same_gradients(graph, monkeypatch, whole_network, shortcut, stem):
    """Those of all weights, where training takes the quick ones; most convolutions have them."""
    monkeypatch.setattr(tf_versions, "has_onednn", lambda: False)  # where there is, its own are taken
    network = {"layers": 50, "mini": True, "shortcut": shortcut, "preactivation": False, "stem": stem}
    pictures = tf.constant(np.random.RandomState(0).randn(4, 33, 33, 3).astype("f"))
    with tf.variable_scope("net", reuse=tf.AUTO_REUSE):
        quick = build_logits(pictures, network, range(5), True)
        monkeypatch.setattr(cpu_gradients, "instead", contextlib.nullcontext)
        own = build_logits(pictures, network, range(5), True)
    found = [tf.gradients(tf.reduce_sum(logits**2), tf.trainable_variables()) for logits in (own, quick)]
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        own, quick = session.run(found)
    largest = max(np.abs(gradient).max() for gradient in own)
    for one, other in zip(own, quick):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * largest)
    convolutions = [operation for operation in graph.get_operations() if operation.type == "Conv2D"]
    chosen = sum("_gradient_op_type" in operation.node_def.attr for operation in convolutions)
    assert chosen == 16 * 3 + 2 + {"zero_pad": 0, "projection": 4, "projection_all": 16}[shortcut]
