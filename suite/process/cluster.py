"""Work done by the workers of a Dask cluster, as workers.py has it by this machine's processes: --cluster.

Tasks carry the suite's functions and paths of files, so each worker needs the same Python, packages and
suite, and sees the same files. Each task checks that, because a worker may come at any time.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import functools
import glob
import hashlib
import importlib.util
import os
import platform
import re
from concurrent.futures.process import BrokenProcessPool
from typing import Callable, Iterator, Sequence

import numpy as np
import PIL
from PIL import features

from suite.process import commandline
from suite.process.errors import UserError
from suite.process.workers import CHUNK, Item, Result, map_list

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TIMEOUT = 10  # seconds that the scheduler has to answer
PATIENCE = 60  # seconds without any worker: what has died may be started anew
HELP = "start all of them anew, in the suite's folder and FlowIO.py's environment"


def map_on_cluster(
    function: Callable[[Item], Result], items: Sequence[Item], address: str, seen: str
) -> Iterator[Result]:
    """Yield function(item) for each of the items in their order; see workers.map_in_processes.

    What a worker that dies had to do, others do.

    Args:
        address: the scheduler's, such as tcp://10.0.0.1:8786.
        seen: the path of a file, by which a worker tells whether it sees the items'.
    Raises:
        UserError: there is no scheduler or worker, or a worker is not as this process is.
        BrokenProcessPool: one worker after the other died at the same items.
    """
    with connect(address) as client:
        expected = {**versions(), seen: os.path.getsize(seen)}
        client.run(check, expected)
        most = 4 * sum(client.nthreads().values())  # chunks at a time, so that the memory does not grow
        pending: collections.deque = collections.deque()
        for i in range(0, len(items), CHUNK):
            task = functools.partial(checked, expected, function, items[i : i + CHUNK])
            pending.append(client.submit(task, pure=False))
            if len(pending) > most:
                yield from result(pending.popleft(), client)
        while pending:
            yield from result(pending.popleft(), client)


@contextlib.contextmanager
def connect(address):
    """A distributed.Client, whose tasks are forgotten by the scheduler when it closes or its process ends.

    Failures of Dask's within the context are raised as map_on_cluster says.
    """
    import dask  # here, because it is optional

    quiet = dict.fromkeys(("distributed", "distributed.client", "distributed.core"), "critical")
    with dask.config.set(logging=quiet):  # is read when it is imported
        import distributed
        from distributed.scheduler import KilledWorker
    try:
        found = asyncio.run(asyncio.wait_for(scheduler_version(address), TIMEOUT + 2))
    except Exception as error:  # TLS that is not set up is a TypeError
        values = address, reason(error)
        message = "--cluster %s: no scheduler of Dask answers there (%s); README.md says how to start one"
        if address.startswith("tls"):
            message += ", docs/SECURITY.md how FlowIO.py finds the certificates"
        raise UserError(message % values) from error
    if found != versions()["distributed"]:  # with which a Client may hang
        values = address, found, versions()["distributed"], HELP
        raise UserError("--cluster %s: the scheduler has distributed %s, not %s; %s" % values)
    with distributed.Client(address, timeout=TIMEOUT, set_as_default=False) as client:
        try:
            client.wait_for_workers(1, timeout=TIMEOUT)
            yield client
        except KilledWorker as error:
            raise BrokenProcessPool from error
        except distributed.TimeoutError as error:
            message = "--cluster %s: has no workers; python -m distributed.cli.dask_worker %s starts one"
            raise UserError(message % (address, address)) from error
        except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
            message = "--cluster %s: the scheduler has gone; start it and its workers anew"
            raise UserError(message % address) from error
        except UserError:
            raise
        except Exception as error:  # of a worker or scheduler without the suite it is now this, now that
            values = address, reason(error), HELP
            raise UserError("--cluster %s: a task failed (%s); %s" % values) from error


def reason(error):
    """What an exception of Dask's says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


async def scheduler_version(address):
    """The release of `distributed` that a scheduler runs, such as 2022.2.0. Raises OSError."""
    import distributed

    own = distributed.Security().get_connection_args("client")  # certificates, from Dask's configuration
    async with distributed.rpc(address, timeout=TIMEOUT, connection_args=own) as scheduler:
        return (await scheduler.versions())["packages"]["distributed"]


def result(future, client):
    """What a task computed."""
    import distributed

    while True:
        with contextlib.suppress(distributed.TimeoutError):
            return future.result(timeout=PATIENCE)
        client.wait_for_workers(1, timeout=TIMEOUT)


def checked(expected: dict, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The function's results for a CHUNK of items, on a worker; raises UserError, see `check`."""
    check(expected)
    return map_list(function, items)


def check(expected: dict) -> None:
    """On a worker: raise UserError where what `map_on_cluster` expects of it is not so."""
    *names, seen = expected
    for name in names:
        if versions()[name] != expected[name]:
            values = platform.node(), name, versions()[name], expected[name], HELP
            raise UserError("--cluster: a worker on %s has %s %s, not %s; %s" % values)
    if not os.path.exists(seen) or os.path.getsize(seen) != expected[seen]:
        raise UserError(
            "--cluster: a worker on %s does not see %s as it is here; all need one file system, at the same "
            "path" % (platform.node(), seen)
        )


@functools.lru_cache(None)
def versions() -> dict:
    """What decides the bytes that come out; of the suite what was there when this process first asked."""
    code = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(ROOT, "suite", "*", "*.py"))):
        with open(path, "rb") as file:
            code.update(file.read())
    return {
        "Python": platform.python_version(),
        "distributed": importlib.import_module("distributed").__version__,
        "numpy": np.__version__,
        "Pillow": PIL.__version__,
        "libjpeg": features.version("jpg"),
        "code of the suite": code.hexdigest()[:12],
    }


def add_option(group):
    """--cluster: whose workers do the work."""
    group.add_argument(
        "--cluster",
        type=scheduler,
        metavar="tcp://HOST:PORT",
        help="a scheduler of Dask, whose workers read and decode the pictures in place of this machine's",
    )


def scheduler(text):
    """An argparse type: the address of a scheduler."""
    if not re.fullmatch(r"(tcp|tls)://[^\s/]+:\d+", text):
        raise argparse.ArgumentTypeError("%r is not tcp://host:port or tls://host:port" % text)
    return text


def check_option(options, parser):
    """End with a message where --cluster is asked for and cannot be had."""
    if options.cluster and commandline.is_given("workers"):
        parser.error("--workers: not with --cluster, whose workers are as many as were started")
    if options.cluster and not importlib.util.find_spec("distributed"):
        parser.error("--cluster: Dask is missing; pip install -r requirements/cluster.txt")
