"""The settings of a training, and one step of it, against hand arithmetic, numpy and scikit-learn."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import config_for
from scipy.stats import beta
from sklearn.utils.class_weight import compute_class_weight

import resnet
from suite.files import jsonfile
from suite.model import recipes, warmstart
from suite.model.network import AVERAGED
from suite.process.terminal import say_once
from suite.records.reading import load_records
from suite.training import optimization, step
from suite.training.config import complete_options
from suite.training.options import parse_options
from suite.training.step import training_step


@pytest.mark.parametrize(
    "schedule, expected",  # at steps 0, 100, 500, 750 and 1000 of 1000
    [
        ("constant", (1, 1, 1, 1, 1)),
        ("exponential", (1, 0.05**0.1, 0.05**0.5, 0.05**0.75, 0.05)),
        ("cosine", (1, (1 + np.cos(0.1 * np.pi)) / 2, 0.5, (1 + np.cos(0.75 * np.pi)) / 2, 0)),
        ("steps", (1, 1, 1, 0.1, 0.01)),
    ],
)
@pytest.mark.parametrize("warmup", [0, 200])
def test_schedules(graph, schedule, expected, warmup):
    options = {"lr": 2.0, "schedule": schedule, "warmup": warmup, "step": 1000}
    step = tf.placeholder(tf.int64, [])
    rate = optimization.learning_rate(options, step)
    with tf.Session() as session:
        found = [session.run(rate, {step: at}) for at in (0, 100, 500, 750, 1000)]
    rising = [1 / 200, 101 / 200, 1, 1, 1] if warmup else [1] * 5
    np.testing.assert_allclose(found, 2 * np.array(expected) * rising, rtol=1e-5, atol=1e-7)


def test_a_recipe_fills_in_what_is_not_given(workspace):
    config, _ = config_for(workspace, "--recipe", "modern", "--label_smoothing", "0", "--step", "1000")
    options = config["options"]
    modern = recipes.RECIPES["modern"]
    assert options["optimizer"] == modern["optimizer"] and options["label_smoothing"] == 0
    assert options["warmup"] == 50 and options["bn_momentum"] == pytest.approx(0.95)
    assert config["network"]["zero_init_residual"] is True
    config, _ = config_for(workspace, "--recipe", "modern", "--zero_init_residual", "no", "--batch_size", 64)
    assert config["network"]["zero_init_residual"] is False
    assert config["options"]["lr"] == pytest.approx(2 * recipes.LEARNING_RATES["momentum"])
    assert config_for(workspace)[0]["options"]["lr"] == recipes.LEARNING_RATES["adam"]


def test_of_a_blend_each_class_counts_by_its_own_weight(workspace, graph, monkeypatch):
    logits, blend = np.array([[1.0, 0, 0], [0, 2, 0]]), np.array([[0.7, 0.3, 0], [0, 0.4, 0.6]])
    variable = tf.get_variable("logits/kernel", initializer=logits.astype("f"))
    monkeypatch.setattr(step, "build_logits", lambda *_, **__: variable)
    monkeypatch.setattr(
        step.optimization, "mixup", lambda images, *_: (images, tf.constant(blend, tf.float32))
    )
    options = ["--mixup", 0.2, "--class_weight", "balanced", "--weight_decay", 0]
    config, _ = config_for(workspace, *options)
    counts = {"a": 10, "b": 20, "c": 90}  # so that the weights are 120 / 3 / n: 4, 2 and 4 / 9
    config["classes"], config["dataset"]["counts"] = list(counts), {"train": counts}
    tf.train.create_global_step()
    step.training_step({"image": tf.zeros([2, 8, 8, 3]), "label": tf.zeros([2], tf.int64)}, config)
    logarithms = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        expected = -(blend * [4, 2, 4 / 9] * logarithms).sum() / 2
        assert session.run("shown_loss:0") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("frozen, batches", [(50, 0), (49, 10)])
def test_statistics_that_the_classifier_was_trained_on_stay(workspace, frozen, batches):
    config, _ = config_for(workspace, "--model", "any", "--step", 50, "--freeze", frozen)
    assert config["options"]["bn_batches"] == batches


def test_what_a_resume_does_not_say_stays(workspace, tmp_path):
    """Else a training of digits would go on with mirrored ones, where --augment none is left out."""
    given = {"augment": "none", "class_weight": "balanced", "lr": 0.01, "batch_size": 8, "ema": 0.9}
    given.update(recipe="modern", bn_momentum=0.8)
    words = [str(word) for name, value in given.items() for word in ("--" + name, value)]
    existing, records = config_for(workspace, "--step", 100, *words)
    places = ["--data", workspace.records, "--output", str(tmp_path)]

    def resumed(*arguments):  # of `existing`
        options = parse_options([*places, *arguments])
        complete_options(options, records, existing, None)
        return vars(options)

    before = existing["options"]
    found = resumed("--step", "200")
    assert {name: found[name] for name in given} == given and found["weight_decay"] == before["weight_decay"]
    assert (before["warmup"], found["warmup"], found["bn_batches"]) == (5, 10, 10)
    found = resumed("--step", "200", "--augment", "flip", "--batch_size", "16")
    assert (found["augment"], found["batch_size"], found["lr"]) == ("flip", 16, 0.01)
    # What follows from the steps or the batch follows anew.
    existing, records = config_for(workspace, "--step", 100, "--recipe", "modern")
    found = resumed("--step", "200", "--batch_size", "16")
    assert (found["warmup"], found["lr"]) == (10, 0.025)
    found = resumed("--step", "200", "--recipe", "article", "--optimizer", "momentum")
    assert (found["augment"], found["weight_decay"], found["lr"]) == ("flip", 1e-4, 0.05)


@pytest.mark.parametrize("steps", [0, 100])
def test_a_resume_keeps_how_often_it_validates_and_when_it_ends(workspace, tmp_path, steps):
    """Also of a model that has begun with no step."""
    given = ["--model", "any", "--augment", "none", "--patience", 5]
    existing, records = config_for(workspace, "--step", steps, "--save_num", 7, *given)
    options = parse_options(["--data", workspace.records, "--output", str(tmp_path), "--step", "2000"])
    complete_options(options, records, existing, None)
    assert (options.augment, options.patience, options.save_num) == ("none", 5, 7)
    del existing["options"]["patience"]  # of before that stayed
    options = parse_options(["--data", workspace.records, "--output", str(tmp_path), "--step", "2000"])
    complete_options(options, records, existing, None)
    assert options.patience == 0


def test_the_pictures_settings_stay_with_the_weights(workspace, capsys):
    """Mirrored digits are as wrong for the next model; the rest is the recipe's."""
    network = {"layers": 50, "mini": True, "shortcut": "zero_pad", "preactivation": False}
    settings = {"augment": "none", "class_weight": "none", "ema": 0.9}
    weights = warmstart.Weights("w", None, {}, network, "per_image", None, settings=settings)
    for given, expected in ([], "none"), (["--augment", "standard"], "standard"):
        options = parse_options(["--data", workspace.records, "--model", "w", *given])
        complete_options(options, load_records(workspace.records), None, weights)
        assert (options.augment, options.class_weight, options.ema) == (expected, "none", 0)
        said = "--augment none, as %s was trained with it" % os.path.abspath("w")
        assert (said in capsys.readouterr().err) == (not given)


@pytest.mark.parametrize(
    "step, patience, expected", [(2000, 0, 500), (2000, 5, 100), (100, 1, 25), (9, 5, 1)]
)
def test_patience_can_end_a_training(workspace, capsys, step, patience, expected):
    assert recipes.default_save_num(step, patience) == expected
    say_once.cache_clear()
    config_for(workspace, "--step", 2000, "--patience", 5)
    assert "warning: --patience" not in capsys.readouterr().err
    config_for(workspace, "--step", 2000, "--patience", 5, "--save_num", 500)
    assert "warning: --patience 5: will not end 2000 steps with" in capsys.readouterr().err
    config_for(workspace, "--step", 4, "--save_num", 500)
    assert "warning: --patience" not in capsys.readouterr().err


@pytest.mark.parametrize("before, now, batches", [(150, None, 0), (20, 200, 10)])
def test_so_do_those_of_a_freeze_that_was_begun_with(workspace, copy, before, now, batches):
    """Not the one that is given now, nor the recipe's; the folder has reached step 100."""
    path = os.path.join(copy, "model.json")
    existing = jsonfile.read(path)
    existing["options"].update(freeze=before, bn_batches=recipes.bn_batches(100, before))
    options = parse_options(["--output", copy, "--mini", "--step", "150", "--model", "any"])
    options.freeze = now
    complete_options(options, load_records(workspace.records), existing, None)
    assert (options.freeze, options.bn_batches) == (before, batches)


def test_class_weights_against_scikit_learn():
    labels = [0] * 10 + [1] * 3 + [2] * 7
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(optimization.class_weights([10, 3, 7]), expected)


def test_mixup_blends_pictures_and_targets_alike(graph):
    targets = tf.one_hot([0, 1, 2, 2], 3)
    images = tf.reshape(tf.range(4.0), [4, 1, 1, 1]) * tf.ones([4, 2, 2, 3])
    mixed = optimization.mixup(images, targets, 0.5)
    shares = []
    with tf.Session() as session:
        for _ in range(200):
            pictures, labels = session.run(mixed)
            share = labels[0, 0]
            shares.append(share)
            np.testing.assert_allclose(
                labels, share * np.eye(3)[[0, 1, 2, 2]] + (1 - share) * np.eye(3)[[2, 2, 1, 0]]
            )
            expected = share * np.arange(4) + (1 - share) * np.arange(4)[::-1]
            np.testing.assert_allclose(pictures[:, 1, 1, 2], expected, rtol=1e-5, atol=1e-5)
    assert 0 <= min(shares) < 0.2 and 0.8 < max(shares) <= 1  # Beta(0.5, 0.5) loves the ends
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 3])
def test_the_shares_of_mixup_are_of_a_beta_distribution(graph, alpha):
    tf.set_random_seed(0)
    _, targets = optimization.mixup(tf.zeros([2, 1, 1, 3]), tf.eye(2), alpha)
    with tf.Session() as session:
        shares = np.array([session.run(targets)[0, 0] for _ in range(1000)])
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        assert (shares <= share).mean() == pytest.approx(beta.cdf(share, alpha, alpha), abs=0.06)


def test_weight_decay_spares_biases_and_batch_norm(graph):
    with tf.variable_scope("net"):
        resnet.conv2d_same(tf.zeros([1, 4, 4, 3]), 4, 3, 1, True)
        resnet.cnn_to_fc(tf.zeros([1, 2]), 5)
    penalty = optimization.weight_penalty(tf.trainable_variables())
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run([v.assign(tf.ones_like(v)) for v in tf.trainable_variables()])
        assert session.run(penalty) == (3 * 3 * 3 * 4 + 2 * 5) / 2


def one_step(config, monkeypatch, logits, labels):
    """Train a network that is one vector of logits; its values afterwards, and the loss before."""
    monkeypatch.setattr(
        step,
        "build_logits",
        lambda images, *_, **__: tf.tile(
            tf.get_variable("logits/kernel", initializer=tf.constant([logits])), [tf.shape(images)[0], 1]
        ),
    )
    features = {"image": tf.zeros([len(labels), 4, 4, 3]), "label": tf.constant(labels, tf.int64)}
    tf.train.create_global_step()
    spec = training_step(features, config)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        loss = session.run(spec.loss)
        session.run(spec.train_op)
        return {v.op.name: session.run(v) for v in tf.global_variables()}, loss


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_a_step_by_hand(graph, workspace, monkeypatch):
    """Label smoothing, class weights, weight decay, clipping, Nesterov's momentum and averages, in numpy."""
    config, _ = config_for(
        workspace,
        *("--optimizer", "momentum", "--lr", 0.5, "--schedule", "constant", "--label_smoothing", 0.3),
        *("--weight_decay", 0.1, "--clip_norm", 0.05, "--ema", 0.9, "--class_weight", "balanced"),
    )
    counts = {"banana": 10, "grapes": 20, "kiwi": 30}
    config["dataset"] = {"counts": {"train": counts}}
    start, labels = np.array([0.5, -0.2, 0.1]), [0, 0, 2, 1]
    found, found_loss = one_step(config, monkeypatch, start.astype("f").tolist(), labels)

    targets = 0.7 * np.eye(3)[labels] + 0.1
    weights = np.array([60 / 30, 60 / 60, 60 / 90])[labels]
    logs = np.log(softmax(start))
    loss = np.mean(weights * -(targets * logs).sum(1)) + 0.1 * (start**2).sum() / 2
    assert found_loss == pytest.approx(loss, rel=1e-5)
    gradient = np.mean(weights[:, None] * (softmax(start) - targets), 0) + 0.1 * start
    gradient *= 0.05 / np.linalg.norm(gradient)
    end = start - 0.5 * (gradient + 0.9 * gradient)
    np.testing.assert_allclose(found["logits/kernel"][0], end, rtol=1e-4)
    decay = 2 / 11  # (1 + step) / (10 + step), as long as that is below 0.9
    average = decay * start + (1 - decay) * end
    np.testing.assert_allclose(found["logits/kernel" + AVERAGED][0], average, rtol=1e-4)
