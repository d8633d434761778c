"""Which pictures look alike."""

import io

import numpy as np
import pytest
from helpers import drawing, gradient
from PIL import Image, ImageEnhance

from suite.pictures.perceptual_hash import ALIKE, groups_alike, nearest, perceptual_hash


def recompressed(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file)


def distance(image, other):
    _, bits = nearest([perceptual_hash(image)], [perceptual_hash(other)])
    return bits[0]


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
        assert nearest([one], hashes[:i] + hashes[i + 1 :])[1][0] > ALIKE


def test_a_plain_surface_has_no_looks():
    assert perceptual_hash(Image.new("RGB", (50, 50), (9, 90, 200))) is None
    assert len(perceptual_hash(gradient())) == 18


def test_nearest_is_the_smallest_number_of_differing_bits():
    rng = np.random.RandomState(0)
    hashes, among = rng.bytes(18 * 50), rng.bytes(18 * 70)
    hashes = [hashes[i : i + 18] for i in range(0, len(hashes), 18)]
    among = [among[i : i + 18] for i in range(0, len(among), 18)]
    index, bits = nearest(hashes, among, block=16)
    for one, i, differing in zip(hashes, index, bits):
        distances = [bin(int.from_bytes(one, "big") ^ int.from_bytes(b, "big")).count("1") for b in among]
        assert differing == min(distances) and i == distances.index(differing)


def test_chains_of_near_copies_are_a_group():
    """Hashes of 18 bytes: a to b and b to c differ in 6 bits, a to c in 12; plain pictures stand alone."""
    rng = np.random.RandomState(0)
    a, other = rng.bytes(18), rng.bytes(18)
    b = bytes([a[0] ^ 0b111111]) + a[1:]
    c = b[:1] + bytes([b[1] ^ 0b111111]) + b[2:]
    for block in (1, 2, 512):
        assert list(groups_alike([c, None, other, a, b, None], block)) == [0, 1, 2, 0, 0, 5]
    assert list(groups_alike([None, None])) == [0, 1]
