"""train.py --model: weights of ours and of TF-Slim's, with the same classes and with others."""

import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import LABELS, differing, draw_dataset, refuses, run, tf_slim

from suite.model import modelfolder, warmstart
from suite.model.network import build_logits, load_weights


@pytest.mark.slow
def test_other_classes_keep_all_but_the_classifier(workspace, tmp_path):
    draw_dataset(tmp_path / "dataset", 12, ["apple", "watermelon"])
    records, output = str(tmp_path / "records"), str(tmp_path / "model")
    run(
        "FlowIO.py",
        "--dataset",
        tmp_path / "dataset",
        "--output",
        records,
        "--image_size",
        32,
        "--train_ratio",
        0.6,
        "--val_ratio",
        0.3,
    )
    same = ["--data", records, "--output", output, "--model", workspace.model, "--optimizer", "momentum"]
    _, err = run("train.py", *same, "--step", 0)
    assert "start fresh: logits/kernel, logits/bias" in err and "network: layer_50 mini" in err
    old, new = modelfolder.load_model(workspace.model).checkpoint, os.path.join(output, "model.ckpt-0")
    name = "resnet/group_4/bottleneck_3/conv_2/kernel"
    np.testing.assert_array_equal(tf.train.load_variable(old, name), tf.train.load_variable(new, name))
    assert tf.train.load_variable(new, "logits/bias").shape == (2,)

    run("train.py", *same, "--step", 2, "--freeze", 2, "--save_num", 1)
    frozen = os.path.join(output, "model.ckpt-2")
    assert differing(new, frozen) == {"logits/kernel", "logits/bias"}
    run("train.py", *same, "--step", 3, "--freeze", 2)
    assert len(differing(frozen, os.path.join(output, "model.ckpt-3"))) > 100


def test_the_same_classes_in_another_order_keep_the_classifier(workspace, tmp_path, graph):
    weights = warmstart.open_weights(workspace.model)
    old = tf.train.load_variable(weights.checkpoint, "logits/bias")
    tf.get_variable("logits/bias", [3])
    tf.train.create_global_step()
    warmstart.write_checkpoint(weights, LABELS[::-1], str(tmp_path / "model.ckpt"))
    np.testing.assert_array_equal(
        tf.train.load_variable(str(tmp_path / "model.ckpt-0"), "logits/bias"), old[::-1]
    )


@pytest.mark.slow
@pytest.mark.parametrize("layers, version", [(50, tf.train.SaverDef.V1), (101, tf.train.SaverDef.V2)])
def test_TF_Slims_checkpoints(workspace, tmp_path, layers, version):
    """Restored by name they give TF-Slim's logits."""
    slim, resnet_v2 = tf_slim("resnet_v2")
    images = np.random.RandomState(0).uniform(-1, 1, [2, 32, 32, 3]).astype("f")
    path = str(tmp_path / "resnet_v2.ckpt")
    with tf.Graph().as_default(), slim.arg_scope(resnet_v2.resnet_arg_scope()):
        tf.set_random_seed(0)
        logits, _ = getattr(resnet_v2, "resnet_v2_%d" % layers)(images, 3, is_training=False)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            expected = session.run(logits).reshape(2, 3)
            tf.train.Saver(write_version=version).save(session, path, write_meta_graph=False)
    output = str(tmp_path / "model")
    _, err = run("train.py", "--data", workspace.records, "--output", output, "--model", path, "--step", 0)
    assert "layer_%d, projection, preactivation" % layers in err
    assert "start fresh" not in err and "left out" not in err
    model = modelfolder.load_model(output)
    assert model.normalize == "minus1_1"
    with tf.Graph().as_default(), tf.Session() as session:
        logits = build_logits(tf.constant(images), model.network, model.classes, False)
        load_weights(session, model.checkpoint)
        found = session.run(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_what_cannot_be_fine_tuned(workspace, tmp_path):
    same = ["--data", workspace.records, "--output", tmp_path / "model"]
    refuses("train.py", *same, "--model", tmp_path / "none", says="no such model", status=1)
    (tmp_path / "text").write_text("no checkpoint")
    refuses("train.py", *same, "--model", tmp_path / "text", says="not a checkpoint", status=1)
    short = shutil.copytree(workspace.model, str(tmp_path / "short"))
    os.truncate(os.path.join(short, "model.ckpt-50.data-00000-of-00001"), 10000)
    weights = ["--model", os.path.join(short, "model.ckpt-50")]
    _, err = run("train.py", *same, *weights, "--step", 0, status=1)
    assert "model.ckpt-50: damaged (" in err.splitlines()[-1]
    refuses("train.py", *same, "--step", 0, says="argument --step: 0 only writes", status=2)
    refuses("train.py", *same, "--freeze", 5, says="argument --freeze: needs", status=2)
