"""Which split each picture belongs to, which ones are copies, and which look like copies.

Pure functions over what is known of each picture; FlowIO.py reads the files and writes the records.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import operator
from typing import NamedTuple

import numpy as np
from PIL import Image

from suite.files.schemas import SPLITS


class Source(NamedTuple):
    """A file to convert."""

    given: str | None  # the split that the user's folders give it
    label: int  # class index
    filename: str  # relative to the data set's folder


class Picture(NamedTuple):
    """A converted one."""

    source: Source
    digest: bytes  # equal for files of equal content
    look: bytes | None  # its perceptual hash
    position: float  # 0 to 1, decides its split and its place in the records
    offset: int  # of its JPEG bytes in the spool
    length: int
    height: int  # pixels
    width: int


# --- by content ----------------------------------------


def position(digest: bytes, seed: int) -> float:
    """A number from 0 to 1 that depends on a file's content and the seed alone.

    So a picture keeps its split when others are added or renamed.
    """
    keyed = hashlib.blake2b(digest, digest_size=8, key=b"%d" % seed).digest()
    return int.from_bytes(keyed, "big") / 2**64


def drop_copies(
    pictures: list[Picture], classes: list[str]
) -> tuple[list[Picture], int, list[tuple[Source, str]]]:
    """Keep the first of files with equal content, and none where they are in several classes.

    Returns:
        The pictures kept, the number of copies left out, and (Source, reason) for each conflict.
    """
    kept, copies, conflicts = [], 0, []
    digest = operator.attrgetter("digest")
    for _, group in itertools.groupby(sorted(pictures, key=digest), digest):
        same = list(group)
        labels = sorted({picture.source.label for picture in same})
        if len(labels) > 1:
            reason = "the same picture is in classes %s" % " and ".join(classes[i] for i in labels)
            conflicts += [(picture.source, reason) for picture in same]
        else:
            kept.append(same[0])
            copies += len(same) - 1
    return kept, copies, sorted(conflicts)


def assign_splits(pictures: list[Picture], train_ratio: float, val_ratio: float) -> dict[str, list[Picture]]:
    """{split: [Picture]} in the order of their positions, which is random.

    Each class is split by the ratios. Where it has two pictures or more, one is in train and one in
    test, unless no test split was asked for.
    """
    splits: dict[str, list[Picture]] = {split: [] for split in SPLITS}
    by_label = collections.defaultdict(list)
    for picture in pictures:
        if picture.source.given:
            splits[picture.source.given].append(picture)
        else:
            by_label[picture.source.label].append(picture)
    position_of = operator.attrgetter("position")
    test_wanted = train_ratio + val_ratio < 1
    for members in by_label.values():
        members.sort(key=position_of)
        for i, picture in enumerate(members):
            if test_wanted and i > 0 and i == len(members) - 1:
                split = "test"
            elif i == 0 or picture.position < train_ratio:
                split = "train"
            elif picture.position < train_ratio + val_ratio or not test_wanted:
                split = "val"
            else:
                split = "test"
            splits[split].append(picture)
    for split in SPLITS:
        splits[split].sort(key=position_of)
    return splits


# --- by looks ----------------------------------------

HASH_SIDE = 12  # 143 bits
HASH_PIXELS = 32
ALIKE = 8  # pictures with at most this many differing bits; benchmarks/near_duplicates.py measures it
FLAT = 2.0  # grey levels of deviation in the low frequencies; the hash of less contrast is noise
COSINES = np.cos(np.pi * np.outer(np.arange(HASH_SIDE), 2 * np.arange(HASH_PIXELS) + 1) / (2 * HASH_PIXELS))
COSINES *= np.sqrt(2 / HASH_PIXELS)
COSINES[0] /= np.sqrt(2)


def perceptual_hash(image: Image.Image) -> bytes | None:
    """18 bytes that hardly change when a picture is resized, compressed or made lighter; or None.

    The low frequencies of its cosine transform, each compared with their median (pHash, Zauner 2010).
    None for a plain surface.
    """
    grey = image.convert("L").resize((HASH_PIXELS, HASH_PIXELS), Image.BILINEAR, reducing_gap=2)
    grey = np.frombuffer(grey.tobytes(), np.uint8).reshape(HASH_PIXELS, HASH_PIXELS).astype(np.float64)
    waves = (COSINES @ grey @ COSINES.T).ravel()[1:]  # the first is the mean brightness
    if waves.dot(waves) < (FLAT * HASH_PIXELS) ** 2:
        return None
    median = np.partition(waves, len(waves) // 2)[len(waves) // 2]
    return np.packbits(waves > median).tobytes()


def find_near_duplicates(splits: dict[str, list[Picture]]) -> list[tuple[Picture, Picture, int]]:
    """What the final test or the validation shows the network though it has seen nearly the same.

    Returns:
        (Picture, the Picture of an earlier split that it looks like, differing bits) for each.
    """
    found = []
    for split, earlier in (("val", ("train",)), ("test", ("train", "val"))):
        mine = [picture for picture in splits[split] if picture.look]
        others = [picture for name in earlier for picture in splits[name] if picture.look]
        if not mine or not others:
            continue
        index, bits = nearest([p.look for p in mine], [p.look for p in others])
        for picture, i, differing in zip(mine, index, bits):
            if differing <= ALIKE:
                found.append((picture, others[i], differing))
    return found


def nearest(hashes: list, among: list, block: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """For each hash the one that differs least.

    Args:
        hashes, among: lists of what `perceptual_hash` returned, without None.
        block: how many are compared at a time; sets the memory.
    Returns:
        int64 [len(hashes)] indices into `among`, and the numbers of differing bits.
    """
    bits = 8 * len(among[0])
    best, index = np.full(len(hashes), bits + 1), np.zeros(len(hashes), np.int64)
    for i in range(0, len(hashes), block):
        mine = signs(hashes[i : i + block])
        rows = slice(i, i + len(mine))
        for j in range(0, len(among), block):
            # Of vectors of +1 and -1 the product counts the equal bits less the different ones.
            distances = (bits - mine @ signs(among[j : j + block]).T) / 2
            closest = distances.argmin(1)
            distance = distances[np.arange(len(mine)), closest].round().astype(np.int64)
            better = distance < best[rows]
            index[rows] = np.where(better, j + closest, index[rows])
            best[rows] = np.where(better, distance, best[rows])
    return index, best


def signs(hashes: list[bytes]) -> np.ndarray:
    """Hashes as float32 rows of +1 and -1."""
    packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)
    return np.unpackbits(packed, axis=1) * np.float32(2) - 1
