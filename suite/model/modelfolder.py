"""The model folder: what it says of a model, its log, and where its checkpoints lie.

train.py writes it, the other scripts read it: checkpoints `model.ckpt-<step>.*`, the best of them in
`best/`, and `model.json`, which says everything about the network and the classes, so that nobody has
to type it again.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import functools
import hashlib
import itertools
import os
import re
from typing import Callable, Iterator, NamedTuple

from suite.files import atomic, jsonfile
from suite.process import commandline
from suite.process.errors import UserError
from suite.process.terminal import say_once

BEST = "best"  # the folder of the best checkpoint, in the model folder
VALIDATION = "eval"  # that of validation's curves for TensorBoard
TEMPERATURE = ".temperature.json"  # behind the name of a checkpoint
LOG = "log.csv"
LOG_COLUMNS = (
    "step",
    "epoch",
    "loss",
    "accuracy",
    "learning_rate",
    "images_per_second",
    "val_loss",
    "val_accuracy",
)
PATTERN = re.compile(r"[*?\[\\]")


class Model(NamedTuple):
    """What a model folder says, and one of its checkpoints."""

    folder: str
    checkpoint: str  # path without extension
    network: dict  # see network.build_logits
    classes: list[str]  # in index order
    image_size: int  # pixels
    normalize: str  # see preprocessing.normalize
    keep_size: bool  # whether it was trained on pictures that FlowIO.py had not reduced
    trained_on: dict[str, int] | None = None  # pictures of each class; None where an older version wrote it
    # Of the pictures that it was trained and validated on, by split, as fingerprints.from_json reads them.
    fingerprints: dict = {}
    options: dict = {}  # of the train.py that wrote it
    fit: str = "crop"  # one of schemas.FITS: how pictures become squares
    temperature: float = 1  # what its logits are divided by; see metrics.fit_temperature
    folds: list = []  # the Models of train.py --folds, where it stands for them


def find_model(path: str, warn: Callable[[str], object] = say_once) -> tuple[str, str]:
    """The model folder and the checkpoint that `path` names, see `load_model`, which may still be damaged."""
    if holds_folds(path):
        raise UserError(
            "%s: holds the models of train.py --folds, which are for evaluate.py; name one of them, such as "
            "%s, or train one without --folds" % (path, fold(path, 1))
        )
    folder, checkpoint = path, None
    if os.path.exists(path + ".index"):
        folder, checkpoint = os.path.dirname(path) or ".", path
    elif not os.path.isdir(path):
        problem = "no such model folder or checkpoint; train.py makes one"
        raise UserError(commandline.missing(path, problem, is_model))
    for candidate in (folder, os.path.dirname(os.path.abspath(folder))):
        if os.path.exists(os.path.join(candidate, "model.json")):
            folder, start_at = candidate, folder
            break
    else:
        raise UserError("%s: not a model folder, there is no model.json; train.py makes one" % path)
    if not checkpoint:
        checkpoint = latest_checkpoint(os.path.join(start_at, BEST), warn)
        checkpoint = checkpoint or latest_checkpoint(start_at, warn)
    if not checkpoint:
        raise UserError("%s: no checkpoint in it yet; train.py saves one every --save_num steps" % path)
    return folder, checkpoint


def load_model(path: str, warn: Callable[[str], object] = say_once) -> Model:
    """The model that `path` names: a model folder (its best checkpoint, else its latest) or a checkpoint.

    Args:
        warn: what is called with a warning.
    Raises:
        UserError: there is no such model, or it was written by another version of the suite.
    """
    folder, checkpoint = find_model(path, warn)
    config = jsonfile.read(os.path.join(folder, "model.json"))
    dataset = config.get("dataset", {})
    return Model(
        folder,
        checkpoint,
        network=config["network"],
        classes=config["classes"],
        image_size=config["image_size"],
        normalize=config["normalize"],
        keep_size=config.get("keep_size", False),
        trained_on=dataset.get("counts", {}).get("train"),
        fingerprints=dataset.get("fingerprints", {}),
        options=config["options"],
        fit=config.get("fit", "crop"),
        temperature=read_temperature(checkpoint),
    )


def read_temperature(checkpoint: str) -> float:
    """The temperature beside a checkpoint, which train.py fitted; 1 where there is none for these weights.

    Raises:
        UserError: it is damaged.
    """
    path = checkpoint + TEMPERATURE
    if not os.path.exists(path):
        return 1
    try:
        content = jsonfile.read(path)
    except UserError as error:
        advice = "remove it, and probabilities will be those of the bare network"
        raise UserError("%s: damaged; bring it back, or %s" % (path, advice)) from error
    with contextlib.suppress(FileNotFoundError):  # train.py has replaced it, as whoever loads it will see
        return content["temperature"] if content["index"] == index_digest(checkpoint) else 1
    return 1


def index_digest(checkpoint: str) -> str:
    """SHA-256 of the checkpoint's index, in hexadecimal: another one for other weights."""
    with open(checkpoint + ".index", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def fold(folder: str, number: int) -> str:
    """The model folder that train.py --folds writes for a fold, from 1."""
    return os.path.join(folder, "fold_%d" % number)


def holds_folds(folder: str) -> bool:
    """Whether train.py --folds writes, or wrote, to a folder."""
    return os.path.exists(os.path.join(folder, "folds.json"))


def is_model(path: str) -> bool:
    """Whether a path may be what `load_model` takes."""
    signs = path + ".index", os.path.join(path, "model.json"), os.path.join(path, "checkpoint")
    return any(map(os.path.exists, signs))


def unused(folder: str) -> str:
    """A name like that of a model folder, of nothing that is there: models/resnet-2."""
    return next(unused_names(folder))


def unused_names(folder: str) -> Iterator[str]:
    """All names that `unused` may return, without end."""
    folder = folder.rstrip(os.sep)
    if os.path.basename(folder) in ("", ".", ".."):
        folder = os.path.realpath(folder)
    parent = os.path.dirname(folder)
    folder = parent if parent and holds_folds(parent) else folder  # within it, it would be taken for a fold's
    names = ("%s-%d" % (folder, number) for number in itertools.count(2))
    return (name for name in names if not os.path.lexists(name))


def read_log(folder: str) -> list[dict[str, str]]:
    """The whole rows of log.csv by LOG_COLUMNS; what else is in it, or if there is none, is passed over."""
    path = os.path.join(folder, LOG)
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:  # as Excel saves it
        lines = (line.replace("\0", "") for line in file)  # which csv refuses
        return [row for row in csv.DictReader(lines, quoting=csv.QUOTE_NONE) if is_whole(row)]


def is_whole(row: dict[str, str]) -> bool:
    """Whether a row of log.csv was written to its end."""
    whole = tuple(row) == LOG_COLUMNS and None not in row.values()
    return whole and bool(re.fullmatch("[0-9]{1,9}", row["step"]))


def literal(path: str) -> str:
    """The path of a checkpoint, or of its folder, as TensorFlow has to be given it.

    What reads checkpoints there takes [ * ? and \\ for a pattern, and --keep would delete what matches, too.
    A folder of such a name goes by the number of a descriptor, which this process keeps open.

    Raises:
        UserError: the checkpoint itself has such a name.
    """
    folder, name = (path, "") if os.path.isdir(path) else os.path.split(path)
    if PATTERN.search(name):
        raise UserError("%s: TensorFlow takes [ * ? \\ for a pattern; give its files another name" % path)
    if not PATTERN.search(folder):
        return path
    status = os.stat(folder)
    return os.path.join("/proc/self/fd/%d" % descriptor(folder, status.st_dev, status.st_ino), name)


@functools.lru_cache(None)
def descriptor(folder: str, *identity: int) -> int:
    """An open descriptor of a folder; `identity`: what another one of this name would not share."""
    return os.open(folder, os.O_RDONLY)


def latest_checkpoint(folder: str, warn: Callable[[str], object] = say_once) -> str | None:
    """The checkpoint that the folder's `checkpoint` file points to, or None where there is none.

    As tf.train.latest_checkpoint, without the seconds that importing TensorFlow takes. Where that file is
    missing or damaged, as after a kill or on a bad disk, it is the one of the highest step.
    """
    path = os.path.join(folder, "checkpoint")
    for _ in range(2):  # train.py may replace all between a look at the one and at the others
        found = checkpoints(folder)
        if not found:
            return None
        here = os.path.join(folder, pointed_to(path))
        if here in found:
            return here
    warn("warning: %s is missing or damaged; taking %s" % (path, found[-1]))
    return found[-1]


def pointed_to(path: str) -> str:
    """The name that a `checkpoint` file gives as the latest; none where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError, SyntaxError), open(path, encoding="utf-8") as file:
        quoted = re.search(r'^model_checkpoint_path: ("(\\.|[^"\\])*")', file.read(), re.MULTILINE)
        if quoted:  # a whole path is of where it was written
            return os.path.basename(os.fsdecode(ast.literal_eval("b" + quoted.group(1))))
    return ""


def checkpoints(folder: str) -> list[str]:
    """The whole checkpoints in a folder, the highest step last."""
    names = atomic.contents(folder)
    found = [name[: -len(".index")] for name in names if re.fullmatch(r".+\.ckpt-\d+\.index", name)]
    found = [each for each in found if any(name.startswith(each + ".data-") for name in names)]
    return [os.path.join(folder, each) for each in sorted(found, key=lambda each: checkpoint_step(each) or 0)]


def checkpoint_step(checkpoint: str) -> int | None:
    """The step in a checkpoint's name: 2000 for models/resnet/model.ckpt-2000; None where there is none."""
    found = re.search(r"-([0-9]+)\Z", checkpoint)
    return int(found.group(1)) if found else None


def latest_step(folder: str) -> int:
    """The step of the folder's latest checkpoint, 0 where there is none."""
    checkpoint = latest_checkpoint(folder)
    return checkpoint and checkpoint_step(checkpoint) or 0
