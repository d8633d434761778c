"""The temperature beside a checkpoint: it belongs to these weights alone, and reaches every answer."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import config_for, content_of, pictures_of, run

from suite.model import formats, modelfolder
from suite.model.classifier import Classifier
from suite.process.errors import UserError
from suite.training import checkpoints, monitor, validation


def kept(folder):
    """The names of the temperatures in a folder."""
    return sorted(name for name in os.listdir(folder) if name.endswith(modelfolder.TEMPERATURE))


def test_it_is_of_these_weights_alone(copy):
    model = modelfolder.load_model(copy)
    assert model.temperature == 1  # too few pictures validated
    checkpoints.write_temperature(model.checkpoint, 1.5)
    assert modelfolder.load_model(copy).temperature == 1.5
    assert modelfolder.load_model(os.path.join(copy, "model.ckpt-50")).temperature == 1
    for suffix in (".index", ".data-00000-of-00001"):  # trained again, to the same step
        shutil.copy(os.path.join(copy, "model.ckpt-50" + suffix), model.checkpoint + suffix)
    assert modelfolder.load_model(copy).temperature == 1


@pytest.mark.parametrize("content", [b"", b"{}", b'{"temperature": 0, "index": "", "format_version": 1}'])
def test_a_damaged_one_is_refused(copy, content):
    path = modelfolder.load_model(copy).checkpoint + modelfolder.TEMPERATURE
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(UserError, match="temperature.json: damaged; bring it back, or remove it"):
        modelfolder.load_model(copy)
    os.remove(path)
    assert modelfolder.load_model(copy).temperature == 1


def test_a_validation_writes_it_and_the_best_takes_it_along(workspace, copy, monkeypatch):
    monkeypatch.setattr(validation, "ENOUGH", 5)
    config, records = config_for(workspace, "--output", copy)
    validator = validation.Validator(config, records, monitor.Log(None, 0, 10), [])
    shutil.rmtree(os.path.join(copy, "best"))
    checkpoint = os.path.join(copy, "model.ckpt-50")
    validator.validate(checkpoint)
    model = modelfolder.load_model(copy)
    assert model.checkpoint == os.path.join(copy, "best", "model.ckpt-50")
    assert model.temperature == modelfolder.load_model(checkpoint).temperature != 1
    os.remove(checkpoint + ".index")  # as --keep does
    validator.validate(os.path.join(copy, "model.ckpt-100"))
    assert kept(copy) == ["model.ckpt-100.temperature.json"]
    assert len(kept(os.path.join(copy, "best"))) == 1


def test_one_that_was_not_written_to_its_end_is_removed(copy):
    partial = os.path.join(copy, "model.ckpt-100.temperature.json.replacing.partial")
    open(partial, "w").close()
    checkpoints.tidy(copy)
    assert not os.path.exists(partial)


@pytest.mark.slow
def test_every_answer_has_it(workspace, copy, tmp_path):
    """A probability p becomes one in proportion to p ** (1 / temperature), in each of the scripts."""
    picture = pictures_of(workspace)[0]
    with Classifier(copy) as classify:
        before = classify(picture).probabilities.astype(float)
        pixels = classify.prepare(picture).pixels
    checkpoints.write_temperature(modelfolder.load_model(copy).checkpoint, 3)
    expected = before ** (1 / 3) / (before ** (1 / 3)).sum()
    with Classifier(copy) as classify:  # and no cache of before
        np.testing.assert_allclose(classify(picture).probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(classify.probabilities([pixels])[0], expected, atol=1e-5)
    out, _ = run("predict.py", picture, "--model", copy, "--json", "--top", 1)
    assert json.loads(out)["predictions"][0]["probability"] == pytest.approx(expected.max(), abs=1e-5)
    same = ["--data", workspace.records, "--model", copy, "--output", tmp_path / "other", "--step", 0]
    run("train.py", *same)
    assert modelfolder.load_model(str(tmp_path / "other")).temperature == 3
    # The other formats are made of the same graph, and compared with the checkpoint, as this one is.
    run("export.py", "--model", copy, "--output", tmp_path / "saved_model")
    saved = str(tmp_path / "saved_model"), [content_of(picture)], "serving_default"
    np.testing.assert_allclose(formats.run_saved_model(*saved)[0], expected, atol=0.02)
    out, _ = run("evaluate.py", "--model", copy, "--data", workspace.records)
    assert "before the temperature of 3.00 that train.py fitted on val" in out
    results, rows = workspace.results(os.path.join(copy, "evaluation"))
    plain, plain_rows = workspace.results()
    assert results["temperature"] == 3 and results["accuracy"] == plain["accuracy"]
    assert results["calibration"]["ece_before"] == pytest.approx(plain["calibration"]["ece"], abs=1e-4)
    assert [row["predicted"] for row in rows] == [row["predicted"] for row in plain_rows]
