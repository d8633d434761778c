"""Folders and files that are written whole or not at all."""

import contextlib
import errno
import os
import shutil

import runtime
from runtime import UserError, tf

PREVIOUS = ".previous"  # suffix of the old folder while the new one takes its place


def settle(output):
    """Bring back a folder that a process left aside, killed between the two renames of `replacing`."""
    if not os.path.exists(output) and os.path.exists(output + PREVIOUS):
        os.rename(output + PREVIOUS, output)


@contextlib.contextmanager
def replacing(output, own):
    """A new folder to write to, which takes the place of `output` when all went well.

    Args:
        own: a compiled pattern of the names that `output` may hold: what is replaced.

    Raises:
        UserError: `output` holds something else, which would be lost; or the disk is full.
    """
    output = os.path.abspath(output)
    partial, previous = output + ".partial", output + PREVIOUS
    settle(output)
    if os.path.exists(output):
        foreign = [name for name in os.listdir(output) if not own.fullmatch(name)]
        if foreign:
            raise UserError("%s: holds %s, which is not ours; choose another --output" % (output, foreign[0]))
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    try:
        yield partial
        for parent, _, names in os.walk(partial):
            for name in names:
                flush(os.path.join(parent, name))
        shutil.rmtree(previous, ignore_errors=True)
        if os.path.exists(output):
            os.rename(output, previous)
        os.rename(partial, output)
        shutil.rmtree(previous, ignore_errors=True)
    except Exception as error:
        if not is_full_disk(error):
            raise
        message = "%s: no space left to write there; for a while it takes twice the size of what is written"
        raise UserError(message % output) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def replacing_file(path):
    """The name of a file to write, which takes the place of `path` when all went well."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    partial = path + ".partial"
    try:
        yield partial
        flush(partial)
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def flush(path):
    """Have a file on the disk before the old one goes, in case the power fails."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def is_full_disk(error):
    """Whether Python or TensorFlow says with this exception that a file could not grow."""
    if runtime.is_tensorflow_error(error):
        return isinstance(error, (tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError))
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
