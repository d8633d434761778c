"""Labels that may be wrong: by hand, and as cleanlab has it."""

import numpy as np
import pytest

from suite.evaluation import suspects
from suite.process import tf_versions


def test_suspects_by_hand():
    """Of class 0 the mean is 0.56, of class 1 0.6; class 2 is nobody's."""
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.8, 0.2, 0.0],
            [0.2, 0.7, 0.1],  # a mistake that may be of class 1
            [0.1, 0.9, 0.0],
            [0.2, 0.8, 0.0],
            [0.9, 0.1, 0.0],  # a mistake that may be of class 0
            [0.4, 0.1, 0.5],  # a mistake, and of class 2 nothing may be
            [0.5, 0.4, 0.1],
        ]
    )
    assert list(suspects.find(labels, probabilities)) == [5, 2]
    probabilities[6] = [0.05, 0.4, 0.55]  # there are two still, and its label is the least probable
    assert list(suspects.find(labels, probabilities)) == [6, 5]
    right = labels != 5  # where all is right
    assert list(suspects.find(labels[right][:2], probabilities[right][:2])) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_suspects_are_cleanlabs(seed):
    """As many as cleanlab counts, by its score."""
    rng = np.random.RandomState(seed)
    classes = rng.randint(2, 8)
    labels = np.concatenate([np.arange(classes), rng.randint(0, classes, rng.randint(20, 400))])
    probabilities = rng.dirichlet(np.full(classes, rng.choice([0.3, 0.5, 2])), len(labels))
    probabilities[np.arange(len(labels)), labels] += rng.choice([0, 0.1, 0.3])
    probabilities /= probabilities.sum(1, keepdims=True)
    found = suspects.find(labels, probabilities)
    mistakes = probabilities.argmax(1) != labels
    if tf_versions.VERSION == "1.15":
        from cleanlab.latent_estimation import compute_confident_joint
        from cleanlab.pruning import order_label_errors

        _, counted = compute_confident_joint(labels, probabilities, return_indices_of_off_diagonals=True)
        expected = order_label_errors(mistakes, probabilities, labels, "prob_given_label")
        number = np.count_nonzero(mistakes[counted])
    else:
        from cleanlab.count import num_label_issues
        from cleanlab.rank import order_label_issues

        number = num_label_issues(labels, probabilities)
        expected = order_label_issues(mistakes, labels, probabilities, rank_by="self_confidence")
    assert 0 < number == len(found) and list(found) == list(expected[:number])
