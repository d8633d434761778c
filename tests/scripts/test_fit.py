"""--fit from end to end: what the network sees is what the records hold, in all scripts."""

import json
import os
import random
import shutil

import pytest
from helpers import pixels, refuses, run
from PIL import Image, ImageDraw

from suite.evaluation import report
from suite.files import jsonfile
from suite.model import modelfolder
from suite.process.tf_versions import tf
from suite.records import reading

COLOURS = {"blue": (30, 60, 220), "red": (220, 50, 30)}


def draw(folder, count, seed):
    """Wide pictures whose class is told by their two ends, which the centre square leaves out."""
    rng = random.Random(seed)
    for label, colour in COLOURS.items():
        os.makedirs(str(folder / label))
        for number in range(count):
            image = Image.new("RGB", (120, 40), tuple(rng.randrange(60, 200) for _ in range(3)))
            pen = ImageDraw.Draw(image)
            pen.rectangle((0, 0, 12, 40), colour)
            pen.rectangle((108, 0, 120, 40), colour)
            image.save(str(folder / label / ("%d.%s" % (number, ("jpg", "png")[number % 2]))))


@pytest.fixture(scope="module", params=["pad", "squash"])
def place(request, tmp_path_factory):
    """A folder where pictures have been converted and trained on with a fit, and the fit."""
    folder = tmp_path_factory.mktemp(request.param)
    draw(folder / "dataset", 40, 0)
    draw(folder / "new", 6, 1)
    flowio = ["--dataset", "dataset", "--image_size", 32, "--fit"]
    _, err = run("FlowIO.py", *flowio, "crop", "--output", "cropped", cwd=str(folder))
    assert "leaves out more than 50% of 80 of 80 pictures, the first: blue/0.jpg; --fit pad" in err
    _, err = run("FlowIO.py", *flowio, request.param, "--output", "records", cwd=str(folder))
    assert "leaves out" not in err
    train = ["--data", "records", "--output", "model", "--mini", "--step", 40, "--batch_size", 16]
    run("train.py", *train, "--save_num", 40, "--augment", "flip", cwd=str(folder))
    return folder, request.param


pytestmark = pytest.mark.slow


def test_it_is_kept(place):
    folder, fit = place
    records = reading.load_records(str(folder / "records"))
    assert records.fit == modelfolder.load_model(str(folder / "model")).fit == fit
    assert reading.load_records(str(folder / "cropped")).fit == "crop"
    (path,) = records.shard_paths("test")
    for record in tf.python_io.tf_record_iterator(path):
        fields = tf.train.Example.FromString(record).features.feature
        size = [fields["image/" + side].int64_list.value[0] for side in ("width", "height")]
        assert size == [32, 32] and pixels(fields["image/encoded"].bytes_list.value[0]).shape == (32, 32, 3)
    model = modelfolder.Model("", "", {}, sorted(COLOURS), 32, "per_image", False)
    for _, width, height, side in report.read_pictures(records, "test", [0, 1], model).values():
        assert (width, height, side) == (32, 32, 32)  # a thumbnail without a frame


def test_what_a_crop_leaves_out_is_learnt_and_all_scripts_see_the_same(place):
    folder, _ = place
    results = []
    for source in (["--data", "records", "--split", "train"], ["--pictures", "new"]):
        output = "evaluation %d" % len(results)
        run("evaluate.py", "--model", "model", *source, "--output", output, cwd=str(folder))
        results.append(json.loads((folder / output / "evaluation.json").read_text()))
    assert min(each["accuracy"] for each in results) > 0.9
    rows = (folder / "evaluation 1" / "predictions.csv").read_text(encoding="utf-8-sig").splitlines()[1:]
    evaluated = {row.split(",")[0]: row.split(",")[3] for row in rows}
    for options in ([], ["--sandbox"]):
        out, _ = run("predict.py", "new", "--model", "model", "--json", *options, cwd=str(folder))
        answers = [json.loads(line) for line in out.splitlines()]
        assert len(answers) == len(evaluated) == 12
        for answer in answers:
            expected = float(evaluated[os.path.relpath(answer["image"], "new")])
            assert answer["predictions"][0]["probability"] == pytest.approx(expected, abs=1e-4)
    _, err = run("export.py", "--model", "model", "--output", "exported", cwd=str(folder))
    assert err.count("the same answer on 15 of 15") == 2


@pytest.mark.parametrize("place", ["pad"], indirect=True)
def test_what_was_made_with_another_fit_is_refused(place, monkeypatch):
    folder, fit = place
    monkeypatch.chdir(folder)
    says = "cropped: made with --fit crop, and model was trained on --fit %s" % fit
    refuses("evaluate.py", "--model", "model", "--data", "cropped", "--output", "no", says=says, status=1)
    says = "model was trained on records of other fit (%s, now crop); --output model-2" % fit
    train = ["--data", "cropped", "--output", "model", "--mini", "--batch_size", 16, "--step", 50]
    refuses("train.py", *train, says=says, status=1)
    # A model.json of before there was this option.
    shutil.copytree("model", "old")
    config = jsonfile.read("old/model.json")
    del config["fit"]
    jsonfile.write("old/model.json", config)
    run("evaluate.py", "--model", "old", "--data", "cropped", "--output", "of old")
    for data, says in (
        (["--data", "records"], "records: made with --fit %s, and old was trained on --fit crop" % fit),
        (["--pictures", "new"], "--compare old: sees 32 pixels (--fit crop), model 32 (%s); with" % fit),
    ):
        more = ["--compare", "old", "--output", "no"]
        refuses("evaluate.py", "--model", "model", *data, *more, says=says, status=1)
    assert not os.path.exists("no")
    _, err = run("train.py", "--data", "cropped", "--output", "old", *train[4:])
    assert "resuming at step 40" in err
