"""A loss that is no number, and a batch that does not fit into the memory."""

import os
import re
import resource
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import ROOT, run

from suite.files import atomic
from suite.model import modelfolder
from suite.process import tf_versions
from suite.training import checkpoints, memory, outcome


def train(*arguments, status, limit=None, script=("train.py",)):
    command = [sys.executable, *script, *map(str, arguments)]
    set_limit = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if limit else None
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", preexec_fn=set_limit, cwd=ROOT)
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_loss_that_is_not_finite(workspace, copy):
    """It names step, rate and checkpoint, and the same command with a lower rate goes on from that."""
    same = ["--data", workspace.records, "--output", copy, "--step", 130, "--save_num", 1, "--log_num", 1]
    said = train(*same, "--lr", 1e30, status=1).splitlines()[-1]
    found = re.search(
        r"not a finite number any more at step (\d+), with a learning rate of (\S+); "
        r"the same command with an --lr below 1e\+30 goes on from (\S+)",
        said,
    )
    assert found, said
    step, rate, checkpoint = int(found.group(1)), float(found.group(2)), found.group(3)
    assert 101 <= step <= 110 and 1e28 < rate < 1e30
    assert checkpoint == modelfolder.latest_checkpoint(copy) and checkpoints.is_finite(checkpoint)
    reached = modelfolder.checkpoint_step(checkpoint)
    assert 100 <= reached < step - 1
    said = train(*same[:5], reached + 1, "--lr", 0.0001, status=0)
    assert "resuming at step %d" % reached in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_spoilt_checkpoints_go(tmp_path, value):
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("v", [3])
        saver = tf.train.Saver()
        for step, content in ((1, 1), (2, 2), (3, value), (4, value)):
            variable.load([0, 0, content], session)
            saver.save(session, str(tmp_path / "model.ckpt"), step)
    checkpoints.drop_spoilt(str(tmp_path), 9)
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt-2")
    assert not [name for name in os.listdir(str(tmp_path)) if "-3" in name or "-4" in name]


def save(folder, name, step, value):
    with tf.Graph().as_default(), tf.Session() as session:
        variable = tf.get_variable("v", [3])
        variable.load([0, 0, value], session)
        tf.train.Saver().save(session, str(folder / name), step)


@pytest.mark.parametrize(
    "name, value, reached, stays",
    [
        ("model.ckpt", 1, 3, True),
        ("recalibrated.ckpt", 1, None, True),  # which no training can go on from
        ("model.ckpt", np.nan, None, False),
    ],
)
def test_where_all_are_spoilt_the_best_is_left(tmp_path, name, value, reached, stays):
    """With --keep 1 the one checkpoint there may be that of the step before."""
    save(tmp_path / "best", name, 3, value)
    save(tmp_path, "model.ckpt", 6, 1)
    checkpoints.drop_spoilt(str(tmp_path), 5)
    latest = modelfolder.latest_checkpoint(str(tmp_path))
    assert (latest and modelfolder.checkpoint_step(latest)) == reached
    best = modelfolder.latest_checkpoint(str(tmp_path / "best"))
    assert bool(best) == stays and (not latest or checkpoints.is_finite(latest))


def test_how_to_go_on_where_the_loss_is_not_finite(tmp_path):
    progress = types.SimpleNamespace(step=6, rate=1.0)
    options = {"output": str(tmp_path), "lr": 1.0, "fresh": True}
    assert outcome.spoilt(progress, options, None).endswith(
        "; the same command with an --lr below 1 starts anew; there is no good checkpoint yet"
    )
    save(tmp_path / "best", "recalibrated.ckpt", 3, 1)
    said = outcome.spoilt(progress, options, None)
    assert (
        "the best of before is in %s/best/recalibrated.ckpt-3, but nothing to go on from" % tmp_path in said
    )
    save(tmp_path, "model.ckpt", 4, 1)
    said = outcome.spoilt(progress, options, None)
    assert (
        "the same command without --fresh with an --lr below 1 goes on from %s/model.ckpt-4" % tmp_path
        in said
    )


TOO_LARGE = r"--batch_size 8000 needs about \S+ GB where there are \S+; --batch_size (\d+) would fit"


@pytest.mark.slow
@pytest.mark.versions
def test_too_little_memory(workspace, tmp_path):
    """A batch that cannot fit is refused, and the one that is named instead fits."""
    arguments = ["--data", workspace.records, "--output", tmp_path / "model", "--step", 1, "--bn_batches", 0]
    said = train(*arguments, "--batch_size", 8000, status=1, limit=4 << 30)
    found = re.fullmatch("train.py: error: " + TOO_LARGE, said.splitlines()[-1])
    assert found, said
    if not tf_versions.is_2():  # whose oneDNN may take minutes for it
        # Of addresses more are needed than of memory, for stacks and arenas.
        said = train(*arguments, "--batch_size", found.group(1), status=0, limit=6 << 30)
        assert "warning: --batch_size" not in said


def test_a_batch_that_may_not_fit_is_warned_of(monkeypatch, capsys):
    monkeypatch.setattr(memory, "estimate_of", lambda train_op, batch: (1e9, 1e6))
    for limit, says in ((9.1e9, ""), (5e9, "warning: " + TOO_LARGE + "\n")):
        monkeypatch.setattr(memory, "memory_limit", lambda limit=limit: limit)
        memory.check_batch(8000, None)
        assert re.fullmatch(says, capsys.readouterr().err)
    monkeypatch.setattr(memory, "memory_limit", lambda: 4e9)
    with pytest.raises(memory.UserError, match=TOO_LARGE):
        memory.check_batch(8000, None)


@pytest.mark.slow
def test_out_of_memory(workspace, tmp_path):
    """As on a GPU, where nothing is refused: TensorFlow's error becomes one line.

    The error is raised in TensorFlow's place: a CPU without memory may end the process by a crash instead.
    """
    program = """if True:
        import train
        from suite.process import lifetime
        from suite.training import distribution, memory
        from suite.process.tf_versions import tf
        def hungry(*arguments):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]")
        distribution.run_estimator = hungry
        memory.memory_limit = lambda: 3 << 30
        lifetime.run(train.main)
    """
    arguments = ["--data", workspace.records, "--output", tmp_path / "model", "--step", 1]
    said = train(*arguments, "--batch_size", 8000, status=1, script=["-c", program])
    found = re.fullmatch(".*: error: out of memory: " + TOO_LARGE, said.splitlines()[-1])
    assert found and found.group(1) in ("1024", "2048"), said


@pytest.mark.parametrize(
    "kind, message, lacks",
    [
        (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[9]", "memory"),
        (
            tf.errors.ResourceExhaustedError,
            "Out of memory while trying to allocate 9 bytes.\n\t [[{{node cluster_0_1/xla_run}}]]",
            "memory",
        ),
        (tf.errors.OutOfRangeError, "End of sequence", None),
        (tf.errors.ResourceExhaustedError, "model.ckpt-2: No space left on device", "disk"),
        (tf.errors.OutOfRangeError, "shard: File too large", "disk"),
    ],
)
def test_too_little_memory_is_no_full_disk(kind, message, lacks):
    error = kind(None, None, message)
    assert atomic.is_full_disk(error) == (lacks == "disk")
    assert bool(outcome.OUT_OF_MEMORY.search(str(error))) == (lacks == "memory")


def test_the_limit_of_a_container(monkeypatch):
    assert 1e9 < memory.memory_limit() < 1e14
    monkeypatch.setattr(memory.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 1000))
    assert memory.memory_limit() == 4096 * 1000


@pytest.mark.slow
def test_nothing_good_is_left(tmp_path, workspace):
    arguments = ["--mini", "--data", workspace.records, "--output", tmp_path / "model", "--save_num", 1]
    _, said = run("train.py", *arguments, "--lr", 1e30, "--step", 20, status=1)
    assert "starts anew; there is no good checkpoint yet" in said.splitlines()[-1] or "goes on from" in said
