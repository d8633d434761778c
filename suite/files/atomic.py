"""Folders and files that are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
import uuid
from pathlib import PurePath
from typing import BinaryIO, Iterator

from suite.files.litter import visible
from suite.process import lifetime, tf_versions
from suite.process.errors import UserError
from suite.process.terminal import say

# Suffixes beside the folder that is written: of what is not written to its end, and of the old folder while
# the new one takes its place. What bears them is removed, so nobody else must come upon these names.
PARTIAL, PREVIOUS = ".replacing.partial", ".replacing.previous"
# The same for a folder that stays: hidden folders inside it, of what is not written to its end, of that
# while the old files go, and of that while it moves up to their place.
INSIDE = (".replacing.partial", ".replacing.complete", ".replacing.moving")
ABANDONED = 3600  # seconds without a change, after which a killed process has left a partial file
LOCK_SECONDS = 3  # that a lock is waited for: a killed FlowIO.py's workers hold it a moment longer


# --- by one process at a time ----------------------------------------


def lock(folder: str, alone: bool = False) -> int:
    """Lock a folder until this process ends: `alone` to write to it, else together with other readers.

    It is the kernel's lock on the folder itself, so it leaves no file behind, and none is stale: it ends with
    the process, however that ends. Remote folders, missing ones and those on file systems without locks
    are not locked. See `settle` for what is done before.

    Returns:
        A file descriptor, whose closing gives the lock back.
    Raises:
        UserError: another process holds it.
    """
    while True:
        settle(folder)
        descriptor = lock_as_it_is(folder, alone)
        if is_at(descriptor, folder) or not (is_between(os.path.realpath(folder)) or os.path.isdir(folder)):
            return descriptor
        os.close(descriptor)


def lock_as_it_is(folder: str, alone: bool) -> int:
    """`lock` a folder without a look at what it holds."""
    deadline = time.monotonic() + LOCK_SECONDS
    while os.path.isdir(folder):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process replaces it
            continue
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
        make_folder(folder)
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


@contextlib.contextmanager
def replacing(output: str, own: re.Pattern[str]) -> Iterator[str]:
    """A new folder to write to, which takes the place of `output` when all went well; links stay.

    Args:
        own: of the names that `output` may hold: what is replaced. Hidden files and what systems leave there
            stay, and so does the folder then.

    Raises:
        UserError: `output` is a file or holds something else, or does so by the end, which would be lost;
            another process uses it; or the disk is full.
    """
    given, output = output, os.path.realpath(output)
    settle(output)
    if os.path.lexists(output) and not os.path.isdir(output):
        raise UserError("%s: is a file; --output names a folder" % given)
    refuse_foreign(given, visible(contents(output)), own)
    stays = cannot_be_renamed(output) or len(visible(contents(output))) < len(contents(output))
    try:
        with (exchanging if stays else renaming)(output) as partial:
            yield partial
            refuse_foreign(given, visible(contents(output)), own)
            for parent, _, names in os.walk(partial):
                for name in names:
                    flush(os.path.join(parent, name))
    except Exception as error:
        if not is_full_disk(error):
            raise
        message = "%s: no space left to write there; for a while it takes twice the size of what is written"
        raise UserError(message % given) from error


def refuse_foreign(output: str, names: list[str], own: re.Pattern[str]) -> None:
    """Raises UserError where one of the names in a folder is not `own`."""
    foreign = [name for name in names if not own.fullmatch(name)]
    if foreign:
        raise UserError("%s: holds %s, which is not ours; choose another --output" % (output, foreign[0]))


@contextlib.contextmanager
def renaming(output: str) -> Iterator[str]:
    """A new folder beside `output`, which takes its name at the end."""
    partial, previous = output + PARTIAL, output + PREVIOUS
    locks = [lock_new(partial)]

    def tidy():
        bring_back(output)
        if is_at(locks[0], partial):  # not one that another process has made since it was renamed
            remove(partial)
        if os.path.exists(output):
            for name in set(contents(previous)) - set(visible(contents(previous))):  # that came meanwhile
                os.rename(os.path.join(previous, name), os.path.join(output, name))
            remove(previous)
        for descriptor in locks:
            os.close(descriptor)

    with lifetime.tidying(tidy):
        locks.append(lock(output, alone=True))
        empty(partial)  # left by a killed process
        yield partial
        remove(previous)
        if os.path.exists(output):
            os.rename(output, previous)
        os.rename(partial, output)


@contextlib.contextmanager
def exchanging(output: str) -> Iterator[str]:
    """A new folder inside `output`, which stays; its files take the place of the others at the end."""
    partial, complete, _ = (os.path.join(output, name) for name in INSIDE)
    descriptor = lock(output, alone=True)

    def tidy():
        move_up(output)
        remove(partial)
        os.close(descriptor)

    with lifetime.tidying(tidy):
        remove(partial)  # left by a killed process
        os.mkdir(partial)
        yield partial
        os.rename(partial, complete)
        move_up(output)


def move_up(output: str) -> None:
    """Let the complete files inside take the place of all others, or go on with that."""
    _, complete, moving = (os.path.join(output, name) for name in INSIDE)
    if os.path.isdir(complete):
        for name in visible(contents(output)):
            remove(os.path.join(output, name))
        os.rename(complete, moving)
    for name in contents(moving):
        os.rename(os.path.join(moving, name), os.path.join(output, name))
    remove(moving)


def settle(output: str) -> None:
    """Bring to an end what a process began that was killed while its new files took the old ones' place.

    Raises:
        UserError: another process is at it.
    """
    output = os.path.realpath(output)
    if is_between(output):
        descriptor = lock_as_it_is(output + PREVIOUS, alone=True)
        if is_at(descriptor, output + PREVIOUS):
            bring_back(output)
        os.close(descriptor)
    if any(os.path.isdir(os.path.join(output, name)) for name in INSIDE[1:]):
        descriptor = lock_as_it_is(output, alone=True)
        move_up(output)
        os.close(descriptor)


def is_between(output: str) -> bool:
    """Whether the old folder has lost its name, and the new one has not got it."""
    return not os.path.exists(output) and os.path.exists(output + PREVIOUS)


def bring_back(output: str) -> None:
    """Give the old folder its name again, where the new one has not got it."""
    if is_between(output):
        os.rename(output + PREVIOUS, output)


def cannot_be_renamed(folder: str) -> bool:
    """Whether a folder is a mount point, or lies where we may not write, or we or the shell stand in it.

    A shell would find itself in a folder that is gone.
    """
    if not os.path.isdir(folder):
        return False
    for place in (os.curdir, "/proc/%d/cwd" % os.getppid()):
        with contextlib.suppress(OSError):
            if os.path.samefile(folder, place):
                return True
    return is_mount_point(folder) or not os.access(os.path.dirname(folder), os.W_OK)


def is_mount_point(path: str) -> bool:
    """Whether a file or folder is one; os.path.ismount does not see those of the same disk, Linux does."""
    mounts: set[str] = set()
    for each in (path, os.path.dirname(path)) if hasattr(os, "O_PATH") else ():
        try:
            descriptor = os.open(each, os.O_PATH)
        except FileNotFoundError:  # another process replaces it
            continue
        with contextlib.suppress(OSError), open("/proc/self/fdinfo/%d" % descriptor) as file:
            mounts.update(line for line in file if line.startswith("mnt_id:"))
        os.close(descriptor)
    return len(mounts) > 1 or os.path.ismount(path)


def is_within(path: str, folder: str) -> bool:
    """Whether a path is that of a folder or lies below it, links followed."""
    place = PurePath(os.path.realpath(path))
    return PurePath(os.path.realpath(folder)) in (place, *place.parents)


def contents(folder: str) -> list[str]:
    """The names in it; none where there is no such folder."""
    with contextlib.suppress(FileNotFoundError):  # it may go meanwhile
        return os.listdir(folder) if os.path.isdir(folder) else []
    return []


def remove(path: str) -> None:
    """Remove a file, a folder or a link, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.remove(path)


def empty(folder: str) -> None:
    """Remove all that is in a folder, if it is there."""
    for name in contents(folder):
        remove(os.path.join(folder, name))


def make_folder(path: str) -> None:
    """Make a folder, and those above it, where there is none; also where a link says that it should be."""
    os.makedirs(os.path.realpath(path), exist_ok=True)


@contextlib.contextmanager
def replacing_file(path: str) -> Iterator[str]:
    """The name of a file to write, which takes the place of `path` when all went well; links stay.

    Other processes that replace it wait.

    Raises:
        UserError: there is a folder, or a file that cannot be replaced.
        OSError: with a file name, as of a full disk.
    """
    given, path = path, os.path.realpath(path)
    if os.path.isdir(path):
        raise UserError("%s: is a folder, where a file is to be written" % given)
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError("%s: is a device or a pipe, where a file is to be written" % given)
    if os.path.exists(path) and is_mount_point(path):
        raise UserError("%s: is mounted by itself; name a file in a folder that is" % given)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = path + PARTIAL
    with locked_file(partial), lifetime.tidying(lambda: remove(partial)), naming(given):
        yield partial
        flush(partial)
        os.replace(partial, path)


@contextlib.contextmanager
def locked_file(path: str) -> Iterator[BinaryIO]:
    """A file to append to, when no other process has it by this any more; `path`: with PARTIAL behind it."""
    is_ours = False
    while not is_ours:
        with open(path, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("waiting for another process, which writes %s" % path[: -len(PARTIAL)])
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # the file system has no locks
                pass
            is_ours = is_at(file.fileno(), path)  # nor has replaced it meanwhile
            if is_ours:
                yield file


@contextlib.contextmanager
def unique_partial(folder: str) -> Iterator[str]:
    """The name of a file to write in a folder that threads, processes and machines write to at once.

    It is to be renamed; what still bears it at the end goes.
    """
    partial = os.path.join(folder, uuid.uuid4().hex + PARTIAL)
    with lifetime.tidying(lambda: remove(partial)):
        yield partial


def remove_abandoned(folder: str) -> None:
    """Remove the files of a folder that killed processes have not written to their end."""
    with contextlib.suppress(OSError):  # as of a folder that can be written to, and not listed
        for name in contents(folder):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                is_old = name.endswith(PARTIAL) and os.path.getmtime(path) < time.time() - ABANDONED
                if is_old and os.path.isfile(path):
                    os.remove(path)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """An OSError that does not say of which file it is, as one of a write, gets this name."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = path
        raise


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
