"""What earlier versions of the suite wrote goes on: records, model folders, caches and exports."""

import glob
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from helpers import read_log, run

from suite.model import formats, modelfolder
from suite.process.tf_versions import tf
from suite.records.reading import load_records

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_network")]

HERE = os.path.dirname(os.path.abspath(__file__))
TOLERANCE = 1e-5  # of probabilities


@pytest.fixture(scope="module", params=[os.path.basename(p) for p in glob.glob(os.path.join(HERE, "*.xz"))])
def old(request, tmp_path_factory):
    """The folder that make.py made: dataset/, records/, model/ and answers.json."""
    folder = str(tmp_path_factory.mktemp("old"))
    with tarfile.open(os.path.join(HERE, request.param)) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def model(old, tmp_path):
    """A copy of the model folder."""
    return shutil.copytree(os.path.join(old, "model"), str(tmp_path / "model"))


def answers(lines):
    """{(image, label): probability} of what predict.py --json printed."""
    rows = [json.loads(line) for line in lines.splitlines()]
    return {(row["image"], each["label"]): each["probability"] for row in rows for each in row["predictions"]}


def pictures(records):
    """{file name: all else that a record holds}, of all splits, whichever a picture is in."""
    found = {}
    for path in glob.glob(os.path.join(str(records), "*.tfrecord")):
        for record in tf.python_io.tf_record_iterator(path):
            features = dict(tf.train.Example.FromString(record).features.feature)
            found[features.pop("image/filename").bytes_list.value[0]] = features
    return found


def test_the_pictures_are_converted_to_the_same_bytes(old, tmp_path):
    run("FlowIO.py", "--dataset", "dataset", "--output", tmp_path / "records", "--image_size", 32, cwd=old)
    before, now = pictures(os.path.join(old, "records")), pictures(tmp_path / "records")
    assert len(before) > 20 and before == now


@pytest.mark.versions
def test_the_model_answers_as_it_did(old, model):
    """Its cache was made by other code, so it is made anew, once."""
    with open(os.path.join(old, "answers.json"), encoding="utf-8") as file:
        expected = answers(file.read())
    for prepares in (True, False):
        out, err = run("predict.py", "dataset", "--model", model, "--json", cwd=old)
        found = answers(out)
        assert ("preparing the model" in err) == prepares and found.keys() == expected.keys()
        assert max(abs(found[key] - expected[key]) for key in expected) < TOLERANCE


def test_its_evaluation_is_replaced_by_the_same(old, model):
    path = os.path.join(model, "evaluation", "evaluation.json")
    with open(path, encoding="utf-8") as file:
        before = json.load(file)
    run("evaluate.py", "--model", model, "--data", os.path.join(old, "records"))
    with open(path, encoding="utf-8") as file:
        after = json.load(file)
    assert after.keys() >= before.keys() and after["confusion_matrix"] == before["confusion_matrix"]
    assert after["log_loss"] == pytest.approx(before["log_loss"], abs=TOLERANCE)


@pytest.mark.versions
def test_the_training_is_resumed(old, model):
    same = ["--data", os.path.join(old, "records"), "--output", model, "--batch_size", 4]
    _, err = run("train.py", *same, "--optimizer", "momentum", "--step", 6, "--log_num", 1, "--bn_batches", 0)
    assert "resuming at step 4" in err and modelfolder.latest_step(model) == 6
    assert [int(row["step"]) for row in read_log(model) if row["loss"]] == [1, 2, 3, 4, 5, 6]


def test_another_training_starts_from_its_weights(old, tmp_path):
    places = ["--data", "records", "--model", "model", "--output", tmp_path / "new"]
    _, err = run("train.py", *places, "--step", 0, cwd=old)
    assert "134 of 134 taken" in err
    assert (
        load_records(os.path.join(old, "records")).classes
        == modelfolder.load_model(str(tmp_path / "new")).classes
    )


def test_what_was_exported_gives_what_is_exported_now(old, model, tmp_path):
    pictures = np.random.RandomState(0).uniform(0, 255, [4, 32, 32, 3]).astype(np.float32)
    before = os.path.join(old, "model", "export")
    for format, name in (("frozen_graph", "model.pb"), ("saved_model", os.path.join("saved_model", "2"))):
        path = str(tmp_path / os.path.basename(name))
        run("export.py", "--model", model, "--format", format, "--output", path)
        run_it = getattr(formats, "run_" + format)
        found = run_it(path, pictures)
        np.testing.assert_allclose(run_it(os.path.join(before, name), pictures), found, atol=TOLERANCE)
        assert found.shape == (4, 3)
