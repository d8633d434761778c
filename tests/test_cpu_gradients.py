"""The quick gradients on the CPU are TensorFlow's own."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import cpu_gradients
import resnet


def gradients(stride, size, kernel_size, depth, batch):
    """Of a convolution with respect to its input and kernel; TensorFlow's own, and the quick ones."""
    rng = np.random.RandomState(0)
    values = tf.constant(rng.randn(batch, size, size, depth).astype("f"))
    if batch_is_unknown(batch):
        values = tf.placeholder_with_default(values, [None, size, size, depth])
    results = []
    for quick in (False, True):
        with tf.variable_scope("net", reuse=tf.AUTO_REUSE):
            if quick:
                with cpu_gradients.instead():
                    data = resnet.conv2d_same(values, 6, kernel_size, stride, True, tf.nn.tanh, None)
            else:
                data = resnet.conv2d_same(values, 6, kernel_size, stride, True, tf.nn.tanh, None)
        results.append(tf.gradients(data, [values, tf.trainable_variables()[0]]))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        return session.run(results)


def batch_is_unknown(batch):
    return batch == 3


@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("depth", [3, 8])
@pytest.mark.parametrize(
    "kernel_size, stride, size",
    [(1, 1, 5), (1, 2, 5), (3, 1, 5), (3, 1, 1), (3, 2, 5), (3, 2, 6), (7, 2, 9), (7, 2, 8)],
)
def test_quick_gradients_are_tensorflows_own(graph, kernel_size, stride, size, depth, batch):
    own, quick = gradients(stride, size, kernel_size, depth, batch)
    for one, other in zip(own, quick):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())
    override = {op.get_attr("_gradient_op_type") for op in graph.get_operations() if has_override(op)}
    assert override == {cpu_gradients.NAME.encode()}


def has_override(operation):
    return operation.type == "Conv2D" and "_gradient_op_type" in operation.node_def.attr
