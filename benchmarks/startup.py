"""How long until the first training step and until the first prediction, and where that time goes.

    python benchmarks/startup.py [--repeat 5]
    python benchmarks/startup.py --than CHECKOUT    # against another version of the suite, in turns
    python benchmarks/startup.py --weights FILE.h5  # what it costs to begin with Keras's file, in turns

ResNet-50 and ResNet-152 of full width at 224 pixels, 8 pictures per step. Medians over the turns; the ratio
is to `import tensorflow` in a process of its own, in the same turns.
"""

import argparse
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
from suite.process import device, tf_versions

LAYERS = (50, 152)
SIZE, CLASSES, BATCH = 224, 1000, 8

# What train.py --verbose says when a part of the start is over.
TRAINING = {
    "import": "device: ",
    "data": "Calling model_fn",
    "graph": "Done calling model_fn",
    "finalize": "Graph was finalized",
    "initialize": "Done running local_init_op",
    "first step": "step 1/",
}

# The same for prediction: what predict.py does, with a mark after each part.
PREDICTION = """
import sys, time
def mark(name):
    print(name, time.time(), flush=True)
from suite.model import inference_graph, modelfolder
from suite.process import device
from suite.process.tf_versions import tf
tf.Session
mark("import")
model = modelfolder.load_model(sys.argv[1])
data_format = device.data_format()
cached = inference_graph.read_cache(model, data_format)
mark("restore")
graph_def = inference_graph.load_graph(model, cached, data_format)
images, answer = tf.import_graph_def(graph_def, return_elements=["images:0", "probabilities:0"])
mark("graph")
import numpy
config = device.session_config()
config.graph_options.rewrite_options.disable_meta_optimizer = True
classify = tf.Session(config=config).make_callable(answer, [images])
mark("session")
classify(numpy.zeros([1, model.image_size, model.image_size, 3], numpy.float32))
mark("first run")
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=5, help="turns")
    parser.add_argument("--than", metavar="CHECKOUT", help="the root of another version of the suite")
    parser.add_argument("--weights", metavar="FILE.h5", help="Keras's file for ResNet50V2")
    options = parser.parse_args()
    tf_versions.tf.logging.set_verbosity(tf_versions.tf.logging.FATAL)
    with tempfile.TemporaryDirectory() as folder:
        records = make_records(folder)
        if options.than:
            compare(folder, records, {"this": ROOT, "other": os.path.abspath(options.than)}, options.repeat)
            return
        if options.weights:
            compare_weights(folder, records, options.weights, options.repeat)
            return
        models = {layers: make_model(os.path.join(folder, str(layers)), layers) for layers in LAYERS}
        imports, found = [], {}
        for turn in range(options.repeat + 1):
            imported = time_import()
            parts = {}
            for layers in LAYERS:
                output = os.path.join(folder, "%d-%d" % (layers, turn))
                parts["training step", layers] = time_training(records, output, layers)
                parts["prediction", layers] = time_prediction(models[layers])
            if turn:  # the first one warms the disk's cache
                imports.append(imported)
                for key, value in parts.items():
                    found.setdefault(key, []).append(value)
    show(imports, found)


def compare(folder, records, roots, repeat):
    """Whole starts: the first training step, and predict.py of one photo with the model cached."""
    photo = os.path.join(folder, "dataset", "one", "0.jpg")
    for layers in LAYERS:
        seconds = {(what, name): [] for what in ("first step", "predict.py") for name in roots}
        models = {name: make_model(os.path.join(folder, name, str(layers)), layers) for name in roots}
        for turn in range(repeat + 1):
            for name, root in roots.items():
                output = os.path.join(folder, "%s-%d-%d" % (name, layers, turn))
                training = sum(time_training(records, output, layers, root).values())
                began = time.time()
                command = [sys.executable, os.path.join(root, "predict.py"), photo, "--model", models[name]]
                subprocess.run(command, check=True, capture_output=True)
                if turn:  # the first one fills the cache
                    seconds["first step", name].append(training)
                    seconds["predict.py", name].append(time.time() - began)
        for what in ("first step", "predict.py"):
            this, other = (seconds[what, name] for name in roots)
            ratio = statistics.median(a / b for a, b in zip(this, other))
            values = layers, what, statistics.median(this), statistics.median(other), ratio
            print("ResNet-%d, %s: %.2f s, the other %.2f s, ratio %.3f" % values)


def compare_weights(folder, records, weights, repeat):
    """The first training step of ResNet-50 from random weights and from Keras's file."""
    ways = {"random": ["--preactivation", "--shortcut", "projection"], "file": ["--model", weights]}
    seconds = {name: [] for name in ways}
    for turn in range(repeat + 1):
        for name, way in ways.items():
            output = os.path.join(folder, "%s-%d" % (name, turn))
            taken = sum(time_training(records, output, 50, more=["--recipe", "article", *way]).values())
            if turn:
                seconds[name].append(taken)
    more = statistics.median(file - random for random, file in zip(seconds["random"], seconds["file"]))
    medians = [statistics.median(each) for each in seconds.values()]
    print("ResNet-50, first step: %.2f s, from a file %.2f s, %.2f s more" % (*medians, more))


def make_records(folder):
    rng = np.random.RandomState(0)
    for name in ("one", "two"):
        os.makedirs(os.path.join(folder, "dataset", name))
        for i in range(40):
            pixels = rng.randint(0, 256, [8, 8, 3]).astype(np.uint8)
            image = Image.fromarray(pixels).resize((256, 256))
            image.save(os.path.join(folder, "dataset", name, "%d.jpg" % i))
    records = os.path.join(folder, "records")
    dataset = os.path.join(folder, "dataset")
    command = [sys.executable, os.path.join(ROOT, "FlowIO.py"), "--dataset", dataset, "--output", records]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return records


def make_model(folder, layers):
    """A model folder with random weights, its cache filled."""
    os.makedirs(folder, exist_ok=True)
    network = {"layers": layers, "mini": False, "shortcut": "zero_pad", "preactivation": False}
    random_model.make(folder, network, CLASSES, SIZE)
    inference_graph.load_graph(modelfolder.load_model(folder), None, device.data_format())
    return folder


def time_import():
    began = time.time()
    subprocess.run([sys.executable, "-c", "import tensorflow"], check=True, stderr=subprocess.DEVNULL)
    return time.time() - began


def time_training(records, output, layers, root=ROOT, more=()):
    """{part: seconds} up to the first step."""
    command = [sys.executable, os.path.join(root, "train.py"), "--data", records, "--output", output]
    command += ["--layers", str(layers), "--batch_size", str(BATCH), "--step", "9", "--log_num", "1", *more]
    waiting, found = dict(TRAINING), {}
    last = time.time()
    process = subprocess.Popen(command + ["--verbose"], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        for name, sign in list(waiting.items()):
            if sign in line:
                found[name], last = time.time() - last, time.time()
                del waiting[name]
        if not waiting:
            break
    process.kill()
    process.communicate()
    return found


def time_prediction(model):
    """{part: seconds} up to the first answer."""
    last, found = time.time(), {}
    done = subprocess.run(
        [sys.executable, "-c", PREDICTION, model],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ, PYTHONPATH=ROOT),
    )
    for line in done.stdout.splitlines():
        name, at = line.rsplit(" ", 1)
        found[name], last = float(at) - last, float(at)
    return found


def show(imports, found):
    base = statistics.median(imports)
    print("`import tensorflow`: %.2f s" % base)
    for what in ("training step", "prediction"):
        names = list(found[what, LAYERS[0]][0])
        print("\n| first %s | %s | together | ratio |" % (what, " | ".join(names)))
        print("| --- |%s" % (" ---: |" * (len(names) + 2)))
        for layers in LAYERS:
            turns = found[what, layers]
            parts = [statistics.median(turn[name] for turn in turns) for name in names]
            total = statistics.median(sum(turn.values()) for turn in turns)
            cells = ["%.2f" % seconds for seconds in [*parts, total, total / base]]
            print("| ResNet-%d | %s |" % (layers, " | ".join(cells)))


if __name__ == "__main__":
    main()
