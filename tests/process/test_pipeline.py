"""pipeline.py: results in order, whatever the pace."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from suite.process import pipeline
from suite.process.pipeline import Ahead


def test_results_come_in_order_and_in_full_batches(monkeypatch):
    monkeypatch.setattr(pipeline, "PATIENCE", 60)
    with ThreadPoolExecutor(4) as pool:
        doubled = Ahead(pool, lambda number: 2 * number, range(100), 8)
        tripled = Ahead(pool, lambda number: 3 * number, doubled, 8)
        batches = list(tripled.batches(32))
    assert [len(batch) for batch in batches] == [32, 32, 32, 4]
    assert sum(batches, []) == [6 * number for number in range(100)]


def test_what_comes_slowly_is_answered_as_it_comes():
    answered = threading.Event()

    def slow():
        yield 1
        assert answered.wait(60)
        yield 2

    with ThreadPoolExecutor(1) as pool:
        batches = Ahead(pool, abs, slow(), 8).batches(32)
        assert next(batches) == [1]
        answered.set()
        assert list(batches) == [[2]]


def test_no_more_is_begun_than_asked_for():
    begun = []
    with ThreadPoolExecutor(1) as pool:
        results = iter(Ahead(pool, begun.append, range(1000), 4))
        for _ in range(10):
            next(results)
        assert len(begun) <= 10 + 4 + 2  # what waits, and one in each hand


def test_nothing_gives_no_batch():
    with ThreadPoolExecutor(1) as pool:
        assert list(Ahead(pool, abs, [], 4).batches(8)) == []


def broken():
    yield -1
    raise KeyError("the source")


@pytest.mark.parametrize("function, items", [(abs, broken()), (lambda item: 1 // (item + 1), [0, -1])])
def test_errors_arrive_after_the_results_before_them(function, items):
    with ThreadPoolExecutor(1) as pool:
        again = Ahead(pool, abs, Ahead(pool, function, items, 4), 4)
        batches = again.batches(8)
        assert next(batches) == [1]
        with pytest.raises((KeyError, ZeroDivisionError)):
            next(batches)
