"""The house: what lies at the top, who imports whom, and that other programs can come in."""

import ast
import glob
import os
import subprocess
import sys

import pytest
from helpers import ROOT, finding

import resnet
from suite.files import schemas

ROOMS = [
    "process",
    "files",
    "pictures",
    "records",
    "model",
    "evaluation",
    "serving",
    "training",
]  # from the ground up
COMMANDS = ["FlowIO", "train", "evaluate", "predict", "export", "serve"]


def imports(path):
    """The dotted names of all modules and names that a file imports, also within functions."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            yield from ("%s.%s" % (node.module, alias.name) for alias in node.names)


def test_the_top_level():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    found = {path.split("/")[0] for path in tracked.decode().splitlines()} - {".ci", ".gitignore"}
    folders = {"suite", "data", "models", "tests", "docs", "benchmarks", "requirements"}
    papers = {"README.md", "README.zh-CN.md", "CHANGELOG.md", "LICENSE"}
    assert found == folders | papers | {"requirements.txt", "Makefile", "pyproject.toml", "resnet.py"} | {
        command + ".py" for command in COMMANDS
    }


@pytest.mark.parametrize("room", ROOMS)
def test_imports_lead_downward(room):
    paths = glob.glob(os.path.join(ROOT, "suite", room, "*.py"))
    below = tuple("suite.%s." % name for name in ROOMS[: ROOMS.index(room) + 1])
    assert len(paths) > 1
    for path in paths:
        for name in imports(path):
            top = name.partition(".")[0]
            assert top not in COMMANDS, path
            assert top != "suite" or name.startswith((*below, "suite." + room)), (path, name)
            assert top != "resnet" or path.endswith(os.path.join("model", "network.py")), path


def test_each_room_is_known():
    assert sorted(ROOMS) == sorted(
        name for name in os.listdir(os.path.join(ROOT, "suite")) if not name.startswith("__")
    )


def test_resnet_stands_on_the_ground():
    assert set(imports(os.path.join(ROOT, "resnet.py"))) == {"functools", "tensorflow.compat.v1"}


def test_the_words_of_the_options_are_those_of_the_network():
    assert schemas.SHORTCUTS == resnet.SHORTCUTS and schemas.STEMS == resnet.STEMS
    for demo in (resnet.ResNet_demo, resnet.ResNet_mini_demo):
        assert ["layer_%d" % layers for layers in schemas.LAYERS] == list(demo)


def in_a_program(code, folder):
    """Run it as a program of somebody else's, in a folder of its own; its standard output."""
    environment = finding(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=str(folder), env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_resnet_in_a_program(tmp_path, whole_network):
    """With TensorFlow as it comes, whose version 2 computes eagerly; all its batch norms are trained."""
    code = """if True:
        import sys
        import numpy as np
        import tensorflow.compat.v1 as tf
        import resnet
        with tf.Graph().as_default(), tf.Session() as session:
            images = tf.placeholder(tf.float32, [None, 64, 64, 3])
            logits = resnet.inference(images, resnet.ResNet_mini_demo["layer_50"], 10, True)
            updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
            session.run(tf.global_variables_initializer())
            feed = {images: np.random.RandomState(0).normal(size=[2, 64, 64, 3])}
            statistics = [v for v in tf.global_variables() if "moving" in v.name]
            before = session.run(statistics)
            answer, _ = session.run([logits, updates], feed)
            moved = [(a != b).any() for a, b in zip(before, session.run(statistics))]
        assert all(moved) and len(moved) == len(updates) > 30
        print(answer.shape, any(name.startswith("suite") for name in sys.modules))
    """
    assert in_a_program(code, tmp_path) == "(2, 10) False\n"


def test_the_records_in_a_program(workspace, tmp_path):
    """As FlowIO.load_records and FlowIO.read have always given them."""
    code = """if True:
        import signal, sys
        before = signal.getsignal(signal.SIGINT)
        import FlowIO
        import tensorflow.compat.v1 as tf
        assert signal.getsignal(signal.SIGINT) is before
        assert sys.excepthook is sys.__excepthook__
        records = FlowIO.load_records(%r)
        with tf.Graph().as_default(), tf.Session() as session:
            for split, more in (("test", {}), ("train", {"augment": "flip", "seed": 1, "part": (1, 2)})):
                dataset = FlowIO.read(records, split, 4, "per_image", **more)
                batch = session.run(tf.data.make_one_shot_iterator(dataset).get_next())
                print(split, batch["image"].shape, batch["label"].shape, batch["filename"].shape)
    """
    out = in_a_program(code % workspace.records, tmp_path)
    assert out == "test (4, 32, 32, 3) (4,) (4,)\ntrain (4, 32, 32, 3) (4,) (4,)\n"
