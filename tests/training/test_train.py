"""What train.py says and writes, when it ends, and what --dry_run foresees."""

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
    folder_bytes,
    pictures_of,
    read_log,
    refuses,
    run,
)

from suite.files import jsonfile
from suite.model import modelfolder, warmstart
from suite.model.network import build_logits
from suite.process.errors import UsageError, UserError
from suite.records import reading
from suite.training import config, distribution, existing, memory, monitor
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
    process = subprocess.Popen([*command, "--step", "103"], stderr=child, stdin=child)
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
        run("train.py", *same, "--step", 6, "--recipe", "modern", "--mixup", 0.2)
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


# --- --dry_run ----------------------------------------


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
@pytest.mark.parametrize("mini", [False, True])
@pytest.mark.parametrize("layers, counts", [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
def test_multiply_adds(graph, layers, counts, mini):
    network = {"layers": layers, "mini": mini, "shortcut": "zero_pad", "preactivation": False}
    build_logits(tf.zeros([1, 224, 224, 3]), network, range(1000), False)
    depths = [depth // 2 if mini else depth for depth in (256, 512, 1024, 2048)]
    assert memory.multiply_adds(graph) == multiply_adds_by_hand((112, 55, 28, 14, 7), depths, counts, 1000)


def test_multiply_adds_with_the_small_stem(workspace):
    """At 32 pixels the groups have 32, 16, 8 and 4 positions across, where the article's stem leaves 7."""
    depths, counts = (128, 256, 512, 1024), (3, 4, 6, 3)
    for stem, sides, kernel in (("article", (16, 7, 4, 2, 1), 7), ("small", (32, 32, 16, 8, 4), 3)):
        asked, _ = config_for(workspace, "--stem", stem)
        _, found = memory.of_one_picture(asked)
        assert found == multiply_adds_by_hand(sides, depths, counts, 3, kernel)


@pytest.mark.slow
def test_dry_run_counts(workspace, tmp_path):
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
    same = ["--data", workspace.records, "--output", model]
    run("train.py", *same, "--mini", "--stem", "small", "--step", 2)
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


# --- starting over ----------------------------------------


def test_a_new_name_is_one_of_nothing_that_is_there(tmp_path, monkeypatch):
    output = str(tmp_path / "resnet")
    assert modelfolder.unused(output + os.sep) == output + "-2"
    (tmp_path / "resnet-2").mkdir()
    os.symlink("nowhere", output + "-3")
    assert modelfolder.unused(output) == output + "-4"
    monkeypatch.chdir(tmp_path / "resnet-2")
    assert modelfolder.unused(".") == output + "-2-2" and modelfolder.unused("..") == "%s-2" % tmp_path


@pytest.mark.slow
def test_fresh_sets_the_old_model_aside_whole(workspace, copy, tmp_path):
    before = folder_bytes(copy)
    arguments = ["--data", workspace.records, "--output", copy]
    other = [*arguments, "--step", 200, "--shortcut", "projection"]
    refuses("train.py", *other, says="%s-2, or --fresh" % copy, status=2)
    more = ["--mini", "--shortcut", "projection", "--fresh", "--step", 2, "--save_num", 2]
    _, err = run("train.py", *arguments, *more, "--dry_run")
    assert folder_bytes(copy) == before and not os.path.exists(copy + "-2")
    _, err = run("train.py", *arguments, *more)
    assert "the old model is in %s-2 now" % copy in err and "resuming" not in err
    assert folder_bytes(copy + "-2") == before
    assert modelfolder.load_model(copy).network["shortcut"] == "projection"
    assert modelfolder.latest_step(copy) == 2


def test_fresh_does_not_set_aside_what_the_training_starts_from(workspace, copy):
    before = folder_bytes(copy)
    arguments = ["--data", workspace.records, "--output", copy, "--fresh", "--model", copy]
    refuses("train.py", *arguments, says="would set aside", status=2)
    assert folder_bytes(copy) == before


def test_fresh_minds_no_neighbour_of_a_like_name(tmp_path):
    """models/resnet-2 is not in models/resnet; a link to it or its best checkpoint is."""
    output = tmp_path / "resnet"
    (output / "best").mkdir(parents=True)
    (output / "model.json").write_text("{}")
    os.symlink(str(output / "best"), str(tmp_path / "link"))
    for model, refused in (
        ("resnet-2", False),
        ("resnet", True),
        ("resnet/best/m.ckpt-1", True),
        ("link", True),
    ):
        options = parse_options(["--output", str(output), "--model", str(tmp_path / model), "--fresh"])
        if refused:
            with pytest.raises(UsageError, match="would set aside"):
                existing.begins_anew(options, distribution.ALONE)
        else:
            assert existing.begins_anew(options, distribution.ALONE)


def test_fresh_says_how_the_new_model_differs(workspace, copy, capsys):
    asked, _ = config_for(workspace, "--output", copy, "--optimizer", "momentum")
    asked["network"].update(mini=False)
    existing.announce_fresh(asked)
    assert capsys.readouterr().err == "the old model had --mini yes, now no; --optimizer adam, now momentum\n"
    asked, _ = config_for(workspace, "--output", copy, "--lr", 0.1)
    existing.announce_fresh(asked)
    with open(os.path.join(copy, "model.json"), "w") as file:  # --fresh is a way out of that
        file.write("{")
    existing.announce_fresh(asked)
    assert capsys.readouterr().err == ""


def test_only_weights_that_it_was_begun_with_are_named_to_resume(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    plain, records = config_for(workspace)
    begun, _ = config_for(workspace, "--model", "other")
    for model in ("other", "other/", "./other", str(tmp_path / "other")):
        check_existing(begun, config_for(workspace, "--model", model)[0])
    check_existing(begun, plain)
    for there, model in ((plain, "other"), (plain, "models/resnet"), (begun, "another")):
        with pytest.raises(UsageError, match="--model .*%s: .* leave out --model to go on" % model):
            check_existing(there, config_for(workspace, "--model", model)[0])
    options = parse_options(["--data", workspace.records])
    config.complete_options(options, records, begun, None)
    assert options.model == str(tmp_path / "other")  # after a resume without it, too


def test_fresh_moves_no_folder_that_holds_no_model(workspace, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    arguments = ["--data", workspace.records, "--output", tmp_path, "--fresh"]
    refuses("train.py", *arguments, says="holds letters.txt", status=1)
    assert (tmp_path / "letters.txt").exists()


@pytest.mark.parametrize(
    "step, given, every",
    [(2000, None, 500), (9999, None, 500), (300, None, 75), (3, None, 1), (300, 200, 200)],
)
def test_a_short_training_has_several_checkpoints(workspace, step, given, every):
    arguments = ["--step", step] + (["--save_num", given] if given else [])
    assert config_for(workspace, *arguments)[0]["options"]["save_num"] == every
