"""What train.py says and writes, what it refuses, and when it ends."""

import dataclasses
import fcntl
import itertools
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
import types
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf
from helpers import (
    LABELS,
    ROOT,
    config_for,
    differing,
    draw_dataset,
    pictures_of,
    read_log,
    refuses,
    run,
)

from suite.files import jsonfile
from suite.model import modelfolder, warmstart
from suite.process.errors import UsageError, UserError
from suite.records import reading
from suite.training import config, monitor
from suite.training.existing import check_existing
from suite.training.options import parse_options

# --- the log, the end ----------------------------------------


def test_log_csv(workspace):
    rows = read_log(workspace.model)
    assert [int(row["step"]) for row in rows if row["loss"]] == list(range(10, 101, 10))
    assert [int(row["step"]) for row in rows if row["val_accuracy"]] == [50, 100]
    assert float(rows[-1]["epoch"]) == pytest.approx(100 * 32 / 96, rel=0.1)
    assert float(rows[0]["learning_rate"]) < 0.001


def test_the_log_drops_what_is_trained_again(tmp_path):
    path = str(tmp_path / "log.csv")
    log = monitor.Log(str(tmp_path), 0, 10)
    for step in (10, 20, 30):
        log.add(step, loss=1, accuracy=0.5, learning_rate=0.1)
    log.add(20, val_loss=1, val_accuracy=0.5)
    for is_validated, kept in ((True, ["10", "20", "20"]), (False, ["10", "20"])):
        with open(path, "a") as file:
            file.write("40,4.0,0.")  # a killed process
        monitor.Log(str(tmp_path), 20, 10, is_validated)
        assert [row["step"] for row in read_log(str(tmp_path))] == kept


def test_the_log_may_have_been_saved_by_a_spreadsheet(tmp_path):
    """Excel's "CSV UTF-8" begins with a byte order mark."""
    monitor.Log(str(tmp_path), 0, 10).add(7, loss=1, accuracy=0.5, learning_rate=0.1)
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "log.csv").read_bytes())
    monitor.Log(str(tmp_path), 8, 10)
    assert [row["step"] for row in read_log(str(tmp_path))] == ["7"]


@pytest.mark.parametrize("rate", [0.1, 0.098, 0.0098, 0.00098, 0.00012, 1.2e-6, 0])
@pytest.mark.parametrize(
    "epoch, accuracy, speed", [(90, 1, 1234.5), (3000.4, 0.9375, 99.96), (99.96, 0, 0.04)]
)
def test_the_line_of_a_step_fits_a_terminal(rate, epoch, accuracy, speed):
    for left in (0, 59.7, 99.6, 5969, 5971, 12345, 358199, 358201, 86400 * 999):
        line = monitor.progress_line(375000, 375000, epoch, 6.9123, accuracy, rate, speed, left)
        assert len(line) <= 79, line
        found = dict(re.findall(r"(\w+) (\S+)", line))
        assert found["step"] == "375000/375000" and found["loss"] == "6.912"
        assert float(found["epoch"]) == pytest.approx(epoch, abs=0.5)
        assert float(found["lr"]) == pytest.approx(rate, rel=0.03)
        assert line.endswith(" eta %s" % monitor.duration(left))


@pytest.mark.parametrize(
    "seconds, said",
    [(0, "0s"), (59.7, "60s"), (99, "99s"), (100, "1.7m"), (2520, "42m"), (6120, "1.7h"), (400000, "5d")],
)
def test_the_time_left(seconds, said):
    assert monitor.duration(seconds) == said


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_the_speed_does_not_depend_on_the_date(monkeypatch, jump):
    """A computer's clock is set while it trains: by a person, a time server or summer time."""
    from suite.training.hooks import ProgressHook

    dates = itertools.count(1e9, jump)
    monkeypatch.setattr(time, "time", lambda: next(dates))
    rows, nothing = [], lambda *_, **__: None
    log = types.SimpleNamespace(epoch_steps=10, add=lambda step, **values: rows.append(values))
    bar = types.SimpleNamespace(disable=True, n=0, set_description_str=nothing, update=nothing)
    times = mock.Mock(seconds=lambda step: 1.0)
    hook = ProgressHook({"step": 9, "log_num": 1, "batch_size": 2}, bar, log, [], times)
    hook.after_create_session(types.SimpleNamespace(run=lambda _: 0), None)
    for step in range(1, 5):
        hook.before_run(None)
        results = {"step": step, "loss": 1.0, "learning_rate": 0.1, "accuracy": 0.5}
        hook.after_run(None, types.SimpleNamespace(results=results))
    assert len(rows) == 4 and all(row["images_per_second"] > 0.01 for row in rows[1:])


def test_tensorboard(workspace):
    def tags(folder):
        path = next(name for name in sorted(os.listdir(folder)) if "tfevents" in name)
        events = tf.train.summary_iterator(os.path.join(folder, path))
        return {value.tag for event in events for value in event.summary.value}

    found = tags(workspace.model)
    assert {"loss", "accuracy", "learning_rate", "images_per_second", "pictures/image/0"} <= found
    assert {"accuracy", "loss", "confusion_matrix"} <= tags(os.path.join(workspace.model, "eval"))


@pytest.mark.slow
def test_the_live_line_of_a_terminal(workspace, copy):
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, os.path.join(ROOT, "train.py"), "--data", workspace.records, "--output", copy]
    process = subprocess.Popen([*command, "--step", "103", "--bn_batches", "0"], stderr=child, stdin=child)
    os.close(child)
    shown = b""
    try:
        while True:
            shown += os.read(parent, 1000)
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert process.wait() == 0
    lines = re.split("[\r\n]+", shown.decode())
    assert [
        line for line in lines if re.match(r"step 103/103 epoch [\d.]+ loss .* eta [\d.]+[sm] █+ *$", line)
    ]
    live = [line.rstrip() for line in lines if line.startswith("step 10") and "/" in line]
    assert re.match(r"step 103/103 epoch [\d.]+ loss [\d.]+ acc \d+% lr \S+ █+$", live[-1])
    assert [
        line for line in lines if line.startswith("step 103: validation accuracy")
    ]  # in a line of its own
    assert max(len(line) for line in lines if line.startswith("step ")) <= 80


@pytest.mark.slow
def test_one_worker_gives_the_same_weights_bit_for_bit(workspace, tmp_path):
    made = []
    for name in "ab":
        output = str(tmp_path / name)
        same = ["--mini", "--data", workspace.records, "--output", output, "--workers", 1, "--seed", 5]
        few = ["--step", 6, "--batch_size", 8, "--save_num", 6, "--bn_batches", 0]
        run("train.py", *same, *few, "--recipe", "modern", "--mixup", 0.2)
        made.append(os.path.join(output, "model.ckpt-6"))
    assert differing(*made) == set()


def test_a_model_of_other_classes_is_not_resumed(workspace):
    config, _ = config_for(workspace)
    for classes, says in (
        (LABELS[::-1], "on the same classes in another order; --output \\S+-2 --model"),
        ([*LABELS, "more"], "other classes"),
        ([*LABELS[:2], "kiwi ", "kiwi"], "other classes"),
    ):
        with pytest.raises(UserError, match=says):
            check_existing(dict(config, classes=classes), config)
    with pytest.raises(UserError, match=r"on records of other fit \(pad, now crop\); --output"):
        check_existing(dict(config, fit="pad"), config)
    older = {name: value for name, value in config.items() if name != "fit"}  # than --fit
    check_existing(older, config)
    with pytest.raises(UserError, match=r"other fit \(crop, now squash\)"):
        check_existing(older, dict(config, fit="squash"))
    named = dict(config, classes=["caf\u00e9", "tri"])
    check_existing(dict(config, classes=["cafe\u0301", "tri"]), named)
    with pytest.raises(UserError, match="other classes"):
        check_existing(dict(config, classes=["cafe\u0301", "caf\u00e9", "tri"]), named)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"stem": "small"}, {"shortcut": "projection"}])
def test_a_network_that_was_changed_by_hand(workspace, copy, changed):
    """The one has other shapes, the other has more weights; model.json without a checksum is believed."""
    path = os.path.join(copy, "model.json")
    content = jsonfile.read(path)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(dict(content, format_version=1, network=dict(content["network"], **changed)), file)
    checkpoints = modelfolder.checkpoints(copy)
    step = modelfolder.latest_step(copy) + 2
    _, err = run("train.py", "--data", workspace.records, "--output", copy, "--step", step, status=1)
    says = "%s: its checkpoints are not of the network in its model.json; bring that back, or --output" % copy
    assert says in err.splitlines()[-1] and modelfolder.checkpoints(copy) == checkpoints
    _, err = run("predict.py", *pictures_of(workspace, 1), "--model", copy, status=1)
    assert "which model.json says; was one of them replaced?" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "asked, there, says",
    [
        ("--zero_init_residual yes", "no", "--zero_init_residual yes: .* was trained with no; use that, or"),
        ("--preactivation", "no", "--preactivation yes: .* was trained with no; leave it out, or"),
        ("--shortcut projection", "zero_pad", "was trained with zero_pad; use that, or"),
    ],
)
def test_another_network_is_refused_in_words_that_can_be_typed(workspace, asked, there, says):
    before, _ = config_for(workspace)
    with pytest.raises(UsageError, match=says):
        check_existing(before, config_for(workspace, *asked.split(), "--normalize", "per_image")[0])


def test_patience_needs_pictures_to_validate_on(workspace, monkeypatch):
    records = reading.load_records(workspace.records)
    records = dataclasses.replace(records, counts=dict(records.counts, val={}))
    monkeypatch.setattr(sys, "argv", ["train.py", "--patience", "5"])
    options = parse_options(["--data", workspace.records, "--patience", "5"])
    with pytest.raises(UsageError, match="--patience 5: .* has no pictures to validate on"):
        config.complete_options(options, records, None, None)


def test_the_best_without_a_checkpoint_is_not_trained_over(workspace, copy):
    for name in os.listdir(copy):
        if name.startswith("model.ckpt") or name == "checkpoint":
            os.remove(os.path.join(copy, name))
    same = ["--mini", "--data", workspace.records, "--output", copy]
    refuses("train.py", *same, says="and no checkpoint to go on from; --output %s-2" % copy, status=1)
    assert modelfolder.load_model(copy)


def test_records_without_training_pictures_are_refused(tmp_path):
    draw_dataset(tmp_path / "dataset" / "test", 4, ["apple", "kiwi"])
    (tmp_path / "dataset" / "train").mkdir()
    same = ["--dataset", tmp_path / "dataset", "--image_size", 32]
    _, err = run("FlowIO.py", *same, "--output", tmp_path / "records")
    assert "the train split has no picture of apple, kiwi" in err
    refuses("train.py", "--data", tmp_path / "records", says="records: no training pictures", status=1)


def test_the_size_of_the_pictures_is_that_of_the_records():
    refuses("train.py", "--image_size", 64, says="--image_size: the records have it; FlowIO.py", status=2)
    assert "image_size" not in vars(parse_options([]))


# --- the stem ----------------------------------------


def test_a_model_of_before_there_was_another_stem_has_the_articles(workspace):
    """Its model.json does not say so, nor what else is newer."""
    asked, records = config_for(workspace)
    before = {name: asked["network"][name] for name in ("layers", "mini", "shortcut", "preactivation")}
    older = dict(asked, network=before)
    check_existing(older, asked)
    small, _ = config_for(workspace, "--stem", "small")
    with pytest.raises(UsageError, match="--stem small: .* was trained with article; use that, or --output"):
        check_existing(older, small)
    with pytest.raises(UsageError, match="--stem article: .* was trained with small; use that"):
        check_existing(small, asked)
    options = parse_options(["--data", workspace.records])
    config.complete_options(options, records, small, None)
    assert options.stem == "small"  # a resume has what it began with

    weights = warmstart.Weights("older", None, {}, before, "per_image", None)
    options = parse_options(["--data", workspace.records, "--stem", "small"])
    with pytest.raises(UsageError, match="--stem small: older is of a network with article; leave it out"):
        config.refuse_other(options, weights.network, "per_image", "older")
    weights = weights._replace(network=small["network"])
    options = parse_options(["--data", workspace.records])
    config.complete_options(options, records, None, weights)
    assert options.stem == "small"


@pytest.mark.parametrize(
    "size, stem, warned", [(64, "small", False), (65, "small", True), (224, "article", False)]
)
def test_the_small_stem_is_for_small_pictures(workspace, capsys, size, stem, warned):
    config.say_once.cache_clear()
    asked, records = config_for(workspace, "--stem", stem)
    config.announce(asked, dataclasses.replace(records, image_size=size), None)
    said = capsys.readouterr().err
    assert ("warning: --stem small is for pictures of up to 64 pixels" in said) == warned
    assert ("network: layer_50 mini, zero_pad, stem small\n" in said) == (stem == "small")


@pytest.mark.slow
def test_the_small_stem_from_end_to_end(workspace, tmp_path):
    """Nothing has to be said a second time; at 32 pixels its maps have the 4 x 4 positions to say where."""
    model, pictures = str(tmp_path / "model"), pictures_of(workspace, 2)
    same = ["--data", workspace.records, "--output", model, "--batch_size", 4, "--bn_batches", 0]
    run("train.py", *same, "--mini", "--stem", "small", "--step", 2, "--save_num", 2)
    refuses("train.py", *same, "--stem", "article", "--step", 3, says="was trained with small", status=2)
    _, err = run("train.py", *same, "--step", 3)
    assert "resuming at step 2" in err and "network: layer_50 mini, zero_pad, stem small\n" in err
    run("train.py", *same[:2], "--model", model, "--output", tmp_path / "other", "--step", 0)
    assert modelfolder.load_model(str(tmp_path / "other")).network["stem"] == "small"
    run("evaluate.py", "--data", workspace.records, "--model", model)
    with open(os.path.join(model, "evaluation", "report.html"), encoding="utf-8") as file:
        assert 'id="maps"' in file.read()
    out, err = run("predict.py", *pictures, "--model", model, "--explain", tmp_path / "explained")
    assert len(out.splitlines()) == 2 == len(os.listdir(str(tmp_path / "explained")))
    assert "too few to say where" not in err
    run("export.py", "--model", model, "--format", "frozen_graph")  # which compares with the checkpoint


@pytest.mark.parametrize(
    "step, given, every",
    [(2000, None, 500), (9999, None, 500), (300, None, 75), (3, None, 1), (300, 200, 200)],
)
def test_a_short_training_has_several_checkpoints(workspace, step, given, every):
    arguments = ["--step", step] + (["--save_num", given] if given else [])
    assert config_for(workspace, *arguments)[0]["options"]["save_num"] == every
