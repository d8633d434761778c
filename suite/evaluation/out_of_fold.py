"""The models of train.py --folds, evaluated as one: to each picture the one answers that has not seen it."""

from __future__ import annotations

import os

import numpy as np

from suite.evaluation.predictions import Predictions, predict_split
from suite.files.schemas import FOLDS
from suite.model import modelfolder
from suite.process import terminal
from suite.process.errors import UsageError, UserError
from suite.records import folds


def load_model(path):
    """As modelfolder.load_model; where `path` holds folds, a Model that has theirs in `folds`.

    Raises:
        UserError: see there; or not all folds are trained to the end.
    """
    if not modelfolder.holds_folds(path):
        return modelfolder.load_model(path)
    outputs = [modelfolder.fold(path, i + 1) for i in range(folds.load(path)["folds"])]
    begun = {each: modelfolder.load_model(each) for each in outputs if modelfolder.latest_checkpoint(each)}
    steps = max((modelfolder.latest_step(each) for each in begun), default=0)
    unfinished = [os.path.basename(each) for each in outputs if not is_trained(begun.get(each), steps)]
    if unfinished:
        message = "%s: not trained to the end: %s; the train.py command, without --fresh, goes on there"
        raise UserError(message % (path, terminal.some(unfinished)))
    models = list(begun.values())
    return models[0]._replace(folder=path, checkpoint=path, folds=models)


def is_trained(model, steps):
    """Whether a fold's Model, or None, is trained for so many steps and has batch norm's new statistics."""
    if not model or modelfolder.latest_step(model.folder) < steps:
        return False
    best = os.path.join(model.folder, modelfolder.BEST)
    return not model.options["bn_batches"] or bool(modelfolder.latest_checkpoint(best))


def check_options(options, model, other):
    """Raises UsageError where an option of evaluate.py asks for what the models of folds cannot tell.

    Args:
        model, other: what `load_model` returned, the latter for --compare, or None.
    """
    one = "name one of the models, such as %s" % modelfolder.fold(model.folder, 1)
    if model.folds and (options.split or options.pictures):
        name = "split" if options.split else "pictures"
        raise UsageError(
            "--%s: %s holds folds, which answer their own pictures of train and val; %s"
            % (name, model.folder, one)
        )
    if other and bool(model.folds) != bool(other.folds):
        message = "--compare %s: only one of the two holds folds, and the other one knows their pictures"
        raise UsageError(message % other.folder)


def predict(model, records, batch_size, mirror):
    """The Predictions of the pictures of all folds, in the records' order.

    Args:
        model: from `load_model`, with folds.
        records: see reading.load_records.
        batch_size, mirror: see predictions.predict_split.
    Raises:
        UserError: see folds.read and predictions.predict_split.
    """
    plan = folds.read(model.folder, records)
    answers = [
        predict_split(each, folds.choose(records, plan, FOLDS, [i + 1]), FOLDS, batch_size, mirror)
        for i, each in enumerate(model.folds)
    ]
    number = np.concatenate(list(plan["files"].values()))
    order = np.argsort(np.argsort(number, kind="stable"))  # of each picture, its place among the answers
    names = [name for each in answers for name in each.filenames]
    labels, probabilities, maps = (
        np.concatenate([getattr(each, field) for each in answers])[order]
        for field in ("labels", "probabilities", "maps")
    )
    return Predictions([names[i] for i in order], labels, probabilities, [], maps)
