"""Work that goes on ahead of whoever waits for its results."""

import queue
import threading
import time

PATIENCE = 0.05  # seconds that a batch waits for more


class Ahead:
    """Like map(function, items), but the Executor `pool` works on up to `count` items before they are wanted.

    A thread takes the items, so that they may come slowly; what they raise, whoever waits for a result gets.
    """

    def __init__(self, pool, function, items, count):
        self.results = queue.Queue(count)  # functions that wait for one and return it; None at the end
        threading.Thread(target=self._start, args=(pool, function, items), daemon=True).start()

    def _start(self, pool, function, items):
        try:
            for item in items:
                self.results.put(pool.submit(function, item).result)
        except Exception as error:
            failure = error  # `error` is gone after this block
        else:
            self.results.put(None)
            return

        def fail():
            raise failure

        self.results.put(fail)

    def __iter__(self):
        for result in iter(self.results.get, None):
            yield result()

    def batches(self, size):
        """Lists of up to `size` results, of fewer where more do not come within PATIENCE."""
        batch, deadline = [], 0
        while True:
            try:
                wait = max(0, deadline - time.monotonic()) if batch else None
                result = self.results.get(timeout=wait)
            except queue.Empty:
                yield batch
                batch = []
                continue
            try:
                if result:
                    batch.append(result())
            except Exception:
                if batch:
                    yield batch
                raise
            if len(batch) == 1:
                deadline = time.monotonic() + PATIENCE
            if batch and (len(batch) == size or not result):
                yield batch
                batch = []
            if not result:
                return
