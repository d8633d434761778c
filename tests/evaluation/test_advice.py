"""advice.py: what the numbers of an evaluation ask for."""

import numpy as np
import pytest

from suite.evaluation import advice, metrics

CLASSES = ["cat", "dog", "elk", "fox", "gnu", "hen", "owl", "pig"]
MANY = dict.fromkeys(CLASSES, 500)


def advise(matrix, trained_on=MANY, train_accuracy=None):
    """The advice that a confusion matrix gets, a row for each true class."""
    matrix = np.array(matrix)
    labels, predicted = (
        np.repeat(which, matrix.ravel()) for which in np.indices(matrix.shape).reshape(2, -1)
    )
    results = metrics.measure(labels, np.eye(len(matrix))[predicted], CLASSES[: len(matrix)])
    return advice.advise(results, trained_on, train_accuracy)


def kinds(*arguments):
    return [each["kind"] for each in advise(*arguments)]


def test_all_is_fine():
    assert advise([[95, 5], [3, 97]]) == [{"kind": "fine"}]
    assert kinds([[95, 5], [3, 97]], {"cat": 9, "dog": 9}) == ["fine"]  # few pictures that do
    assert kinds([[95, 5], [3, 97]], None, None) == ["fine"]


def test_mistakes_everywhere_are_not_fine():
    assert kinds(16 * np.eye(5, dtype=int) + 1) == ["unclear"]


def test_a_class_of_few_pictures():
    (found,) = advise([[97, 3, 0], [0, 100, 0], [12, 0, 0]], {"cat": 500, "dog": 500, "elk": 12})
    assert found["kind"] == "class" and found["few"]
    assert (found["label"], found["trained"], found["correct"], found["n"]) == ("elk", 12, 0, 12)
    (found,) = advise([[97, 3, 0], [0, 100, 0], [2, 0, 8]], {"cat": 500, "dog": 500})  # none of elk
    assert (found["label"], found["trained"], found["correct"]) == ("elk", 0, 8)


def test_a_class_that_is_hardly_recognised():
    matrix = [[97, 3, 0], [0, 100, 0], [5, 25, 0]]
    for trained_on in (MANY, None):
        (found,) = advise(matrix, trained_on)
        assert (found["label"], found["taken_for"], found["few"]) == ("elk", "dog", False)


def test_a_class_without_pictures_asks_for_nothing():
    assert kinds([[50, 0, 0], [0, 50, 0], [0, 0, 0]], {}) == ["fine"]


def test_classes_are_named_by_mistakes_and_only_some():
    matrix = np.diag([1000, 1000, 0, 0, 0, 0, 0, 0])
    matrix[2:, 0] = range(10, 16)
    found = advise(matrix)
    assert [each.get("label") for each in found] == ["pig", "owl", "hen", "gnu", "fox", None]
    assert found[-1] == {"kind": "classes", "count": 1}


def test_two_classes_that_are_taken_for_each_other():
    (found,) = advise([[80, 20, 0], [15, 85, 0], [1, 1, 98]])
    assert found == {"kind": "pair", "labels": ["cat", "dog"], "count": 35, "n": 200}
    assert "pair" not in kinds([[9, 1, 0], [1, 9, 0], [0, 0, 80]])  # 2 pictures are no pattern


@pytest.mark.parametrize(
    "matrix, guessing",
    [
        ([[49, 0], [51, 0]], True),  # worse than always dog
        ([[29, 21], [20, 30]], True),  # 0.59 of 100: 0.5 lies in the interval
        ([[40, 10], [10, 40]], False),
        ([[50, 0], [0, 0]], False),  # one class alone: nobody can tell
    ],
)
def test_no_better_than_the_most_frequent_class(matrix, guessing):
    found = advise(matrix)
    assert (found[0]["kind"] == "guessing") == guessing
    if guessing:
        assert found[0]["accuracy"] == max(np.sum(matrix, 1)) / 100 and len(found) == 1


def test_an_interval_that_tells_nothing():
    assert kinds([[8, 0], [0, 8]]) == ["fine"]  # 0.806 to 1
    assert "wide" in kinds([[4, 0], [0, 4]])  # 0.676 to 1


@pytest.mark.parametrize("train_accuracy, found", [(1.0, True), (0.96, True), (0.94, False), (None, False)])
def test_overfitting(train_accuracy, found):
    assert ("overfitting" in kinds(120 * np.eye(2, dtype=int) + 40, MANY, train_accuracy)) == found


def test_what_so_few_pictures_may_be_is_no_overfitting():
    assert "overfitting" not in kinds([[3, 1], [1, 3]], MANY, 0.92)  # 0.75, with an interval up to 0.93
