"""evaluate.py --pictures: class folders measured directly."""

import csv
import os
import shutil

import pytest
from helpers import draw_dataset, file_bytes, gradient, refuses, run

from suite.files import jsonfile


def evaluate(workspace, pictures, output, *more, status=0):
    arguments = ["--model", workspace.model, "--pictures", pictures, "--output", output]
    out, err = run("evaluate.py", *arguments, *more, status=status)
    return (*workspace.results(str(output)), out, err)


@pytest.fixture
def tested(workspace, tmp_path):
    """The files of the records' test split, in class folders."""
    _, rows = workspace.results()
    for row in rows:
        target = tmp_path / "tested" / row["filename"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.join(workspace.dataset, row["filename"]), str(target))
    return tmp_path / "tested"


@pytest.mark.slow
@pytest.mark.parametrize("split", [None, "test", "Test"])
def test_the_same_pictures_get_the_same_answers_as_from_records(workspace, tested, tmp_path, split):
    if split:
        (tmp_path / "splits").mkdir()
        tested.rename(tmp_path / "splits" / split)
        tested = tmp_path / "splits"
        draw_dataset(tested / "train", 1, ["kiwi"])
    expected, rows = workspace.results()
    results, found, out, err = evaluate(workspace, tested, tmp_path / "out")
    said = "of %s only the pictures to test are measured; --pictures %s/train are others\n" % (tested, tested)
    assert (said in err) == bool(split)
    names = [
        {os.path.join(*row["filename"].split(os.sep)[-2:]): row for row in each} for each in (rows, found)
    ]
    assert names[0] and names[0].keys() == names[1].keys()
    for name, row in names[0].items():
        assert names[1][name]["predicted"] == row["predicted"]
        assert float(names[1][name]["probability"]) == pytest.approx(float(row["probability"]), abs=1e-4)
    assert results["confusion_matrix"] == expected["confusion_matrix"]
    assert results["seen"] == {"trained_on": 0, "validated_on": 0}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "pictures of %s." % tested in page and "the test split" not in page
    assert results["pictures"] == str(tested) and "%d pictures of %s" % (results["n"], tested) in out
    assert sorted(os.listdir(str(tmp_path / "out"))) == [
        "evaluation.json", "predictions.csv", "report.html", "skipped.csv",
    ]  # fmt: skip


def test_classes_that_the_model_lacks_are_counted_apart(workspace, tmp_path):
    """One class of the model's, one that it does not know, one empty, and a file that is no picture."""
    draw_dataset(tmp_path / "new", 5, ["kiwi", "apple"], seed=9)
    (tmp_path / "new" / "grapes").mkdir()
    (tmp_path / "new" / "kiwi" / "notes.png").write_text("no picture")
    results, rows, _, err = evaluate(workspace, tmp_path / "new", tmp_path / "out", status=1)
    assert "left out: 5 pictures of classes that %s does not know: apple" % workspace.model in err
    assert "1 file could not be used, the first: %s" % os.path.join("kiwi", "notes.png") in err
    assert results["unknown_classes"] == {"apple": 5} and results["n"] == len(rows) == 5
    with open(str(tmp_path / "out" / "skipped.csv"), encoding="utf-8-sig", newline="") as file:
        assert [row["filename"] for row in csv.DictReader(file)] == [os.path.join("kiwi", "notes.png")]


def test_pictures_that_were_trained_on_are_counted(workspace, tmp_path):
    _, _, _, err = evaluate(workspace, workspace.dataset, tmp_path / "out")
    assert "of 120 pictures were trained on; this is not the figure of a test" in err


@pytest.mark.slow
def test_what_cannot_be_evaluated_is_one_line(workspace, tmp_path):
    def said(pictures, says, *more, status=1):
        arguments = ["--model", workspace.model, "--pictures", pictures, "--output", tmp_path / "out", *more]
        refuses("evaluate.py", *arguments, says=says, status=status)
        assert not (tmp_path / "out").exists()

    said(tmp_path / "nowhere", "no such folder")
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.png").write_bytes(file_bytes(gradient(), "PNG"))
    said(tmp_path / "loose", "no class folders in it")
    other = jsonfile.read(os.path.join(workspace.model, "model.json"))
    shutil.copytree(workspace.model, str(tmp_path / "larger"))
    jsonfile.write(str(tmp_path / "larger" / "model.json"), dict(other, image_size=64))
    said(workspace.dataset, "sees 64 pixels", "--compare", tmp_path / "larger")
    draw_dataset(tmp_path / "other", 1, ["apple", "watermelon"])
    said(tmp_path / "other", "holds apple, watermelon, which %s does not know" % workspace.model)
    draw_dataset(tmp_path / "near", 1, ["kiwi"])
    (tmp_path / "near" / "kiwi").rename(tmp_path / "near" / "Kiwi")
    said(tmp_path / "near", "'Kiwi' and 'kiwi' differ by case")
    draw_dataset(tmp_path / "splits" / "train", 1, ["kiwi"])
    said(tmp_path / "splits", "no pictures in its test folder")
    draw_dataset(tmp_path / "mixed" / "test", 1, ["kiwi"])
    draw_dataset(tmp_path / "mixed", 1, ["kiwi"])
    said(tmp_path / "mixed", "--layout splits")
    (tmp_path / "bad" / "kiwi").mkdir(parents=True)
    (tmp_path / "bad" / "kiwi" / "a.png").write_bytes(b"x")
    said(tmp_path / "bad", "no usable picture")
    said(tmp_path / "bad", "not allowed with argument", "--data", "records", status=2)
    said(tmp_path / "bad", "--split: not with --pictures", "--split", "val", status=2)
    for option in (["--sandbox"], ["--layout", "classes"], ["--workers", 2]):
        says = "%s: only with --pictures; FlowIO.py has read those of --data" % option[0]
        refuses("evaluate.py", "--model", workspace.model, *option, says=says, status=2)
