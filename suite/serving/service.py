"""The model that is served: batches of what waits, and a better checkpoint in its place when there is one."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Iterator, NamedTuple

import numpy as np

from suite.model import modelfolder
from suite.model.classifier import Classifier
from suite.pictures.imagefile import BadPicture
from suite.process import device
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.serving.http import SECONDS, busy

WAITING = 512  # pictures
LOOK_EVERY = 2  # seconds, whether there is another checkpoint
# Seconds: a checkpoint that failed is tried again after LOOK_EVERY, then after twice as long, up to this.
LONGEST = 300
AHEAD = 2  # batches that are decoded while one is computed


class Waiting(NamedTuple):
    """A picture that is decoded."""

    loaded: Loaded
    pixels: np.ndarray
    answer: asyncio.Future


class Loaded:
    """A Classifier, what it was made of, and how many pictures it is at work on."""

    def __init__(self, classify: Classifier, model: modelfolder.Model, identity: tuple):
        self.classify, self.classes, self.identity = classify, model.classes, identity
        self.name = os.path.basename(os.path.abspath(model.folder))
        self.version = modelfolder.checkpoint_step(model.checkpoint) or 0
        self.users = 0


class Service:
    """Answers for pictures, in the asyncio loop that it is started in.

    Args:
        path: of a model folder, or of a checkpoint in it.
        load: makes a Classifier of what the path names.
        batch_size: pictures that are computed at a time.
    """

    def __init__(self, path: str, load: Callable[[modelfolder.Model], Classifier], batch_size: int):
        self.path, self.load, self.batch_size = path, load, batch_size
        self.loaded = self.load_model(identity(path))
        self.threads = ThreadPoolExecutor(device.cores())
        self.computing = ThreadPoolExecutor(1)
        self.loading = ThreadPoolExecutor(1)
        self.waiting = 0
        self.failures = 0  # batches in turn
        self.decoded: collections.deque[Waiting] = collections.deque()
        self.passed_over: set = set()  # identities of checkpoints that cannot be loaded, and what was said
        # The last that failed and may load later: its identity, seconds to wait, the time of the next try.
        self.failed: tuple = (None, 0.0, 0.0)
        self.is_closed = False

    def start(self) -> None:
        """In the loop: begin to work."""
        self.loop = asyncio.get_event_loop()
        self.has_decoded = asyncio.Event()
        self.room = asyncio.Semaphore((1 + AHEAD) * self.batch_size)
        self.tasks = [self.loop.create_task(work()) for work in (self.compute, self.look_for_others)]

    async def close(self) -> None:
        """End the threads and the model, when all is answered."""
        self.is_closed = True
        for task in self.tasks:
            task.cancel()
        for threads in (self.loading, self.computing, self.threads):
            threads.shutdown()
        await asyncio.sleep(0)  # lets take_over close what was loaded meanwhile
        self.loaded.classify.close()

    # --- pictures ----------------------------------------

    @contextlib.contextmanager
    def using(self, pictures: int) -> Iterator[Loaded]:
        """The model, which stays until so many pictures are answered. Raises Refused where too many wait."""
        if self.waiting + pictures > WAITING:
            raise busy("too_many_waiting", "more than %d pictures wait" % WAITING)
        loaded = self.loaded
        self.waiting += pictures
        loaded.users += 1
        try:
            yield loaded
        finally:
            self.waiting -= pictures
            loaded.users -= 1
            if not loaded.users and loaded is not self.loaded:
                self.in_thread(self.loading, loaded.classify.close)

    async def probabilities(self, loaded: Loaded, data: bytes) -> np.ndarray:
        """float32 [classes] for the bytes of a picture's file. Raises BadPicture."""
        came = self.loop.time()
        async with self.room:
            if self.loop.time() - came > SECONDS / 2:  # the rest would not do, and others wait behind it
                raise busy("too_many_waiting", "pictures wait longer than %g s" % (SECONDS / 2))
            prepared = await self.in_thread(self.threads, loaded.classify.prepare, data)
            if isinstance(prepared, BadPicture):
                raise prepared
            picture = Waiting(loaded, prepared.pixels, self.loop.create_future())
            self.decoded.append(picture)
            self.has_decoded.set()
            return await picture.answer

    async def compute(self) -> None:
        """Compute what is decoded, all at once up to a batch, as soon as the network is free."""
        while True:
            await self.has_decoded.wait()
            loaded = self.decoded[0].loaded
            batch: list[Waiting] = []
            while self.decoded and self.decoded[0].loaded is loaded and len(batch) < self.batch_size:
                picture = self.decoded.popleft()
                if not picture.answer.done():  # else nobody waits any more
                    batch.append(picture)
            if not self.decoded:
                self.has_decoded.clear()
            if not batch:
                continue
            pixels = [picture.pixels for picture in batch]
            try:
                rows = await self.in_thread(self.computing, loaded.classify.probabilities, pixels)
            except asyncio.CancelledError:  # an Exception, to Python 3.7
                raise
            except Exception as error:  # such as a GPU's, out of memory: the next batch may do better
                self.failures += 1
                for picture in batch:
                    if not picture.answer.done():
                        picture.answer.set_exception(error)
                continue
            self.failures = 0
            for picture, row in zip(batch, rows):
                if not picture.answer.done():  # else nobody waits any more
                    picture.answer.set_result(row)

    def in_thread(
        self, threads: ThreadPoolExecutor | None, function: Callable, *arguments: object
    ) -> asyncio.Future:
        """What `function` returns, in one of these threads, or in one of asyncio's own."""
        return self.loop.run_in_executor(threads, function, *arguments)

    # --- checkpoints ----------------------------------------

    def load_model(self, known: tuple) -> Loaded:
        """Make the model ready to answer. Raises UserError.

        Args:
            known: its identity of before, for which what takes its place meanwhile is another one.
        """
        model = modelfolder.load_model(self.path)
        classify = self.load(model)
        # The first answer is the slow one.
        classify.probabilities([np.zeros([model.image_size, model.image_size, 3], np.float32)])
        return Loaded(classify, model, known)

    async def look_for_others(self) -> None:
        """Load another checkpoint beside the one that answers, and let it take over."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.in_thread(self.loading, self.load_other)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if str(error) not in self.passed_over:
                    say("the model stays as it is: %s" % error)
                self.passed_over.add(str(error))

    def load_other(self) -> None:
        """Load the checkpoint that the path names now, if it is another one."""
        known = identity(self.path)
        failed, wait, until = self.failed
        is_early = known == failed and time.monotonic() < until
        if is_early or known in (self.loaded.identity, *self.passed_over):
            return
        try:
            other = self.load_model(known)
        except UserError:
            self.passed_over.add(known)
            raise
        except Exception:  # too little memory for two, say; later there may be more
            wait = min(2 * wait, LONGEST) if known == failed else LOOK_EVERY
            self.failed = known, wait, time.monotonic() + wait
            raise
        self.loop.call_soon_threadsafe(self.take_over, other)

    def take_over(self, other: Loaded) -> None:
        """From here on the other one answers."""
        if self.is_closed:
            other.classify.close()
            return
        before, self.loaded = self.loaded, other
        if other.version == before.version:  # as where train.py goes on: model.json is written anew
            say("the model was read anew, step %d" % other.version)
        else:
            say("the model is that of step %d now, before %d" % (other.version, before.version))
        if not before.users:
            self.in_thread(self.loading, before.classify.close)


def identity(path: str) -> tuple:
    """What is another one for another checkpoint, also where that has the same name; reads none of it."""
    folder, checkpoint = modelfolder.find_model(path)
    found: list = [checkpoint]
    names = checkpoint + ".index", checkpoint + modelfolder.TEMPERATURE, os.path.join(folder, "model.json")
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name)
            found.append((name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
