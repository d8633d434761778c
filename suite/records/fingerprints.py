"""Which pictures a split holds, in few bytes: to tell whether a model was trained on what it is tested on.

Of each file's content the first 6 bytes of its SHA-256. Of more than LARGEST pictures only the lowest of
these numbers are kept: all sets are sampled by the same rule, so two samples share what the sets share, in
proportion. A picture that was resized or compressed anew is another one here.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple

import numpy as np

VERSION = 1
BYTES = 6
LARGEST = 1 << 16
ALL = 1 << 8 * BYTES


class Fingerprint(NamedTuple):
    """A set of pictures, or a sample of it."""

    numbers: np.ndarray  # uint64, sorted
    limit: int  # they are all that lie below it


def of(digests: Iterable[bytes]) -> Fingerprint:
    """The Fingerprint of files with these SHA-256 digests."""
    data = b"".join(digest[:BYTES] for digest in digests)
    return reduced(Fingerprint(np.unique(decoded(data)), ALL))


def reduced(whole: Fingerprint) -> Fingerprint:
    """With LARGEST numbers at most."""
    if len(whole.numbers) <= LARGEST:
        return whole
    return Fingerprint(whole.numbers[:LARGEST], int(whole.numbers[LARGEST]))


def decoded(data: bytes) -> np.ndarray:
    """The numbers that BYTES bytes each make; uint64."""
    padded = np.zeros([len(data) // BYTES, 8], np.uint8)
    padded[:, -BYTES:] = np.frombuffer(data, np.uint8).reshape(-1, BYTES)
    return padded.view(">u8").ravel().astype(np.uint64)


def to_json(fingerprint: Fingerprint) -> dict:
    """What `from_json` reads."""
    data = np.ascontiguousarray(fingerprint.numbers.astype(">u8")).view(np.uint8).reshape(-1, 8)[:, -BYTES:]
    return {"version": VERSION, "limit": fingerprint.limit, "pictures": data.tobytes().hex()}


def from_json(content: dict | None) -> Fingerprint | None:
    """The Fingerprint in dataset.json or model.json; None where an older version wrote that."""
    if content is None:
        return None
    return Fingerprint(decoded(bytes.fromhex(content["pictures"])), content["limit"])


def union(one: Fingerprint | None, other: Fingerprint | None) -> Fingerprint | None:
    """Of the pictures that are in either; None where one of them is not known."""
    if one is None or other is None:
        return None
    limit = min(one.limit, other.limit)
    numbers = np.union1d(one.numbers, other.numbers)
    return reduced(Fingerprint(numbers[numbers < limit], limit))


def size(fingerprint: Fingerprint) -> int:
    """How many pictures there are, about, where they are sampled."""
    return int(round(len(fingerprint.numbers) * ALL / fingerprint.limit))


def count_shared(one: Fingerprint, other: Fingerprint) -> tuple[int, bool]:
    """How many pictures are in both, and whether that is counted rather than estimated from samples."""
    limit = min(one.limit, other.limit)
    shared = np.intersect1d(one.numbers, other.numbers)
    estimate = int(round((shared < limit).sum() * ALL / limit))
    return min(estimate, size(one), size(other)), limit == ALL
