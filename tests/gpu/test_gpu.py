"""What train.py and predict.py compute on a GPU, against the CPU.

make test-gpu
"""

import glob
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import DEVICE
from helpers import ROOT, finding, read_log, refuses, run
from training.test_hardware import CONFIGURED, TWO_DEVICES, losses

from suite.model import modelfolder
from suite.process.tf_versions import tf

pytestmark = pytest.mark.gpu
on_card = pytest.mark.skipif(DEVICE == "cpu", reason="the CPU has no such thing")

HERE = ["--device", DEVICE]
PLAIN = ["--xla", "no"]
NO_TF32 = ["--tf32", "no"]
# Each GPU is cut into parts of so many MB, which TensorFlow takes for GPUs.
PARTS = CONFIGURED % "config.gpu_options.experimental.virtual_devices.add(memory_limit_mb=%s)"
TWO_PARTS = (
    PARTS % [4096, 4096]
    + """
from suite.training import distribution
distribution.choose_strategy = lambda *_: tf.distribute.MirroredStrategy(
    ["/gpu:0", "/gpu:1"], tf.distribute.ReductionToOneDevice()
)
"""
)
# The same pictures each time, from one on.
SAME_PICTURES = """
import numpy as np
def same_pictures(*_, batch_size, **__):
    pictures = np.random.RandomState(0).normal(0, 1, [8, 32, 32, 3]).astype("f")[%d:]
    labels = (np.arange(8) %% 3)[%d:]
    pictures = tf.data.Dataset.from_tensor_slices({"image": pictures, "label": labels})
    return pictures.batch(batch_size, drop_remainder=True).repeat()
train.read_for_training = same_pictures
"""


def run_with(prelude, script, *arguments, status=0):
    """As helpers.run, after some lines of code."""
    code = "import %s as script\nfrom suite.process import device, lifetime\n" % script
    code += "from suite.process.tf_versions import tf\n%s\nlifetime.run(script.main)" % prelude
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=finding(ROOT),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


def answers(model, dataset, *options):
    """The probabilities of all pictures, {picture: {label: probability}}."""
    out, _ = run("predict.py", dataset, "--model", model, "--json", *options)
    rows = map(json.loads, out.splitlines())
    return {row["image"]: {p["label"]: p["probability"] for p in row["predictions"]} for row in rows}


def difference(model, dataset, *options):
    """The greatest one of a probability from the CPU's."""
    here = answers(model, dataset, *HERE, *options)
    there = answers(model, dataset, "--device", "cpu")
    assert len(here) == 120 and here.keys() == there.keys()
    return max(abs(here[picture][label] - p) for picture in there for label, p in there[picture].items())


def gradient(output):
    """The weights' gradient, a vector: what momentum's slots are after one step."""
    checkpoint = os.path.join(output, "model.ckpt-1")
    names = [name for name, _ in tf.train.list_variables(checkpoint) if name.endswith("/Momentum")]
    assert len(names) > 10
    return np.concatenate([tf.train.load_variable(checkpoint, name).ravel() for name in sorted(names)])


def distance(one, other):
    return np.linalg.norm(one - other) / np.linalg.norm(other)


# --- the device ----------------------------------------


def test_the_device_is_said(workspace):
    arguments = ["--data", workspace.records, "--mini", "--dry_run"]
    out, err = run("train.py", *arguments, *HERE)
    assert "device: CPU" in err if DEVICE == "cpu" else "device: 1 GPU" in err
    assert out.startswith("device: ") and ("compute capability" in out) == (DEVICE != "cpu")
    _, err = run("train.py", *arguments, "--device", "cpu")
    assert "device: CPU" in err
    refuses("train.py", *arguments, "--device", "gpu:99", says="TensorFlow sees no such GPU", status=2)


# --- the same as on the CPU ----------------------------------------


def test_the_answers_are_the_cpus(workspace):
    """Convolutions in TF32, which has 10 bits of mantissa, are what a GPU computes by default.

    0.0012 was measured, of another model.
    """
    assert difference(workspace.model, workspace.dataset) < 3e-3


def test_without_tf32_they_are_so_in_five_digits(workspace):
    assert difference(workspace.model, workspace.dataset, *NO_TF32) < 1e-5


def test_a_training_goes_on_on_the_other_device(workspace, tmp_path):
    output = str(tmp_path / "model")
    same = ["--data", workspace.records, "--output", output, "--mini", "--log_num", 1, "--bn_batches", 0]
    for step, where in ((4, "cpu"), (8, DEVICE), (12, "cpu")):
        _, err = run("train.py", *same, "--step", step, "--save_num", 4, "--device", where)
        assert "resuming at step %d" % (step - 4) in err or step == 4
        # Networks of so few steps differ by 1e-4 between two processors.
        assert difference(output, workspace.dataset, *NO_TF32) < 1e-3
    assert [row["step"] for row in read_log(output) if row["loss"]] == [str(step) for step in range(1, 13)]


# --- a step ----------------------------------------


@pytest.fixture
def one_step(train_small, tmp_path):  # noqa: F811
    """A function that takes a step from the same weights, on 8 pictures or some of them; its gradient."""
    source, _ = train_small("source", *HERE)

    def step(name, *options, pictures=(0, 8), prelude="", flags="", says=""):
        begin, end = pictures
        prelude = SAME_PICTURES % (begin, begin) + prelude
        options = ["--model", source, "--recipe", "article", "--optimizer", "momentum", *NO_TF32, *options]
        options += ["--step", "1", "--batch_size", str(end - begin), *HERE]
        output, said = train_small(name, *options, prelude=prelude, flags=flags)
        assert says in said
        return gradient(output)

    return step


def test_a_step_on_two_devices_is_the_mean_of_the_halves(one_step):
    """The devices are parts of one GPU; batch norm takes each half by itself, on one device, too."""
    both = one_step("both", prelude=TWO_DEVICES if DEVICE == "cpu" else TWO_PARTS)
    halves = [one_step("first", pictures=(0, 4)), one_step("second", pictures=(4, 8))]
    assert distance(both, np.mean(halves, axis=0)) < 1e-3
    assert distance(both, halves[0]) > 0.1


def test_a_step_compiled_by_xla_is_the_plain_one(one_step):
    flags = "--tf_xla_cpu_global_jit" if DEVICE == "cpu" else ""
    plain = one_step("plain", *PLAIN)
    compiled = one_step("xla", "--xla", "--verbose", flags=flags, says="Compiled cluster using XLA")
    assert distance(compiled, plain) < 1e-3


@pytest.mark.parametrize("more", [PLAIN, ["--xla"]])
def test_mixed_precision_trains(workspace, tmp_path, more):
    output = str(tmp_path / "model")
    options = ["--mini", "--mixed_precision", *more, "--step", 60, "--log_num", 1, "--bn_batches", 0, *HERE]
    run("train.py", "--data", workspace.records, "--output", output, *options)
    assert np.mean(losses(output)[-10:]) < 0.7 * np.mean(losses(output)[:10])
    assert modelfolder.load_model(output).checkpoint


# --- memory ----------------------------------------


@on_card
def test_a_batch_that_fits_is_named_where_the_memory_ends(workspace, tmp_path):
    arguments = ["--data", workspace.records, "--output", tmp_path / "model", "--step", 2, *HERE]
    small_card = PARTS % [2048]
    _, err = run_with(small_card, "train", *arguments, "--batch_size", 4096, status=1)
    named = re.search(r"out of memory: --batch_size 4096 needs .*; --batch_size (\d+) would fit", err)
    assert named, err
    run_with(small_card, "train", *arguments, "--batch_size", named.group(1))
    assert glob.glob(str(tmp_path / "model" / "model.ckpt-2.index"))
