"""train.py --folds: which fold each picture of train and val is in, and the records of some folds.

Near-copies share a fold, or a model would be asked about pictures that it has nearly seen.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import os

import numpy as np
from PIL import Image

from suite.files import jsonfile
from suite.pictures.perceptual_hash import groups_alike, perceptual_hash
from suite.process.errors import UserError
from suite.process.terminal import progress_bar
from suite.process.tf_versions import tf
from suite.records import fingerprints
from suite.records.reading import Records, naming_damage

PARTED = ("train", "val")  # the splits that have folds; test is left alone
NONE = fingerprints.to_json(fingerprints.of([]))


def path(folder: str) -> str:
    """Where the plan of a folder of models lies."""
    return os.path.join(folder, "folds.json")


def make(records: Records, folds: int, seed: int) -> dict:
    """A plan, the content of folds.json; looks at each picture of train and val.

    Returns:
        {"folds", "seed", "digest" (the records'), "files": {name: [from 1 to `folds`, for each picture]},
        "counts": [{class: pictures}, for each fold]}.
    Raises:
        UserError: there are fewer pictures than folds, near-copies being one.
    """
    sizes: collections.Counter = collections.Counter()
    labels, hashes = [], []
    with naming_damage(records), progress_bar("compare", sum(map(records.count, PARTED))) as bar:
        for name, file in files_of(records):
            for record in tf.python_io.tf_record_iterator(file):
                fields = tf.train.Example.FromString(record).features.feature
                labels.append(fields["image/class/label"].int64_list.value[0])
                jpeg = fields["image/encoded"].bytes_list.value[0]
                hashes.append(perceptual_hash(Image.open(io.BytesIO(jpeg))))
                sizes[name] += 1
                bar.update()
    groups = groups_alike(hashes)
    if len(set(groups)) < folds:
        message = "--folds %d: %s has only %d pictures to train and validate on, near-copies counted once"
        raise UserError(message % (folds, records.name, len(set(groups))))
    numbers = assign(np.array(labels), groups, folds, seed)
    counts = np.zeros([folds, len(records.classes)], int)
    np.add.at(counts, (numbers - 1, labels), 1)
    parts = np.split(numbers, np.cumsum(list(sizes.values()))[:-1])
    return {
        "folds": folds,
        "seed": seed,
        "digest": records.digest,
        "files": {name: part.tolist() for name, part in zip(sizes, parts)},
        "counts": [dict(zip(records.classes, row)) for row in counts.tolist()],
    }


def files_of(records: Records) -> list[tuple[str, str]]:
    """(name, path) of each file of the pictures that have folds."""
    return [pair for split in PARTED for pair in zip(records.shard_names(split), records.shard_paths(split))]


def assign(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each picture, so that each fold has about as many of each class, and of all.

    Args:
        labels: int64 [n], the classes.
        groups: int64 [n]; pictures of the same number stay together.
    Returns:
        int64 [n], from 1; it depends on nothing but the arguments.
    """
    members = collections.defaultdict(list)
    for i in np.random.RandomState(seed % 2**32).permutation(len(labels)):
        members[groups[i]].append(i)
    fold, counts = np.zeros(len(labels), np.int64), np.zeros([folds, labels.max() + 1], np.int64)
    for group in sorted(members.values(), key=len, reverse=True):
        scarcest = np.lexsort([counts.sum(1), counts[:, labels[group]].sum(1)])[0]
        fold[group] = 1 + scarcest
        np.add.at(counts[scarcest], labels[group], 1)
    return fold


def load(folder: str) -> dict:
    """The plan in a folder of models. Raises UserError where it is damaged."""
    try:
        return jsonfile.read(path(folder))
    except UserError as error:
        message = "%s: damaged; bring it back, or begin anew with train.py --fresh"
        raise UserError(message % path(folder)) from error


def read(folder: str, records: Records) -> dict:
    """The plan in a folder of models, compared with the records.

    Raises:
        UserError: the records are not those that it was made for; or see `load`.
    """
    plan = load(folder)
    if plan["digest"] != records.digest or list(plan["files"]) != [name for name, _ in files_of(records)]:
        raise UserError(
            "%s: the folds are not of %s, or it has changed since; bring the old records back, or train to "
            "another --output" % (path(folder), records.name)
        )
    return plan


def to_train(records: Records, plan: dict, held_out: int) -> Records:
    """Records whose train split is all folds but one; there is nothing to validate on.

    A checkpoint that is chosen by the fold that is held out would flatter the answers to it.
    """
    others = [number for number in range(1, plan["folds"] + 1) if number != held_out]
    part = choose(records, plan, "train", others)
    known = [fingerprints.from_json(records.fingerprints.get(split)) for split in PARTED]
    seen = fingerprints.union(*known)  # which pictures of them cannot be told from the records
    return dataclasses.replace(
        part,
        counts=dict(part.counts, val=dict.fromkeys(records.classes, 0)),
        fingerprints={"train": fingerprints.to_json(seen), "val": NONE} if seen else {},
    )


def choose(records: Records, plan: dict, split: str, numbers: list[int]) -> Records:
    """Records whose `split` is the pictures of the folds of these numbers, in the order of the files."""
    counts = {name: sum(plan["counts"][i - 1][name] for i in numbers) for name in records.classes}
    files = {name: np.isin(folds, numbers) for name, folds in plan["files"].items()}
    return dataclasses.replace(
        records,
        counts=dict(records.counts, **{split: counts}),
        chosen={split: files},
    )
