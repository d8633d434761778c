"""advice.py: what the numbers of an evaluation ask for."""

import argparse
import os
import shlex
import types

import numpy as np
import pytest

from suite.evaluation import advice, metrics
from suite.model import modelfolder, warmstart
from suite.training import options
from suite.training.config import NETWORK, complete_options
from suite.training.options import parse_options

CLASSES = ["cat", "dog", "elk", "fox", "gnu", "hen", "owl", "pig"]
MANY = dict.fromkeys(CLASSES, 500)


def model_of(*arguments, folder="models/resnet", trained_on=MANY):
    """What load_model would say of a training with these options."""
    options = complete(*arguments)
    network = {name: getattr(options, name) for name in NETWORK}
    model = modelfolder.Model(folder, None, network, CLASSES, 32, "per_image", False, trained_on)
    return model._replace(options=vars(options))


def complete(*arguments):
    options = parse_options([*map(str, arguments)])
    records = types.SimpleNamespace(
        count={"train": 160, "val": 40}.get, image_size=32, fit="crop", fingerprints={}
    )
    network = {"layers": 50, "mini": False, "shortcut": "zero_pad", "preactivation": False}
    weights = warmstart.Weights("other", None, {}, network, "per_image", None)
    complete_options(options, records, None, weights if options.model else None)
    return options


def advise(matrix, trained_on=MANY, train_accuracy=None, arguments=()):
    """The advice that a confusion matrix gets, a row for each true class."""
    matrix = np.array(matrix)
    labels, predicted = (
        np.repeat(which, matrix.ravel()) for which in np.indices(matrix.shape).reshape(2, -1)
    )
    results = metrics.measure(labels, np.eye(len(matrix))[predicted], CLASSES[: len(matrix)])
    return advice.advise(results, model_of(*arguments, trained_on=trained_on), train_accuracy)


def kinds(*arguments):
    return [each["kind"] for each in advise(*arguments)]


def test_all_is_fine():
    assert advise([[95, 5], [3, 97]]) == [{"kind": "fine"}]
    assert kinds([[95, 5], [3, 97]], {"cat": 9, "dog": 9}) == ["fine"]  # few pictures that do
    assert kinds([[95, 5], [3, 97]], None, None) == ["fine"]


def test_mistakes_everywhere_are_not_fine():
    assert kinds(16 * np.eye(5, dtype=int) + 1) == ["unclear"]


def test_a_class_of_few_pictures():
    (found,) = advise([[97, 3, 0], [0, 100, 0], [12, 0, 0]], {"cat": 500, "dog": 500, "elk": 12})
    elk = {"label": "elk", "trained": 12, "correct": 0, "n": 12, "taken_for": "cat"}
    imagenet = "python train.py --model imagenet --output models/resnet-2"
    assert found == {"kind": "few", "classes": [elk], "more": 0, "command": imagenet}
    (found,) = advise([[97, 3, 0], [0, 100, 0], [2, 0, 8]], {"cat": 500, "dog": 500})  # none of elk
    (elk,) = found["classes"]
    assert (elk["label"], elk["trained"], elk["correct"]) == ("elk", 0, 8)


def test_a_class_that_is_hardly_recognised():
    matrix = [[97, 3, 0], [0, 100, 0], [5, 25, 0]]
    for trained_on in (MANY, None):
        (found,) = advise(matrix, trained_on)
        (elk,) = found["classes"]
        assert (found["kind"], elk["label"], elk["taken_for"]) == ("hard", "elk", "dog")


def test_a_class_without_pictures_asks_for_nothing():
    assert kinds([[50, 0, 0], [0, 50, 0], [0, 0, 0]], {}) == ["fine"]


def test_classes_are_named_by_mistakes_and_only_some():
    matrix = np.diag([1000, 1000, 0, 0, 0, 0, 0, 0])
    matrix[2:, 0] = range(10, 16)
    found = advise(matrix)
    (found,) = found
    assert [each["label"] for each in found["classes"]] == ["pig", "owl", "hen", "gnu", "fox"]
    assert found["more"] == 1


def test_classes_with_the_same_advice_stand_together():
    matrix = np.diag([100, 9, 0, 0, 100])
    matrix[1:4, 0] = 5, 20, 30
    found = advise(matrix, dict(MANY, dog=30, elk=20))
    said = [(each["kind"], [row["label"] for row in each["classes"]]) for each in found]
    assert said == [("few", ["elk", "dog"]), ("hard", ["fox"])]


def test_two_classes_that_are_taken_for_each_other():
    (found,) = advise([[80, 20, 0], [15, 85, 0], [1, 1, 98]])
    assert found == {"kind": "pair", "labels": ["cat", "dog"], "count": 35, "n": 200}
    assert "pair" not in kinds([[9, 1, 0], [1, 9, 0], [0, 0, 80]])  # 2 pictures are no pattern


@pytest.mark.parametrize(
    "matrix, guessing",
    [
        ([[49, 0], [51, 0]], True),  # worse than always dog
        ([[29, 21], [20, 30]], True),  # 0.59 of 100: 0.5 lies in the interval
        ([[40, 10], [10, 40]], False),
        ([[50, 0], [0, 0]], False),  # one class alone: nobody can tell
        ([[88, 7], [0, 5]], False),  # 0.93 where always cat has 0.95, but it knows the dogs
    ],
)
def test_no_better_than_the_most_frequent_class(matrix, guessing):
    found = advise(matrix)
    assert (found[0]["kind"] == "guessing") == guessing
    if guessing:
        assert found[0]["accuracy"] == max(np.sum(matrix, 1)) / 100 and len(found) == 1


def test_a_class_of_which_few_were_tested_is_not_called_hard():
    assert kinds([[50, 0, 0], [0, 50, 0], [1, 0, 0]]) == ["fine"]
    assert kinds([[50, 0, 0], [0, 50, 0], [10, 0, 0]]) == ["hard"]


def test_an_interval_that_tells_nothing():
    assert kinds([[8, 0], [0, 8]]) == ["fine"]  # 0.806 to 1
    assert "wide" in kinds([[4, 0], [0, 4]])  # 0.676 to 1


@pytest.mark.parametrize("train_accuracy, found", [(1.0, True), (0.96, True), (0.94, False), (None, False)])
def test_overfitting(train_accuracy, found):
    assert ("overfitting" in kinds(120 * np.eye(2, dtype=int) + 40, MANY, train_accuracy)) == found


def test_what_so_few_pictures_may_be_is_no_overfitting():
    assert "overfitting" not in kinds([[3, 1], [1, 3]], MANY, 0.92)  # 0.75, with an interval up to 0.93


def test_one_command_does_not_resume_the_other():
    found = advise([[29, 21], [20, 30]], train_accuracy=1.0, arguments=["--model", "imagenet", "--step", 9])
    commands = [each["command"] for each in found]
    assert [command.split(" --output ")[1] for command in commands] == ["models/resnet-2", "models/resnet-3"]
    assert "--step 18" in commands[0] and "--step 9" in commands[1]


# --- the command ----------------------------------------


def test_what_is_not_repeated_is_what_train_py_takes():
    taken = vars(complete())
    assert {name: taken[name] for name in advice.USUAL} == advice.USUAL
    parser = argparse.ArgumentParser()
    for add in (options.add_network, options.add_recipe):
        add(parser.add_argument_group())
    of_the_training = set(vars(parser.parse_args([])))
    assert of_the_training | set(NETWORK) <= set(advice.options_of(model_of())[0])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--mini", "--step", 300],
        ["--data", "my records/all", "--layers", 101, "--shortcut", "projection", "--preactivation"],
        ["--recipe", "modern", "--step", 90, "--batch_size", 8, "--augment", "none", "--dropout", 0.5],
        ["--model", "models/other", "--step", 90],
        ["--model", "models/other", "--step", 90, "--recipe", "article"],
        ["--recipe", "modern", "--zero_init_residual", "no", "--mixup", 0.2, "--bn_batches", 7],
        [
            "--optimizer",
            "momentum",
            "--lr",
            0.2,
            "--weight_decay",
            0.01,
            "--warmup",
            0.5,
            "--bn_batches",
            7,
            "--ema",
            0.9,
        ],
        ["--model", "models/other", "--freeze", 0, "--schedule", "steps", "--clip_norm", 1, "--patience", 3],
        [
            "--normalize",
            "minus1_1",
            "--class_weight",
            "balanced",
            "--label_smoothing",
            0.2,
            "--bn_momentum",
            0.5,
            "--batch_size",
            64,
        ],
    ],
)
def test_a_command_trains_such_a_model_elsewhere(tmp_path, arguments):
    folder = str(tmp_path / "my model")
    os.mkdir(folder)
    model = model_of(*arguments, "--output", folder, folder=folder)
    command = advice.retraining(model, folder + "-2", dropout=0.3)
    python, script, *words = shlex.split(command)
    assert (python, script) == ("python", "train.py")
    expected = complete(*arguments, "--dropout", 0.3, "--output", folder + "-2")
    assert vars(complete(*words)) == vars(expected)


def test_a_model_of_before_there_was_an_option_has_its_default():
    network = {"layers": 50, "mini": True, "shortcut": "zero_pad", "preactivation": False}
    model = modelfolder.Model("models/resnet", None, network, CLASSES, 32, "per_image", False)
    assert advice.retraining(model, "m", step=9) == "python train.py --mini --step 9 --output m"


def test_patience_goes_with_the_steps_between_the_checkpoints_that_it_counts():
    model = model_of("--mini", "--step", 1000, "--save_num", 10, "--patience", 5)
    assert "--save_num 10" in advice.retraining(model, "new", dropout=0.3)
    usual = model_of("--mini", "--step", 1000, "--patience", 5)
    assert "--save_num" not in advice.retraining(usual, "new", dropout=0.3)


def test_what_is_meant_as_a_share_of_the_steps_stays_one():
    model = model_of("--model", "imagenet", "--step", 300, "--freeze", 0.5, "--warmup", 0.1)
    command = advice.retraining(model, "new", step=150)
    taken = complete(*shlex.split(command)[2:])
    assert (taken.step, taken.freeze, taken.warmup) == (150, 75, 15)


def test_weights_that_were_only_taken_over_are_to_be_trained():
    model = model_of("--model", "models/other", "--step", 0)
    found = "python train.py --model %s --output models/resnet-2" % os.path.abspath("models/other")
    assert advice.retraining(model, "models/resnet-2") == found


@pytest.mark.parametrize(
    "arguments, tried",
    [
        ([], "--augment standard"),
        (
            ["--augment", "none"],
            "--dropout 0.2 --augment none",
        ),  # where a mirrored picture means another thing
        (["--augment", "standard"], "--dropout 0.2 --augment standard"),
        (["--augment", "standard", "--dropout", 0.2], "--step 1000 --dropout 0.2 --augment standard"),
    ],
)
def test_what_to_try_against_overfitting_is_not_what_there_is(arguments, tried):
    *_, found = advise(120 * np.eye(2, dtype=int) + 40, MANY, 0.96, arguments)
    assert (
        found["kind"] == "overfitting"
        and found["command"] == "python train.py %s --output models/resnet-2" % tried
    )


@pytest.mark.parametrize(
    "arguments, tried",
    [
        (["--mini", "--recipe", "modern", "--data", "mine"], "--data mine --model imagenet"),
        (["--model", "imagenet", "--step", 300], "--model imagenet --step 600"),
        (
            ["--augment", "none", "--class_weight", "balanced", "--lr", 0.5],  # a rate for another network
            "--augment none --class_weight balanced --model imagenet",
        ),
    ],
)
def test_what_to_try_where_nothing_stands_out(arguments, tried):
    (found,) = advise(16 * np.eye(5, dtype=int) + 1, arguments=arguments)
    assert found == {"kind": "unclear", "command": "python train.py %s --output models/resnet-2" % tried}
