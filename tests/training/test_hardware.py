"""Several devices, mixed precision and XLA, on a machine that has only a CPU."""

import os
import re
import subprocess
import sys
import types

import pytest
from helpers import ROOT, differing, finding, read_log, refuses

from suite.files import jsonfile
from suite.model import modelfolder
from suite.model.network import AVERAGED
from suite.process import device, errors
from suite.process.tf_versions import tf
from suite.records.reading import load_records
from suite.training import distribution
from suite.training.config import complete_options
from suite.training.options import parse_options

pytestmark = pytest.mark.slow

# train.py, in a program that changes something before
TRAIN = """
import train
from suite.process import device, lifetime
from suite.process.tf_versions import tf
"""
# ... with something of each session's configuration changed
CONFIGURED = """
one = device.session_config
def session_config(*arguments, **options):
    config = one(*arguments, **options)
    %s
    return config
device.session_config = session_config
"""
# ... and on two devices, which are halves of the CPU.
TWO_DEVICES = (
    CONFIGURED % 'config.device_count["CPU"] = 2'
    + """
from suite.training import distribution
distribution.choose_strategy = lambda *_: tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
"""
)


@pytest.fixture
def train_small(workspace, tmp_path):
    """A function that trains for four steps; the model folder, and what was said."""

    def train(name, *options, prelude="", flags=""):
        output = str(tmp_path / name)
        arguments = ["--mini", "--data", workspace.records, "--output", output]
        arguments += ["--step", "4", "--save_num", "2", "--log_num", "1", "--bn_batches", "0", *options]
        code = TRAIN + prelude + "lifetime.run(train.main)"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=finding(ROOT, TF_XLA_FLAGS=flags, TF_CPP_MIN_LOG_LEVEL="0"),
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        return output, done.stderr

    return train


def losses(output):
    return [float(row["loss"]) for row in read_log(output) if row["loss"]]


@pytest.mark.versions
def test_two_devices_share_each_batch(train_small):
    output, said = train_small("two", prelude=TWO_DEVICES)
    assert "step 4: validation accuracy" in said and len(losses(output)) == 4
    assert modelfolder.load_model(output).checkpoint
    # The same command goes on, and one device takes over from two.
    _, said = train_small("two", "--step", "6", prelude=TWO_DEVICES)
    assert "resuming at step 4" in said
    _, said = train_small("two", "--step", "8")
    assert "resuming at step 6" in said and len(losses(output)) == 8


@pytest.mark.versions
def test_two_devices_start_from_weights(workspace, train_small):
    """The classifier alone at first, and then all."""
    output, _ = train_small("tuned", "--model", workspace.model, "--freeze", "2", prelude=TWO_DEVICES)
    began, thawed, end = (os.path.join(output, "model.ckpt-%d" % step) for step in (0, 2, 4))
    assert differing(began, thawed) == {"logits/kernel", "logits/bias"}
    assert len(differing(thawed, end)) > 50


@pytest.mark.parametrize(
    "options, says",
    [(["--batch_size", "5"], "must be a multiple of the 2 devices"), (["--ema", "0.9"], "one device only")],
)
def test_what_two_devices_refuse(monkeypatch, options, says):
    monkeypatch.setattr(device, "gpus", lambda: ["gpu:0", "gpu:1"])
    two = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: two)
    assert distribution.choose_strategy(distribution.ALONE, parse_options(["--batch_size", "32"])) is two
    with pytest.raises(errors.UsageError, match=says):
        distribution.choose_strategy(distribution.ALONE, parse_options(["--batch_size", "32", *options]))


@pytest.mark.versions
def test_xla_computes_the_same(train_small):
    """Of the same pictures: under TensorFlow 2.15 it draws other random numbers, which augmentation takes."""
    plain, _ = train_small("plain", "--augment", "none")
    options = ["--augment", "none", "--xla", "--verbose"]
    compiled, said = train_small("xla", *options, flags="--tf_xla_cpu_global_jit")
    assert "Compiled cluster using XLA" in said
    assert losses(compiled)[0] == pytest.approx(losses(plain)[0], rel=1e-3)
    # What was compiled goes on without, and the other way round.
    for folder, choice in ((compiled, "no"), (plain, "yes")):
        flags = "--tf_xla_cpu_global_jit"
        _, said = train_small(folder, "--augment", "none", "--xla", choice, "--step", "6", flags=flags)
        assert "resuming at step 4" in said and len(losses(folder)) == 6


def test_mixed_precision_trains(workspace, train_small):
    """On the CPU TensorFlow keeps float32 throughout: what is left is the scaling of the loss."""
    plain, _ = train_small("plain")
    mixed, _ = train_small("mixed", "--mixed_precision")
    assert losses(mixed)[0] == pytest.approx(losses(plain)[0], rel=1e-3)
    same = ["--mini", "--data", workspace.records, "--output", mixed, "--step", 6]
    refuses("train.py", *same, says="mixed was trained with yes; give it, or --output", status=2)


SKIPPING = """
rewrite = tf.train.experimental.enable_mixed_precision_graph_rewrite
tf.train.experimental.enable_mixed_precision_graph_rewrite = lambda optimizer: rewrite(
    optimizer, tf.train.experimental.DynamicLossScale(2.0**127)
)
"""


@pytest.mark.versions
def test_a_batch_that_the_loss_scale_passes_over_is_no_step(train_small):
    """The scale is too large at first, and halved until the gradient is finite."""
    # With so large a gradient that the first scales are surely too large.
    output, said = train_small("mixed", "--mixed_precision", "--weight_decay", "100", prelude=SKIPPING)
    assert [row["step"] for row in read_log(output) if row["loss"]] == ["1", "2", "3", "4"]
    assert re.findall(r"step (\d)/4", said) == ["1", "2", "3", "4"]
    for step in (2, 4):
        checkpoint = os.path.join(output, "model.ckpt-%d" % step)
        assert tf.train.load_variable(checkpoint, "global_step") == step
        assert tf.train.load_variable(checkpoint, "current_loss_scale") < 2.0**127


@pytest.mark.parametrize("prelude", ["", TWO_DEVICES])
def test_the_gradient_is_clipped_as_a_whole(train_small, prelude):
    """After one step momentum's slots are the gradient."""
    options = ["--optimizer", "momentum", "--clip_norm", "0.01", "--weight_decay", "0", "--step", "1"]
    output, _ = train_small("clipped", *options, prelude=prelude)
    checkpoint = os.path.join(output, "model.ckpt-1")
    slots = [name for name, _ in tf.train.list_variables(checkpoint) if name.endswith("/Momentum")]
    squares = [float((tf.train.load_variable(checkpoint, name) ** 2).sum()) for name in slots]
    assert len(slots) > 10 and sum(squares) ** 0.5 == pytest.approx(0.01, rel=1e-3)


def test_moving_statistics_are_averaged_with_the_weights(train_small):
    output, _ = train_small("averaged", "--ema", "0.9")
    names = [name for name, _ in tf.train.list_variables(os.path.join(output, "model.ckpt-4"))]
    means = [name for name in names if name.endswith("moving_mean")]
    assert len(means) > 5 and all(name + AVERAGED in names for name in means)
    # A training that was begun by an older version goes on as it was.
    path = os.path.join(output, "model.json")
    config = jsonfile.read(path)
    del config["options"]["ema_statistics"]
    jsonfile.write(path, config)
    options = parse_options(["--output", output, "--mini", "--ema", "0.9"])
    complete_options(options, load_records(config["options"]["data"]), jsonfile.read(path), None)
    assert options.ema_statistics is False


ORDERS = """
read = train.read_for_training
def telling(*arguments, **options):
    print("order", options["seed"], file=sys.stderr)
    return read(*arguments, **options)
train.read_for_training = telling
"""


def test_the_phases_see_the_pictures_in_other_orders(workspace, train_small):
    source, _ = train_small("source")
    options = ["--model", source, "--freeze", "2", "--seed", "7"]
    output, said = train_small("frozen", *options, prelude="import sys\n" + ORDERS)
    assert re.findall(r"order (\d+)", said) == ["7", "9"]
    output, said = train_small("all", *options, "--freeze", "9", prelude="import sys\n" + ORDERS)
    assert re.findall(r"order (\d+)", said) == ["7"] and modelfolder.latest_step(output) == 4
    begun = modelfolder.load_model(source).checkpoint
    moved = differing(os.path.join(output, "model.ckpt-4"), begun)
    assert {name for name in moved if not name.startswith("beta")} == {"logits/kernel", "logits/bias"}


def test_a_gradient_that_is_never_finite_ends_the_training():
    """Where the loss is: the scale is halved until it cannot be, and no step would ever come."""
    from suite.training.hooks import MOST_PASSED_OVER, ProgressHook

    bar = types.SimpleNamespace(disable=True)
    times = types.SimpleNamespace(add_first_step=lambda: None, add_step=lambda seconds: None)
    hook = ProgressHook({"step": 9, "log_num": 1, "batch_size": 2}, bar, None, [], times)
    hook.step, hook.taken, hook.passed_over, hook.began = 3, 0, 0, 0
    hook.busy = hook.timed = 0
    values = types.SimpleNamespace(results={"step": 3, "loss": 1.0, "learning_rate": 0.1, "accuracy": 0.5})
    with pytest.raises(errors.UserError, match="not finite in 200 batches in turn"):
        for _ in range(MOST_PASSED_OVER):
            hook.after_run(None, values)
