"""Names that files may have and nobody expects, and what may stand in tables and on terminals."""

import csv
import json
import os
import shutil

import pytest
from helpers import draw_dataset, draw_demo, refuses, run
from PIL import Image

from suite.files import csvfile
from suite.model import modelfolder
from suite.process.errors import UserError

CLASSES = ["new\nline", "'quo\"te", "<script>alert(1)", "-rf", "=1+1", "猫🐈", "\x1b[31mred"]
CLASSES.append("x" * 255)
FILES = ["plain.png", "--help.png", "new\nline.png", "<b>&amp;.png", "up..%2f.png", "emoji 🐈.png"]
FILES.append("y" * 250 + ".png")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A data set of odd names, its records, a model of it and an evaluation of that."""
    folder = tmp_path_factory.mktemp("odd")
    for number, name in enumerate(CLASSES):
        os.makedirs(str(folder / "dataset" / name))
        for i, file in enumerate(FILES):
            picture = draw_demo.picture("kiwi", 40, draw_demo.random.Random(100 * number + i))
            picture.save(str(folder / "dataset" / name / file))
    bad = os.fsencode(str(folder / "dataset" / "-rf")) + b"/not UTF-8 \xff.png"
    with open(bad, "wb") as file:
        file.write(b"no picture")
    run(
        "FlowIO.py",
        "--image_size",
        32,
        "--dataset",
        "dataset",
        "--output",
        "records",
        cwd=str(folder),
        status=1,
    )
    arguments = ["--data", "records", "--output", "model", "--mini", "--step", 2, "--batch_size", 4]
    run("train.py", *arguments, "--save_num", 2, "--bn_batches", 0, cwd=str(folder))
    out, _ = run("evaluate.py", "--data", "records", "--model", "model", cwd=str(folder))
    return folder, out


def rows(path):
    with open(str(path), encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_json_and_tables_are_well_formed(odd):
    folder, out = odd
    dataset = json.loads((folder / "records" / "dataset.json").read_text("utf-8"))
    assert sorted(dataset["classes"]) == sorted(CLASSES)
    table = rows(folder / "model" / "evaluation" / "predictions.csv")
    assert {len(row) for row in table} == {4 + len(CLASSES)} and len(table) - 1 == sum(
        dataset["counts"]["test"].values()
    )
    for row in table + rows(folder / "records" / "skipped.csv")[1:]:
        assert not [cell for cell in row if cell[0] in "=+-@\t\r"]
    assert any(row[1] == "'=1+1" for row in table[1:]) and any(row[1] == "'-rf" for row in table[1:])
    assert "not UTF-8 \\udcff.png" in rows(folder / "records" / "skipped.csv")[1][0]
    assert "\x1b" not in out and "\\x1b[31mred" in out and "new\\x0aline" in out


@pytest.mark.slow
def test_the_report_runs_no_name(odd):
    page = (odd[0] / "model" / "evaluation" / "report.html").read_text("utf-8")
    assert "alert(1)" in page and "<script>alert(1)" not in page


@pytest.mark.slow
def test_prediction(odd):
    folder, _ = odd
    out, _ = run("predict.py", "dataset", "--model", "model", "--json", cwd=str(folder), status=1)
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == len(CLASSES) * len(FILES) + 1
    out, err = run("predict.py", "dataset", "--model", "model", cwd=str(folder), status=1)
    assert len(out.splitlines()) == len(CLASSES) * len(FILES) and "\x1b" not in out + err
    out, _ = run("predict.py", "dataset", "--model", "model", "--csv", cwd=str(folder), status=1)
    assert not [row for row in csv.reader(out.splitlines()) if row[1].startswith(("=", "-"))]
    # A name that looks like an option needs what any program needs.
    shutil.copy(str(folder / "dataset" / "-rf" / "plain.png"), str(folder / "-x.png"))
    out, _ = run("predict.py", "--model", "model", "--", "-x.png", cwd=str(folder))
    assert out.startswith("-x.png: ")
    run("predict.py", "--model", "model", "--save", "named", "./-x.png", cwd=str(folder))
    assert Image.open(str(folder / "named" / "-x.jpg"))


# --- of folders ----------------------------------------

# All that shells, TensorFlow, argparse, URLs and formats take for something else. TensorFlow would find the
# checkpoints of LIKE by the name of ODD.
ODD, LIKE = "-v[1]*?\\ #%s%41,;{}&$(x)'\"é猫\n", "-v1x- #%s%41,;{}&$(x)'\"é猫\n"


@pytest.mark.slow
def test_any_folder_will_do(tmp_path):
    """All scripts from end to end, each path with all odd signs; nothing beside them is touched."""
    here, like = tmp_path / ODD, tmp_path / LIKE / ODD
    draw_dataset(here / "dataset" / ODD, 12)
    os.rename(str(here / "dataset" / ODD), str(here / ODD))
    dataset, records, model = here / ODD, here / ("r" + ODD), here / ("m" + ODD)
    for folder in (tmp_path / LIKE / model.name, like):
        folder.mkdir(parents=True)
        (folder / "model.ckpt-1.index").write_text("another's")
    flowio = ["--dataset", dataset, "--output", records, "--image_size", 32]
    run("FlowIO.py", *flowio, "--preview", here / "a[1].png")
    run("FlowIO.py", *flowio)
    train = ["--data", records, "--mini", "--batch_size", 4, "--save_num", 1, "--keep", 2, "--bn_batches"]
    run("train.py", *train, 0, "--output", model, "--step", 2)
    assert "resuming at step 2" in run("train.py", *train, 2, "--output", model, "--step", 4)[1]
    kept = {name for name in os.listdir(str(model)) if name.endswith(".index")}
    assert kept == {"model.ckpt-3.index", "model.ckpt-4.index"}
    for folder in (tmp_path / LIKE / model.name, like):
        assert (folder / "model.ckpt-1.index").read_text() == "another's"
    other = here / ("o" + ODD)
    _, err = run("train.py", *train, 0, "--output", other, "--step", 0, "--model", model)
    assert "weights of" in err
    same = ["--data", records, "--model", model]
    out, _ = run("evaluate.py", *same, "--compare", other, "--output", here / ("e" + ODD))
    assert "McNemar" in out and (here / ("e" + ODD) / "report.html").exists()
    picture = dataset / "kiwi" / "1.png"
    for checkpoint in (model, model / "model.ckpt-4"):  # the latter without its cache
        out, _ = run("predict.py", picture, "--json", "--model", checkpoint, "--save", here / ("s" + ODD))
        assert json.loads(out)["image"] == str(picture)
    assert sorted(os.listdir(str(here / ("s" + ODD)))) == ["1-2.jpg", "1.jpg"]
    for format in ("saved_model", "frozen_graph", "tflite", "onnx"):
        _, err = run("export.py", "--model", model, "--format", format, "--output", here / (format + ODD))
        assert "the same answer on 15 of 15 pictures" in err
    made = {name[: -len(ODD)] for name in os.listdir(str(here)) if name.endswith(ODD)}
    assert made == {*"rmoes", "", "saved_model", "frozen_graph", "tflite", "onnx"}


@pytest.mark.slow
def test_a_leading_dash_and_an_odd_working_directory(workspace, tmp_path):
    """Relative paths, as TensorFlow gets them then."""
    here = tmp_path / ODD
    here.mkdir()
    train = ["--data", workspace.records, "--mini", "--batch_size", 4, "--bn_batches", 0, "--output=-m[1]"]
    run("train.py", *train, "--step", 1, cwd=str(here))
    _, err = run("train.py", *train, "--step", 2, cwd=str(here))
    assert "resuming at step 1" in err and "next: python evaluate.py '--model=-m[1]'" in err
    run("evaluate.py", "--data", workspace.records, "--model=-m[1]", cwd=str(here))


@pytest.mark.parametrize(
    "script, option",
    [
        ("FlowIO.py", "output"),
        ("train.py", "data"),
        ("train.py", "output"),
        ("train.py", "model"),
        ("evaluate.py", "compare"),
        ("evaluate.py", "pictures"),
        ("predict.py", "model"),
        ("export.py", "output"),
    ],
)
def test_a_path_that_is_not_utf8(script, option, tmp_path):
    """Refused before any work: TensorFlow cannot be given it."""
    path = os.fsdecode(b"no\xfftext")
    more = ["any.jpg"] if script == "predict.py" else []
    refuses(script, *more, "--" + option, path, says="--%s 'no\\udcfftext': must be UTF-8" % option, status=2)


def test_checkpoints_that_are_named_like_patterns(tmp_path):
    """They would have to be found by the name that matches them."""
    (tmp_path / "m[1].ckpt.index").write_text("")
    for path in (tmp_path / "m[1].ckpt", tmp_path / "[2]" / "m*.ckpt"):
        with pytest.raises(UserError, match="for a pattern; give its files another name"):
            modelfolder.literal(str(path))
    assert modelfolder.literal("models/resnet/model.ckpt-1") == "models/resnet/model.ckpt-1"
    (tmp_path / "[2]").mkdir()
    inside = modelfolder.literal(str(tmp_path / "[2]" / "model.ckpt"))
    assert not modelfolder.PATTERN.search(inside) and os.path.samefile(
        os.path.dirname(inside), str(tmp_path / "[2]")
    )
    os.rmdir(str(tmp_path / "[2]"))  # as best/ may go, and come again
    (tmp_path / "[2]").mkdir()
    assert os.path.samefile(modelfolder.literal(str(tmp_path / "[2]")), str(tmp_path / "[2]"))


# --- in tables ----------------------------------------


@pytest.mark.parametrize(
    "text, cell",
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+1", "'+1"),
        ("-1", "-1"),
        ("-1.5", "-1.5"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("cat", "cat"),
        ("", ""),
    ],
)
def test_cells_that_a_spreadsheet_would_run(text, cell):
    assert csvfile.harmless(text) == cell
