"""Names that files may have and nobody expects, and what may stand in tables and on terminals."""

import csv
import json
import os
import shutil

import pytest
from helpers import draw_demo, run
from PIL import Image

from suite.files import csvfile

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
    run("train.py", *arguments, cwd=str(folder))
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
