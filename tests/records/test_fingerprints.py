"""fingerprints.py, and what is said where a model has seen the pictures before."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from helpers import draw_dataset, run
from hypothesis import given
from hypothesis import strategies as st

from suite.model import warmstart
from suite.process.tf_versions import tf
from suite.records import fingerprints
from suite.records.reading import load_records
from suite.training import config
from suite.training.options import parse_options


def of(numbers):
    return fingerprints.of(hashlib.sha256(b"a picture %d" % number).digest() for number in numbers)


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)))
def test_small_sets_are_counted(one, other):
    assert fingerprints.count_shared(of(one), of(other)) == (len(one & other), True)
    both = fingerprints.union(of(one), of(other))
    assert np.array_equal(both.numbers, of(one | other).numbers)
    again = fingerprints.from_json(json.loads(json.dumps(fingerprints.to_json(both))))
    assert np.array_equal(again.numbers, both.numbers) and again.limit == both.limit


def test_large_sets_are_estimated(monkeypatch):
    monkeypatch.setattr(fingerprints, "LARGEST", 1000)
    one, other = range(20000), range(15000, 25000)
    for small in (of(other), fingerprints.union(of(range(15000, 21000)), of(range(20000, 25000)))):
        assert len(small.numbers) == 1000
        count, exact = fingerprints.count_shared(of(one), small)
        assert not exact and 4000 < count < 6000  # of 5000: some 250 in the sample, deviation 15
    assert fingerprints.count_shared(of(one), of(range(20000, 30000)))[0] == 0
    for start in range(0, 20000, 100):  # a few of them: never more than there are
        assert fingerprints.count_shared(of(one), of(range(start, start + 15)))[0] <= 15


def test_what_an_older_version_wrote_is_not_known():
    assert fingerprints.from_json(None) is None
    assert fingerprints.union(None, of([1])) is None


# --- with the scripts ----------------------------------------


@pytest.fixture(scope="module")
def another_split(workspace, tmp_path_factory):
    """The workspace's pictures, and some more, split by another seed."""
    folder = tmp_path_factory.mktemp("another split")
    shutil.copytree(workspace.dataset, str(folder / "dataset"))
    for number in range(5):
        source = folder / "dataset" / "kiwi" / ("%d.png" % number)
        (folder / "dataset" / "kiwi" / ("new %d.png" % number)).write_bytes(source.read_bytes() + b"\n")
    records = str(folder / "records")
    run("FlowIO.py", "--dataset", folder / "dataset", "--output", records, "--image_size", 32, "--seed", 1)
    return records


def names(records, split):
    found = set()
    for path in load_records(records).shard_paths(split):
        for record in tf.python_io.tf_record_iterator(path):
            features = tf.train.Example.FromString(record).features.feature
            found.add(os.fsdecode(features["image/filename"].bytes_list.value[0]))
    return found


def test_the_same_pictures_with_other_labels_are_other_ones(tmp_path):
    """Also where two were exchanged, so that as many are in each class as before."""
    for split in ("train", "val"):
        draw_dataset(tmp_path / "dataset" / split, 3, ["apple", "kiwi"], seed=len(split))
    same = ["--dataset", tmp_path / "dataset", "--image_size", 32, "--output"]
    run("FlowIO.py", *same, tmp_path / "before")
    apple, kiwi = (tmp_path / "dataset" / "val" / label for label in ("apple", "kiwi"))
    (apple / "0.png").rename(kiwi / "moved.png")
    (kiwi / "0.png").rename(apple / "moved.png")
    run("FlowIO.py", *same, tmp_path / "after")
    before, after = (load_records(str(tmp_path / output)) for output in ("before", "after"))
    assert (before.counts, before.fingerprints) == (after.counts, after.fingerprints)
    assert before.identity("val") != after.identity("val")
    assert load_records(str(tmp_path / "before")).identity("val") == before.identity("val")


def test_weights_that_were_trained_on_what_validates_are_warned_of(workspace, another_split, capsys):
    """And a model that is not trained, only made of them, has seen what they have seen and no more."""
    records, weights = load_records(another_split), warmstart.open_weights(workspace.model, None)
    options = parse_options(["--model", workspace.model, "--data", another_split, "--step", "0"])
    config.say_once.cache_clear()
    config.complete_options(options, records, None, weights)
    leaked = len(names(workspace.records, "train") & names(another_split, "val"))
    says = "warning: %d of the pictures to validate on were trained on; that flatters the validation\n"
    assert leaked > 3 and says % leaked in capsys.readouterr().err
    known = load_records(workspace.records).fingerprints
    nothing = fingerprints.to_json(fingerprints.of([]))
    for each, seen in (
        (weights, known),
        (weights._replace(fingerprints=None), dict.fromkeys(known, nothing)),
    ):
        made = config.make_config(options, records, None, each)["dataset"]["fingerprints"]
        assert made == {split: seen[split] for split in ("train", "val")}


@pytest.mark.slow
def test_evaluation_says_what_was_trained_on(workspace, another_split, tmp_path):
    """The truth by file names: a split by another seed holds pictures that were trained on."""
    arguments = ["--model", workspace.model, "--output", tmp_path / "out", "--data"]
    _, err = run("evaluate.py", *arguments, another_split, "--compare", workspace.model)
    shared = [
        len(names(workspace.records, split) & names(another_split, "test")) for split in ("train", "val")
    ]
    total = len(names(another_split, "test"))
    assert shared[0] > 5
    assert "warning: %d of %d pictures were trained on" % (shared[0], total) in err
    results, _ = workspace.results(str(tmp_path / "out"))
    assert [results["seen"][name] for name in ("trained_on", "validated_on")] == shared

    assert "warning: %s: %d of %d pictures were trained on" % (workspace.model, shared[0], total) in err
    _, err = run("evaluate.py", *arguments, workspace.records)
    assert "trained on" not in err
    _, err = run("evaluate.py", *arguments, workspace.records, "--split", "train")
    total = len(names(workspace.records, "train"))
    assert "warning: %d of %d pictures were trained on" % (total, total) in err


@pytest.mark.slow
def test_a_resume_on_other_pictures_measures_the_best_anew(workspace, another_split, copy):
    """A best that was measured on pictures which are trained on now would never be beaten."""
    model = copy
    with open(os.path.join(model, "best", "best.json"), encoding="utf-8") as file:
        before = json.load(file)
    arguments = ["--output", model, "--data", another_split, "--save_num", 2, "--bn_batches", 0, "--step"]
    _, err = run("train.py", *arguments, 102)
    trained, validated = (
        len(names(workspace.records, split) & names(another_split, split)) for split in ("train", "val")
    )
    leaked = len(names(workspace.records, "train") & names(another_split, "val"))
    assert "%d were trained on so far" % trained in err and "%d were validated on" % validated in err
    assert "warning: %d of the pictures to validate on were trained on" % leaked in err
    assert (
        "the best so far, step %d: validation accuracy %.4f, on" % (before["step"], before["accuracy"]) in err
    )
    with open(os.path.join(model, "best", "best.json"), encoding="utf-8") as file:
        assert json.load(file)["pictures"] != before["pictures"]

    _, err = run("train.py", *arguments, 104)  # on the same ones again
    assert "the best so far" not in err and "others than before" not in err
    _, err = run(
        "evaluate.py", "--model", model, "--data", workspace.records
    )  # what it saw at first, it has seen
    total = len(names(workspace.records, "test"))
    now_trained = len(names(another_split, "train") & names(workspace.records, "test"))
    assert "warning: %d of %d pictures were trained on" % (now_trained, total) in err
