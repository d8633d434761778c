"""Encoded pictures on disk, between their encoding in one order and their writing in another."""

from __future__ import annotations

import contextlib
import tempfile

from suite.records.splits import EncodedPicture

PARTS = 64  # files; at most one of them, that share of the pictures, is on disk twice


class Spool:
    """JPEG bytes in files without a name, one for each stretch of positions; see splits.position.

    Pictures are added in any order and read in that of their positions, while `free` gives back what
    was read: the records grow as the spool shrinks. A context manager; what is left goes at its end.
    """

    def __init__(self, folder=None):
        self.parts = [tempfile.TemporaryFile(dir=folder) for _ in range(PARTS)]  # noqa: SIM115
        self.freed = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.ExitStack() as stack:  # each, also after one that meets a full disk
            for file in self.parts:
                stack.callback(file.close)

    def write(self, position: float, jpeg: bytes) -> int:
        """Add a picture; returns the offset to keep for `read`."""
        file = self.parts[part_of(position)]
        offset = file.tell()
        file.write(jpeg)
        return offset

    def read(self, picture: EncodedPicture) -> bytes:
        """The JPEG bytes of a picture, after the last `write`."""
        file = self.parts[part_of(picture.position)]
        file.seek(picture.offset)
        return file.read(picture.length)

    def flush(self) -> None:
        """Write what is still in memory.

        Raises:
            OSError: the disk is full.
        """
        for file in self.parts:
            file.flush()

    def free(self, position: float) -> None:
        """Give back the disk space of the parts that lie below a position."""
        for file in self.parts[self.freed : part_of(position)]:
            file.close()
        self.freed = max(self.freed, part_of(position))


def part_of(position):
    """The part, from 0, that holds the pictures of a position."""
    return min(int(position * PARTS), PARTS - 1)
