"""The time that a training takes: arithmetic by hand, and what is said of it."""

import types

import pytest

from suite.model import recipes
from suite.process import device
from suite.process.errors import UserError
from suite.process.tf_versions import tf
from suite.training import time_left


@pytest.fixture
def clock(monkeypatch):
    """A list whose only item is the time."""
    now = [0.0]
    monkeypatch.setattr(time_left.time, "perf_counter", lambda: now[0])
    return now


def make(first_step=0, val=16, train=640, size=32, fit="crop", more=0, **options):
    """A TimeLeft for 8 pictures a step, 100 steps, a checkpoint every 40 and 10 batches at the end."""
    settings = {"step": 100, "batch_size": 8, "freeze": 0, "save_num": 40, "bn_batches": 10, "workers": 0}
    settings.update({"recipe": "article", "augment": "flip", "class_weight": "none"})
    settings.update(
        {"mini": True, "stem": "article", "model": None, "data": "data/tfrecords", "output": "models/resnet"},
        **options,
    )
    network = {"mini": settings["mini"]}
    records = types.SimpleNamespace(count={"train": train, "val": val}.get)
    return time_left.TimeLeft(
        {"options": settings, "network": network, "image_size": size, "fit": fit}, records, first_step, more
    )


def test_an_estimate_by_hand(monkeypatch):
    """Forward 0.1 s a picture: a step 3.2 s; building 8 s, and 2 s each for two more graphs."""
    monkeypatch.setattr(time_left, "time_forward_pass", lambda config: (2, 0.1))
    steps, validations, statistics = 100 * 3.2, 3 * 16 * 0.1, 2 + 10 * 8 * 0.1 + 16 * 0.1
    assert make().estimate() == pytest.approx(8 + steps + 2 + validations + statistics)
    # Resumed at step 40: 60 steps, checkpoints at 80 and 100.
    assert make(40).estimate() == pytest.approx(8 + 60 * 3.2 + 2 + 2 * 1.6 + statistics)
    # Without pictures for it nothing is validated; the statistics are made all the same.
    assert make(val=0).estimate() == pytest.approx(8 + steps + 2 + 10 * 8 * 0.1)
    assert make(val=0, bn_batches=0).estimate() == pytest.approx(8 + steps)
    # The first 30 steps go forward only, with a graph and a checkpoint of their own.
    frozen = 30 * 0.8 + 70 * 3.2
    expected = 2 + 8 + frozen + 2 + 4 * 1.6 + statistics
    assert make(freeze=30).estimate() == pytest.approx(expected)


def test_devices_share_a_batch(monkeypatch):
    """Time and memory are those of one's share; what would fit is for all of them."""
    monkeypatch.setattr(time_left, "time_forward_pass", lambda config: (0, 0.1))
    left = make()
    left.devices = 4
    left.estimate()
    assert left.step_seconds[False] == pytest.approx(make().batch_size * 0.4 / 4)
    monkeypatch.setattr(time_left.memory, "memory_limit", lambda: 6e9)
    message = time_left.memory.too_large(64, 1e9, 1e9, 4)
    assert message == "--batch_size 64 needs about 17.0 GB on each of 4 devices where there are 6.0; %s" % (
        "--batch_size 8 would fit"
    )


def test_a_dry_run_that_does_not_fit_says_what_would(monkeypatch):
    def fail(config):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(time_left, "time_forward_pass", fail)
    monkeypatch.setattr(time_left.memory, "estimate", lambda config, devices: (1e9, 1e9))
    monkeypatch.setattr(time_left.memory, "memory_limit", lambda: 6e9)
    with pytest.raises(UserError, match="out of memory: --batch_size 8 needs.*--batch_size 2 would fit"):
        make().print_estimate()


def test_the_trainings_of_folds_that_follow_are_whole(monkeypatch, clock, capsys):
    monkeypatch.setattr(time_left, "time_forward_pass", lambda config: (2, 0.1))
    whole, rest = make(val=0).estimate(), make(40, val=0).estimate()
    assert make(40, val=0, more=2).estimate() == pytest.approx(rest + 2 * whole)
    left = make(val=0, bn_batches=0, more=2)
    left.begin_phase(False)
    clock[0] = 9
    left.add_first_step()  # 9 s with the graph, of which a step takes 1
    left.add_step(1)
    left.add_checkpoint(40, 5)
    assert left.seconds(50) == 50 + 2 * 5
    assert left.all_seconds(50) == 60 + 2 * (8 + 100 + 3 * 5)
    left.say_measured(50)
    assert "time: 5.1m left for 3 trainings, 1 s for a step" in capsys.readouterr().err


def test_what_is_to_come():
    """Three checkpoints of two batches each; a step of --freeze is a quarter of one."""
    assert make().to_come() == (100, 1, 3 * 2)
    assert make(40).to_come() == (60, 1, 2 * 2)
    assert make(freeze=20).to_come() == (80 + 5, 2, 4 * 2)
    assert make(40, freeze=60).to_come() == (40 + 5, 2, 3 * 2)
    assert make(40, freeze=200).to_come() == (15, 1, 2 * 2)


def test_what_is_measured_replaces_the_estimate(clock):
    left = make()
    left.begin_phase(False)
    clock[0] = 9
    left.add_first_step()  # 9 s with the graph, of which a step takes 1
    left.add_step(1)
    # A forward pass is 0.25 s, a validation of two batches 0.5 s, another graph 2 s.
    assert left.seconds(3) == 97 + (2 + 3 * 0.5) + (2 + 10 * 0.25 + 0.5)
    left.add_checkpoint(40, 3.5)  # with its graph
    assert left.seconds(40) == 60 + 2 * 1.5 + (2 + 2.5 + 1.5)
    left.add_checkpoint(80, 5)
    assert left.seconds(80) == 20 + 5 + (2 + 2.5 + 5)
    left.add_step(2)
    left.add_checkpoint(100, 5)
    assert left.seconds(100) == 2 + 5 + 5


def test_the_thawed_steps_are_slower_than_the_frozen_ones(clock):
    left = make(freeze=10, bn_batches=0, val=0)
    left.begin_phase(True)
    clock[0] = 3
    left.add_first_step()
    left.add_step(1)
    assert left.seconds(4) == 6 * 1 + 4 * 2 + 90 * 4  # building and steps take four times as long
    left.add_checkpoint(10, 1)
    left.begin_phase(False)
    clock[0] = 8
    left.add_first_step()
    left.add_step(3)
    assert left.seconds(12) == 88 * 3 + 3 * 1


def test_the_short_way_is_named_once_and_where_it_is_one(monkeypatch, capsys):
    monkeypatch.setattr(device, "gpus", lambda: [])
    time_left.say_once.cache_clear()

    def said(seconds=3600, **settings):
        make(**settings).advise(seconds)
        return capsys.readouterr().err

    slow = {"size": 224, "mini": False, "step": 2000, "batch_size": 32, "train": 160}
    flowio, train = "the same FlowIO.py command with --image_size 64", "python train.py --mini --step 300"
    assert said(60, **slow) == ""
    expected = "without a GPU in minutes: %s; %s --output models/resnet_small\n" % (flowio, train)
    assert said(**slow) == expected and said(**slow) == ""
    assert said(**dict(slow, size=64)) == expected.replace(flowio + "; ", "")
    assert said(**dict(slow, data="a b", output="m/")) == (
        "without a GPU in minutes: %s; %s --data 'a b' --output m_small\n" % (flowio, train)
    )
    parts = said(**dict(slow, size=64, folds=3, output="m/fold_1"))
    assert parts == "without a GPU in minutes: %s --folds 3 --output m_small\n" % train
    assert said(**dict(slow, size=64, mini=True)) == ""  # it is on it
    digits = said(**dict(slow, size=64, augment="none"))
    assert digits == "without a GPU in minutes: %s --augment none --output models/resnet_small\n" % train
    small = dict(slow, size=64, mini=True, stem="small", output="wide")
    # The article's stem is the short way.
    assert said(**small) == "without a GPU in minutes: %s --output wide_small\n" % train
    assert said(**dict(small, model="models/other")) == ""  # which has its own
    tuned = "python train.py --model imagenet --output models/resnet_small"
    assert said(**dict(slow, model="imagenet")) == "without a GPU in minutes: %s; %s\n" % (flowio, tuned)
    assert said(**dict(slow, model="imagenet", size=64)) == ""
    monkeypatch.setattr(device, "gpus", lambda: ["gpu:0"])
    assert said(**dict(slow, step=50)) == ""


@pytest.mark.parametrize("pictures, steps", [(17, 100), (160, 300), (166, 320), (1000, 1880)])
def test_steps_that_are_enough(pictures, steps):
    assert recipes.enough_steps(pictures, 32) == steps


def test_a_line_has_the_means_of_its_steps(monkeypatch):
    from suite.training import hooks

    rows, lines = [], []
    bar = types.SimpleNamespace(disable=True, n=0, set_description_str=lambda *_, **__: 0, update=lambda _: 0)
    log = types.SimpleNamespace(epoch_steps=10, add=lambda step, **values: rows.append((step, values)))
    options = {"step": 5, "log_num": 2, "batch_size": 8}
    times = types.SimpleNamespace(
        add_first_step=lambda: 0,
        add_step=lambda _: 0,
        seconds=lambda _: 60,
        say_measured=lambda step: lines.append("time at %d" % step),
    )
    hook = hooks.ProgressHook(options, bar, log, [], times)
    monkeypatch.setattr(hooks, "say", lines.append)
    monkeypatch.setattr(hooks.tf.train, "get_global_step", lambda: None)
    hook.after_create_session(types.SimpleNamespace(run=lambda _: 0), None)
    for step, loss in enumerate((4, 2, 8, 2, 1), 1):
        hook.before_run(None)
        shown = {"step": step, "loss": loss, "accuracy": loss / 10, "learning_rate": 1 / step}
        hook.after_run(None, types.SimpleNamespace(results=shown))
    assert [(step, row["loss"], row["accuracy"]) for step, row in rows] == [
        (2, 3, pytest.approx(0.3)),
        (4, 5, pytest.approx(0.5)),
        (5, 1, 0.1),
    ]
    assert [row["learning_rate"] for _, row in rows] == [1 / 2, 1 / 4, 1 / 5]  # the last one's
    assert [line.split(" epoch")[0] for line in lines] == [
        "taking the first step, the slowest",
        "step 2/5",
        "time at 3",
        "step 4/5",
        "step 5/5",
    ]
    assert "loss 3.000 acc 30% lr 0.5" in lines[1]
