"""splits.py: who is trained on and who is tested on, copies and near-copies."""

import collections

import numpy as np
from helpers import drawing
from hypothesis import given, settings
from hypothesis import strategies as st

from suite.files.schemas import SPLITS
from suite.pictures import folders
from suite.pictures.perceptual_hash import perceptual_hash
from suite.records import splits


def make_picture(label, content, name, given=None, seed=0):
    digest = b"content %d" % content
    source = folders.SourceFile(given, label, name)
    return splits.EncodedPicture(source, digest, None, splits.position(digest, seed), 0, 0, 0, 0, "")


def make_pictures(labels, given=None, start=0):
    """One picture of its own content for each label."""
    return [make_picture(label, i, "%d.jpg" % i, given) for i, label in enumerate(labels, start)]


def split_of(assigned):
    return {picture.source.filename: split for split in SPLITS for picture in assigned[split]}


# --- by content ----------------------------------------

# A data set: the class and the content of each file. Equal contents are copies.
datasets = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=80)
ratios = st.tuples(st.integers(1, 10), st.integers(0, 10)).filter(lambda pair: sum(pair) <= 10)


def convert(dataset, train, val):
    files = [make_picture(label, content, str(i)) for i, (label, content) in enumerate(dataset)]
    kept, copies, conflicts = splits.drop_copies(files, "abcd")
    return files, kept, copies, conflicts, splits.assign_splits(kept, train / 10, val / 10)


@given(datasets, ratios)
def test_every_content_is_in_one_split_once_or_reported(dataset, ratio):
    files, kept, copies, conflicts, assigned = convert(dataset, *ratio)
    labels_of = collections.defaultdict(set)
    for label, content in dataset:
        labels_of[content].add(label)
    once = {content for content, labels in labels_of.items() if len(labels) == 1}
    seen = [picture.digest for split in SPLITS for picture in assigned[split]]
    assert sorted(seen) == sorted(b"content %d" % content for content in once)
    assert len(files) == len(kept) + copies + len(conflicts)
    assert {source.filename for source, _ in conflicts} == {
        str(i) for i, (_, content) in enumerate(dataset) if content not in once
    }


@given(st.integers(1, 400), ratios, st.integers(0, 5))
def test_a_class_is_near_the_ratios_and_in_every_split_that_it_can_be_in(size, ratio, seed):
    pictures = [make_picture(0, number, "%d" % number, seed=seed) for number in range(size)]
    assigned = splits.assign_splits(pictures, ratio[0] / 10, ratio[1] / 10)
    train, val, test = (len(assigned[split]) for split in SPLITS)
    share = 10 - sum(ratio)
    assert train + val + test == size and train >= 1
    assert (test == 0) if share == 0 else (test >= min(1, size - 1))
    assert (val == 0) if ratio[1] == 0 else (val >= min(1, max(0, size - (2 if share else 1))))
    for count, tenths in ((val + test, ratio[1] + share), (test, share)):
        expected = size * tenths / 10
        assert abs(count - expected) <= max(0.5, expected / 8) or size < 10


@settings(max_examples=300)
@given(st.integers(1, 200), ratios, st.integers(0, 20))
def test_one_picture_more_moves_one_at_each_boundary_at_most(size, ratio, seed):
    """And to the neighbouring split: what was tested on is not trained on, where val lies between."""
    pictures = [make_picture(0, number, "%d" % number, seed=seed) for number in range(size + 1)]
    before, after = (
        split_of(splits.assign_splits(some, ratio[0] / 10, ratio[1] / 10))
        for some in (pictures[:-1], pictures)
    )
    moved = collections.Counter((before[name], after[name]) for name in before if before[name] != after[name])
    assert sum(moved.values()) <= 2 and max(moved.values(), default=0) <= 1
    if size >= 20 and min(ratio[1], 10 - sum(ratio)) > 0:
        assert ("test", "train") not in moved and ("train", "test") not in moved


def test_nothing_moves_in_a_class_of_some_size():
    before = split_of(splits.assign_splits(make_pictures([0] * 300), 0.8, 0.1))
    after = split_of(splits.assign_splits(make_pictures([0] * 600), 0.8, 0.1))
    assert all(after[name] == split for name, split in before.items())


def test_a_split_follows_the_ratios():
    assigned = splits.assign_splits(make_pictures([0] * 2000 + [1] * 2000), 0.7, 0.2)
    sizes = [len(assigned[split]) for split in SPLITS]
    assert sum(sizes) == 4000
    np.testing.assert_allclose(np.array(sizes) / 4000, [0.7, 0.2, 0.1], atol=0.03)


def test_the_users_own_split_is_kept():
    pictures = make_pictures([0, 1], "val") + make_pictures([0, 1], "train", 2)
    assigned = splits.assign_splits(pictures, 0.8, 0.1)
    assert [len(assigned[split]) for split in SPLITS] == [2, 2, 0]


def test_the_seed_changes_the_split():
    places = [[splits.position(b"%d" % i, seed) for i in range(50)] for seed in (0, 0, 1)]
    assert places[0] == places[1] != places[2]


def test_near_duplicates_are_found_across_splits_only():
    a, b, other = (perceptual_hash(drawing(i)) for i in (0, 1, 2))
    near_a = bytes([a[0] ^ 0b111]) + a[1:]

    def picture(name, hashed):
        return make_picture(0, 0, name)._replace(perceptual_hash=hashed)

    found = splits.find_near_duplicates(
        {
            "train": [picture("a", a), picture("b", b), picture("also a", near_a), picture("flat", None)],
            "val": [picture("a again", near_a)],
            "test": [picture("b again", b), picture("flat too", None), picture("other", other)],
        }
    )
    assert [(one.source.filename, two.source.filename, bits) for one, two, bits in found] == [
        ("a again", "also a", 0),
        ("b again", "b", 0),
    ]
