"""Which fold a picture is in, and what is read of some folds."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import draw_dataset, drawing, run
from hypothesis import given
from hypothesis import strategies as st

from suite.files import jsonfile
from suite.process.errors import UserError
from suite.records import fingerprints, folds, reading


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=60),
    st.integers(2, 6),
    st.integers(-5, 5),
)
def test_groups_stay_whole_and_no_fold_is_empty(pictures, count, seed):
    labels, groups = (np.array(each) for each in zip(*pictures))
    assigned = folds.assign(labels, groups, count, seed)
    assert set(assigned) <= set(range(1, count + 1))
    assert all(len(set(assigned[groups == group])) == 1 for group in groups)
    assert len(set(assigned)) == min(count, len(set(groups)))
    assert np.array_equal(assigned, folds.assign(labels, groups, count, seed))


def test_each_fold_has_as_many_of_each_class():
    labels = np.random.RandomState(0).randint(0, 4, 203)
    assigned = folds.assign(labels, np.arange(203), 5, 0)
    table = np.array([[np.sum((assigned == i) & (labels == j)) for j in range(4)] for i in range(1, 6)])
    assert np.ptp(table, axis=0).max() <= 1 and np.ptp(table.sum(1)) <= 1
    assert np.any(assigned != folds.assign(labels, np.arange(203), 5, 1))


@pytest.fixture(scope="module")
def records(workspace):
    return reading.load_records(workspace.records)


@pytest.fixture(scope="module")
def plan(records):
    return folds.make(records, 3, 0)


def names_of(records, split, train=False):
    """The file names of a split, in order, or of one pass over it in training; and the labels."""
    count, names, labels = records.count(split), [], []
    with tf.Graph().as_default(), tf.Session() as session:
        if train:
            dataset = reading.read_for_training(records, split, 1, "none", seed=0)
        else:
            dataset = reading.read_for_evaluation(records, split, 7, "per_image")
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        while len(names) < count:
            names_, labels_ = session.run([batch["filename"], batch["label"]])
            names += [name.decode() for name in names_]
            labels += [records.classes[i] for i in labels_]
    return names, labels


def test_each_picture_is_held_out_once(records, plan):
    everything = names_of(records, "train")[0] + names_of(records, "val")[0]
    held_out = []
    for number in (1, 2, 3):
        names, labels = names_of(folds.choose(records, plan, "folds", [number]), "folds")
        trained, trained_labels = names_of(folds.to_train(records, plan, number), "train", train=True)
        assert names == [name for name in everything if name in set(names)]  # in order
        assert sorted(names + trained) == sorted(everything)
        counts = folds.to_train(records, plan, number).counts["train"]
        assert counts == dict(collections.Counter(trained_labels))
        assert plan["counts"][number - 1] == dict(collections.Counter(labels))
        held_out += names
    assert sorted(held_out) == sorted(everything)
    assert names_of(folds.choose(records, plan, "folds", [1, 2, 3]), "folds")[0] == everything
    assert not set(everything) & set(names_of(records, "test")[0])


def test_a_fold_knows_what_it_may_have_seen(records, plan):
    part = folds.to_train(records, plan, 1)
    assert part.count("val") == 0 and part.shard_names("val") == []
    seen = fingerprints.from_json(part.fingerprints["train"])
    test = fingerprints.from_json(records.fingerprints["test"])
    assert fingerprints.size(seen) == records.count("train") + records.count("val")
    assert fingerprints.count_shared(seen, test) == (0, True)
    assert fingerprints.size(fingerprints.from_json(part.fingerprints["val"])) == 0
    older = dataclasses.replace(records, fingerprints={})
    assert folds.to_train(older, plan, 1).fingerprints == {}


def test_near_copies_share_a_fold(tmp_path):
    """Three of each of some drawings, in qualities of their own, wherever FlowIO.py put them."""
    draw_dataset(tmp_path / "dataset", 4)
    for number in range(20):
        image, folder = drawing(number), tmp_path / "dataset" / ["banana", "grapes"][number % 2]
        for quality in (95, 90, 85):
            image.save(str(folder / ("%d-%d.jpg" % (number, quality))), quality=quality)
    run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", tmp_path / "records", "--image_size", 64)
    records = reading.load_records(str(tmp_path / "records"))
    plan = folds.make(records, 5, 0)
    place = {}
    for number in range(1, 6):
        for name in names_of(folds.choose(records, plan, "folds", [number]), "folds")[0]:
            place[name] = number
    drawn = {name.split("/")[1].split("-")[0] for name in place if "-" in name}
    assert len(drawn) > 15
    for each in drawn:
        assert len({number for name, number in place.items() if "/%s-" % each in name}) == 1


def test_the_plan_is_of_these_records_alone(records, plan, tmp_path):
    jsonfile.write(folds.path(str(tmp_path)), plan)
    assert folds.read(str(tmp_path), records)["files"] == plan["files"]
    with pytest.raises(UserError, match="folds.json: the folds are not of .* or it has changed since"):
        folds.read(str(tmp_path), dataclasses.replace(records, digest="0" * 64))
    older = dataclasses.replace(records, digest=None)
    jsonfile.write(folds.path(str(tmp_path)), dict(plan, digest=None))
    assert folds.read(str(tmp_path), older)["digest"] is None


def test_more_folds_than_pictures(records):
    with pytest.raises(UserError, match="--folds 100: .* has only [0-9]+ pictures to train and validate on"):
        folds.make(dataclasses.replace(records, counts=dict(records.counts, train={})), 100, 0)
