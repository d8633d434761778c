"""Which pictures look alike."""

import contextlib
import io

import numpy as np
import pytest
from helpers import drawing, gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from suite.pictures import perceptual_hash as hashing
from suite.pictures.perceptual_hash import (
    ALIKE,
    as_words,
    candidates,
    groups_alike,
    nearest,
    perceptual_hash,
)


def recompressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file)


def distance(image, other):
    return differing(perceptual_hash(image), perceptual_hash(other))


def differing(one, other):
    return bin(int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).count("1")


@pytest.mark.parametrize(
    "change",
    [
        recompressed,
        lambda image: image.resize((80, 80), Image.LANCZOS),
        lambda image: image.resize((240, 240), Image.BICUBIC),
        lambda image: ImageEnhance.Contrast(image).enhance(0.8),
        lambda image: image.convert("L"),
    ],
    ids=["compressed", "halved", "enlarged", "contrast", "grey"],
)
def test_a_changed_copy_looks_alike(change):
    distances = [distance(drawing(i), change(drawing(i))) for i in range(20)]
    assert np.mean(np.array(distances) <= ALIKE) >= 0.95


def test_other_drawings_do_not_look_alike():
    hashes = [perceptual_hash(drawing(i)) for i in range(60)]
    for i, one in enumerate(hashes):
        assert all(differing(one, other) > ALIKE for other in hashes[:i])


def test_a_plain_surface_has_no_looks():
    assert perceptual_hash(Image.new("RGB", (50, 50), (9, 90, 200))) is None
    assert len(perceptual_hash(gradient())) == 18


@st.composite
def crowded_hashes(draw):
    """Two lists of hashes, all near a few, or with most of their bands in common, or copies of each other."""
    rng = np.random.RandomState(draw(st.integers(0, 1000)))
    centres = rng.randint(0, 2, [draw(st.integers(1, 4)), 143])
    fixed = draw(st.integers(0, 9))  # bands that are those of a centre
    flips = draw(st.integers(0, 12))  # of the other bits, or all where that is 12

    def some(count):
        bits = centres[rng.randint(len(centres), size=count)]
        for row in bits:
            loose = np.flatnonzero(np.arange(143) % 9 >= fixed)
            loose = rng.permutation(loose)[: len(loose) if flips == 12 else rng.randint(flips + 1)]
            row[loose] = rng.randint(0, 2, len(loose))
        return [bytes(each) for each in np.packbits(bits, axis=1)]

    return some(draw(st.integers(1, 40))), some(draw(st.integers(1, 80)))


WORK = (1, 2, 1), (4, 8, 3), (64, 5, 7)  # LARGE, BLOCK and SIDE


@contextlib.contextmanager
def small_blocks(sizes):
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("LARGE", "BLOCK", "SIDE"), sizes):
            patch.setattr(hashing, name, size)
        yield


@settings(deadline=None)
@given(crowded_hashes(), st.sampled_from(WORK))
def test_nearest_is_the_first_of_those_that_differ_least(lists, sizes):
    """Whatever the bands have in common, and however the work is divided."""
    hashes, among = lists
    with small_blocks(sizes):
        index, bits = nearest(hashes, among)
    for one, i, distance in zip(hashes, index, bits):
        distances = [differing(one, other) for other in among]
        least = min(distances)
        assert (i, distance) == ((distances.index(least), least) if least <= ALIKE else (-1, ALIKE + 1))


def test_a_difference_in_all_bands_but_one_is_found():
    """And of two that differ in as many bits the first, whichever band brings it."""
    numbers = [int.from_bytes(np.random.RandomState(i).bytes(18), "big") >> 1 << 1 for i in range(100)]

    def flipped(number, places):
        return number ^ sum(1 << (143 - place) for place in places)

    def hashes(numbers):
        return [number.to_bytes(18, "big") for number in numbers]

    for same in range(9):
        places = [place for place in range(18, 27) if place != 18 + same]
        changed = [flipped(number, places) for number in numbers]
        index, bits = nearest(hashes(changed), hashes(numbers))
        assert index.tolist() == list(range(100)) and set(bits) == {8}
        late = [flipped(number, range(same)) for number in numbers]
        soon = [flipped(number, range(27, 27 + 9 * same, 9)) for number in numbers]
        index, bits = nearest(hashes(numbers), hashes(late + soon))
        assert index.tolist() == list(range(100)) and set(bits) == {same}


def test_a_crowd_is_not_compared_each_with_each(monkeypatch):
    """Pictures on one of a few backgrounds have seven of nine bands in common; few of them are compared."""
    monkeypatch.setattr(hashing, "LARGE", 1000)
    rng = np.random.RandomState(0)
    bits = rng.randint(0, 2, [5000, 143])
    background = np.arange(143) % 9 < 7
    bits[:, background] = rng.randint(0, 2, [20, 143])[np.arange(len(bits)) % 20][:, background]
    hashes = as_words(np.unique([bytes(each) for each in np.packbits(bits, axis=1)]))
    far = np.full(1000, (ALIKE + 1) << 32)
    compared = candidates(hashes[:1000], hashes[1000:], np.arange(1000), np.arange(4000), far)
    assert sum(len(row) for row, _ in compared) < 0.05 * 1000 * 4000


def test_chains_of_near_copies_are_a_group():
    """Hashes of 18 bytes: a to b and b to c differ in 6 bits, a to c in 12; plain pictures stand alone."""
    rng = np.random.RandomState(0)
    a, other = rng.bytes(18), rng.bytes(18)
    b = bytes([a[0] ^ 0b111111]) + a[1:]
    c = b[:1] + bytes([b[1] ^ 0b111111]) + b[2:]
    assert list(groups_alike([c, None, other, a, b, None])) == [0, 1, 2, 0, 0, 5]
    assert list(groups_alike([None, None])) == [0, 1]


@settings(deadline=None)
@given(crowded_hashes(), st.sampled_from(WORK))
def test_groups_are_the_connected_components(lists, sizes):
    hashes = lists[0] + [None] + lists[1]
    with small_blocks(sizes):
        found = groups_alike(hashes)
    expected = list(range(len(hashes)))
    for i, one in enumerate(hashes):
        for j in range(i):
            if one and hashes[j] and differing(one, hashes[j]) <= ALIKE:
                old, new = sorted((expected[i], expected[j]), reverse=True)
                expected = [new if each == old else each for each in expected]
    assert list(found) == expected
