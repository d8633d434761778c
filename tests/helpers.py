"""What the tests share: the scripts as subprocesses, pictures that are drawn, and what was written."""

import csv
import glob
import importlib
import io
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys

import numpy as np
from PIL import Image, ImageCms

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "data"))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # has to be there when TensorFlow is imported

import draw_demo  # (lies in data/)

from suite.model import modelfolder
from suite.model.network import build_logits
from suite.process import tf_versions
from suite.process.tf_versions import tf
from suite.records import reading
from suite.training.config import complete_options, make_config
from suite.training.options import parse_options

tf_versions.as_version_1()  # before any test imports TensorFlow by itself

MINUTES = 10  # a script that takes longer hangs
RED = (220, 30, 40)
LABELS = ["banana", "grapes", "kiwi"]


def finding(*folders, **more):
    """The environment of a program that finds modules in these folders too, with some variables more."""
    path = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(path), **more)


def run(script, *arguments, cwd=None, status=0, stdin=None, python=sys.executable):
    """Run a script of the suite in a process of its own; its standard output and error."""
    process = subprocess.Popen(
        [python, os.path.join(ROOT, script), *map(str, arguments)],
        cwd=cwd,
        stdin=None if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=dict(os.environ, PYTHONFAULTHANDLER="1"),
    )
    try:
        out, err = process.communicate(stdin, timeout=MINUTES * 60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it says where it stands
        out, err = process.communicate()
    assert process.returncode == status, (process.returncode, out, err)
    assert "Traceback" not in err
    return out, err


def refuses(script, *arguments, says, status):
    """Assert that a mistake is answered by one line with `says` in it, and this exit status."""
    out, err = run(script, *arguments, status=status)
    lines = [line for line in err.splitlines() if not line.startswith(("device:", "warning:"))]
    assert len(lines) == 1 and says in lines[0], err
    assert out == ""


def draw_dataset(folder, count=40, labels=LABELS, seed=0):
    """Class folders of pictures that are easy to tell apart, 40 pixels wide."""
    rng = random.Random(seed)
    for label in labels:
        os.makedirs(os.path.join(str(folder), label))
        for number in range(count):
            image = draw_demo.picture(label, 40, rng)
            image.save(os.path.join(str(folder), label, "%d.png" % number))


def write_slow_dataset(folder, count):
    """Two class folders of pictures that take long to decode, so that one is in time to interrupt it."""
    data = file_bytes(gradient((2000, 1500)), "PNG", compress_level=1)
    for label in ("apple", "kiwi"):
        os.makedirs(os.path.join(str(folder), label))
        for i in range(count):
            with open(os.path.join(str(folder), label, "%d.png" % i), "wb") as file:
                file.write(data)


def file_bytes(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(jpeg):
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG" and image.mode == "RGB"
    return np.asarray(image).astype(int)


def folder_bytes(folder):
    """{path: bytes} of all files below a folder."""
    files = (path for path in pathlib.Path(str(folder)).rglob("*") if path.is_file())
    return {str(path.relative_to(str(folder))): path.read_bytes() for path in files}


def swapped_profile():
    """An ICC profile like sRGB but with red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    name = "sRGB".encode("utf-16-be")
    assert name in profile
    return bytes(profile.replace(name, "test".encode("utf-16-be")))


def plain(mode="RGB", colour=RED, size=(40, 30)):
    image = Image.new("RGB", size, colour)
    return image.quantize(4) if mode == "P" else image.convert(mode)


def gradient(size=(60, 40)):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8))


def drawing(number):
    label = ("apple", "banana", "grapes", "kiwi", "watermelon")[number % 5]
    return draw_demo.picture(label, 160, random.Random(number))


def make_model(folder, **switches):
    """A model folder whose weights are all random, those of the batch norms too."""
    network = {"layers": 50, "mini": True, "shortcut": "zero_pad", "preactivation": False, **switches}
    classes = ["a", "b", "c"]
    rng = np.random.RandomState(0)
    with tf.Graph().as_default(), tf.Session() as session:
        build_logits(tf.placeholder(tf.float32, [None, 64, 64, 3]), network, classes, is_train=False)
        values = {}
        for variable in tf.global_variables():
            name, shape, initial = variable.op.name, variable.shape.as_list(), variable.initializer.inputs[1]
            if name.endswith(("variance", "gamma")):
                values[initial] = rng.uniform(0.5, 1.5, shape)
            elif name.endswith(("mean", "beta", "bias")):
                values[initial] = rng.normal(0, 0.3, shape)
        session.run(tf.global_variables_initializer(), values)
        checkpoint = tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step=1)
    return modelfolder.Model(str(folder), checkpoint, network, classes, 64, "per_image", False)


def content_of(path):
    """The bytes of a file."""
    with open(path, "rb") as file:
        return file.read()


def pictures_of(workspace, count=6):
    """Paths of so many of a Workspace's pictures, of all classes."""
    paths = sorted(glob.glob(os.path.join(workspace.dataset, "*", "*.png")))
    return paths[:: len(paths) // count][:count]


def find(browser, selector):
    """All elements of the page that a browser shows."""
    return browser.find_elements("css selector", selector)


class Workspace:
    """A folder where the four scripts have been run with their default paths."""

    def __init__(self, folder):
        self.dataset = str(folder / "data" / "dataset")
        self.records = str(folder / "data" / "tfrecords")
        self.model = str(folder / "models" / "resnet")
        self.folder = str(folder)
        draw_dataset(self.dataset)
        self.flowio = run("FlowIO.py", "--image_size", 32, cwd=self.folder)
        self.training = run("train.py", "--mini", "--step", 100, "--save_num", 50, cwd=self.folder)
        self.evaluation = run("evaluate.py", cwd=self.folder)

    @property
    def exported(self):
        """The folder of what export.py wrote."""
        folder = os.path.join(self.folder, "exported")
        if not os.path.exists(folder):
            run("export.py", "--model", self.model, "--output", folder)
        return folder

    def results(self, folder=None):
        """What evaluate.py wrote: the content of evaluation.json, the rows of predictions.csv."""
        folder = folder or os.path.join(self.model, "evaluation")
        with open(os.path.join(folder, "evaluation.json"), encoding="utf-8") as file:
            results = json.load(file)
        with open(os.path.join(folder, "predictions.csv"), encoding="utf-8-sig", newline="") as file:
            return results, list(csv.DictReader(file))


def config_for(workspace, *arguments):
    """What model.json would hold for these options, and the records."""
    records = reading.load_records(workspace.records)
    options = parse_options(["--mini", "--data", workspace.records, *map(str, arguments)])
    complete_options(options, records, None, None)
    return make_config(options, records), records


def tf_slim(network):
    """TF-Slim and a module of its networks: part of TensorFlow 1.15, a package for 2.15."""
    if not tf_versions.is_2():
        from tensorflow.contrib import slim

        return slim, getattr(importlib.import_module("tensorflow.contrib.slim.nets"), network)
    slim = importlib.import_module("tf_slim")
    slim.layers.normalization_layers = tf.layers  # it looks for them in a Keras that is not installed
    return slim, importlib.import_module("tf_slim.nets." + network)


def read_log(folder):
    with open(os.path.join(folder, "log.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def differing(one, other):
    """The names of the weights and statistics that differ between two checkpoints."""
    there, here = (tf.train.load_checkpoint(each) for each in (one, other))
    of_training = re.compile("Adam|Momentum|global_step$")
    names = [name for name in there.get_variable_to_shape_map() if not of_training.search(name)]
    return {name for name in names if not np.array_equal(there.get_tensor(name), here.get_tensor(name))}
