"""What --dry_run foresees: multiply-adds, parameters and memory."""

import re

import pytest
import tensorflow.compat.v1 as tf
from helpers import (
    LABELS,
    config_for,
    run,
)

from suite.model.network import build_logits
from suite.training import memory


def multiply_adds_by_hand(sides, depths, counts, classes, kernel=7):
    """Those of one picture; `sides` after the stem and of each group, which its last bottleneck halves.

    The stem; per bottleneck a 1x1 before and a 3x3 and a 1x1 after the stride; the classifier.
    """
    total, before = sides[0] ** 2 * kernel**2 * 3 * 64 + depths[-1] * classes, 64
    for side, next_side, depth, count in zip(sides[1:], sides[2:] + sides[-1:], depths, counts):
        for i in range(count):
            inner, out_side = depth // 4, next_side if i == count - 1 else side
            total += side**2 * before * inner + out_side**2 * (9 * inner**2 + inner * depth)
            before = depth
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    "layers, counts, mini",
    [
        (50, (3, 4, 6, 3), False),
        (50, (3, 4, 6, 3), True),
        (101, (3, 4, 23, 3), False),
        (152, (3, 8, 36, 3), True),
    ],
)
def test_multiply_adds(graph, layers, counts, mini, whole_network):
    network = {"layers": layers, "mini": mini, "shortcut": "zero_pad", "preactivation": False}
    build_logits(tf.zeros([1, 224, 224, 3]), network, range(1000), False)
    depths = [depth // 2 if mini else depth for depth in (256, 512, 1024, 2048)]
    assert memory.multiply_adds(graph) == multiply_adds_by_hand((112, 55, 28, 14, 7), depths, counts, 1000)


def test_multiply_adds_with_the_small_stem(workspace, whole_network):
    """At 32 pixels the groups have 32, 16, 8 and 4 positions across, where the article's stem leaves 7."""
    depths, counts = (128, 256, 512, 1024), (3, 4, 6, 3)
    for stem, sides, kernel in (("article", (16, 7, 4, 2, 1), 7), ("small", (32, 32, 16, 8, 4), 3)):
        asked, _ = config_for(workspace, "--stem", stem)
        _, found = memory.of_one_picture(asked)
        assert found == multiply_adds_by_hand(sides, depths, counts, 3, kernel)


@pytest.mark.slow
def test_dry_run_counts(workspace, tmp_path, whole_network):
    output = tmp_path / "model"
    out, _ = run("train.py", "--data", workspace.records, "--output", output, "--mini", "--dry_run")
    assert out.startswith("device: CPU, ")
    assert not output.exists()
    expected = multiply_adds_by_hand((16, 7, 4, 2, 1), (128, 256, 512, 1024), (3, 4, 6, 3), 3)
    assert f"multiply-adds: {expected:,} per picture" in out
    config, _ = config_for(workspace)
    with tf.Graph().as_default():
        build_logits(tf.zeros([1, 32, 32, 3]), config["network"], LABELS, False)
        parameters = sum(v.shape.num_elements() for v in tf.trainable_variables())
    assert f"parameters: {parameters:,}" in out and "memory: about 0." in out
    assert "banana: " in out and "records: 3 files" in out
    assert re.search(r"^time: about [\d.]+[smhd] to train on this machine, an estimate$", out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.versions
def test_memory_with_and_without_branches(workspace):
    """A rate that falls in steps brings them, a loss scale loops; neither takes memory worth naming."""
    found = []
    for more in ([], ["--schedule", "steps"], ["--mixed_precision"]):
        config, _ = config_for(workspace, "--recipe", "modern", *more)
        found.append(sum(memory.estimate(config)))
    assert found == pytest.approx([found[0]] * 3, rel=0.01)


def test_peak_memory_by_hand(graph):
    """While the product is computed, it and its two factors; the sum then takes one's place."""
    a = tf.random.uniform([10, 100])
    b = tf.matmul(a, tf.ones([100, 100]))
    fetch = tf.reduce_sum(b + a).op
    assert memory.peak_bytes(fetch) == 4000 + 100 * 100 * 4 + 4000
