"""FlowIO.py --preview: a sheet of what the network will see."""

import collections
import os

import numpy as np
from helpers import (
    draw_dataset,
    file_bytes,
    folder_bytes,
    gradient,
    plain,
    refuses,
    run,
)
from PIL import Image

from suite.files.schemas import SPLITS
from suite.pictures import drawing
from suite.pictures.folders import SourceFile
from suite.records import preview


def test_the_preview_shows_each_class(tmp_path):
    """And nothing else happens: the records that are there stay."""
    draw_dataset(tmp_path / "dataset", 7, ["apple", "kiwi"])
    os.rename(str(tmp_path / "dataset" / "apple"), str(tmp_path / "dataset" / "猫"))
    (tmp_path / "dataset" / "kiwi" / "bad.png").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.json").write_text("old")
    sheet = tmp_path / "sheet.png"
    arguments = ["--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32]
    more = ["--fit", "pad", "--preview", sheet, "--device", "gpu:0"]
    out, err = run("FlowIO.py", *arguments, *more, status=1)
    assert "2 of 2 classes" in err and "no GPU is of use here" in err and out == ""
    assert "1 of 15 files could not be used, the first: kiwi/bad.png (empty file)" in err
    assert err.endswith("nothing was converted; the same command without --preview does that\n")
    assert folder_bytes(str(tmp_path / "out")) == {"dataset.json": b"old"}
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "out", "sheet.png"]
    image = np.asarray(Image.open(str(sheet)).convert("RGB")).astype(int)
    tiles = (image < 250).any(2).mean()
    assert image.shape[0] > 200 and image.shape[1] > 1300 and 0.5 < tiles < 1
    refuses("FlowIO.py", *arguments, "--preview", tmp_path / "sheet.jpg", says=".png", status=2)
    refuses("FlowIO.py", *arguments, "--preview", tmp_path / "no" / "a.png", says="no such folder", status=2)


def test_the_preview_mirrors_every_other_view(tmp_path, monkeypatch):
    """Of a picture whose red grows from left to right; for twenty classes, so that no chance can do it."""
    rows = []
    monkeypatch.setattr(drawing, "contact_sheet", lambda columns, given: rows.extend(given) or plain())
    classes = ["%d" % i for i in range(20)]
    jpeg = file_bytes(gradient((37, 37)), "JPEG", quality=95)
    jpegs = {(split, label): [jpeg] for split in SPLITS for label in range(20)}
    preview.draw(str(tmp_path / "sheet.png"), classes, jpegs, 32, "crop")
    assert len(rows) == 20
    for _, (*unchanged, flip, standard) in rows:
        mirrored = [
            [int(each[0, 0, 0]) > int(each[0, -1, 0]) for each in map(np.asarray, group)]
            for group in (*unchanged, flip, standard)
        ]
        assert mirrored == [[False]] * 3 + [[False, True], [False, True, False, True]]


def test_the_preview_looks_at_some_pictures_only():
    many = [SourceFile(None, label, "%d/%d" % (label, i)) for label in range(99) for i in range(1000)]
    chosen = preview.sample(many, 0)
    counts = collections.Counter(source.label for source in chosen)
    assert counts == dict.fromkeys(range(preview.MOST_CLASSES), 8)
    assert chosen == preview.sample(many, 0) != preview.sample(many, 1)
    assert len({source.filename.split("/")[1] for source in chosen}) > 100  # and not the first of each
    split = [source._replace(given=SPLITS[i % 3]) for i, source in enumerate(many[:1000])]
    assert collections.Counter(each.given for each in preview.sample(split, 0)) == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    assert len(preview.sample(many[:3], 0)) == 3
