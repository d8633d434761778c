"""Measure how far FlowIO.py's near-duplicates can be trusted.

    python benchmarks/near_duplicates.py FOLDER [FOLDER ...] [--limit 10000]

For the pictures below each folder prints how many of their pairs are called alike, which are false
alarms where the pictures are known to differ, and which share of changed copies is recognised, for
limits around the one that FlowIO.py uses.
"""

import argparse
import io
import os
import sys

import numpy as np
from PIL import Image, ImageEnhance

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from suite.pictures import imagefile
from suite.pictures.perceptual_hash import ALIKE, nearest, perceptual_hash, signs

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
    parser.add_argument("--limit", type=int, default=10000, help="pictures taken of a folder")
    options = parser.parse_args()
    for folder in options.folders:
        images = load_images(folder, options.limit)
        hashes = [perceptual_hash(image) for image in images]
        known = [look for look in hashes if look]
        print("%s: %d pictures, %d of them plain" % (folder, len(images), len(images) - len(known)))
        print("%-42s" % "differing bits, at most", *("%10d" % limit for limit in LIMITS))
        print("%-42s" % "pairs called alike", *("%10d" % pairs_within(known, limit) for limit in LIMITS))
        pairs = len(known) * (len(known) - 1) / 2
        print(
            "%-42s" % "of all pairs", *("%10.1e" % (pairs_within(known, limit) / pairs) for limit in LIMITS)
        )
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
    everything = signs(hashes)
    found = 0
    for start in range(0, len(hashes), 1000):
        differing = (everything.shape[1] - everything[start : start + 1000] @ everything.T) / 2
        found += np.count_nonzero(differing <= limit + 0.5)
    return (found - len(hashes)) // 2


def distance(image, other):
    """The number of differing bits, or infinite where one picture is plain."""
    one, two = perceptual_hash(image), perceptual_hash(other)
    return nearest([one], [two])[1][0] if one and two else np.inf


if __name__ == "__main__":
    main()
