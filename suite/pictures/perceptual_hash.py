"""Which pictures look alike, by 18 bytes of each that hardly change with its size, quality or light."""

from __future__ import annotations

from typing import Iterator, Tuple

import numpy as np
from PIL import Image

HASH_SIDE = 12  # 143 bits
HASH_PIXELS = 32
ALIKE = 8  # pictures with at most this many differing bits; benchmarks/near_duplicates.py measures it
FLAT = 2.0  # grey levels of deviation in the low frequencies; the hash of less contrast is noise
COSINES = np.cos(np.pi * np.outer(np.arange(HASH_SIDE), 2 * np.arange(HASH_PIXELS) + 1) / (2 * HASH_PIXELS))
COSINES *= np.sqrt(2 / HASH_PIXELS)
COSINES[0] /= np.sqrt(2)
BANDS = ALIKE + 1  # of at most 16 bits
BLOCK = 1 << 16  # hashes or pairs that are worked on at a time; sets the memory
SIDE = 512  # the same where each is compared with each
LARGE = 1 << 18  # pairs with one band in common that are not just compared

Pairs = Iterator[Tuple[np.ndarray, np.ndarray]]  # as index arrays of equal length, in blocks


def perceptual_hash(image: Image.Image) -> bytes | None:
    """18 bytes that hardly change when a picture is resized, compressed or made lighter; or None.

    The low frequencies of its cosine transform, each compared with their median (pHash, Zauner 2010).
    None for a plain surface.
    """
    grey = image.convert("L").resize((HASH_PIXELS, HASH_PIXELS), Image.BILINEAR, reducing_gap=2)
    grey = np.frombuffer(grey.tobytes(), np.uint8).reshape(HASH_PIXELS, HASH_PIXELS).astype(np.float64)
    waves = (COSINES @ grey @ COSINES.T).ravel()[1:]  # the first is the mean brightness
    if waves.dot(waves) < (FLAT * HASH_PIXELS) ** 2:
        return None
    median = np.partition(waves, len(waves) // 2)[len(waves) // 2]
    return np.packbits(waves > median).tobytes()


def nearest(hashes: list, among: list) -> tuple[np.ndarray, np.ndarray]:
    """For each hash the first of those that differ least from it, if that is in at most ALIKE bits.

    Args:
        hashes, among: lists of what `perceptual_hash` returned, without None.
    Returns:
        int64 [len(hashes)] indices into `among`, and the numbers of differing bits; -1 and ALIKE + 1 where
        none is alike.
    """
    unique_hashes, back = np.unique(np.array(hashes), return_inverse=True)
    unique_among, first = np.unique(np.array(among), return_index=True)
    mine, others = as_words(unique_hashes), as_words(unique_among)
    best = np.full(len(mine), (ALIKE + 1) << 32)  # differing bits, then 32 bits for the index
    pairs = candidates(mine, others, np.arange(len(mine)), np.arange(len(others)), best)
    for row, column, differing in alike(mine, others, pairs):
        if len(row):
            row, begin = np.unique(row, return_index=True)
            least = np.minimum.reduceat(differing << 32 | first[column], begin)
            best[row] = np.minimum(best[row], least)
    index, bits = best & 0xFFFFFFFF, best >> 32
    return np.where(bits > ALIKE, -1, index)[back], bits[back]


def groups_alike(hashes: list) -> np.ndarray:
    """Which pictures are to stay together: int64 [n], equal where a chain of near-copies links two.

    Args:
        hashes: what `perceptual_hash` returned; those that are None stand alone.
    """
    groups = np.arange(len(hashes))
    known = np.flatnonzero([each is not None for each in hashes])
    if not len(known):
        return groups
    unique, back = np.unique(np.array([hashes[i] for i in known]), return_inverse=True)
    words = as_words(unique)
    all_of_them = root = np.arange(len(words))
    for row, column, _ in alike(words, words, candidates(words, words, all_of_them, all_of_them)):
        while (root[row] != root[column]).any():
            two = np.sort([root[row], root[column]], 0)
            root = root.copy()
            np.minimum.at(root, two[1], two[0])
            while (root[root] != root).any():
                root = root[root]
    first = np.full(len(words), len(hashes))
    np.minimum.at(first, root[back], known)
    groups[known] = first[root[back]]
    return groups


def alike(mine: np.ndarray, others: np.ndarray, pairs: Pairs) -> Iterator[tuple[np.ndarray, ...]]:
    """Of pairs those that differ in at most ALIKE bits: the two indices, and how many these are."""
    for row, column in pairs:
        differing = np.zeros(len(row), np.int64)
        for word in range(mine.shape[1]):
            differing += count_ones(mine[row, word] ^ others[column, word])
            near = np.flatnonzero(differing <= ALIKE)  # few after the first word
            row, column, differing = row[near], column[near], differing[near]
        yield row, column, differing


def as_words(hashes: np.ndarray) -> np.ndarray:
    """An array of byte strings as uint64 [n, words], padded with zeros."""
    size = hashes.itemsize
    padded = np.zeros([len(hashes), size // 8 * 8 + 8], np.uint8)
    padded[:, :size] = hashes.view(np.uint8).reshape(-1, size)
    return padded.view(np.uint64)


def count_ones(words: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are set; int64."""
    for shift, mask in ((1, 0x5555555555555555), (2, 0x3333333333333333), (4, 0x0F0F0F0F0F0F0F0F)):
        words = (words & np.uint64(mask)) + (words >> np.uint64(shift) & np.uint64(mask))
    return (words * np.uint64(0x0101010101010101) >> np.uint64(56)).astype(np.int64)


# --- what is compared ----------------------------------------


def candidates(
    mine: np.ndarray,
    others: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    best: np.ndarray | None = None,
) -> Pairs:
    """Of mine[rows] and others[columns] the pairs that may be alike, and few more, some of them repeatedly.

    The bits are dealt out to BANDS, one more than may differ, so one band at least is equal. A crowd that has
    one in common is split anew by what varies in it; and where that leaves too much, as of a camera that
    stands still, each is compared with each.

    Args:
        mine, others: hashes as words, each once.
        best: only pairs that may be better are wanted than, for each of mine, these differing bits << 32,
            which the caller lowers meanwhile.
    """
    varying = np.bitwise_or.reduce(others[columns]) ^ np.bitwise_and.reduce(others[columns])
    bits = np.flatnonzero(np.unpackbits(varying.view(np.uint8)))
    my_bands, their_bands = split(mine[rows], bits), split(others[columns], bits)
    sizes = [np.bincount(band, minlength=1 << 16) for band in their_bands]
    shared = sum(size[band].sum() for size, band in zip(sizes, my_bands))
    if shared > len(rows) * len(columns):
        yield from close(mine, others, rows, columns, best is not None)
        return
    for number, size in enumerate(sizes):
        # What has no earlier band in common differs in each of them.
        undecided = np.full(len(rows), True) if best is None else best[rows] >> 32 >= number
        row, band = rows[undecided], my_bands[number][undecided]
        column = columns[np.argsort(their_bands[number])]
        count, begin = size[band], (np.cumsum(size) - size)[band]
        large = count * np.bincount(band, minlength=1 << 16)[band] > LARGE
        yield from paired(row[~large], column, begin[~large], count[~large])
        for value in np.unique(band[large]):
            crowd = row[band == value], columns[their_bands[number] == value]
            yield from candidates(mine, others, *crowd, best)


def close(
    mine: np.ndarray, others: np.ndarray, rows: np.ndarray, columns: np.ndarray, best_only: bool
) -> Pairs:
    """The pairs alike, or the best of each block, each compared with each: faster than by `paired`."""
    for i in range(0, len(rows), SIDE):
        row = rows[i : i + SIDE]
        ours = signs(mine[row])
        for j in range(0, len(columns), SIDE):
            column = columns[j : j + SIDE]
            # Of vectors of +1 and -1 the product counts the equal bits less the different ones.
            differing = (ours.shape[1] - ours @ signs(others[column]).T) / 2
            least = differing.min(1, keepdims=True) if best_only else ALIKE
            k, m = np.nonzero(differing <= np.minimum(least, ALIKE))
            yield row[k], column[m]


def signs(words: np.ndarray) -> np.ndarray:
    """The bits as float32 rows of +1 and -1."""
    return np.unpackbits(words.view(np.uint8), axis=1) * np.float32(2) - 1


def split(words: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """These bits of each hash dealt out in turn: uint16 [BANDS, n]."""
    places = np.full([16, BANDS], -1)  # the last bit is padding
    places.flat[: len(bits)] = bits
    places = places.T.ravel()
    blocks = [words[i : i + BLOCK].view(np.uint8) for i in range(0, len(words), BLOCK)]
    packed = [np.packbits(np.unpackbits(block, axis=1).take(places, 1), axis=1) for block in blocks]
    return np.concatenate(packed).view(np.uint16).T


def paired(rows: np.ndarray, columns: np.ndarray, begin: np.ndarray, count: np.ndarray) -> Pairs:
    """Each row with its `count` of the columns from `begin` on."""
    blocks = np.flatnonzero(np.diff(np.cumsum(count) // BLOCK)) + 1
    for row, start, size in zip(*(np.split(each, blocks) for each in (rows, begin, count))):
        start = np.repeat(start - (np.cumsum(size) - size), size)
        yield np.repeat(row, size), columns[start + np.arange(len(start))]
