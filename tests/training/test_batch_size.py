"""What --batch_size auto chooses."""

import types

import pytest
from helpers import ROOT, finding, read_log, run

from suite.files import jsonfile
from suite.process import device
from suite.process.errors import UsageError
from suite.training import batch_size
from suite.training.options import parse_options


@pytest.fixture
def choose(monkeypatch):
    """A function of the number of training pictures and of the rate by size, None where that does not fit."""

    def choose(pictures, rates):
        monkeypatch.setattr(batch_size, "measure", lambda options, records, weights, size: rates[size])
        records = types.SimpleNamespace(count={"train": pictures}.get)
        return batch_size.choose(parse_options([]), records, None, None)

    return choose


def test_the_knee(choose, capsys):
    # A tenth more is worth twice the batch, less is not; what comes behind is not tried.
    assert choose(10**6, {32: 100, 64: 190, 128: 210, 256: 220}) == 128
    rates = "32: 100 pictures/s, 64: 190 pictures/s, 128: 210 pictures/s, 256: 220 pictures/s"
    said = "batch: 128 pictures (%s)" % rates
    assert said in " ".join(capsys.readouterr().err.split())
    assert choose(10**6, {32: 100, 64: 109}) == 32
    assert choose(10**6, {32 * 2**i: 2.0**i for i in range(6)}) == 1024
    # The tenth of the pictures, and the memory.
    assert choose(1300, {32: 100, 64: 190, 128: 380}) == 128
    assert choose(1279, {32: 100, 64: 190}) == 64
    assert choose(10**6, {32: 100, 64: 190, 128: None}) == 64
    assert capsys.readouterr().err.endswith("128: does not fit)\n")
    assert choose(10**6, {32: None}) == 32  # and train.py says what that needs


@pytest.mark.parametrize(
    "pictures, size", [(0, 2), (17, 2), (39, 2), (40, 4), (319, 16), (320, 32), (639, 32)]
)
def test_few_pictures_need_no_trial(choose, pictures, size):
    assert choose(pictures, {}) == size


def test_several_devices_are_refused(monkeypatch, choose):
    monkeypatch.setattr(device, "gpus", lambda: ["GPU:0", "GPU:1"])
    with pytest.raises(UsageError, match="works on one device; give a number"):
        choose(10**6, {})


TRIAL = """
import train
from suite.process import lifetime
from suite.training import batch_size

batch_size.SIZES, batch_size.SHARE = (2, 4, 8), 4
lifetime.run(train.main)
"""


@pytest.mark.slow
def test_it_is_tried_and_kept(workspace, tmp_path, monkeypatch):
    """With sizes that suit few pictures."""
    script = tmp_path / "trial.py"
    script.write_text(TRIAL)
    monkeypatch.setenv("PYTHONPATH", finding(ROOT)["PYTHONPATH"])
    output = str(tmp_path / "model")
    options = ["--data", workspace.records, "--output", output, "--mini", "--save_num", 1, "--bn_batches", 0]
    options += ["--batch_size", "auto"]
    _, said = run(script, *options, "--step", 1)
    assert "trying batches of 2 to 8 pictures" in said and "pictures/s" in said
    size = jsonfile.read(output + "/model.json")["options"]["batch_size"]
    assert size in (2, 4, 8) and "steps: 1 of %d pictures" % size in said
    _, said = run(script, *options, "--step", 2)
    assert "trying" not in said and "steps: 2 of %d pictures" % size in said
    assert len([row for row in read_log(output) if row["loss"]]) == 2
