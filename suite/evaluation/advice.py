"""What to do next: rules on the numbers of an evaluation. The words stand in report.html."""

from __future__ import annotations

import itertools

from suite.evaluation import metrics
from suite.files.schemas import FINE_TUNING, IMAGENET, RECORDS
from suite.model import modelfolder, recipes
from suite.model.network import NETWORK
from suite.process import commandline

FEW = 64  # pictures of a class to train on, as of 80 in all; with fewer, more are the first thing to try
GOOD = 0.9  # an accuracy or a recall that asks no question
WEAK = 0.5  # a recall that does
CONFUSED = 3, 0.1  # pictures at least, and their share of both classes
OVERFIT = 0.15  # how much more it is right on the pictures of the training
MOST_CLASSES, MOST_PAIRS = 5, 3  # that are named

# The options that another training of a model repeats, besides those that the recipe answers, and what
# train.py takes where they are not given.
USUAL = {
    "data": RECORDS,
    "model": None,
    **{name: value for name, value in NETWORK.items() if value is not None},
    "normalize": "per_image",
    "recipe": "article",
    "step": recipes.STEPS,
    "batch_size": recipes.BATCH_SIZE,
    "patience": 0,
}
GUESSING = 1.5  # times the mean recall of guesses, 1 / classes: what recognises more than that does not guess


def advise(results: dict, model: modelfolder.Model, train_accuracy: float | None = None) -> list[dict]:
    """What the numbers ask for, the gravest first; one piece of advice at least.

    Args:
        results: what metrics.measure returned.
        train_accuracy: that of the training's last batches; None where nobody knows.
    Returns:
        [{"kind", and what its words need}], of these kinds: "guessing" (not shown to be better than the most
        frequent class), "wide" (the interval tells nothing), "few" (`classes` that have few pictures and are
        not well recognised, and how many `more`), "hard" (those that are hardly recognised, with many),
        "pair" (`labels` are taken for each other), "overfitting", and where there is none of these "unclear"
        or "fine". `command` is what to try.
    """
    accuracy, (low, high) = results["accuracy"], results["accuracy_ci95"]
    options, advice = options_of(model)[0], []
    # Another for each command: one must not resume the other.
    outputs = modelfolder.unused_names(model.folder)
    classes = sum(row["n"] > 0 for row in results["per_class"])
    guessing = low <= results["baseline"]["accuracy"] < 1
    guessing = guessing and results["macro"]["recall"] < GUESSING / classes
    if guessing:
        advice.append({"kind": "guessing", "command": better(model, next(outputs)), **results["baseline"]})
    if metrics.is_wide([low, high]):
        advice.append({"kind": "wide"})
    few, hard = weak_classes(results, model.trained_on)
    if guessing:  # which classes it fails on then tells nothing
        hard = []
    for kind, classes in (("few", few), ("hard", hard)):
        if classes:
            more = len(classes[MOST_CLASSES:])
            advice.append({"kind": kind, "classes": classes[:MOST_CLASSES], "more": more})
            if kind == "few" and not guessing and not options["model"]:
                advice[-1]["command"] = better(model, next(outputs))
    if not guessing:
        advice += confused_pairs(results, {each["label"] for each in few + hard})[:MOST_PAIRS]
    if train_accuracy is not None and train_accuracy > max(high, accuracy + OVERFIT):
        changed: dict = {"augment": "standard"}
        if options["augment"] != "flip":  # it is that already, or none, which has its reason
            changed = (
                {"step": options["step"] // 2} if options["dropout"] and options["step"] else {"dropout": 0.2}
            )
        command = retraining(model, next(outputs), **changed)
        advice.append({"kind": "overfitting", "train_accuracy": train_accuracy, "command": command})
    if advice or accuracy >= GOOD:
        return advice or [{"kind": "fine"}]
    return [{"kind": "unclear", "command": better(model, next(outputs))}]


def options_of(model: modelfolder.Model) -> tuple[dict, dict]:
    """What train.py was given or took for a model, by option, and what it takes where one is not given."""
    known = {name: value for name, value in {**model.options, **model.network}.items() if value is not None}
    if not known.get("step"):  # nothing was trained
        known.pop("step", None)
    usual: dict = dict(USUAL, normalize="minus1_1" if known.get("preactivation") else "per_image")
    if known.get("model"):  # then the steps follow from the pictures
        usual.update(recipe=FINE_TUNING, step=None, normalize=known.get("normalize"))
    recipe, step, batch_size = (known.get(name, usual[name]) for name in ("recipe", "step", "batch_size"))
    given = (known.get("optimizer"), known.get("freeze"))  # by which others are what they are
    usual.update(recipes.usual_settings(recipe, step or 0, batch_size, *given))
    usual["optimizer"] = recipes.RECIPES[recipe]["optimizer"]
    if known.get("patience"):  # which counts checkpoints
        usual["save_num"] = recipes.default_save_num(step or 0, known["patience"])
    return {name: known.get(name, value) for name, value in usual.items()}, usual


def better(model: modelfolder.Model, output: str) -> str:
    """The command that helps most: start from ImageNet, or, where it started from weights, train longer."""
    options, usual = options_of(model)
    if options["model"]:
        return retraining(model, output, step=2 * options["step"] if options["step"] else None)
    kept = {
        name: options[name] for name in ("data", *recipes.OF_THE_PICTURES) if options[name] != usual[name]
    }
    return commandline.command("train.py", **kept, model=IMAGENET, output=output)


def retraining(model: modelfolder.Model, output: str, **changed: str | float | None) -> str:
    """The command that trains such a model with other options, as a new one: a finished one would stay."""
    options, usual = options_of(model)
    if changed.get("step") and options["step"]:
        for name in ("freeze", "warmup"):  # which are known in steps, and were meant as a share
            for each in (options, usual):
                each[name] = round(each[name] * changed["step"] / options["step"])
    options.update(changed)
    unusual = {name: value for name, value in options.items() if value not in (None, usual[name])}
    words = {name: "no" if value is False else value for name, value in unusual.items()}
    return commandline.command("train.py", **words, output=output)


def weak_classes(results: dict, trained_on: dict | None) -> tuple[list[dict], list[dict]]:
    """The classes that are not well recognised and have few pictures, and those that hardly are with many.

    Args:
        trained_on: pictures of each class that the model was trained on; None where nobody knows.
    Returns:
        Two lists of {"label", "n", "correct", "trained", "taken_for"}, most mistakes first.
    """
    few: list[dict] = []
    hard: list[dict] = []
    for i, row in enumerate(results["per_class"]):
        trained = None if trained_on is None else trained_on.get(row["label"], 0)
        is_few = trained is not None and trained < FEW
        is_known = row["n"] >= (1 if is_few else metrics.FEW)
        if is_known and row["recall"] < (GOOD if is_few else WEAK):
            counts = list(results["confusion_matrix"][i])
            correct, counts[i] = counts[i], 0
            taken_for = results["per_class"][counts.index(max(counts))]["label"]
            found = {"label": row["label"], "n": row["n"], "correct": correct}
            (few if is_few else hard).append({**found, "trained": trained, "taken_for": taken_for})
    for classes in (few, hard):
        classes.sort(key=lambda each: each["correct"] - each["n"])
    return few, hard


def confused_pairs(results: dict, passed_over: set[str]) -> list[dict]:
    """The pairs of other classes that are often taken for each other, most mistakes first."""
    matrix, found = results["confusion_matrix"], []
    rows = [(i, row) for i, row in enumerate(results["per_class"]) if row["label"] not in passed_over]
    for (i, one), (j, other) in itertools.combinations(rows, 2):
        count, n = matrix[i][j] + matrix[j][i], one["n"] + other["n"]
        if count >= CONFUSED[0] and count >= CONFUSED[1] * n:
            found.append({"kind": "pair", "labels": [one["label"], other["label"]], "count": count, "n": n})
    return sorted(found, key=lambda each: -each["count"])
