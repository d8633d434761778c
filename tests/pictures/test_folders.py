"""A data set as people make it: layouts with what they must mean, and names that look alike."""

import os
import tempfile
import unicodedata

import hypothesis
import pytest
from hypothesis import strategies

from suite.pictures import folders
from suite.process import errors

SPELLINGS = {
    "train": ["train", "Train", "TRAIN", "training", "Training"],
    "val": ["val", "valid", "Valid", "validation", "VAL"],
    "test": ["test", "Test", "testing", "TESTING"],
}
LEFT_BEHIND = ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle"]
LEFT_BEHIND += [".ipynb_checkpoints", ".hidden", "@Recycle", "#snapshot"]
STRAYS = [".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", "._photo.jpg", "1.jpg:Zone.Identifier"]
CLASSES = ["cat", "dog", "0", "10", "猫", "caf\u00e9", "a b"]


def touch(*path):
    path = os.path.join(*map(str, path))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb"):
        pass


@strategies.composite
def layouts(draw):
    """(files to make, what they must mean: {(split, class, file)}), each path relative to the data set."""
    classes = draw(strategies.lists(strategies.sampled_from(CLASSES), min_size=2, max_size=4, unique=True))
    others = draw(strategies.sets(strategies.sampled_from(["val", "test"])))
    splits = draw(strategies.sampled_from([[None], ["train", *sorted(others)]]))
    made, meant = [], set()
    for split in splits:
        parent = draw(strategies.sampled_from(SPELLINGS[split])) if split else ""
        for name in classes:
            form = draw(strategies.sampled_from(["NFC", "NFD"]))
            folder = os.path.join(parent, unicodedata.normalize(form, name))
            below = draw(strategies.sampled_from(["", "deeper", os.path.join("deeper", "train")]))
            for number in range(draw(strategies.integers(1, 2))):
                path = os.path.join(folder, below, "%d.jpg" % number)
                made.append(path)
                meant.add((split, name, path))
            made += [
                os.path.join(folder, stray)
                for stray in draw(strategies.sets(strategies.sampled_from(STRAYS)))
            ]
            for left in draw(strategies.sets(strategies.sampled_from(LEFT_BEHIND), max_size=2)):
                made.append(os.path.join(folder, left, "thumbnail.jpg"))
        for left in draw(strategies.sets(strategies.sampled_from(LEFT_BEHIND), max_size=2)):
            made.append(os.path.join(parent, left, "cat", "thumbnail.jpg"))
    return made, meant


@hypothesis.given(layouts())
def test_a_layout_means_what_it_must(layout):
    made, meant = layout
    with tempfile.TemporaryDirectory() as dataset:
        for path in made:
            touch(dataset, path)
        classes, sources = folders.list_sources(dataset, "auto", False)
        found = {(source.given, classes[source.label], source.filename) for source in sources}
    assert found == meant and len(sources) == len(meant)
    assert sorted(classes) == sorted({name for _, name, _ in meant})


def make(folder, tops, inside=("cat", "dog")):
    for top in tops:
        for name in inside:
            touch(folder, top, name, "1.jpg")


@pytest.mark.parametrize(
    "tops, inside, says",
    [
        (
            ["train", "val", "extra"],
            ["cat", "dog"],
            "train, val could be splits, but extra could not; --layout splits",
        ),
        (["Test", "apple", "pear"], ["a"], "Test could be splits, but apple, pear could not"),
        (
            ["2019", "2020"],
            ["cat", "dog", "other"],
            "2019 and 2020 both hold cat, dog, other; if those are the classes",
        ),
        (
            ["cat", "dog"],
            ["train", "Test"],
            "cat and dog both hold test, train; if those are the classes or splits, turn",
        ),
        (["train", "valid", "val"], ["cat", "dog"], "val and valid are both val; keep one"),
        (["val", "test"], ["cat", "dog"], "has val and test but no train folder"),
        (["train"], ["cat"], "only one class, cat"),
        (["train", "test"], ["Cat", "cat"], "'Cat' and 'cat' differ by case or by spaces only"),
        (["dog ", "dog"], ["x"], "'dog' and 'dog ' differ by case or by spaces only"),
        (["dog", "dog\u00a0"], ["x"], r"'dog' and 'dog\xa0' differ by case or by spaces only"),
        (["CAFE\u0301", "caf\u00e9"], ["x"], r"'CAF\xc9' and 'caf\xe9' differ by case"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, tops, inside, says):
    make(tmp_path, tops, inside)
    with pytest.raises(errors.UserError) as caught:
        folders.list_sources(str(tmp_path), "auto", False)
    assert says in str(caught.value)


@pytest.mark.parametrize("tops", [["cat", "dog"], ["images"]])
def test_one_folder_of_the_same_name_below_each_class_is_no_repetition(tmp_path, tops):
    make(tmp_path, ["cat", "dog"], tops[:1])
    assert folders.list_sources(str(tmp_path), "auto", False)[0] == ["cat", "dog"]


def test_the_option_decides(tmp_path, capsys):
    make(tmp_path, ["train", "val", "extra"])
    classes, sources = folders.list_sources(str(tmp_path), "splits", False)
    assert classes == ["cat", "dog"] and {source.given for source in sources} == {"train", "val"}
    assert "passed over: extra, which is no split" in capsys.readouterr().err
    classes, sources = folders.list_sources(str(tmp_path), "classes", False)
    assert classes == ["extra", "train", "val"] and {source.given for source in sources} == {None}
    with pytest.raises(errors.UserError, match="train: has no train folder"):
        folders.list_sources(str(tmp_path / "train"), "splits", False)


def test_two_spellings_are_one_class_and_that_is_said(tmp_path, capsys):
    for number, name in enumerate(["caf\u00e9", "cafe\u0301", "tri"]):
        touch(tmp_path, name, "%d.jpg" % number)
    classes, sources = folders.list_sources(str(tmp_path), "auto", False)
    assert classes == ["caf\u00e9", "tri"] and [source.label for source in sources] == [0, 0, 1]
    assert r"is written in two ways ('caf\xe9' and 'cafe\u0301'); taken as one" in capsys.readouterr().err


def test_a_repetition_below_the_splits_is_refused(tmp_path):
    make(tmp_path / "train", ["2019", "2020"])
    with pytest.raises(
        errors.UserError, match="train: 2019 and 2020 both hold cat, dog; .* --layout splits says so"
    ):
        folders.list_sources(str(tmp_path), "auto", False)
    assert folders.list_sources(str(tmp_path), "splits", False)[0] == ["2019", "2020"]


def test_links_in_a_circle_change_nothing(tmp_path):
    make(tmp_path, ["2019", "2020"])
    for place in (tmp_path, tmp_path / "2019"):
        os.symlink("loop", str(place / "loop"))
    with pytest.raises(errors.UserError, match="2019 and 2020 both hold cat, dog"):
        folders.list_sources(str(tmp_path), "auto", False)
    assert folders.list_sources(str(tmp_path), "classes", False)[0] == ["2019", "2020"]


def test_words_that_differ_are_classes(tmp_path):
    """Also one that a careless list of systems' folders would swallow."""
    make(tmp_path, ["Masse", "Ma\u00dfe", "Recycled"], ["x"])
    assert sorted(folders.list_sources(str(tmp_path), "auto", False)[0]) == ["Masse", "Ma\u00dfe", "Recycled"]
