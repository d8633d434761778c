"""Which labels are likely wrong: confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

import numpy as np

ROUNDING = 1e-6  # by which a probability may miss a mean that it equals


def find(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The pictures whose labels are likely wrong, the likeliest first: int64 [suspects], indices.

    A picture may be of a class if it has at least the probability of it that the pictures labelled so have on
    average. There are as many suspects as mistakes that may be of another class than their label says. They
    are the mistakes whose labels are the least probable: of wrong labels these find more than the former do
    (benchmarks/understanding.md).

    Args:
        labels: int64 [n].
        probabilities: float [n, classes], of models that have not seen these pictures and labels.
    """
    n, classes = probabilities.shape
    own = probabilities[np.arange(n), labels]
    totals, counts = np.bincount(labels, own, classes), np.bincount(labels, minlength=classes)
    means = np.divide(totals, counts, out=np.full(classes, np.inf), where=counts > 0)
    may_be = probabilities >= means - ROUNDING
    may_be[np.arange(n), labels] = False
    mistakes = np.flatnonzero(probabilities.argmax(1) != labels)
    number = np.count_nonzero(may_be[mistakes].any(1))
    return mistakes[np.argsort(own[mistakes], kind="stable")][:number]
