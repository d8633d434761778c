"""What predict.Classifier adds to the network: one call, a batch, many threads, many calls.

    python benchmarks/classifier.py [--source FOLDER] [--calls 10000]
    python benchmarks/classifier.py --agree MODEL FOLDER [FOLDER ...]   # of files and PIL images of them

ResNet-50 at 224 pixels with 1000 classes and random weights, on photos made of the JPEGs in --source, which
Debian's package mate-backgrounds brings. Ratios and differences are of one run; times are medians.
"""

import argparse
import gc
import os
import statistics
import tempfile
import threading
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from PIL import Image, UnidentifiedImageError

from predict import BATCH, make_model, make_photos  # the one beside this file
from suite.model.classifier import Classifier
from suite.pictures.imagefile import BadPicture, list_files
from suite.process.pipeline import Ahead

TURNS = 100  # of one call and its parts
ROUNDS = 7  # of a folder
THREADS, SHARED_CALLS = 8, 800


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", default="/usr/share/backgrounds/mate", help="folder of large JPEGs")
    parser.add_argument("--calls", type=int, default=10000, help="after which the memory is compared")
    parser.add_argument("--agree", nargs="+", metavar="PATH", help="a model folder, and folders of pictures")
    options = parser.parse_args()
    if options.agree:
        measure_agreement(*options.agree)
        return
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(os.path.join(folder, "layers_50"), 50)
        paths = list_files(make_photos(options.source, os.path.join(folder, "photos"), 2 * BATCH))
        small = make_model(os.path.join(folder, "small"), 50, mini=True, image_size=64)
        with Classifier(model) as classify:
            measure_batch(classify, paths)
            measure_call(classify, paths[0])
            measure_threads(classify, paths)
        with Classifier(small) as classify:
            measure_memory(classify, paths, options.calls)


def measure_call(classify, path):
    """One call, and what it is made of: each turn takes all three."""
    with open(path, "rb") as file:
        data = file.read()
    pixels = classify.prepare(data).pixels
    parts = {
        "decoding": lambda: classify.prepare(data),
        "the session's run": lambda: classify.probabilities([pixels]),
        "one call": lambda: classify(data),
    }
    seconds = {name: [] for name in parts}
    for _ in range(TURNS):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: 1000 * statistics.median(each) for name, each in seconds.items()}
    for name, median in medians.items():
        print("%-34s %8.2f ms" % (name, median))
    more = statistics.median(whole - a - b for a, b, whole in zip(*seconds.values()))
    print("%-34s %8.2f ms" % ("one call beyond both", 1000 * more))


def measure_batch(classify, paths):
    """Classifier.batch on files against the loop of predict.py, in turns within one process."""

    def loop(reader=classify._reader):
        encoded = Ahead(reader.pool, reader.encode, paths, BATCH)
        for batch in Ahead(reader.pool, classify.prepare, encoded, BATCH).batches(BATCH):
            classify.answers(batch)

    ways = {"predict.py": loop, "Classifier.batch": lambda: list(classify.batch(paths, batch_size=BATCH))}
    seconds = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - began)
    for name, each in seconds.items():
        print("%-34s %8.2f photos/s" % (name, len(paths) / statistics.median(each)))
    ratio = statistics.median(a / b for a, b in zip(*seconds.values()))
    print("%-34s %8.2f" % ("Classifier.batch / predict.py", ratio))


def measure_threads(classify, paths):
    """How many of the answers that threads get at once differ from those of one after the other."""
    expected = {path: classify(path).probabilities for path in paths}
    differing = []

    def work(first):
        for i in range(first, SHARED_CALLS, THREADS):
            path = paths[i % len(paths)]
            differing.append(not np.array_equal(classify(path).probabilities, expected[path]))

    threads = [threading.Thread(target=work, args=[first]) for first in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print("%-34s %8d of %d" % ("answers that differ, %d threads" % THREADS, sum(differing), len(differing)))


def measure_memory(classify, paths, calls):
    data = []
    for path in paths:
        with open(path, "rb") as file:
            data.append(file.read())
    found = []
    for count in (calls // 10, calls):
        for i in range(count):
            classify(data[i % len(data)])
        gc.collect()
        found.append(resident())
    growth = 100 * (found[1] / found[0] - 1)
    print("%-34s %8d MB, then %d MB: %+.1f%%" % ("memory, %d calls" % calls, *found, growth))


def measure_agreement(model, *folders):
    """How far the probabilities of PIL images are from those of the files that they were opened from."""
    differences, same = {}, []
    with Classifier(model) as classify:
        for path in sum(map(list_files, folders), []):
            try:
                with Image.open(path) as image:
                    there, here = classify(path), classify(image)
                    kind = image.format
            except (BadPicture, UnidentifiedImageError):
                continue
            if there.remark:  # of what shows hardly anything, normalising makes noise
                continue
            differences.setdefault(kind, []).append(np.abs(there.probabilities - here.probabilities).max())
            same.append(there.label == here.label)
    for kind, found in sorted(differences.items()):
        quantiles = np.percentile(found, [50, 99, 100])
        print("%-5s %5d files: median %.3f, 99%% within %.3f, largest %.3f" % (kind, len(found), *quantiles))
    print("the same label: %d of %d" % (sum(same), len(same)))


def resident():
    """MB of memory that this process takes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
