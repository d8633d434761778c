"""Which pictures look alike, by 18 bytes of each that hardly change with its size, quality or light."""

from __future__ import annotations

import numpy as np
from PIL import Image

HASH_SIDE = 12  # 143 bits
HASH_PIXELS = 32
ALIKE = 8  # pictures with at most this many differing bits; benchmarks/near_duplicates.py measures it
FLAT = 2.0  # grey levels of deviation in the low frequencies; the hash of less contrast is noise
COSINES = np.cos(np.pi * np.outer(np.arange(HASH_SIDE), 2 * np.arange(HASH_PIXELS) + 1) / (2 * HASH_PIXELS))
COSINES *= np.sqrt(2 / HASH_PIXELS)
COSINES[0] /= np.sqrt(2)


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


def nearest(hashes: list, among: list, block: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """For each hash the one that differs least.

    Args:
        hashes, among: lists of what `perceptual_hash` returned, without None.
        block: how many are compared at a time; sets the memory.
    Returns:
        int64 [len(hashes)] indices into `among`, and the numbers of differing bits.
    """
    bits = 8 * len(among[0])
    best, index = np.full(len(hashes), bits + 1), np.zeros(len(hashes), np.int64)
    for i in range(0, len(hashes), block):
        mine = signs(hashes[i : i + block])
        rows = slice(i, i + len(mine))
        for j in range(0, len(among), block):
            # Of vectors of +1 and -1 the product counts the equal bits less the different ones.
            distances = (bits - mine @ signs(among[j : j + block]).T) / 2
            closest = distances.argmin(1)
            distance = distances[np.arange(len(mine)), closest].round().astype(np.int64)
            better = distance < best[rows]
            index[rows] = np.where(better, j + closest, index[rows])
            best[rows] = np.where(better, distance, best[rows])
    return index, best


def groups_alike(hashes: list, block: int = 512) -> np.ndarray:
    """Which pictures are to stay together: int64 [n], equal where a chain of near-copies links two.

    Args:
        hashes: what `perceptual_hash` returned; those that are None stand alone.
        block: see `nearest`.
    """
    groups = np.arange(len(hashes))
    known = np.flatnonzero([each is not None for each in hashes])
    if not len(known):
        return groups
    rows = signs([hashes[i] for i in known])
    for i in range(0, len(known), block):
        alike = rows[i : i + block] @ rows.T >= rows.shape[1] - 2 * ALIKE  # see `nearest`
        for near in alike:
            numbers = np.unique(groups[known[near]])
            if len(numbers) > 1:
                groups[np.isin(groups, numbers)] = numbers[0]
    return groups


def signs(hashes: list[bytes]) -> np.ndarray:
    """Hashes as float32 rows of +1 and -1."""
    packed = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)
    return np.unpackbits(packed, axis=1) * np.float32(2) - 1
