"""Measure FlowIO.py: converting photos, reading records, memory.

    python benchmarks/flowio.py [--source FOLDER] [--photos 1600] [--repeat 3]

Prints, from one run on this machine:

- photos/s and bytes a photo of FlowIO.py, of the floor (read the file and let Pillow decode it at the
  reduced scale, on all cores, and nothing else) and of the way of the article's author (decode, resize
  and standardise by TensorFlow's operations, added to the graph and run in a new session for each
  picture, and store float32; it slows down as the graph grows);
- pictures/s that the records give at 224 pixels, and pictures/s that training ResNet-50 takes;
- the memory of FlowIO.py at its peak for 1,000 and for 50,000 pictures.

The photos are crops of 3 to 12 megapixels out of the JPEGs in --source, laid side by side where one is
too small. Debian's package mate-backgrounds brings them.
"""

import argparse
import glob
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from suite.pictures import conversion
from suite.process.tf_versions import tf
from suite.records import reading, writing

IMAGE_SIZE = 224
AUTHORS_PHOTOS = 400
LOADED = 3000  # pictures to read, after as many to warm up
CLASSES = ("left", "right")


def main():
    options = parse_options()
    if not glob.glob(os.path.join(options.source, "**", "*.jpg"), recursive=True):
        sys.exit("flowio.py: error: --source %s: no JPEGs there" % options.source)
    tf.logging.set_verbosity(tf.logging.FATAL)
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(options.source, os.path.join(folder, "photos"), options.photos)
        some = make_photos(options.source, os.path.join(folder, "some"), options.photos // 4)
        measure_conversion(folder, photos, some, options.repeat)
        measure_reading(os.path.join(folder, "records"))
        measure_memory(folder)


def parse_options():
    parser = argparse.ArgumentParser(
        config=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--source", default="/usr/share/backgrounds/mate", help="folder of large JPEGs")
    parser.add_argument("--photos", type=int, default=1600, help="photos to make and convert")
    parser.add_argument("--repeat", type=int, default=3, help="times that each way is timed, in turns")
    return parser.parse_args()


def make_photos(source, folder, count):
    """Save `count` photos in class folders below `folder`; their paths."""
    for label in CLASSES:
        os.makedirs(os.path.join(folder, label))
    paths = [os.path.join(folder, CLASSES[i % 2], "%05d.jpg" % i) for i in range(count)]
    with multiprocessing.Pool(initializer=load_canvases, initargs=(source,)) as pool:
        pool.starmap(make_photo, enumerate(paths))
    return paths


def load_canvases(source):
    """Fill `canvases`, from which a worker process cuts its photos."""
    large = []
    for path in sorted(glob.glob(os.path.join(source, "**", "*.jpg"), recursive=True)):
        with Image.open(path) as image:
            if image.width >= 2500 and image.height >= 1500:
                large.append(image.convert("RGB").crop((0, 0, 2500, 1500)))
    for start in range(len(large)):
        canvas = Image.new("RGB", (5000, 3000))
        for i in range(4):
            part = large[(start + i) % len(large)]
            canvas.paste(part, (i % 2 * part.width, i // 2 * part.height))
        canvases.append(canvas)


canvases = []


def make_photo(number, path):
    rng = random.Random(number)
    canvas = canvases[number % len(canvases)]
    width = round((rng.uniform(3e6, 12e6) * 4 / 3) ** 0.5)
    height = width * 3 // 4
    left, top = rng.randint(0, canvas.width - width), rng.randint(0, canvas.height - height)
    canvas.crop((left, top, left + width, top + height)).save(path, quality=90)


# --- converting ----------------------------------------


def measure_conversion(folder, photos, some, repeat):
    megapixels = np.mean([np.prod(Image.open(path).size) for path in photos]) / 1e6
    floors, wholes, steadies = [], [], []
    records = os.path.join(folder, "records")
    with multiprocessing.Pool() as pool:
        for _ in range(repeat):
            floors.append(len(photos) / seconds(lambda: pool.map(decode_reduced, photos)))
            whole = seconds(lambda: convert(os.path.join(folder, "photos"), records))
            part = seconds(lambda: convert(os.path.join(folder, "some"), os.path.join(folder, "part")))
            wholes.append(len(photos) / whole)
            # The difference of two runs is free of what each run takes to start and to end.
            steadies.append((len(photos) - len(some)) / (whole - part))
    authors_file = os.path.join(folder, "author.tfrecord")
    first = photos[:AUTHORS_PHOTOS]
    author = len(first) / seconds(lambda: authors_way(first, authors_file))
    shards = sum(reading.load_records(records).shards.values())
    print(
        "%d photos of %.1f megapixels on average, %d processors" % (len(photos), megapixels, os.cpu_count())
    )
    print("%-42s %10s %14s" % ("converting", "photos/s", "bytes a photo"))
    row("floor: read, decode at the reduced scale", floors, sum(map(os.path.getsize, photos)) / len(photos))
    row("FlowIO.py, while it converts", steadies, shards / len(photos))
    row("FlowIO.py, start to end", wholes, shards / len(photos))
    row("the author's way, %d of them" % len(first), [author], os.path.getsize(authors_file) / len(first))
    steady, whole = statistics.median(steadies), statistics.median(wholes)
    floor = statistics.median(floors)
    print("FlowIO.py / floor: %.2f while it converts, %.2f start to end" % (steady / floor, whole / floor))
    print("FlowIO.py / the author's way: %.0f start to end" % (whole / author))


def row(name, rates, size):
    print("%-42s %10.1f %14.0f" % (name, statistics.median(rates), size))


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def decode_reduced(path):
    with open(path, "rb") as file, Image.open(file) as image:
        scale = IMAGE_SIZE * conversion.MARGIN / min(image.size)
        image.draft(None, [int(side * scale) for side in image.size])
        image.load()


def convert(dataset, output):
    """Run FlowIO.py; the peak memory of its largest process in MB."""
    command = [sys.executable, os.path.join(ROOT, "FlowIO.py"), "--dataset", dataset, "--output", output]
    command += ["--image_size", str(IMAGE_SIZE)]
    # Linux counts what a process weighed before it became another program, so a light one starts it.
    starter = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
    starter += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    out = subprocess.check_output([sys.executable, "-c", starter, *command], stderr=subprocess.DEVNULL)
    return int(out.split()[-1]) / 1000


def authors_way(paths, output):
    with tf.Graph().as_default(), tf.python_io.TFRecordWriter(output) as writer:
        for path in paths:
            image = tf.image.decode_jpeg(tf.read_file(path), channels=3)
            image = tf.image.resize_images(image, [IMAGE_SIZE, IMAGE_SIZE])
            image = tf.image.per_image_standardization(image)
            with tf.Session() as session:
                values = session.run(image)
            features = {"image": writing.feature(values.tobytes()), "label": writing.feature(0)}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


# --- reading ----------------------------------------


def measure_reading(folder):
    records = reading.load_records(folder)
    print("%-42s %10s" % ("reading at %d pixels" % IMAGE_SIZE, "pictures/s"))
    rates = {augment: read_rate(records, augment) for augment in ("none", "flip", "standard")}
    for augment, rate in rates.items():
        print("%-42s %10.0f" % ("train split, --augment %s" % augment, rate))
    training = training_rate(folder)
    print("%-42s %10.1f" % ("train.py --layers 50 takes", training))
    print("reading / training: %.0f with --augment standard" % (rates["standard"] / training))


def read_rate(records, augment, batch_size=32):
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = reading.read_for_training(records, "train", batch_size, augment, seed=0)
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        steps = LOADED // batch_size

        def read():
            for _ in range(steps):
                session.run(batch["image"].op)

        read()
        return steps * batch_size / seconds(read)


def training_rate(folder):
    """Pictures/s in the last of a few steps of train.py."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, os.path.join(ROOT, "train.py"), "--data", folder, "--output", output]
        command += ["--layers", "50", "--step", "5", "--save_num", "1000", "--log_num", "1"]
        log = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    return float(re.findall(r"([\d.]+) img/s", log.decode())[-1])


# --- memory ----------------------------------------


def measure_memory(folder):
    print("%-42s %10s" % ("peak memory of FlowIO.py's largest process", "MB"))
    peaks = []
    for count in (1000, 50000):
        dataset = os.path.join(folder, "small-%d" % count)
        make_small(dataset, count)
        peaks.append(convert(dataset, os.path.join(folder, "small-records")))
        print("%-42s %10.0f" % ("%d pictures" % count, peaks[-1]))
    print("50,000 / 1,000 pictures: %.2f" % (peaks[1] / peaks[0]))


def make_small(folder, count):
    """Pictures of 32 pixels, all different."""
    rng = np.random.RandomState(0)
    for label in CLASSES:
        os.makedirs(os.path.join(folder, label))
    for number in range(count):
        image = Image.fromarray(rng.randint(0, 256, (8, 8, 3)).astype(np.uint8)).resize(
            (32, 32), Image.BICUBIC
        )
        image.save(os.path.join(folder, CLASSES[number % 2], "%05d.jpg" % number), quality=95)


if __name__ == "__main__":
    main()
