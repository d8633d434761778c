"""Time the largest pictures that are not refused, and see how much memory they take.

    python tests/faults/largest.py

Each has opening.MAX_PIXELS pixels and goes through a sandbox of its own. Prints a row for each; one that
takes more than LIMIT seconds, or does not fit into the sandbox, is an error.
"""

import os
import sys
import time

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.dirname(TESTS), TESTS]

import helpers
import numpy as np
from PIL import Image, ImageCms

from suite.pictures import conversion, imagefile, sandbox

FORMATS = (*imagefile.FORMATS, *imagefile.MORE_FORMATS)
SIZE = 224  # pixels of the network
LIMIT = 5  # seconds


def pictures():
    """Yield (what it is, bytes), each slow or large in its own way."""
    side = int(imagefile.MAX_PIXELS**0.5)
    flat = Image.new("RGB", (side, side), helpers.RED)
    tile = np.random.RandomState(0).randint(0, 256, (side // 10, side // 10, 3)).astype(np.uint8)
    noise = Image.fromarray(np.tile(tile, (10, 10, 1)))
    profile = ImageCms.ImageCmsProfile(conversion.SRGB).tobytes()
    other = profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    quick = {"compress_level": 1}
    for what, image, format, options in (
        ("noise", noise, "JPEG", {}),
        ("noise, progressive", noise, "JPEG", {"quality": 30, "progressive": True}),
        ("CMYK", flat.convert("CMYK"), "JPEG", {}),
        ("noise", noise.convert("P"), "GIF", {}),
        ("plain", flat, "PNG", quick),
        ("with a profile", flat, "PNG", dict(quick, icc_profile=other)),
        ("transparent", flat.convert("RGBA"), "PNG", quick),
        ("16 bits", Image.fromarray(np.zeros((side, side), np.uint16)), "PNG", quick),
    ):
        data = helpers.file_bytes(image, format, **options)
        if len(data) <= imagefile.MAX_BYTES:  # else it is refused unread
            yield "%s, %s" % (format, what), data


def peak_memory(process):
    """Bytes of address space that a process has had."""
    with open("/proc/%d/status" % process.pid) as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmPeak:"))


def main():
    print("| picture | seconds | address space, MB |")
    print("| --- | ---: | ---: |")
    slow = False
    for what, data in pictures():
        sandbox.encode_and_hash(helpers.file_bytes(helpers.plain(), "PNG"), SIZE, FORMATS)  # which starts it
        began = time.monotonic()
        sandbox.encode_and_hash(data, SIZE, FORMATS)
        seconds = time.monotonic() - began
        (process,) = sandbox.own(tuple(FORMATS)).idle.queue
        print("| %s | %.1f | %d |" % (what, seconds, peak_memory(process) // 10**6), flush=True)
        sandbox.end(process)
        slow |= seconds > LIMIT
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
