"""validation.py and checkpoints.py: which checkpoint is the best, and when no better one is waited for."""

import io
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import config_for, draw_dataset, folder_bytes, read_log, refuses, run
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.utils.class_weight import compute_sample_weight

from suite.evaluation import predictions
from suite.files import jsonfile
from suite.model import modelfolder
from suite.pictures import drawing
from suite.records import reading
from suite.training import checkpoints, monitor, outcome, validation
from suite.training.options import parse_options


@pytest.mark.slow
def test_patience_ends_the_training(workspace, copy):
    """A rate of zero changes nothing, so no later checkpoint can be better than the best."""
    path = os.path.join(copy, "best", "best.json")
    best = jsonfile.read(path)
    jsonfile.write(path, dict(best, accuracy=1.0, loss=0.0, highest={"accuracy": 1.0, "loss": 0.0}))
    same = ["--data", workspace.records, "--output", copy, "--lr", 1e-30, "--save_num", 2, "--log_num", 1]
    same += ["--bn_batches", 0]  # what is kept after the best of before has its statistics as they were
    _, err = run("train.py", *same, "--step", 120, "--patience", 3, "--keep", 2)
    assert "stopped early: 3 checkpoints in turn validated no better than those before" in err
    # One of them may be the last of the workspace's training, where that had not been the best.
    waited = [int(row["step"]) for row in read_log(copy) if row["val_accuracy"] and int(row["step"]) > 100]
    since = jsonfile.read(path)["since"]
    assert len(since) == 3 and since[-len(waited) :] == waited and set(since) <= {100, *waited}
    _, err = run("train.py", *same, "--step", 120, "--patience", 3)
    assert "stopped early at step %d already; a larger --patience trains on" % waited[-1] in err
    kept = sorted(name for name in os.listdir(copy) if name.endswith(".index"))
    assert len(kept) == 2
    # As after a kill before batch norm's statistics were made: they are, and nothing is trained.
    _, err = run("train.py", *same, "--step", 120, "--patience", 3, "--bn_batches", 2)
    assert "batch norm: " in err and modelfolder.latest_step(copy) == waited[-1]


@pytest.mark.slow
def test_what_a_kill_after_the_last_step_left_is_done(workspace, copy):
    """The checkpoint is saved and its row in the log, but best/ has the one before, as it was trained."""
    path = os.path.join(copy, "best", "best.json")
    worse = {"accuracy": 0.01, "loss": 9.0}
    before = dict(jsonfile.read(path), step=50, highest=worse, since=[], recalibrated=False, **worse)
    jsonfile.write(path, before)
    same = ["--data", workspace.records, "--output", copy, "--step", 100]
    _, err = run("train.py", *same)
    assert "step 100: validation accuracy" in err and "batch norm: " in err and "step 10/" not in err
    validated = [(row["step"], float(row["val_accuracy"])) for row in read_log(copy) if row["val_accuracy"]]
    assert [step for step, _ in validated] == ["50", "100"]
    best = jsonfile.read(path)
    assert best["step"] == 100 and best["accuracy"] >= validated[-1][1] - 1e-6
    _, err = run("train.py", *same)
    assert "is at step 100 already; a larger --step trains on" in err and "validation accuracy" not in err


@pytest.mark.parametrize("option, value", [("step", 100), ("patience", 1)])
def test_a_training_on_other_pictures_is_not_done(workspace, copy, option, value):
    """At its last step, or stopped early: pictures or labels have changed since."""
    path = os.path.join(copy, "best", "best.json")
    best = dict(jsonfile.read(path), step=50, since=[100], recalibrated=True)
    options = parse_options(["--data", workspace.records, "--output", copy, "--mini", "--step", "200"])
    options.bn_batches = options.freeze = options.patience = 0
    setattr(options, option, value)
    for pictures, done in ((best["pictures"], True), ("0" * 64, False)):
        jsonfile.write(path, dict(best, pictures=pictures))
        assert outcome.is_done(options, reading.load_records(workspace.records), {"options": {}}) == done


def test_classes_count_alike_in_validation_where_they_do_in_training(workspace, copy):
    """Against scikit-learn; else a model that favours the frequent class would be the best."""
    config, records = config_for(workspace, "--output", copy, "--class_weight", "balanced")
    model = modelfolder.load_model(os.path.join(copy, "model.ckpt-50"))
    found = predictions.predict_split(model, records, "val", 8)
    validator = validation.Validator(config, records, monitor.Log(None, 0, 10), [])
    accuracy, loss = validator.measure(model.checkpoint)
    answers = found.probabilities.argmax(1)
    assert accuracy == pytest.approx(balanced_accuracy_score(found.labels, answers))
    weights = compute_sample_weight("balanced", found.labels)
    assert loss == pytest.approx(log_loss(found.labels, found.probabilities, sample_weight=weights), abs=1e-4)
    other, _ = config_for(workspace, "--output", copy)
    assert (
        validator.pictures != checkpoints.validated_on(records, other["options"]) == records.identity("val")
    )


def test_steps_that_are_trained_again_are_not_waited_for_twice(workspace, tmp_path, monkeypatch):
    config, records = config_for(workspace, "--output", tmp_path, "--patience", 3)
    validator = validation.Validator(config, records, monitor.Log(None, 0, 10), [])
    monkeypatch.setattr(validator, "measure", lambda checkpoint: (0.5, 1.0))
    ends = {}
    for step in (1, 2, 3, 2, 3, 4):  # stopped after 3, whose checkpoint was lost
        (tmp_path / ("model.ckpt-%d.index" % step)).write_bytes(b"")
        ends[step] = validator.validate(str(tmp_path / ("model.ckpt-%d" % step)))
    assert checkpoints.read_best(str(tmp_path))["since"] == [2, 3, 4]
    assert ends == {1: False, 2: False, 3: False, 4: True}


def test_patience_does_not_count_the_steps_of_freeze(workspace, tmp_path, monkeypatch):
    more = ["--patience", 2, "--model", "any", "--freeze", 3]
    config, records = config_for(workspace, "--output", tmp_path, *more)
    validator = validation.Validator(config, records, monitor.Log(None, 0, 10), [])
    monkeypatch.setattr(
        validator, "measure", lambda checkpoint: (0.9, 1.0) if checkpoint.endswith("-1") else (0.1, 1.0)
    )
    for step in range(1, 6):
        for suffix in (".index", ".data-00000-of-00001"):
            (tmp_path / ("model.ckpt-%d%s" % (step, suffix))).write_bytes(b"")
        assert validator.validate(str(tmp_path / ("model.ckpt-%d" % step))) == (step == 5)


@pytest.mark.parametrize("step, is_over", [(9, False), (4, True), (3, True)])
def test_patience_counts_all_steps_where_the_classifier_alone_is_trained(step, is_over):
    options = {"patience": 2, "freeze": 4, "step": step}
    assert checkpoints.is_over({"since": [2, 3], "counted_from": 0}, options) == is_over


def test_patience_begins_anew_on_other_pictures(workspace, copy, monkeypatch):
    """The checkpoint that it had ended at counts for nothing, though it is measured, and no better."""
    path = os.path.join(copy, "best", "best.json")
    highest = {"accuracy": 0.7, "loss": 1.0}
    jsonfile.write(path, dict(jsonfile.read(path), step=50, since=[100], pictures="0" * 64, highest=highest))
    config, records = config_for(workspace, "--output", copy, "--patience", 1)
    validator = validation.Validator(config, records, monitor.Log(None, 100, 10), [])
    measured = iter([(0.9, 1.0), (0.1, 1.0), (0.1, 1.0)])  # the best, the latest, the next
    monkeypatch.setattr(validator, "measure", lambda path: next(measured))
    validator.catch_up(os.path.join(copy, "model.ckpt-100"))
    best = checkpoints.read_best(copy)
    assert best["since"] == [100] and best["accuracy"] == 0.9
    assert not checkpoints.is_over(best, config["options"])
    assert validator.validate(os.path.join(copy, "model.ckpt-150"))


@pytest.mark.slow
def test_patience_ends_the_training_of_the_classifier_alone(workspace, tmp_path):
    """The rest of the network is not trained after it."""
    arguments = ["--data", workspace.records, "--model", workspace.model, "--output", tmp_path, "--step", 6]
    more = ["--freeze", 6, "--save_num", 1, "--patience", 2, "--lr", 1e-30, "--batch_size", 4]
    _, err = run("train.py", *arguments, *more)
    assert err.count("building the graph") == 1 and "stopped early" in err and "batch norm" not in err
    assert modelfolder.latest_step(str(tmp_path)) < 6


@pytest.mark.slow
def test_adam_begins_anew_where_the_network_thaws(workspace, tmp_path):
    arguments = ["--data", workspace.records, "--model", workspace.model, "--output", tmp_path, "--step", 3]
    more = ["--freeze", 2, "--save_num", 1, "--optimizer", "adam", "--batch_size", 4, "--bn_batches", 0]
    run("train.py", *arguments, *more)
    frozen, thawed = (tf.train.load_checkpoint(str(tmp_path / ("model.ckpt-%d" % step))) for step in (2, 3))
    for checkpoint, power in ((frozen, 0.9**3), (thawed, 0.9**2)):  # 0.9 before the first step
        assert checkpoint.get_tensor("beta1_power") == pytest.approx(power)
    # After one step from 0 the one mean is a tenth of the gradient, the other a thousandth of its square.
    mean, squares = (thawed.get_tensor("logits/kernel/" + name) for name in ("Adam", "Adam_1"))
    np.testing.assert_allclose(squares, (10 * mean) ** 2 / 1000, rtol=1e-3, atol=1e-20)


@pytest.mark.slow
def test_the_best_stays_where_nothing_validates_any_more(workspace, copy, tmp_path):
    run(
        "FlowIO.py",
        "--dataset",
        workspace.dataset,
        "--output",
        tmp_path / "out",
        "--image_size",
        32,
        "--val_ratio",
        0,
    )
    path = os.path.join(copy, "best", "best.json")
    jsonfile.write(path, dict(jsonfile.read(path), recalibrated=False))
    before = folder_bytes(os.path.join(copy, "best"))
    same = ["--data", tmp_path / "out", "--output", copy, "--step", 102]
    for says in "no validation pictures: best/ keeps step ", "is at step 102 already":
        _, err = run("train.py", *same)
        assert says in err and folder_bytes(os.path.join(copy, "best")) == before
    assert modelfolder.latest_step(copy) == 102


@pytest.mark.parametrize("loss, kept", [(1.0, True), (9.0, True), (4e16, False), (float("nan"), False)])
def test_what_has_exploded_is_not_kept_however_few_validate(loss, kept):
    assert checkpoints.is_no_worse({"highest": {"accuracy": 0.8, "loss": 1.0}}, 0.8, loss, 20) == kept


@pytest.mark.parametrize(
    "pictures, accuracies, best, since",
    [
        (20, (0.80, 0.70, 0.65, 0.60), 3, [2, 3, 4]),  # two standard errors of 0.8: 0.179
        (20, (0.80, 0.70, 0.75, 0.81), 4, []),
        (20, (0.50, 0.70, 0.60, 0.65), 4, [3, 4]),  # 0.65 beats what is kept and not the highest
        (150, (0.80, 0.75, 0.73, 0.74), 4, [2, 3, 4]),  # 0.065
        (200, (0.80, 0.79, 0.75, 0.78), 1, [2, 3, 4]),  # many enough: the most accurate
    ],
)
def test_of_few_pictures_the_last_that_is_no_worse_is_kept(
    workspace, tmp_path, monkeypatch, pictures, accuracies, best, since
):
    config, records = config_for(workspace, "--output", tmp_path)
    validator = validation.Validator(config, records, monitor.Log(None, 0, 10), [])
    monkeypatch.setattr(reading.Records, "count", lambda self, split: pictures)
    monkeypatch.setattr(validator, "measure", lambda checkpoint: (accuracies[int(checkpoint[-1]) - 1], 1.0))
    for step in range(1, 5):
        for suffix in (".index", ".data-00000-of-00001"):
            (tmp_path / ("model.ckpt-%d%s" % (step, suffix))).write_bytes(b"")
        validator.validate(str(tmp_path / ("model.ckpt-%d" % step)))
    found = checkpoints.read_best(str(tmp_path))
    assert (found["step"], found["since"]) == (best, since)
    assert found["accuracy"] == accuracies[best - 1] and found["highest"]["accuracy"] == max(accuracies)
    assert modelfolder.latest_step(str(tmp_path / "best")) == best


def test_a_tie_is_decided_by_the_loss_and_said(workspace, tmp_path, monkeypatch, capsys):
    config, records = config_for(workspace, "--output", tmp_path)
    log = monitor.Log(None, 0, 10)
    validator = validation.Validator(config, records, log, [])
    for step in (1, 2, 3):
        for suffix in (".index", ".data-00000-of-00001"):
            (tmp_path / ("model.ckpt-%d%s" % (step, suffix))).write_bytes(b"")
    measured = {1: (0.5, 0.9), 2: (0.5, 0.8), 3: (0.5, 0.85)}
    monkeypatch.setattr(validator, "measure", lambda path: measured[modelfolder.checkpoint_step(path)])
    for step in measured:
        validator.validate(str(tmp_path / ("model.ckpt-%d" % step)))
    assert capsys.readouterr().err.splitlines() == [
        "step 1: validation accuracy 0.5000, the best",
        "step 2: validation accuracy 0.5000, the best by its loss",
        "step 3: validation accuracy 0.5000, kept: as good as before",
    ]


def test_what_a_kill_left_is_removed(tmp_path):
    """What 1.15 and 2.15 write before a checkpoint has its name, and data whose index was never written."""
    stay = [
        "best/best.json",
        "best/recalibrated.ckpt-5.index",
        "best/recalibrated.ckpt-5.data-00000-of-00001",
    ]
    stay += ["model.ckpt-5.tempo", "evaluation.replacing.partial/report.html", "best/mine_temp"]
    go = ["model.ckpt-7_temp/part-00000-of-00001.data-00000-of-00001", "model.ckpt-7_temp_0a1b/part"]
    go += ["model.ckpt-7.data-00000-of-00001", "best/recalibrated.ckpt-7.data-00000-of-00001"]
    go += ["best/recalibrated.ckpt-5.data-00000-of-00001.tempstate123", "best/best.json.replacing.partial"]
    go += ["best/model.ckpt-7.data-00000-of-00001.replacing.partial", "best/checkpoint.tmp0a1b"]
    for name in stay + go:
        os.makedirs(str((tmp_path / name).parent), exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    checkpoints.tidy(str(tmp_path))
    assert set(folder_bytes(str(tmp_path))) == set(stay)


@pytest.mark.parametrize("copied", range(3))
def test_the_best_is_whole_at_any_moment(tmp_path, monkeypatch, copied):
    """A kill while the third of its files is copied, or the ones before."""
    suffixes = [".data-00000-of-00001", ".index", ".temperature.json"]
    for suffix in suffixes:
        (tmp_path / ("model.ckpt-7" + suffix)).write_bytes(b"whole")
    calls = []

    def copy(source, target):
        calls.append(source)
        with open(target, "wb") as file:
            file.write(b"who" if len(calls) > copied else b"whole")
        if len(calls) > copied:
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.keep_best(str(tmp_path), str(tmp_path / "model.ckpt-7"), {})
    assert not modelfolder.checkpoints(str(tmp_path / "best"))  # whose index comes last


@pytest.mark.parametrize("classes", [10, 11, 35, 4000])
def test_the_picture_of_the_mistakes_does_not_grow_with_the_classes(monkeypatch, classes):
    monkeypatch.setattr(drawing, "MOST_CELLS", 10)
    matrix = 9 * np.eye(classes, dtype=int)
    matrix[-1, 0] = 9
    names = [str(i) for i in range(classes)]
    image = Image.open(io.BytesIO(drawing.draw_confusion_matrix(matrix, names, cell=10)))
    assert image.height <= 4 + 100 + 17
    last = image.height - 17 - 6  # the middle of the last row
    colours = [image.getpixel(place) for place in ((9, 9), (9, last), (last, last), (last, 9))]
    assert [red < green for red, green, _ in colours] == [True, False, True, False]
    assert colours[3] == (255, 255, 255)


@pytest.mark.parametrize(
    "pictures, says", [(0, "no validation pictures: "), (1, "fewer than 100 "), (100, "")]
)
def test_what_is_said_of_few_validation_pictures(workspace, tmp_path, capsys, pictures, says):
    config, records = config_for(workspace, "--output", tmp_path)
    records.counts["val"] = {"apple": pictures}
    validation.open_validator(config, records, None, [], False)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == bool(says) and all(line.startswith(says) for line in said)


@pytest.mark.slow
def test_without_validation_the_latest_is_the_best(tmp_path):
    """Its batch norm's statistics are made anew where that was asked for."""
    for split in ("train", "test"):
        draw_dataset(tmp_path / "dataset" / split, 8, ["apple", "kiwi"], seed=len(split))
    records, model = str(tmp_path / "records"), str(tmp_path / "model")
    run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", records, "--image_size", 32)
    same = ["--mini", "--data", records, "--output", model, "--batch_size", 4]
    _, err = run("train.py", *same, "--step", 1)
    assert "no validation pictures: the latest checkpoint counts as the best" in err
    assert "batch norm: made anew over 10 batches" in err and "best: " not in err
    assert modelfolder.load_model(model).checkpoint == os.path.join(model, "best", "recalibrated.ckpt-1")
    best = jsonfile.read(os.path.join(model, "best", "best.json"))
    assert (best["step"], best["accuracy"], best["loss"]) == (1, None, None)
    run("train.py", *same, "--step", 2, "--bn_batches", 0)
    assert modelfolder.load_model(model).checkpoint == os.path.join(model, "model.ckpt-2")
    evaluate = ["--data", records, "--model", model, "--split", "val"]
    refuses("evaluate.py", *evaluate, says="records: no pictures in the val split", status=1)
