"""What a set of answers is worth: numpy arrays in, plain numbers out."""

from __future__ import annotations

import numpy as np

from suite.files.schemas import TEMPERATURES

THRESHOLD = 0.8  # of the probability of an answer, an example of predict.py --threshold
PRECISIONS = (0.9, 0.95, 0.99)  # for which `thresholds` are looked for
TOP_K = 5  # or as many as there are classes
BINS = 10  # of the reliability diagram
FEW = 10  # with fewer pictures the share that is right tells nothing
WIDEST = 0.3  # a wider 95% interval tells nothing
CHANCE = 0.05  # a p value above which two models show no difference


def measure(
    labels: np.ndarray, probabilities: np.ndarray, classes: list[str], temperature: float = 1
) -> dict:
    """Accuracy and what explains it.

    Args:
        labels: int64 [n], indices into `classes`; n > 0.
        probabilities: float [n, classes], each row adding up to 1.
        classes: list of str in index order.
        temperature: what the logits were divided by.
    Returns:
        The dict that evaluation.json holds. A precision, recall or F1 whose denominator is zero
        (no picture of the class, or none predicted) is 0.
    """
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    matrix = confusion_matrix(labels, predicted, classes)
    correct = int(matrix.trace())
    k = min(TOP_K, len(classes))
    true = probabilities[np.arange(len(labels)), labels][:, None]
    is_before = (probabilities == true) & (np.arange(len(classes)) < labels[:, None])  # of equal ones
    in_top_k = np.count_nonzero((probabilities > true) | is_before, 1) < k
    per_class = measure_classes(matrix, classes)
    most_frequent = max(per_class, key=lambda row: row["n"])
    return {
        "n": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_ci95": wilson_interval(correct, len(labels)),
        "baseline": {  # always the same answer
            "label": most_frequent["label"],
            "accuracy": most_frequent["n"] / len(labels),
        },
        "top_k": {
            "k": k,
            "accuracy": float(in_top_k.mean()),
            "accuracy_ci95": wilson_interval(int(in_top_k.sum()), len(labels)),
        },
        "macro": average(per_class, [1] * len(classes)),
        "weighted": average(per_class, [row["n"] for row in per_class]),
        "threshold": withheld(predicted == labels, confidence),
        "thresholds": thresholds(predicted == labels, confidence),
        "log_loss": log_loss(labels, probabilities),
        "temperature": temperature,
        "calibration": {
            **calibration(predicted == labels, confidence),
            "ece_before": calibration(predicted == labels, heated(probabilities, temperature).max(1))["ece"],
        },
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
    }


def withheld(correct: np.ndarray, confidence: np.ndarray) -> dict:
    """How many right and wrong answers `predict.py --threshold` with THRESHOLD would withhold.

    Args:
        correct, confidence: bool and float [n]: whether each answer is right, and its probability.
    """
    doubtful = confidence < THRESHOLD
    return {
        "threshold": THRESHOLD,
        "right": int((doubtful & correct).sum()),
        "wrong": int((doubtful & ~correct).sum()),
    }


def thresholds(correct: np.ndarray, confidence: np.ndarray) -> list[dict]:
    """What `predict.py --threshold` has to be for answers of a higher precision than all answers have.

    Args:
        correct, confidence: bool and float [n]: whether each answer is right, and its probability; n > 0.
    Returns:
        [{"wanted", "threshold", "answered", "precision", "precision_ci95"}] for each of PRECISIONS that is
        above the accuracy and can be had: the lowest such threshold, in thousandths, the share of pictures
        that it answers, and which share of these rightly.
    """
    grid = np.arange(1, 1000) / 1000
    answered, right = (
        len(each) - np.searchsorted(np.sort(each.astype(np.float64)), grid)
        for each in (confidence, confidence[correct])
    )
    rows = []
    for wanted in PRECISIONS:
        enough = np.flatnonzero((right >= wanted * answered) & (answered > 0))
        if correct.mean() < wanted and enough.size:
            at = enough[0]
            rows.append(
                {
                    "wanted": wanted,
                    "threshold": float(grid[at]),
                    "answered": ratio(answered[at], len(correct)),
                    "precision": ratio(right[at], answered[at]),
                    "precision_ci95": wilson_interval(int(right[at]), int(answered[at])),
                }
            )
    return rows


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> np.ndarray:
    """How often each class (row) was taken for each (column): int64 [classes, classes].

    Args:
        labels, predicted: int64 [n], indices into `classes`.
    """
    matrix = np.zeros([len(classes), len(classes)], int)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


def measure_classes(matrix: np.ndarray, classes: list[str]) -> list[dict]:
    """[{"label", "precision", "recall", "f1", "n", "predicted"}] from int [true, predicted].

    `n` and `predicted` are numbers of pictures, the others from 0 to 1.
    """
    correct, n_true, n_predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    return [
        {
            "label": name,
            "precision": ratio(correct[i], n_predicted[i]),
            "recall": ratio(correct[i], n_true[i]),
            "f1": ratio(2 * correct[i], n_true[i] + n_predicted[i]),
            "n": int(n_true[i]),
            "predicted": int(n_predicted[i]),
        }
        for i, name in enumerate(classes)
    ]


def average(per_class: list[dict], weights: list[int]) -> dict[str, float]:
    """{"precision", "recall", "f1"}, averaged over the classes that occur or were predicted.

    Args:
        per_class: from `measure_classes`.
        weights: a number for each class, not all of them 0.
    """
    rows = [(row, weight) for row, weight in zip(per_class, weights) if row["n"] or row["predicted"]]
    total = sum(weight for _, weight in rows)
    keys = ("precision", "recall", "f1")
    return {key: sum(row[key] * weight for row, weight in rows) / total for key in keys}


def ratio(part: float, whole: float) -> float:
    """A float, 0 where there is no whole."""
    return float(part) / float(whole) if whole else 0.0


def wilson_interval(successes: int, n: int) -> list[float]:
    """The 95% score interval of a proportion (Wilson 1927): [low, high], within 0 and 1.

    Args:
        successes: from 0 to n; n > 0.
    """
    z = 1.959964  # the normal distribution's quantile for 95%
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return [max(0.0, float(low)), min(1.0, float(high))]


def is_wide(interval: list[float]) -> bool:
    """Whether an interval of a proportion, [low, high], is so wide that the proportion tells nothing."""
    return interval[1] - interval[0] > WIDEST


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean of -log(probability of the right class); a probability of 0 counts as the smallest float32.

    Args:
        labels: int64 [n]; n > 0.
        probabilities: float [n, classes].
    """
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def calibration(correct: np.ndarray, confidence: np.ndarray) -> dict:
    """How well the probability of the best class tells how often it is right (Guo et al. 2017).

    Args:
        correct: bool [n]; confidence: float [n], 0 to 1; n > 0.
    Returns:
        {"ece", "bins": [{"low", "high", "n", "confidence", "accuracy"}]}: the expected calibration
        error, and the bins of equal width that it is the weighted mean over. Empty bins have None.
    """
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for i in range(BINS):
        inside = number == i
        n = int(inside.sum())
        row = {"low": i / BINS, "high": (i + 1) / BINS, "n": n, "confidence": None, "accuracy": None}
        if n:
            mean, accuracy = float(confidence[inside].mean()), float(correct[inside].mean())
            row.update(confidence=mean, accuracy=accuracy)
            error += n * abs(mean - accuracy)
        bins.append(row)
    return {"ece": error / len(correct), "bins": bins}


def heated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities without the temperature that they were made with; of --mirror's means, nearly.

    Args:
        probabilities: float [n, classes].
    """
    if temperature == 1:  # nothing to undo, and of many classes the copies are large
        return probabilities
    powers = probabilities.astype(np.float64) ** temperature
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """What to divide logits by so that their softmax tells how often it is right (Guo et al. 2017).

    That of the least log loss, within TEMPERATURES. One more picture counts, of a class drawn at random, as
    in Platt 1999: without it answers that are all right would get no doubt at all.

    Args:
        labels: int64 [n]; n > 0.
        logits: float [n, classes], finite.
    """
    logits = logits - logits.max(1, keepdims=True).astype(np.float64)
    n = len(labels)
    true = (n * logits[np.arange(n), labels].mean() + logits.mean()) / (n + 1)
    low, high = np.log(TEMPERATURES)
    for _ in range(30):  # the loss is convex in 1 / temperature: its slope is 0 once
        middle = (low + high) / 2
        weights = np.exp(logits / np.exp(middle))
        expected = ((weights * logits).sum(1) / weights.sum(1)).mean()
        low, high = (middle, high) if expected > true else (low, middle)
    return float(np.exp(middle))


def mcnemar(correct: np.ndarray, other_correct: np.ndarray) -> dict:
    """Whether two models differ on the same pictures: the exact test of McNemar (1947).

    Args:
        correct, other_correct: bool [n], whether each model answered each picture right.
    Returns:
        {"only_first_right", "only_other_right", "p_value"}: the p value is two-sided, the
        probability of so uneven a split of the pictures that only one got right, if both are equally good.
    """
    first = int(np.count_nonzero(correct & ~other_correct))
    other = int(np.count_nonzero(~correct & other_correct))
    ways, total = 1, 0  # whole numbers, exact for any n
    for i in range(min(first, other) + 1):
        total += ways
        ways = ways * (first + other - i) // (i + 1)
    p_value = min(1.0, 2 * total / 2 ** (first + other))
    return {"only_first_right": first, "only_other_right": other, "p_value": p_value}
