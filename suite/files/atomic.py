"""Folders and files that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from typing import Iterator

from suite.process import lifetime, tf_versions
from suite.process.errors import UserError

PARTIAL = ".partial"  # suffix of what is not written to its end
PREVIOUS = ".previous"  # suffix of the old folder while the new one takes its place
LOCK_SECONDS = 3  # that a lock is waited for: a killed FlowIO.py's workers hold it a moment longer


# --- by one process at a time ----------------------------------------


def lock(folder: str, alone: bool = False) -> int:
    """Lock a folder until this process ends: `alone` to write to it, else together with other readers.

    It is the kernel's lock on the folder itself, so it leaves no file behind, and none is stale: it ends with
    the process, however that ends. Remote folders, missing ones and those on file systems without locks
    are not locked.

    Returns:
        A file descriptor, whose closing gives the lock back.
    Raises:
        UserError: another process holds it.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while os.path.isdir(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UserError(
                    "%s: another process of this suite is using it; wait until that has ended, or choose "
                    "another folder" % folder
                ) from None
            time.sleep(0.1)
        except OSError:
            return descriptor
        else:
            if is_at(descriptor, folder):
                return descriptor
        os.close(descriptor)
    return os.open(os.devnull, os.O_RDONLY)


def lock_new(folder: str) -> int:
    """`lock` a folder alone, and make it before if need be, as often as another process takes it away."""
    while True:
        os.makedirs(folder, exist_ok=True)
        descriptor = lock(folder, alone=True)
        if is_at(descriptor, folder):
            return descriptor
        os.close(descriptor)


def is_at(descriptor: int, folder: str) -> bool:
    """Whether the open folder is the one of this name, and was not replaced while it was opened."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    return False


# --- whole or not at all ----------------------------------------


def settle(output: str) -> None:
    """Bring back a folder that a process left aside, killed between the two renames of `replacing`."""
    if not os.path.exists(output) and os.path.exists(output + PREVIOUS):
        os.rename(output + PREVIOUS, output)


@contextlib.contextmanager
def replacing(output: str, own: re.Pattern[str]) -> Iterator[str]:
    """A new folder to write to, which takes the place of `output` when all went well.

    Args:
        own: of the names that `output` may hold: what is replaced.

    Raises:
        UserError: `output` is a file or holds something else, which would be lost; another process uses it;
            or the disk is full.
    """
    given, output = output, os.path.abspath(output)
    partial, previous = output + PARTIAL, output + PREVIOUS
    settle(output)
    if os.path.exists(output) and not os.path.isdir(output):
        raise UserError("%s: is a file; --output names a folder" % given)
    foreign = [name for name in contents(output) if not own.fullmatch(name)]
    if foreign:
        raise UserError("%s: holds %s, which is not ours; choose another --output" % (given, foreign[0]))
    locks = [lock_new(partial)]

    def tidy():
        settle(output)
        remove(partial)
        for descriptor in locks:
            os.close(descriptor)

    with lifetime.tidying(tidy):
        try:
            locks.append(lock(output, alone=True))
            for name in contents(partial):  # left by a killed process
                remove(os.path.join(partial, name))
            yield partial
            for parent, _, names in os.walk(partial):
                for name in names:
                    flush(os.path.join(parent, name))
            remove(previous)
            if os.path.exists(output):
                os.rename(output, previous)
            os.rename(partial, output)
            remove(previous)
        except Exception as error:
            if not is_full_disk(error):
                raise
            message = (
                "%s: no space left to write there; for a while it takes twice the size of what is written"
            )
            raise UserError(message % given) from error


def contents(folder: str) -> list[str]:
    """The names in it; none where there is no such folder."""
    return os.listdir(folder) if os.path.isdir(folder) else []


def remove(path: str) -> None:
    """Remove a file or a folder, if it is there."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.remove(path)


@contextlib.contextmanager
def replacing_file(path: str) -> Iterator[str]:
    """The name of a file to write, which takes the place of `path` when all went well."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    partial = path + PARTIAL
    with lifetime.tidying(lambda: remove(partial)):
        yield partial
        flush(partial)
        os.replace(partial, path)


def flush(path: str) -> None:
    """Have a file on the disk before the old one goes, in case the power fails."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def is_full_disk(error: BaseException) -> bool:
    """Whether Python or TensorFlow says with this exception that a file could not grow.

    TensorFlow's classes do not tell that: its ResourceExhaustedError is also a lack of memory, and its
    OutOfRangeError the end of the records.
    """
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if tf_versions.is_tensorflow_error(error):
        return any(os.strerror(code) in str(error) for code in codes)
    return isinstance(error, OSError) and error.errno in codes
