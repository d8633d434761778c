"""Measure how far FlowIO.py's near-duplicates can be trusted, and what it costs to find them.

    python benchmarks/near_duplicates.py FOLDER [FOLDER ...] [--parts trust,growth] [--largest 1000000]

trust    for the pictures below each folder: how many of their pairs are called alike, which are false
         alarms where the pictures are known to differ, and which share of changed copies is recognised,
         for limits around the one that FlowIO.py uses
growth   how many pairs are compared, and the time that it takes, for 10,000 pictures and more, which are
         crops of those in the folders, each folder's as many, half of them mirrored
"""

import argparse
import functools
import io
import multiprocessing
import os
import random
import sys
import time

import numpy as np
from PIL import Image, ImageEnhance

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from suite.pictures import imagefile
from suite.pictures import perceptual_hash as hashing
from suite.pictures.perceptual_hash import ALIKE, as_words, count_ones, perceptual_hash
from suite.records.splits import EncodedPicture, find_near_duplicates

LIMITS = (0, 4, ALIKE, 12, 16)
COPIES = 300  # pictures of which changed copies are made


def compressed(image, quality=60):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def cropped(image, share=0.02):
    width, height = image.size
    box = (share * width, share * height, (1 - share) * width, (1 - share) * height)
    return image.crop(tuple(map(round, box)))


CHANGES = {
    "compressed to quality 60": compressed,
    "half the size": lambda image: image.resize([max(1, side // 2) for side in image.size], Image.BICUBIC),
    "20% brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "20% less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "grey": lambda image: image.convert("L"),
    "2% cropped on each side": cropped,
    "mirrored": lambda image: image.transpose(Image.FLIP_LEFT_RIGHT),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--parts", default="trust,growth")
    parser.add_argument("--limit", type=int, default=10000, help="pictures taken of a folder to trust")
    parser.add_argument("--largest", type=int, default=1000000, help="crops at most")
    options = parser.parse_args()
    if "trust" in options.parts.split(","):
        for folder in options.folders:
            measure_trust(folder, options.limit)
    if "growth" in options.parts.split(","):
        measure_growth(options.folders, options.largest)


# --- trust ----------------------------------------


def measure_trust(folder, limit):
    images = load_images(folder, limit)
    hashes = [perceptual_hash(image) for image in images]
    known = [look for look in hashes if look]
    print("%s: %d pictures, %d of them plain" % (folder, len(images), len(images) - len(known)))
    print("%-42s" % "differing bits, at most", *("%10d" % limit for limit in LIMITS))
    print("%-42s" % "pairs called alike", *("%10d" % pairs_within(known, limit) for limit in LIMITS))
    pairs = len(known) * (len(known) - 1) / 2
    print("%-42s" % "of all pairs", *("%10.1e" % (pairs_within(known, limit) / pairs) for limit in LIMITS))
    for name, change in CHANGES.items():
        distances = [distance(image, change(image)) for image in images[:COPIES]]
        shares = [np.mean(np.array(distances) <= limit) for limit in LIMITS]
        print("%-42s" % ("copies recognised: " + name), *("%10.3f" % share for share in shares))


def load_images(folder, limit):
    images = []
    for path in imagefile.list_files(folder):
        try:
            images.append(imagefile.load_and_encode(imagefile.read_file(path), 224)[0])
        except imagefile.BadPicture:
            continue  # such folders hold other files too
        if len(images) == limit:
            break
    return images


def pairs_within(hashes, limit):
    """How many pairs differ in at most `limit` bits."""
    words = as_words(np.array(hashes))
    found = 0
    for i in range(len(words)):
        found += np.count_nonzero(count_ones(words[i] ^ words[:i]).sum(1) <= limit)
    return found


def distance(image, other):
    """The number of differing bits, or infinite where one picture is plain."""
    one, two = perceptual_hash(image), perceptual_hash(other)
    return count_ones(as_words(np.array([one])) ^ as_words(np.array([two]))).sum() if one and two else np.inf


# --- growth ----------------------------------------


def measure_growth(folders, largest):
    with multiprocessing.Pool(initializer=find_sources, initargs=(folders,)) as pool:
        hashes = pool.map(hash_of_crop, range(largest), 1000)
    pictures = [EncodedPicture(None, None, hashed, 0, 0, 0, 0, 0, "") for hashed in hashes]
    counts = [count for count in (10000, 30000, 100000, 300000) if count < largest] + [largest]
    print(
        "| pictures | plain | pairs | compared | near-copies | s | \u00b5s a picture |\n|%s" % (" ---: |" * 7)
    )
    seconds = []
    for count in counts:
        val, test = count // 10, count // 5
        splits = {"val": pictures[:val], "test": pictures[val:test], "train": pictures[test:count]}
        compared.clear()
        began = time.process_time()
        alike = find_near_duplicates(splits)
        seconds.append(time.process_time() - began)
        plain = sum(not hashed for hashed in hashes[:count])
        values = count, plain, val * (count - test) + (test - val) * (count - test + val)
        each = 1e6 * seconds[-1] / count
        print("| %d | %d | %d |" % values, "%d | %d |" % (sum(compared), len(alike)), end="")
        print(" %.2f | %.2f |" % (seconds[-1], each), flush=True)
    if len(counts) > 1:
        print("time ~ pictures^%.2f" % np.polyfit(np.log(counts), np.log(seconds), 1)[0])


def find_sources(folders):
    """In a worker process: list the pictures of each folder."""
    for folder in folders:
        paths = [path for path in imagefile.list_files(folder) if path.lower().endswith((".jpg", ".png"))]
        sources.append(paths)


sources = []


def hash_of_crop(number):
    """The perceptual hash of a crop of at least half the width and the height of a picture."""
    rng = random.Random(number)
    image = load(rng.choice(rng.choice(sources)))
    width, height = (side * rng.uniform(0.5, 1) for side in image.size)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    crop = image.resize((64, 64), Image.BILINEAR, box=(left, top, left + width, top + height))
    return perceptual_hash(crop.transpose(Image.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop)


@functools.lru_cache(2000)
def load(path):
    return imagefile.load_and_encode(imagefile.read_file(path), 224)[0].convert("L")


def counting(function, pairs):
    """The function, each call of which notes in `compared` how many pairs its arguments stand for."""

    def counted(*arguments):
        compared.append(pairs(*arguments))
        return function(*arguments)

    return counted


compared = []

if __name__ == "__main__":
    hashing.paired = counting(hashing.paired, lambda rows, columns, begin, count: count.sum())
    hashing.close = counting(hashing.close, lambda mine, others, rows, columns, _: len(rows) * len(columns))
    main()
