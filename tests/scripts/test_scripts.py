"""train.py, evaluate.py and predict.py as a user runs them, on a small generated set."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import LABELS, ROOT, draw_dataset, finding, refuses, run

import predict
from suite.evaluation import predictions
from suite.model import modelfolder
from suite.process import device
from suite.records import reading
from suite.training import validation
from suite.training.config import complete_options, make_config
from suite.training.options import parse_options

# --- the whole workflow ----------------------------------------


def test_the_workflow_learns(workspace):
    results, _ = workspace.results()
    assert results["accuracy"] > 0.8
    assert "accuracy %.4f" % results["accuracy"] in workspace.evaluation[0]


def test_training_says_what_it_is_doing(workspace):
    _, err = workspace.training
    assert "device: " in err and "network: layer_50 mini, zero_pad" in err
    assert "step 100/100" in err and "img/s" in err and "eta " in err and "loss" in err
    assert "step 50: validation accuracy" in err and "step 100: validation accuracy" in err
    warned = device.has_nvidia() and not device.gpus()
    assert ("warning: TensorFlow sees no GPU; this build" in err) == warned


def test_training_says_how_long_it_takes_and_what_comes_next(workspace):
    _, err = workspace.training
    said = (
        "time: about" if not device.gpus() else "",
        "building the graph",
        "taking the first step",
        "time: ",
        "step 10/100",
        "step 50: validating on",
        "step 50: validation accuracy",
        "step 100/100",
        "batch norm: making its statistics anew over 10 batches",
        "batch norm: ",
    )
    found = -1
    for line in said:
        found = err.find(line, found + 1)
        assert found >= 0, line
    assert "without a GPU in minutes" not in err and "each picture will be seen" not in err


def test_tensorflow_says_nothing_of_its_own(workspace):
    for _, err in (workspace.flowio, workspace.training, workspace.evaluation):
        for line in err.splitlines():
            ours = line.startswith("warning: TensorFlow sees no GPU")
            assert ours or not re.search(r"(?i)tensorflow|onednn|deprecated|\.(py|cc):\d", line), line


def test_the_model_folder_is_complete(workspace):
    names = os.listdir(workspace.model)
    assert {"model.json", "best", "checkpoint", "model.ckpt-100.index", "model.ckpt-50.index"} <= set(names)
    assert any(name.startswith("events.out.tfevents") for name in names)
    with open(os.path.join(workspace.model, "model.json"), encoding="utf-8") as file:
        config = json.load(file)
    assert config["classes"] == LABELS and config["image_size"] == 32
    assert config["network"] == {
        "layers": 50,
        "mini": True,
        "shortcut": "zero_pad",
        "preactivation": False,
        "stem": "article",
        "zero_init_residual": False,
        "dropout": 0,
    }
    assert config["options"]["batch_size"] == 32 and config["versions"]["tensorflow"]
    with open(os.path.join(workspace.records, "dataset.json"), encoding="utf-8") as file:
        assert config["dataset"]["digest"] == json.load(file)["digest"]


def test_best_is_the_last_that_validated_no_worse(workspace):
    """Of few pictures; see checkpoints.is_no_worse."""
    _, err = workspace.training
    said = {}
    for line in err.splitlines():
        if ": validation accuracy " in line:
            said[int(line.split()[1].rstrip(":"))] = float(line.split()[4].rstrip(","))
    with open(os.path.join(workspace.model, "best", "best.json")) as file:
        best = json.load(file)
    for line in err.splitlines():
        if line.startswith("batch norm: made anew") and "validation accuracy" in line:
            said[best["step"]] = float(re.search(r"-> ([\d.]+)", line).group(1))  # the loss may follow
    assert said[best["step"]] == pytest.approx(best["accuracy"], abs=1e-4)
    highest = best["highest"]["accuracy"]
    room = 2 * (highest * (1 - highest) / reading.load_records(workspace.records).count("val")) ** 0.5
    assert best["step"] == max(step for step, accuracy in said.items() if accuracy >= highest - room)
    assert "best: step %d, validation accuracy %.4f" % (best["step"], best["accuracy"]) in err
    assert modelfolder.load_model(workspace.model).checkpoint.endswith(".ckpt-%d" % best["step"])


# --- one preprocessing ----------------------------------------


def test_the_three_scripts_see_the_same_tensors(workspace, monkeypatch):
    """What reaches the network for a file, in validation, evaluation and prediction, bit for bit."""
    records = reading.load_records(workspace.records)
    model = modelfolder.load_model(workspace.model)
    # In place of the network: its input.
    monkeypatch.setattr(predictions, "restore_session", lambda model, images, mirror: (tf.Session(), images))
    monkeypatch.setattr(predictions, "features_and_maps", lambda: (None, tf.zeros([5])))
    monkeypatch.setattr(predictions, "lead", lambda maps, answers: maps)
    answers = predictions.predict_split(model, records, "val", 5)
    names, evaluated = answers.filenames, answers.probabilities
    assert len(names) == records.count("val") > 5

    monkeypatch.undo()
    paths = [os.path.join(workspace.dataset, name) for name in names]
    with predict.Classifier(workspace.model) as classify:
        predicted = [classify.prepare(path).pixels for path in paths]
    np.testing.assert_array_equal(predicted, evaluated)

    captured = []
    # In place of the network: three numbers for each picture, as if they were logits.
    monkeypatch.setattr(
        validation,
        "build_logits",
        lambda images, *_: captured.append(images) or tf.reduce_mean(images, [1, 2]),
    )
    options = parse_options(["--mini", "--output", workspace.model])
    complete_options(options, records, None, None)
    validator = validation.Validator(make_config(options, records), records, None, [])
    validator.build()
    validator.session.run(validator.rewind)
    validated = []
    while len(validated) < len(names):
        validated += list(validator.session.run(captured[0]))
    np.testing.assert_array_equal(validated, evaluated)


# --- training ----------------------------------------


@pytest.mark.slow
@pytest.mark.versions
def test_the_same_command_resumes(workspace, copy):
    arguments = ["--mini", "--data", workspace.records, "--output", copy, "--bn_batches", 0]
    _, err = run("train.py", *arguments, "--step", 104, "--log_num", 1)
    assert "resuming at step 100" in err
    steps = [line.split()[1] for line in err.splitlines() if line.startswith("step ") and "/" in line]
    assert steps == ["101/104", "102/104", "103/104", "104/104"]
    assert modelfolder.latest_checkpoint(copy).endswith("model.ckpt-104")
    slots = [name for name, _ in tf.train.list_variables(os.path.join(copy, "model.ckpt-104"))]
    assert any("Adam" in name for name in slots)
    _, err = run("train.py", *arguments, "--step", 104)
    assert "resuming at step 104\n" in err and "at step 104 already" in err
    more = ["--step", 50, "--lr", 0.5, "--recipe", "article", "--augment", "none"]
    _, err = run("train.py", *arguments, *more)
    nothing = "at step 104 already and nothing is done with --step 50, --lr 0.5, --augment none; a larger"
    assert nothing in err


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(workspace, copy, number, status):
    command = [sys.executable, os.path.join(ROOT, "train.py"), "--mini", "--data", workspace.records]
    command += ["--output", copy, "--step", "9999", "--log_num", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step 103/"):
            process.send_signal(number)
    assert process.wait() == status
    assert not any("Traceback" in line for line in lines), lines
    last = max(int(line.split()[1].split("/")[0]) for line in lines if line.startswith("step "))
    assert modelfolder.latest_checkpoint(copy).endswith("model.ckpt-%d" % last)
    assert lines[-1] == "train.py: stopped; saved at step %d; the same command goes on from there\n" % last


@pytest.mark.slow
def test_training_refuses_what_does_not_fit(workspace, copy, tmp_path):
    same = ["--data", workspace.records, "--output", copy, "--step", 200]
    refuses("train.py", *same, "--layers", 101, says="--layers 101", status=2)
    refuses("train.py", *same, "--optimizer", "momentum", says="was trained with adam", status=2)
    refuses("train.py", "--layers", 34, says="choose from 50, 101, 152", status=2)
    refuses("train.py", "--step", 5, "--epochs", 1, says="not allowed with", status=2)
    refuses("train.py", "--lr", 0, says="argument --lr: must be above 0", status=2)
    refuses("train.py", "--epochs", 0, says="argument --epochs: must be above 0", status=2)
    refuses("train.py", "--lr", "inf", says="'inf' is not a number of at least 0", status=2)
    refuses("train.py", "--device", "gpu:99", *same, says="sees no such GPU", status=2)
    refuses("train.py", "--data", tmp_path / "none", says="no records there", status=1)
    draw_dataset(tmp_path / "dataset", 4, ["apple", "watermelon"])
    other = ["--dataset", tmp_path / "dataset", "--output", tmp_path / "records"]
    run("FlowIO.py", *other, "--image_size", 32)
    same[1] = tmp_path / "records"
    refuses("train.py", *same, "--mini", says="2: apple, watermelon", status=1)
    same[3] = tmp_path / "dataset"
    refuses("train.py", *same, "--mini", says="dataset: holds apple and no model.json", status=1)


# --- all of them ----------------------------------------


@pytest.mark.parametrize("script", ["FlowIO.py", "train.py", "evaluate.py", "predict.py", "export.py"])
def test_ctrl_c_during_the_imports_is_one_line(script, tmp_path):
    """In place of numpy: a signal, as if the user had been quick."""
    (tmp_path / "numpy.py").write_text("import os, time\nos.kill(os.getpid(), 2)\ntime.sleep(9)\n")
    environment = finding(str(tmp_path))
    command = [sys.executable, os.path.join(ROOT, script), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "%s: stopped\n" % script)


@pytest.mark.parametrize("script", ["FlowIO.py", "train.py", "evaluate.py", "predict.py"])
def test_help_does_not_wait_for_tensorflow(script, tmp_path):
    out, _ = run(script, "--help", cwd=str(tmp_path))
    assert "default: " in out and "--device" in out
    code = "import sys, {0}; {0}.parse_options({1}); sys.exit('tensorflow' in sys.modules)"
    module = "suite.training.options" if script == "train.py" else script[:-3]
    code = code.format(module, ["a.jpg"] if script == "predict.py" else [])
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("script", ["FlowIO.py", "train.py", "evaluate.py", "predict.py", "export.py"])
def test_windows_is_answered_in_one_line(script):
    code = (
        "import runpy, sys; sys.platform, sys.argv = 'win32', [%r]; runpy.run_path(%r, run_name='__main__')"
    )
    command = [sys.executable, "-c", code % (script, os.path.join(ROOT, script))]
    done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "WSL" in done.stderr


def test_a_script_runs_within_a_notebook(workspace, tmp_path):
    """As %run has it: streams of its own, and a process that others go on with, where Ctrl-C works."""
    code = """
import builtins, io, runpy, signal, sys
before = signal.getsignal(signal.SIGINT)
builtins.__IPYTHON__ = True
class Stream(io.StringIO):
    reconfigure = property(lambda self: getattr(self, "no such attribute"))
out, sys.stdout = sys.stdout, Stream()
sys.argv = ["predict.py", %r, "--model", %r, "--json"]
for _ in range(2):
    try:
        runpy.run_path(%r, run_name="__main__")
    except SystemExit as end:
        assert end.code == 0
assert signal.getsignal(signal.SIGINT) is before
out.write(sys.stdout.getvalue())
"""
    draw_dataset(tmp_path, 1, labels=["kiwi"])
    code = code % (str(tmp_path / "kiwi" / "0.png"), workspace.model, os.path.join(ROOT, "predict.py"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")
    assert done.returncode == 0
    first, second = map(json.loads, done.stdout.splitlines())
    assert first == second and first["predictions"][0]["label"] == "kiwi"
