"""Have a version of the suite write all that it writes, to be read by later ones: tests/old/test_old.py.

    python tests/old/make.py CHECKOUT tests/old/<commit>.tar.xz

CHECKOUT is the root of the suite in that version; it runs with the Python that runs this. The weights repeat
themselves, and a learning rate of next to nothing leaves them so: 150 MB become some ten thousand bytes.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import tensorflow.compat.v1 as tf

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, TESTS)
sys.path.insert(0, os.path.dirname(TESTS))

from helpers import draw_dataset


def main(checkout, target):
    def run(script, *arguments):
        command = [sys.executable, os.path.join(os.path.abspath(checkout), script), *arguments]
        return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout

    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(os.path.join(folder, "dataset"), 10)
        run("FlowIO.py", "--dataset", "dataset", "--output", "records", "--image_size", "32")
        train = [
            "--data",
            "records",
            "--mini",
            "--optimizer",
            "momentum",
            "--lr",
            "1e-30",
            "--batch_size",
            "4",
        ]
        run("train.py", *train, "--output", "any", "--step", "1")
        repeat(os.path.join(folder, "any"))
        some = ["--step", "4", "--save_num", "2", "--freeze", "4", "--keep", "1", "--log_num", "1"]
        run("train.py", *train, "--output", "model", "--model", "any", *some)
        run("evaluate.py", "--data", "records", "--model", "model")
        with open(os.path.join(folder, "answers.json"), "wb") as file:
            file.write(run("predict.py", "dataset", "--model", "model", "--json"))
        run("export.py", "--model", "model", "--format", "frozen_graph")
        run("export.py", "--model", "model")
        shutil.rmtree(os.path.join(folder, "any"))
        with tarfile.open(target, "w:xz", preset=9) as archive:
            for name in sorted(os.listdir(folder)):
                archive.add(os.path.join(folder, name), name)


def repeat(folder):
    """Replace the weights of a model folder's checkpoints by ones that repeat themselves."""
    rng = np.random.RandomState(0)
    for place in (folder, os.path.join(folder, "best")):
        checkpoint = tf.train.latest_checkpoint(place)
        with tf.Graph().as_default(), tf.Session() as session:
            for name, shape in tf.train.list_variables(checkpoint):
                value = tf.train.load_variable(checkpoint, name)
                if name.endswith("kernel"):
                    deviation = np.sqrt(0.5 / np.prod(shape[:-1]))
                    value = np.resize(rng.normal(0, deviation, 251).astype(np.float32), shape)
                elif name.endswith(("moving_variance", "moving_mean")):
                    value = np.full_like(value, name.endswith("variance"))
                elif "Momentum" in name:
                    value = np.zeros_like(value)
                tf.get_variable(name, initializer=value)
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, checkpoint, write_meta_graph=False, write_state=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
