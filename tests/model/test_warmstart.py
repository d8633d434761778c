"""train.py --model: weights of ours and of TF-Slim's, with the same classes and with others."""

import glob
import os
import shutil
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import differing, draw_dataset, refuses, run, tf_slim

from suite.model import modelfolder, warmstart
from suite.model.network import AVERAGED, build_logits, load_weights
from suite.process import errors
from suite.training import config


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
    best = modelfolder.load_model(workspace.model).checkpoint  # in best/
    same = ["--data", records, "--output", output, "--model", best, "--batch_size", 4, "--bn_batches", 0]
    _, err = run("train.py", *same, "--step", 0)
    assert "start fresh: logits/kernel, logits/bias" in err and "network: layer_50 mini" in err
    old, new = best, os.path.join(output, "model.ckpt-0")
    name = "resnet/group_4/bottleneck_1/conv_2/kernel"
    np.testing.assert_array_equal(tf.train.load_variable(old, name), tf.train.load_variable(new, name))
    assert tf.train.load_variable(new, "logits/bias").shape == (2,)

    _, err = run("train.py", *same, "--step", 2, "--freeze", 2, "--save_num", 1)
    assert "resuming at step 0" in err
    frozen = os.path.join(output, "model.ckpt-2")
    moved = {name for name in differing(new, frozen) if not name.startswith("beta")}  # Adam's powers
    assert moved == {"logits/kernel", "logits/bias"}
    _, err = run("train.py", *same, "--step", 3, "--freeze", 0.99)  # of 3 steps, so 3
    assert "--freeze stays 2, with which it was begun\n" in err
    assert len(differing(frozen, os.path.join(output, "model.ckpt-3"))) > 50

    for path in glob.glob(os.path.join(output, "model.ckpt-*")) + [os.path.join(output, "checkpoint")]:
        os.remove(path)
    shutil.rmtree(os.path.join(output, "best"))  # as where it was killed before the first checkpoint
    says = "was begun with --model %s and has no checkpoint yet" % best
    refuses("train.py", *same[:4], says=says, status=2)


@pytest.mark.slow
def test_a_class_that_comes_later(workspace, tmp_path):
    """The README's way: the old classes keep their columns of the classifier, and training goes on."""
    dataset, more, new = (str(tmp_path / name) for name in ("dataset", "more", "new"))
    shutil.copytree(workspace.dataset, dataset)
    draw_dataset(tmp_path / "drawn", 12, ["watermelon"])
    shutil.move(str(tmp_path / "drawn" / "watermelon"), dataset)
    run("FlowIO.py", "--dataset", dataset, "--output", more, "--image_size", 32)
    same = ["--data", more, "--model", workspace.model, "--output", new]
    _, err = run("train.py", *same, "--step", 0)
    assert "starts fresh: watermelon\n" in err and "recipe: article" in err
    before = tf.train.load_variable(modelfolder.load_model(workspace.model).checkpoint, "logits/kernel")
    after = tf.train.load_variable(os.path.join(new, "model.ckpt-0"), "logits/kernel")
    names = modelfolder.load_model(new).classes
    kept = [names.index(name) for name in modelfolder.load_model(workspace.model).classes]
    np.testing.assert_array_equal(after[..., kept], before)

    few = ["--step", 10, "--batch_size", 4, "--save_num", 10, "--bn_batches", 0]
    _, err = run("train.py", *same, "--fresh", *few)
    assert "recipe: finetune: optimizer momentum" in err and "freeze 2," in err
    out, _ = run("evaluate.py", "--model", new, "--data", more)
    assert "watermelon" in out


def test_a_model_folder_may_be_called_best(workspace, tmp_path):
    model = shutil.copytree(workspace.model, str(tmp_path / "best"))
    for path in (os.path.join(model, "model.ckpt-50"), modelfolder.load_model(model).checkpoint):
        assert warmstart.open_weights(path, None).classes == modelfolder.load_model(model).classes


@pytest.mark.parametrize(
    "image_size, fit, warned", [(32, "crop", False), (64, "crop", True), (32, "pad", True)]
)
def test_weights_that_saw_other_pictures(capsys, image_size, fit, warned):
    weights = warmstart.Weights("m", None, {}, {}, "per_image", [], image_size=image_size, fit=fit)
    options = types.SimpleNamespace(model="m", normalize=None, **dict.fromkeys(config.NETWORK))
    config.warn_of_other_pictures(options, types.SimpleNamespace(image_size=32, fit="crop"), weights)
    says = "FlowIO.py --image_size %d --fit %s makes such as it knows\n" % (image_size, fit)
    assert (says in capsys.readouterr().err) == warned


def small_network(classes, optimizer, averages=False):
    """The variables of a network that is one kernel and a classifier, with the optimizer's slots."""
    for name, shape in (("kernel", [2, 2]), ("logits/kernel", [2, classes]), ("logits/bias", [classes])):
        tf.get_variable(name, shape, initializer=tf.random_normal_initializer())
    random = tf.random_normal_initializer()
    tf.get_variable("batch_norm/moving_mean", [2], initializer=random, trainable=False)
    tf.train.create_global_step()
    loss = tf.add_n([tf.nn.l2_loss(v) for v in tf.trainable_variables()])
    step = optimizer.minimize(loss, tf.train.get_global_step())
    if averages:
        with tf.control_dependencies([step]):
            step = tf.train.ExponentialMovingAverage(0.5).apply(tf.trainable_variables())
    return step


def written(folder, names, classes, averages=False):
    """(values of a checkpoint, values of the one that started from it), by name of the variable."""
    with tf.Graph().as_default(), tf.Session() as session:
        step = small_network(len(names), tf.train.AdamOptimizer(0.1), averages)
        session.run(tf.global_variables_initializer())
        session.run(step)
        path = tf.train.Saver().save(session, str(folder / "old.ckpt"))
        old = {v.op.name: session.run(v) for v in tf.global_variables()}
    weights = {name.replace(AVERAGED, ""): name for name in sorted(old, key=len)}
    with tf.Graph().as_default():
        small_network(len(classes), tf.train.AdamOptimizer(0.1))
        source = warmstart.Weights(path, tf.train.load_checkpoint(path), weights, {}, "per_image", names)
        warmstart.write_checkpoint(source, classes, str(folder / "new.ckpt"))
        path = str(folder / "new.ckpt-0")
        return old, {v.op.name: tf.train.load_variable(path, v.op.name) for v in tf.global_variables()}


@pytest.mark.parametrize(
    "classes",
    [
        ["circle", "square", "tri"],
        ["tri", "circle", "square"],
        ["aaa", "circle", "square"],
        ["aaa", "circle", "square", "tri", "zzz"],
        ["square", "tri"],
        ["square", "other"],
    ],
)
def test_the_classifiers_columns_go_by_name(tmp_path, capsys, classes):
    names = ["circle", "square", "tri"]
    old, new = written(tmp_path, names, classes)
    for i, name in enumerate(classes):
        for part in ("logits/kernel", "logits/bias"):
            is_same = [np.array_equal(new[part][..., i], old[part][..., j]) for j in range(3)]
            assert is_same == [name == other for other in names], (name, part)
    said = capsys.readouterr().err
    fresh = [name for name in classes if name not in names]
    assert ("starts fresh: %s\n" % ", ".join(fresh) in said) == bool(fresh)
    assert ("left out: " in said) == (not set(names) <= set(classes))


def test_a_class_written_in_another_way_is_the_same(tmp_path):
    old, new = written(tmp_path, ["caf\u00e9", "tri"], ["tri", "cafe\u0301"])
    np.testing.assert_array_equal(new["logits/bias"], old["logits/bias"][::-1])


@pytest.mark.parametrize("averages", [False, True])
def test_weights_and_statistics_are_taken_and_nothing_else(tmp_path, averages):
    """Slots and powers of the optimizer would move weights that are frozen."""
    old, new = written(tmp_path, ["a", "b"], ["a", "b"], averages)
    np.testing.assert_array_equal(new["kernel"], old["kernel" + AVERAGED if averages else "kernel"])
    np.testing.assert_array_equal(new["batch_norm/moving_mean"], old["batch_norm/moving_mean"])
    assert new["beta1_power"] == pytest.approx(0.9) and old["beta1_power"] == pytest.approx(0.81)
    slots = [name for name in new if "Adam" in name]
    assert len(slots) == 6 and not any(new[name].any() for name in slots)
    assert new["global_step"] == 0 and old["global_step"] == 1


@pytest.mark.parametrize("missing", ["kernel", "batch_norm/moving_mean"])
def test_half_a_network_is_refused(tmp_path, monkeypatch, missing):
    """Also where it is a statistic of batch norm's that is not there, or has another shape."""
    used = warmstart.Weights

    def without(path, reader, names, *more):
        return used(path, reader, {name: theirs for name, theirs in names.items() if name != missing}, *more)

    def swapped(path, reader, names, *more):
        return used(path, reader, dict(names, **{missing: "logits/kernel"}), *more)

    for other in (without, swapped):
        monkeypatch.setattr(warmstart, "Weights", other)
        with pytest.raises(errors.UserError, match="does not fit: it has no %s of " % missing):
            written(tmp_path, ["a", "b", "c"], ["a", "b", "c"])


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
    refuses("train.py", *same, "--freeze", 5, says="--freeze: needs the weights of a --model", status=2)
