"""Damage every file that the scripts read again, and see that it is noticed.

    python tests/faults/damage.py [--count 1000] [--seed 0]

Each time one file is cut off, or some bytes of it are flipped, zeroed or exchanged, at a place drawn from the
whole file; then it is read by the function that the scripts read it with. Either the content is exactly as
before (the damage hit what does not matter), or a UserError names the file. Anything else is wrong.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.dirname(TESTS), TESTS]

import kills  # (for its small network)
import numpy as np

from suite.files import jsonfile
from suite.files.schemas import SPLITS
from suite.model import inference_graph, modelfolder
from suite.model.network import build_logits, load_weights
from suite.process import errors
from suite.process.tf_versions import tf
from suite.records import reading
from suite.training import checkpoints, monitor


def damage(data, rng):
    """The bytes with one thing wrong; never the same bytes."""
    while True:
        at, kind = rng.randrange(len(data)), rng.choice(["cut", "flip", "zero", "noise", "gap"])
        length = min(rng.choice([1, 1, 4, 64]), len(data) - at)
        if kind == "cut":
            damaged = data[:at]
        elif kind == "flip":
            damaged = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        elif kind == "zero":
            damaged = data[:at] + bytes(length) + data[at + length :]
        elif kind == "noise":
            noise = bytes(rng.randrange(256) for _ in range(length))
            damaged = data[:at] + noise + data[at + length :]
        else:
            damaged = data[:at] + data[at + length :]
        if damaged != data:
            return damaged


# --- how the scripts read each file; what they get must stay the same -------------------------------


class Readers:
    def __init__(self, base):
        self.base, self.model = base, modelfolder.load_model(base.model)
        with tf.Graph().as_default():
            images = tf.placeholder(tf.float32, [None, 32, 32, 3])
            build_logits(images, self.model.network, self.model.classes, False)
            self.session = tf.Session()
            self.variables = tf.global_variables()

    def records(self, path):
        records = reading.load_records(self.base.records)
        seen = []
        with tf.Graph().as_default(), reading.naming_damage(records):
            for split in SPLITS:
                reading.check_records(records, split)
                for name in records.shard_names(split):
                    seen += tf.python_io.tf_record_iterator(os.path.join(records.folder, name))
        return seen

    def dataset(self, path):
        return reading.load_records(self.base.records)

    def config(self, path):
        return modelfolder.load_model(self.base.model), jsonfile.read(path)

    def best(self, path):
        return checkpoints.read_best(self.base.model)

    def weights(self, path):
        with self.session.graph.as_default():
            load_weights(self.session, modelfolder.load_model(self.base.model).checkpoint)
            return [value.tobytes() for value in self.session.run(self.variables)]

    def pointer(self, path):
        return modelfolder.latest_checkpoint(os.path.dirname(path))

    def cache(self, path):
        cached = inference_graph.read_cache(self.model)
        return cached and cached.graph_def

    def log(self, path):
        """A table to look at: a training goes on beside it, whatever it holds."""
        monitor.Log(self.base.model, 10**9, 1)
        return checkpoints.read_best(self.base.model)

    def resumed(self, path):
        """Everything in a checkpoint that a training goes on from, its slots too."""
        checkpoints.tidy(self.base.model)
        reader = tf.train.load_checkpoint(path.partition(".data-")[0].replace(".index", ""))
        return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


def targets(base, readers):
    """(what it is, path, how it is read) for each kind of file."""
    first = os.path.join(base.records, reading.shard_names("train", 1)[0])
    best = os.path.join(base.model, "best")
    prefix = modelfolder.load_model(base.model).checkpoint
    latest = modelfolder.latest_checkpoint(base.model)
    yield "records", first, readers.records
    yield "dataset.json", os.path.join(base.records, "dataset.json"), readers.dataset
    yield "model.json", os.path.join(base.model, "model.json"), readers.config
    yield "best.json", os.path.join(best, "best.json"), readers.best
    yield "temperature.json", prefix + modelfolder.TEMPERATURE, readers.config
    yield "checkpoint, .data, to evaluate", prefix + ".data-00000-of-00001", readers.weights
    yield "checkpoint, .index, to evaluate", prefix + ".index", readers.weights
    yield "checkpoint, .data, to resume", latest + ".data-00000-of-00001", readers.resumed
    yield "checkpoint, .index, to resume", latest + ".index", readers.resumed
    yield "checkpoint (which is the latest)", os.path.join(base.model, "checkpoint"), readers.pointer
    yield "inference.cache", inference_graph.cache_path(readers.model), readers.cache
    yield "log.csv", os.path.join(base.model, "log.csv"), readers.log


def same(one, other):
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return one == other


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.FATAL)
    rng, wrong = random.Random(options.seed), 0
    print("| file | damaged | refused | same content | wrong |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        base = kills.Base(folder)
        readers = Readers(base)
        inference_graph.load_graph(readers.model, None)  # which writes the cache
        files = list(targets(base, readers))
        for number, (what, path, read) in enumerate(files):
            count = options.count // len(files) + (number < options.count % len(files))
            tally = {"refused": 0, "same": 0, "wrong": 0}
            shutil.copyfile(path, path + ".kept")
            data, before = kills.read(path), read(path)
            for _ in range(count):
                damaged = damage(data, rng)
                with open(path, "wb") as file:
                    file.write(damaged)
                tally[judge(what, path, read, before)] += 1
            os.replace(path + ".kept", path)
            print("| %s | %d | %d | %d | %d |" % (what, count, *tally.values()), flush=True)
            wrong += tally["wrong"]
    sys.exit(1 if wrong else 0)


def judge(what, path, read, before):
    """refused, same or wrong."""
    try:
        now = read(path)
    except errors.UserError as error:
        if os.path.dirname(path) in str(error) or os.path.basename(path) in str(error):
            return "refused"
        print("%s: the message does not name it: %s" % (what, error), file=sys.stderr)
        return "wrong"
    except Exception as error:
        print("%s: %s: %s" % (what, type(error).__name__, error), file=sys.stderr)
        return "wrong"
    if what == "inference.cache" and now is None:
        return "refused"  # it is made anew
    if same(before, now):
        return "same"
    print("%s: read as if it were whole" % what, file=sys.stderr)
    return "wrong"


if __name__ == "__main__":
    main()
