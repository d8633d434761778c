"""Work done by several processes at once."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import Future, ProcessPoolExecutor, wait
from typing import Callable, Iterator, Sequence, TypeVar

CHUNK = 4  # items that a process takes at a time
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Yield function(item) for each of the items in their order.

    Processes, because threads wait for each other's Python code: they are as fast on large photos but
    slower on small pictures (benchmarks/README.md). Only a few items are computed ahead, so the memory
    does not grow with their number.

    Raises:
        BrokenProcessPool: one was killed.
    """
    pending: collections.deque[Future[list[Result]]] = collections.deque()
    with ProcessPoolExecutor(workers, initializer=start_worker, initargs=(os.getpid(),)) as executor:
        try:
            for i in range(0, len(items), CHUNK):
                pending.append(executor.submit(map_list, function, items[i : i + CHUNK]))
                executor._result_queue._writer.close()  # type: ignore  # the processes have it; see `result`
                if len(pending) > 4 * workers:
                    yield from result(pending.popleft(), executor)
            while pending:
                yield from result(pending.popleft(), executor)
        finally:
            # Not by cancelling, which leaves Python 3.7's pool waiting for ever where nothing else is left to
            # do; nor by the pool's own end, which waits for ever where a process is killed meanwhile.
            kill(executor)


def result(future: Future[list[Result]], executor: ProcessPoolExecutor) -> list[Result]:
    """What a process computed.

    One that is killed while it writes leaves the pool waiting for the rest, as long as anybody else could
    write it; so the others are killed, too.

    Raises:
        BrokenProcessPool: one was killed.
    """
    while not wait([future], timeout=1).done:
        if not all(process.is_alive() for process in processes(executor)):
            kill(executor)
    return future.result()


def processes(executor: ProcessPoolExecutor) -> list[multiprocessing.Process]:
    """The pool's."""
    return list(executor._processes.values())


def kill(executor: ProcessPoolExecutor) -> None:
    """End the pool's processes at once: it finds itself broken, and whoever waits gets BrokenProcessPool."""
    for process in processes(executor):
        process.kill()


def map_list(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The function's results for a CHUNK of items, in a worker process."""
    return [function(item) for item in items]


def start_worker(parent: int) -> None:
    """In a worker process: leave signals to the parent, and end when it has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
