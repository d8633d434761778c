"""Which split each picture belongs to, which ones are copies, and which look like copies.

Pure functions over what is known of each picture; writing.py reads the files and writes the records.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import operator
from typing import NamedTuple

from suite.files.schemas import SPLITS
from suite.pictures.folders import SourceFile
from suite.pictures.perceptual_hash import ALIKE, nearest


class EncodedPicture(NamedTuple):
    """A file of a data set, made a small JPEG."""

    source: SourceFile
    digest: bytes  # equal for files of equal content
    perceptual_hash: bytes | None
    position: float  # 0 to 1, decides its split and its place in the records
    offset: int  # of its JPEG bytes in the spool
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
            reason = "the same picture is in classes %s" % " and ".join(classes[i] for i in labels)
            conflicts += [(picture.source, reason) for picture in same]
        else:
            kept.append(same[0])
            copies += len(same) - 1
    return kept, copies, sorted(conflicts)


def assign_splits(
    pictures: list[EncodedPicture], train_ratio: float, val_ratio: float
) -> dict[str, list[EncodedPicture]]:
    """{split: [EncodedPicture]} in the order of their positions, which is random.

    Each class is split by the ratios. Where it has two pictures or more, one is in train and one in
    test, unless no test split was asked for.
    """
    splits: dict[str, list[EncodedPicture]] = {split: [] for split in SPLITS}
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
