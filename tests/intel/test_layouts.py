"""Intel's build of TensorFlow: its CPU kernels know NCHW too, the layout that we use on GPUs.

make test-intel
"""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from suite.model.network import build_logits
from suite.process import tf_versions

NETWORKS = [
    {"layers": 50, "mini": True, "shortcut": "zero_pad", "preactivation": False},
    {"layers": 50, "mini": True, "shortcut": "projection", "preactivation": True, "zero_init_residual": True},
]


def test_this_is_intels_build():
    assert tf_versions.has_onednn()


def test_its_own_gradients_are_used():
    with tf.Graph().as_default() as graph:
        build_logits(tf.zeros([2, 32, 32, 3]), NETWORKS[0], range(5), True)
        operations = [op for op in graph.get_operations() if op.type == "Conv2D"]
    assert operations and not any("_gradient_op_type" in op.node_def.attr for op in operations)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("is_train", [False, True])
def test_both_layouts_give_the_same_numbers(network, is_train):
    """Logits and gradients of a batch, with the same weights."""
    pictures = np.random.RandomState(0).normal(0, 1, [4, 65, 65, 3]).astype("f")
    found = []
    for data_format in ("NHWC", "NCHW"):
        with tf.Graph().as_default(), tf.Session() as session:
            tf.set_random_seed(0)
            logits = build_logits(tf.constant(pictures), network, range(5), is_train, data_format)
            weights = tf.trainable_variables()
            gradients = tf.gradients(tf.reduce_sum(logits**2), weights)
            session.run(tf.global_variables_initializer())
            rng = np.random.RandomState(1)
            values = {v: rng.normal(0, 0.05, v.shape.as_list()) + v.name.endswith("gamma:0") for v in weights}
            session.run([v.initializer for v in weights], {v.initial_value: values[v] for v in weights})
            found.append(session.run([logits, *gradients]))
    (logits, *gradients), (other_logits, *other_gradients) = found
    np.testing.assert_allclose(logits, other_logits, rtol=1e-3, atol=1e-4 * np.abs(logits).max())
    # The gradient of a bias that a batch norm cancels is noise, so the largest of all is the measure.
    largest = max(np.abs(gradient).max() for gradient in gradients)
    for one, other in zip(gradients, other_gradients):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5 * largest)
