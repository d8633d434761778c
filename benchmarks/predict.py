"""Measure how soon and how fast predict.py answers.

    python benchmarks/predict.py [--source FOLDER] [--repeat 9]

Prints, for ResNet-50 and ResNet-152 at 224 pixels with 1000 classes and random weights:

- the time of a whole `predict.py` on one photo, with a cached model, against `import tensorflow`;
- the pictures/s of predict.py on a folder, its start left out, against those of the network alone.

The photo and the folder's pictures are made of the JPEGs in --source, which Debian's package
mate-backgrounds brings.
"""

import argparse
import glob
import os
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

import random_model

from suite.model import inference_graph, modelfolder
from suite.process import device
from suite.process.tf_versions import tf

CLASSES = 1000
FEW, MANY = 32, 160  # pictures in two folders; the difference of their times is free of the start
BATCH = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", default="/usr/share/backgrounds/mate", help="folder of large JPEGs")
    parser.add_argument("--repeat", type=int, default=9, help="times that each command is timed, in turns")
    options = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.FATAL)
    with tempfile.TemporaryDirectory() as folder:
        models = [make_model(os.path.join(folder, "layers_%d" % layers), layers) for layers in (50, 152)]
        photo = make_photos(options.source, os.path.join(folder, "one"), 1)
        measure_start(models, photo, options.repeat)
        few = make_photos(options.source, os.path.join(folder, "few"), FEW)
        many = make_photos(options.source, os.path.join(folder, "many"), MANY)
        measure_folder(models[0], few, many)


def make_model(folder, layers, mini=False, image_size=224):
    """A model folder with random weights, its cache filled."""
    network = {"layers": layers, "mini": mini, "shortcut": "zero_pad", "preactivation": False}
    random_model.make(folder, network, CLASSES, image_size)
    inference_graph.load_graph(modelfolder.load_model(folder), None, device.data_format())
    return folder


def make_photos(source, folder, count):
    """A folder of `count` photos of 2000 x 1500 pixels."""
    paths = sorted(glob.glob(os.path.join(source, "**", "*.jpg"), recursive=True))
    if not paths:
        sys.exit("predict.py: error: --source %s: no JPEGs there" % source)
    os.makedirs(folder)
    for i in range(count):
        image = Image.open(paths[i % len(paths)]).convert("RGB").resize((2000, 1500))
        image.save(os.path.join(folder, "%d.jpg" % i), quality=90)
    return folder


def run(*command):
    """Seconds that a command takes from start to end."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def predict(model, folder):
    return os.path.join(ROOT, "predict.py"), folder, "--model", model, "--batch_size", str(BATCH)


def measure_start(models, photo, repeat):
    commands = {"python -c 'import tensorflow'": ("-c", "import tensorflow")}
    commands.update(("predict.py, %s" % os.path.basename(model), predict(model, photo)) for model in models)
    times = {name: [] for name in commands}
    for _ in range(repeat + 1):  # the first turn warms the disk's cache
        for name, command in commands.items():
            times[name].append(run(*command))
    base = statistics.median(times["python -c 'import tensorflow'"][1:])
    print("%-34s %8s %8s" % ("one photo, start to end", "seconds", "ratio"))
    for name, seconds in times.items():
        median = statistics.median(seconds[1:])
        print("%-34s %8.2f %8.2f" % (name, median, median / base))


def measure_folder(model, few, many):
    alone, whole = [], []
    for _ in range(3):
        alone.append(network_rate(modelfolder.load_model(model)))
        whole.append((MANY - FEW) / (run(*predict(model, many)) - run(*predict(model, few))))
    rates = statistics.median(alone), statistics.median(whole)
    print("%-34s %8s" % ("ResNet-50, batches of %d" % BATCH, "photos/s"))
    print("%-34s %8.2f" % ("the network alone", rates[0]))
    print("%-34s %8.2f" % ("predict.py on a folder", rates[1]))
    print("predict.py / the network alone: %.2f" % (rates[1] / rates[0]))


def network_rate(model, batches=4):
    data_format = device.data_format()
    cached = inference_graph.read_cache(model, data_format)
    graph_def = inference_graph.load_graph(model, cached, data_format)
    with tf.Graph().as_default(), tf.Session() as session:
        images, answer = tf.import_graph_def(graph_def, return_elements=["images:0", "probabilities:0"])
        pixels = np.random.RandomState(0).normal(0, 1, [BATCH, 224, 224, 3])
        session.run(answer, {images: pixels})
        began = time.perf_counter()
        for _ in range(batches):
            session.run(answer, {images: pixels})
        return batches * BATCH / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
