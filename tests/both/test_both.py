"""TensorFlow 1.15 and 2.15 read what the other one wrote: records, checkpoints, exports.

make test-both

These tests run under 1.15; TF2_PYTHON names the Python of the other. Probabilities must agree to 1e-5.
"""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, draw_dataset, run
from PIL import Image

from suite.model import modelfolder
from suite.process import tf_versions

PYTHONS = {"1.15": sys.executable, "2.15": os.path.abspath(os.environ["TF2_PYTHON"])}
TOLERANCE = 1e-5  # of probabilities
DIGIT = 1e-6  # the last of those in predictions.csv, which two numbers may round apart
STEPS = 20


class Made:
    """What one version made: records, and a model that was trained on them."""

    def __init__(self, maker, folder):
        self.maker, self.other = maker, next(version for version in PYTHONS if version != maker)
        self.records, self.model = str(folder / "records"), str(folder / "model")
        draw_dataset(folder / "dataset", 20)
        places = ["--dataset", folder / "dataset", "--output", self.records]
        self.run("FlowIO.py", *places, "--image_size", 32)
        self.train(maker, "--mini", "--step", STEPS)

    def run(self, script, *arguments, version=None):
        return run(script, *arguments, python=PYTHONS[version or self.maker])

    def train(self, version, *arguments, output=None):
        places = ["--data", self.records, "--output", output or self.model]
        return self.run("train.py", *places, *arguments, "--save_num", STEPS // 2, version=version)[1]

    def evaluate(self, version, model):
        """The rows of predictions.csv, and the figures of evaluation.json."""
        self.run("evaluate.py", "--model", model, "--data", self.records, version=version)
        with open(
            os.path.join(model, "evaluation", "predictions.csv"), encoding="utf-8-sig", newline=""
        ) as file:
            rows = list(csv.DictReader(file))
        with open(os.path.join(model, "evaluation", "evaluation.json")) as file:
            return rows, json.load(file)


@pytest.fixture(scope="module", params=sorted(PYTHONS))
def made(request, tmp_path_factory):
    return Made(request.param, tmp_path_factory.mktemp("made"))


@pytest.fixture
def model(made, tmp_path):
    """A copy of the model folder."""
    return shutil.copytree(made.model, str(tmp_path / "model"))


def test_the_two_are_what_they_should_be():
    program = "from suite.process.tf_versions import tf; print(tf.__version__)"
    found = [
        subprocess.run([PYTHONS[version], "-c", program], cwd=ROOT, stdout=subprocess.PIPE).stdout
        for version in ("1.15", "2.15")
    ]
    assert found[0].startswith(b"1.15.") and found[1].startswith(b"2.15.") and not tf_versions.is_2()


def agree(one, other):
    """Assert that two evaluations gave the same answers to the same pictures."""
    (rows, figures), (other_rows, other_figures) = one, other
    assert len(rows) > 5
    for row, other_row in zip(rows, other_rows):
        for column in ("filename", "label", "predicted"):
            assert row.pop(column) == other_row.pop(column)
        assert row.keys() == other_row.keys() and len(row) > 2  # the probabilities of all classes
        for column in row:
            assert abs(float(row[column]) - float(other_row[column])) < TOLERANCE + DIGIT
    assert len(rows) == len(other_rows)
    assert figures["confusion_matrix"] == other_figures["confusion_matrix"]
    assert figures["log_loss"] == pytest.approx(other_figures["log_loss"], abs=TOLERANCE)


def test_the_other_one_resumes(made, model):
    few = ["--bn_batches", 0, "--log_num", 1]
    said = made.train(made.other, "--step", STEPS + 4, *few, output=model)
    assert "resuming at step %d" % STEPS in said and "step %d/%d" % (STEPS + 4, STEPS + 4) in said
    agree(made.evaluate(made.maker, model), made.evaluate(made.other, model))
    said = made.train(made.maker, "--step", STEPS + 6, *few, output=model)  # and back
    assert "resuming at step %d" % (STEPS + 4) in said and modelfolder.latest_step(model) == STEPS + 6


def test_the_other_one_starts_from_its_weights(made, tmp_path):
    made.train(made.other, "--model", made.model, "--step", 0, output=str(tmp_path / "model"))
    assert modelfolder.latest_step(str(tmp_path / "model")) == 0


def predictions(made, version, model, folder):
    """[pictures, classes], in the order of the classes' names; and what was said."""
    out, err = made.run("predict.py", folder, "--model", model, "--json", version=version)
    answers = [json.loads(line)["predictions"] for line in out.splitlines()]
    by_label = [sorted((each["label"], each["probability"]) for each in answer) for answer in answers]
    return np.array([[probability for _, probability in answer] for answer in by_label]), err


def test_the_other_one_predicts_the_same(made, model, tmp_path):
    """Whatever cache the first one left."""
    folder = tmp_path / "pictures"
    draw_dataset(folder, 3, seed=9)
    first, err = predictions(made, made.maker, model, folder)
    assert "preparing the model" in err and first.shape == (9, 3)
    second, err = predictions(made, made.other, model, folder)
    np.testing.assert_allclose(first, second, atol=TOLERANCE)
    assert "preparing the model" in err  # never the other's cache
    again, err = predictions(made, made.other, model, folder)
    np.testing.assert_array_equal(second, again)
    assert "preparing the model" not in err


@pytest.mark.parametrize("format, suffix", [("saved_model", ""), ("frozen_graph", ".pb")])
def test_the_other_one_runs_the_export(made, tmp_path, format, suffix):
    path, pixels = str(tmp_path / ("exported" + suffix)), str(tmp_path / "pixels.npy")
    made.run("export.py", "--model", made.model, "--format", format, "--output", path)
    np.save(pixels, np.random.RandomState(0).uniform(0, 255, (8, 32, 32, 3)).astype(np.float32))
    program = """if True:
        import numpy
        from suite.model import formats
        numpy.save(%r, formats.run_%s(%r, numpy.load(%r)))
    """
    found = []
    for version in (made.maker, made.other):
        answers = str(tmp_path / ("%s.npy" % version))
        code = program % (answers, format, path, pixels)
        subprocess.run([PYTHONS[version], "-c", code], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        found.append(np.load(answers))
    np.testing.assert_allclose(*found, atol=TOLERANCE)


@pytest.mark.parametrize("size", [(600, 400), (150, 400)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_photo_is_reduced_to_the_same_bytes(tmp_path, format, size):
    """By two versions of Pillow, which promise nothing of the kind."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    photo = np.stack([x * 0.4, y * 0.6, (x * y) % 256], 2).astype(np.uint8)
    path = str(tmp_path / "photo")
    Image.fromarray(photo).save(path, format)
    program = """if True:
        import sys
        from suite.pictures import imagefile
        sys.stdout.buffer.write(imagefile.encode(imagefile.read_file(%r), 64))
    """
    one, other = (
        subprocess.run([python, "-c", program % path], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
        for python in PYTHONS.values()
    )
    assert one == other
