"""The model that is served, and others in its place, with classifiers that are made up."""

import asyncio
import os
import shutil
import time

import numpy as np
import pytest

from suite.files import jsonfile
from suite.pictures.imagefile import BadPicture
from suite.process.errors import UserError
from suite.serving import service
from suite.serving.http import Refused


class Classifier:
    """One that answers with its own number, for pictures that are numbers."""

    def __init__(self, number):
        self.number, self.batches, self.closed = number, [], False

    def prepare(self, data):
        assert not self.closed
        return (
            BadPicture("bad") if data == b"bad" else type("Prepared", (), {"pixels": np.float32(len(data))})
        )

    def probabilities(self, pixels):
        assert not self.closed
        self.batches.append(len(pixels))
        time.sleep(0.02)
        if any(np.ndim(each) == 0 and each == 13 for each in pixels):
            raise MemoryError("13")
        return np.full([len(pixels), 3], self.number, np.float32)

    def close(self):
        self.closed = True


@pytest.fixture
def made(monkeypatch):
    """All Classifiers that were made; what is raised instead, the first the next time."""
    monkeypatch.setattr(service, "LOOK_EVERY", 0.05)
    return [], []


def run(path, work, made):
    """Run `work(service)` with a Service of a model folder."""
    found, errors = made

    def load(model):
        if errors:
            raise errors.pop(0)
        found.append(Classifier(len(found)))
        return found[-1]

    async def main():
        served = service.Service(path, load, 4)
        served.start()
        try:
            await asyncio.wait_for(work(served), 60)
        finally:
            await served.close()

    asyncio.run(main())
    assert all(each.closed for each in found)


async def ask(served, data):
    with served.using(1) as loaded:
        row = await served.probabilities(loaded, data)
        assert row[0] == loaded.classify.number
        return row[0]


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def renew(folder):
    """As another checkpoint of the same name."""
    (index,) = [name for name in os.listdir(folder + "/best") if name.endswith(".index")]
    path = os.path.join(folder, "best", index)
    shutil.copy(path, path + ".new")
    os.replace(path + ".new", path)


def test_what_waits_is_computed_together(copy, made):
    async def work(served):
        await asyncio.gather(*(ask(served, b"x") for _ in range(40)))
        assert max(made[0][0].batches) == 4 and sum(made[0][0].batches) == 41  # with that of the start
        assert len(made[0][0].batches) < 41
        for bad in (b"bad", b"x" * 13):
            with pytest.raises((BadPicture, MemoryError)):
                await ask(served, bad)
        assert await ask(served, b"x") == 0 and served.waiting == 0

    run(copy, work, made)


def test_it_goes_on_answering_where_more_is_asked_than_it_can_compute(copy, made, monkeypatch):
    """Clients that leave after the deadline leave nothing to compute, and some are answered all the time."""
    monkeypatch.setattr(service, "SECONDS", 1)
    answered = []

    async def work(served):
        async def client():
            while served.loop.time() < end:
                try:
                    await asyncio.wait_for(ask(served, b"x"), 1)
                    answered.append(served.loop.time())
                except (asyncio.TimeoutError, Refused):
                    await asyncio.sleep(0.05)

        end = served.loop.time() + 5
        clients = [
            served.loop.create_task(client()) for _ in range(500)
        ]  # of which it can do 200 in a second
        most = 0
        while served.loop.time() < end:
            await asyncio.sleep(0.1)
            most = max(most, len(served.decoded))
        await asyncio.gather(*clients)
        early, late = (sum(start < end - when <= start + 1 for when in answered) for start in (4, 1))
        assert min(early, late) > 10 and most <= 16

    run(copy, work, made)


def test_batches_that_fail_in_turn_are_counted(copy, made):
    async def work(served):
        for failures in (1, 2, 3):
            with pytest.raises(MemoryError):
                await ask(served, b"x" * 13)
            assert served.failures == failures
        assert await ask(served, b"x") == 0 and served.failures == 0

    run(copy, work, made)


def test_too_many_are_refused(copy, made, monkeypatch):
    monkeypatch.setattr(service, "WAITING", 3)

    async def work(served):
        with served.using(3), pytest.raises(Exception, match="more than 3 pictures wait"):
            await ask(served, b"x")
        assert await ask(served, b"x") == 0

    run(copy, work, made)


def test_another_takes_over_whatever_went_wrong_before(copy, made, capsys):
    """The one before answers those who have begun with it."""

    async def work(served):
        made[1].extend(
            [MemoryError("no room for two"), OSError(24, "Too many open files"), ValueError("odd")]
        )
        with served.using(1) as before:
            renew(copy)
            await until(lambda: served.loaded is not before)
            assert not before.classify.closed
            assert (await served.probabilities(before, b"x"))[0] == 0
        await until(lambda: before.classify.closed)
        assert await ask(served, b"x") == 1
        # A damaged one is passed over, until there is another.
        made[1].append(UserError("damaged"))
        renew(copy)
        await until(lambda: not made[1])
        await asyncio.sleep(0.3)
        assert await ask(served, b"x") == 1 and len(made[0]) == 2
        renew(copy)
        await until(lambda: len(made[0]) == 3)

    run(copy, work, made)
    said = capsys.readouterr().err
    for why in ("no room for two", "Too many open files", "odd", "damaged"):
        assert said.count("the model stays as it is: ") == 4 and said.count(why) == 1


def test_one_that_comes_while_another_is_loaded(copy, made):
    """The weights may be those of before, so that it is loaded once more."""

    async def work(served):
        first = served.load

        def replaced(model):
            served.load = first
            renew(copy)
            return first(model)

        served.load = replaced
        renew(copy)
        await until(lambda: served.loaded.classify.number == 2)

    run(copy, work, made)


def test_what_goes_on_failing_is_tried_ever_more_seldom(copy, made, monkeypatch):
    reads, read = [], jsonfile.read
    monkeypatch.setattr(jsonfile, "read", lambda path: reads.append(path) or read(path))

    async def work(served):
        await asyncio.sleep(0.4)
        assert sum(path.endswith("model.json") for path in reads) == 1  # not each time that it looks
        made[1].extend([MemoryError("no room for two")] * 99)
        renew(copy)
        await asyncio.sleep(1)
        assert len(made[1]) > 90
        await until(lambda: len(made[1]) < 97)

    run(copy, work, made)


def test_the_end_while_another_is_loaded(copy, made):
    async def work(served):
        first = served.load

        def slow(model):
            loading.set()
            time.sleep(0.3)
            return first(model)

        loading, served.load = asyncio.Event(), slow
        renew(copy)
        await until(loading.is_set)

    run(copy, work, made)
    assert len(made[0]) == 2
