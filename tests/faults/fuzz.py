"""Feed pictures that were tampered with to what FlowIO.py and predict.py decode them with.

    python tests/faults/fuzz.py [--count 20000] [--seed 0] [--save FOLDER]

Valid files of each format are mutated; checksums of PNG are mended most of the time, so that the decoder sees
what is behind them. Each file goes through the sandbox, where a crash is seen, a hang stopped and memory
bounded; what it accepts goes through imagefile and TensorFlow's decoder here, too, as without --sandbox.
Prints a row for each format; what crashed or hung is kept in FOLDER.
"""

import argparse
import collections
import os
import random
import resource
import struct
import sys
import time
import zlib

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.dirname(TESTS), TESTS]

import helpers
from PIL import Image, ImageCms

from suite.pictures import conversion, imagefile, sandbox
from suite.process import device
from suite.process.tf_versions import tf
from suite.records import preprocessing

FORMATS = (*imagefile.FORMATS, *imagefile.MORE_FORMATS)
SIZE = 32  # pixels of the network
SLOW = 20  # seconds, of a machine that may have more to do
EDGES = bytes([0, 1, 0x7F, 0x80, 0xFE, 0xFF])


def seeds():
    """(format, bytes) of small valid files with as many features as Pillow writes."""
    picture, small = helpers.gradient((60, 40)), helpers.gradient((9, 11))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(conversion.SRGB).tobytes()
    frames = [helpers.gradient((20, 20 + i)) for i in range(3)]
    alpha = picture.convert("RGBA")
    alpha.putalpha(100)
    table = [
        ("JPEG", picture, {}),
        ("JPEG", picture, {"progressive": True, "exif": exif, "icc_profile": profile}),
        ("JPEG", small.convert("L"), {}),
        ("JPEG", small.convert("CMYK"), {}),
        ("PNG", picture, {}),
        ("PNG", alpha, {"icc_profile": profile}),
        ("PNG", picture.quantize(16), {"transparency": 3, "bits": 4}),
        ("PNG", small.convert("1"), {}),
        ("PNG", small.convert("I").convert("I;16"), {}),
        ("GIF", picture.quantize(32), {}),
        ("GIF", frames[0].quantize(8), {"save_all": True, "append_images": frames[1:]}),
        ("BMP", picture, {}),
        ("BMP", small.quantize(16), {}),
        ("TIFF", picture, {}),
        ("TIFF", picture, {"compression": "tiff_lzw"}),
        ("TIFF", picture, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", picture, {"compression": "jpeg"}),
        ("TIFF", small.convert("1"), {"compression": "group4"}),
        ("WEBP", picture, {}),
        ("WEBP", alpha, {"lossless": True}),
        ("WEBP", frames[0], {"save_all": True, "append_images": frames[:1]}),
    ]
    files = [(format, helpers.file_bytes(image, format, **options)) for format, image, options in table]
    # What many phones take: JPEGs of several pictures.
    return files + [("JPEG", helpers.file_bytes(frames[0], "MPO", save_all=True, append_images=frames[1:]))]


def mutate(data, other, rng):
    """The bytes with some of them changed, moved or missing, or with a part of another file."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        at = rng.randrange(len(data)) if data else 0
        length = min(rng.choice([1, 2, 4, 16]), len(data) - at)
        kind = rng.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([data[at] ^ 1 << rng.randrange(8)]) if data else b"x"
        elif kind == 1:
            data[at : at + length] = bytes(rng.choice(EDGES) for _ in range(length))
        elif kind == 2:
            data[at : at + length] = bytes(rng.randrange(256) for _ in range(length))
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length] * rng.choice([1, 3, 50])
        elif kind == 5:
            begin = rng.randrange(len(other))
            data[at : at + length] = other[begin : begin + rng.choice([4, 64, 512])]
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


def mend_png(data):
    """A PNG's chunks with the checksums that they should have."""
    mended, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + length]
        mended += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(mended)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", default="fuzz-findings")
    options = parser.parse_args()
    rng, files = random.Random(options.seed), seeds()
    tallies = {format: collections.Counter() for format in FORMATS}
    with tf.Graph().as_default():
        jpeg = tf.placeholder(tf.string, [])
        decode = tf.Session(config=device.session_config()).make_callable(
            preprocessing.preprocess_for_evaluation(jpeg, SIZE, "minus1_1"), [jpeg]
        )
    for number in range(options.count):
        format, valid = files[number % len(files)]
        data = mutate(valid, rng.choice(files)[1], rng)
        if format == "PNG" and rng.random() < 0.7:
            data = mend_png(data)
        began = time.monotonic()
        verdict = judge(data, decode)
        seconds = time.monotonic() - began
        tally = tallies[format]
        tally["files"] += 1
        tally[verdict] += 1
        tally["slowest"] = max(tally["slowest"], seconds)
        if verdict not in ("accepted", "refused") or seconds > SLOW:
            os.makedirs(options.save, exist_ok=True)
            name = "%d-%s.%s" % (number, verdict.replace(" ", "-"), format.lower())
            with open(os.path.join(options.save, name), "wb") as file:
                file.write(data)
    columns = ("files", "accepted", "refused", "ended the sandbox", "only here", "only in TensorFlow")
    print("| format | %s | slowest, s |" % " | ".join(columns))
    print("| --- |%s" % (" ---: |" * (len(columns) + 1)))
    for format, tally in tallies.items():
        numbers = " | ".join(str(tally[column]) for column in columns)
        print("| %s | %s | %.2f |" % (format, numbers, tally["slowest"]))
    sandbox.own(tuple(FORMATS)).close()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print("largest sandbox: %d MB" % (peak // 1024))
    bad = sum(sum(tally[column] for column in columns[3:]) for tally in tallies.values())
    slow = any(tally["slowest"] > SLOW for tally in tallies.values())
    sys.exit(1 if bad or slow else 0)


def judge(data, decode):
    """What became of a file, one of the columns of the table.

    "only here": accepted here and not in the sandbox, or the other way round; "only in TensorFlow": what
    imagefile passes on is refused by TensorFlow, so that training would fail on it.
    """
    try:
        sandbox.encode_and_hash(data, SIZE, FORMATS)
    except imagefile.BadPicture as error:
        if "ended the process" in str(error) or "takes more than" in str(error):
            return "ended the sandbox"
        return "refused" if not accepted_here(data) else "only here"
    if not accepted_here(data):
        return "only here"
    try:
        decode(imagefile.encode(data, SIZE, FORMATS))
    except tf.errors.OpError:
        return "only in TensorFlow"
    return "accepted"


def accepted_here(data):
    try:
        imagefile.encode(data, SIZE, FORMATS)
    except imagefile.BadPicture:
        return False
    return True


if __name__ == "__main__":
    main()
