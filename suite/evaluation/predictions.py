"""What a model says of each picture of a split."""

from __future__ import annotations

import dataclasses
import os
import time

import numpy as np

from suite.files import classnames
from suite.model.maps import features_and_maps, lead
from suite.model.network import restore_session
from suite.process.errors import UserError
from suite.process.terminal import counted, progress_bar, say, say_once
from suite.process.tf_versions import tf
from suite.records.reading import naming_damage, read_for_evaluation


@dataclasses.dataclass
class Predictions:
    """Of n pictures."""

    filenames: list[str]
    labels: np.ndarray  # int64 [n], indices into the model's classes
    probabilities: np.ndarray  # float32 [n, classes]
    seconds: list[float]  # that each batch took
    maps: np.ndarray | None = None  # float32 [n, h, w]: where it looked, see maps.lead

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each: int64 [n]."""
        return self.probabilities.argmax(1)

    @property
    def confidence(self) -> np.ndarray:
        """Its probability: float32 [n]."""
        return self.probabilities.max(1)

    @property
    def correct(self) -> np.ndarray:
        """Whether it is the true one: bool [n]."""
        return self.predicted == self.labels


def match_classes(model, records):
    """The model's class index of each of the records' classes, matched by name: int64 [classes].

    Raises:
        UserError: the records hold pictures of a class that the model does not know.
    """
    known = classnames.index_of(model.classes)
    unknown = [name for name in records.classes if classnames.find(known, name) is None]
    if unknown:
        difference = classnames.explain_difference(unknown[0], model.classes)
        raise UserError(
            "%s has class %s, which %s does not know; %s"
            % (
                records.name,
                unknown[0],
                model.folder,
                difference or "it knows " + ", ".join(model.classes),
            )
        )
    present = classnames.index_of(records.classes)
    missing = [name for name in model.classes if classnames.find(present, name) is None]
    if missing:
        warning = "warning: %s has no pictures of %s, which %s knows"
        say_once(warning % (records.name, ", ".join(missing), model.folder))
    return np.array([classnames.find(known, name) for name in records.classes])


def check_fit(model, records):
    """Refuse records of another --fit than the model was trained on, warn of those of another --keep_size.

    Raises:
        UserError: it is another --fit.
    """
    if records.fit != model.fit:
        raise UserError(
            "%s: made with --fit %s, and %s was trained on --fit %s; make others with that, or evaluate the "
            "folder itself with --pictures" % (records.folder, records.fit, model.folder, model.fit)
        )
    if records.keep_size != model.keep_size:
        kept, reduced = ("holds", "saw") if records.keep_size else ("saw", "holds")
        sides = {"holds": records.name, "saw": model.folder}
        say_once(
            "warning: %s %s whole pictures (--keep_size), %s %s reduced ones; predict.py may answer otherwise"
            % (sides[kept], kept, sides[reduced], reduced)
        )


def predict_split(model, records, split, batch_size, mirror=False):
    """The network's Predictions for each picture of a split, in the records' order.

    Pictures of records that were made for another size are decoded for the model's.

    Raises:
        UserError: see `match_classes` and restore_session; or a record is damaged.
    """
    label_map = match_classes(model, records)
    if records.image_size != model.image_size:
        say(
            "warning: %s was made for %d pixels, %s sees %d"
            % (records.folder, records.image_size, model.folder, model.image_size)
        )
    records = dataclasses.replace(records, image_size=model.image_size)
    total = records.count(split)
    filenames, labels, probabilities, seconds, maps = [], [], [], [], []
    say("evaluating %s on %s" % (model.checkpoint, counted(total, "picture")))
    with tf.Graph().as_default():
        dataset = read_for_evaluation(records, split, batch_size, model.normalize)
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        session, outputs = restore_session(model, batch["image"], mirror=mirror)
        fetches = batch["filename"], batch["label"], outputs, features_and_maps()[1]
        bar = progress_bar("evaluate", total)
        with naming_damage(records), session, bar:
            while len(filenames) < total:
                began = time.perf_counter()
                names, truth, values, where = session.run(fetches)
                seconds.append(time.perf_counter() - began)
                filenames += [os.fsdecode(name) for name in names]
                labels.append(label_map[truth])
                probabilities.append(values)
                # With `mirror` those of the mirror images follow.
                maps.append(lead(where[: len(names)], values.argmax(1)))
                bar.update(len(names))
    labels, probabilities, maps = (np.concatenate(each) for each in (labels, probabilities, maps))
    return Predictions(filenames, labels, probabilities, seconds, maps)


def latency(seconds, batch_size):
    """Percentiles of the time that a batch takes, reading included; None if there is only one.

    The first batch is left out: it allocates memory and chooses kernels.

    Args:
        seconds: a list of float, for each batch.
    Returns:
        {"batch_size", "batches" (how many were timed), "p50_ms", "p90_ms", "p99_ms" (milliseconds)}.
    """
    if len(seconds) < 2:
        return None
    p50, p90, p99 = (float(value) for value in 1000 * np.percentile(seconds[1:], (50, 90, 99)))
    batches = len(seconds) - 1
    return {"batch_size": batch_size, "batches": batches, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}
