"""Which split each picture belongs to, which ones are copies, and which look like copies.

Pure functions over what is known of each picture; writing.py reads the files and writes the records.
"""

from __future__ import annotations

import bisect
import collections
import hashlib
import itertools
import math
import operator
from typing import NamedTuple

from suite.files.schemas import SPLITS
from suite.pictures.folders import SourceFile
from suite.pictures.perceptual_hash import ALIKE, nearest

MOST_NAMED = 5  # classes that hold the same picture, in a reason


class EncodedPicture(NamedTuple):
    """A file of a data set, made a small JPEG."""

    source: SourceFile
    digest: bytes  # equal for files of equal content
    perceptual_hash: bytes | None
    position: float  # 0 to 1, decides its split and its place in the records
    offset: int  # of its JPEG bytes in its part of the spool
    length: int
    height: int  # pixels
    width: int
    remark: str  # one of imagefile.REMARKS


# --- by content ----------------------------------------


def position(digest: bytes, seed: int) -> float:
    """A number from 0 to 1 that depends on a file's content and the seed alone.

    So a picture keeps its split when others are added or renamed.
    """
    keyed = hashlib.blake2b(digest, digest_size=8, key=b"%d" % seed).digest()
    return int.from_bytes(keyed, "big") / 2**64


def drop_copies(
    pictures: list[EncodedPicture], classes: list[str]
) -> tuple[list[EncodedPicture], int, list[tuple[SourceFile, str]]]:
    """Keep the first of files with equal content, and none where they are in several classes.

    Returns:
        The pictures kept, the number of copies left out, and (SourceFile, reason) for each conflict.
    """
    kept, copies, conflicts = [], 0, []
    digest = operator.attrgetter("digest")
    for _, group in itertools.groupby(sorted(pictures, key=digest), digest):
        same = list(group)
        labels = sorted({picture.source.label for picture in same})
        if len(labels) > 1:
            names = " and ".join(classes[i] for i in labels[:MOST_NAMED])
            more = ", and in %d more" % len(labels[MOST_NAMED:]) if labels[MOST_NAMED:] else ""
            reason = "the same picture is in classes %s%s" % (names, more)
            conflicts += [(picture.source, reason) for picture in same]
        else:
            kept.append(same[0])
            copies += len(same) - 1
    return kept, copies, sorted(conflicts)


def assign_splits(
    pictures: list[EncodedPicture], train_ratio: float, val_ratio: float
) -> dict[str, list[EncodedPicture]]:
    """{split: [EncodedPicture]} in the order of their positions, which is random.

    A picture's position decides its split. Only where a class would be over an eighth off the ratios, in test
    or in val and test together, those nearest to the boundary go over; see `boundaries`.
    """
    splits: dict[str, list[EncodedPicture]] = {split: [] for split in SPLITS}
    by_label = collections.defaultdict(list)
    for picture in pictures:
        if picture.source.given:
            splits[picture.source.given].append(picture)
        else:
            by_label[picture.source.label].append(picture)
    position_of = operator.attrgetter("position")
    for members in by_label.values():
        members.sort(key=position_of)
        val, test = boundaries([picture.position for picture in members], train_ratio, val_ratio)
        splits["train"] += members[:val]
        splits["val"] += members[val:test]
        splits["test"] += members[test:]
    for split in SPLITS:
        splits[split].sort(key=position_of)
    return splits


def boundaries(positions: list[float], train_ratio: float, val_ratio: float) -> tuple[int, int]:
    """Where val and test begin among a class's pictures, whose positions are given in order.

    Of two pictures one is in train and one in test, of three or more one at least is in val, too, as far as
    these splits are asked for.
    """
    count, test_ratio = len(positions), max(0, 1 - train_ratio - val_ratio)
    test_ratio = test_ratio if test_ratio > 1e-9 else 0  # the ratios are no exact numbers
    fewest_to_test = int(test_ratio > 0 and count > 1)
    fewest_to_val = int(val_ratio > 0 and count > 1 + fewest_to_test)
    to_test = count - bisect.bisect_left(positions, train_ratio + val_ratio)
    to_test = near(to_test, count * test_ratio, fewest_to_test, count - 1 - fewest_to_val)
    held_out = count - bisect.bisect_left(positions, train_ratio)
    held_out = near(held_out, count * (val_ratio + test_ratio), to_test + fewest_to_val, count - 1)
    return count - held_out, count - to_test


def near(natural: int, expected: float, fewest: int, most: int) -> int:
    """The natural number of pictures, or the nearest one to it that is at most an eighth off the expected."""
    room = max(0.5, expected / 8)
    close = min(max(natural, math.ceil(expected - room)), math.floor(expected + room))
    return max(fewest, min(close, most))


# --- by looks ----------------------------------------


def find_near_duplicates(
    splits: dict[str, list[EncodedPicture]],
) -> list[tuple[EncodedPicture, EncodedPicture, int]]:
    """What the final test or the validation shows the network though it has seen nearly the same.

    Returns:
        (EncodedPicture, the EncodedPicture of an earlier split that it looks like, differing bits) for each.
    """
    found = []
    for split, earlier in (("val", ("train",)), ("test", ("train", "val"))):
        mine = [picture for picture in splits[split] if picture.perceptual_hash]
        others = [picture for name in earlier for picture in splits[name] if picture.perceptual_hash]
        if not mine or not others:
            continue
        index, bits = nearest([p.perceptual_hash for p in mine], [p.perceptual_hash for p in others])
        for picture, i, differing in zip(mine, index, bits):
            if differing <= ALIKE:
                found.append((picture, others[i], differing))
    return found
