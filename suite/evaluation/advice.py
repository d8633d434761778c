"""What to do next: rules on the numbers of an evaluation. The words stand in report.html."""

from __future__ import annotations

import itertools

from suite.evaluation import metrics

FEW = 80  # pictures of a class to train on; with fewer, more of them are the first thing to try
GOOD = 0.9  # an accuracy or a recall that asks no question
WEAK = 0.5  # a recall that does
CONFUSED = 3, 0.1  # pictures at least, and their share of both classes
OVERFIT = 0.15  # how much more it is right on the pictures of the training
MOST_CLASSES, MOST_PAIRS = 5, 3  # that are named


def advise(results: dict, trained_on: dict | None = None, train_accuracy: float | None = None) -> list[dict]:
    """What the numbers ask for, the gravest first; one piece of advice at least.

    Args:
        results: what metrics.measure returned.
        trained_on: pictures of each class that the model was trained on; None where nobody knows.
        train_accuracy: that of the training's last batches; None likewise.
    Returns:
        [{"kind", and what its words need}], of these kinds: "guessing" (not shown to be better than the most
        frequent class), "wide" (the interval tells nothing), "class" (`label` has few pictures, or is hardly
        recognised), "classes" (`count` more of these), "pair" (`labels` are taken for each other),
        "overfitting", and where there is none of these "unclear" or "fine".
    """
    accuracy, (low, high) = results["accuracy"], results["accuracy_ci95"]
    advice = []
    guessing = low <= results["baseline"]["accuracy"] < 1
    if guessing:
        advice.append({"kind": "guessing", **results["baseline"]})
    if metrics.is_wide([low, high]):
        advice.append({"kind": "wide"})
    classes = weak_classes(results, trained_on)
    if guessing:  # which classes it fails on then tells nothing
        classes = [each for each in classes if each["few"]]
    advice += classes[:MOST_CLASSES]
    if classes[MOST_CLASSES:]:
        advice.append({"kind": "classes", "count": len(classes) - MOST_CLASSES})
    if not guessing:
        advice += confused_pairs(results, {each["label"] for each in classes})[:MOST_PAIRS]
    if train_accuracy is not None and train_accuracy > max(high, accuracy + OVERFIT):
        advice.append({"kind": "overfitting", "train_accuracy": train_accuracy})
    return advice or [{"kind": "fine" if accuracy >= GOOD else "unclear"}]


def weak_classes(results: dict, trained_on: dict | None) -> list[dict]:
    """The classes that are recognised seldom, or not well and from few pictures, most mistakes first."""
    found = []
    for i, row in enumerate(results["per_class"]):
        trained = None if trained_on is None else trained_on.get(row["label"], 0)
        few = trained is not None and trained < FEW
        if row["n"] and row["recall"] < (GOOD if few else WEAK):
            counts = list(results["confusion_matrix"][i])
            correct, counts[i] = counts[i], 0
            taken_for = results["per_class"][counts.index(max(counts))]["label"]
            each = {"kind": "class", "label": row["label"], "n": row["n"], "correct": correct}
            found.append({**each, "trained": trained, "few": few, "taken_for": taken_for})
    return sorted(found, key=lambda each: each["correct"] - each["n"])


def confused_pairs(results: dict, passed_over: set[str]) -> list[dict]:
    """The pairs of other classes that are often taken for each other, most mistakes first."""
    matrix, found = results["confusion_matrix"], []
    rows = [(i, row) for i, row in enumerate(results["per_class"]) if row["label"] not in passed_over]
    for (i, one), (j, other) in itertools.combinations(rows, 2):
        count, n = matrix[i][j] + matrix[j][i], one["n"] + other["n"]
        if count >= CONFUSED[0] and count >= CONFUSED[1] * n:
            found.append({"kind": "pair", "labels": [one["label"], other["label"]], "count": count, "n": n})
    return sorted(found, key=lambda each: -each["count"])
