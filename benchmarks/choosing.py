"""Which checkpoint to keep where few pictures validate: the most accurate, that of the least loss, the last?

    python data/fashion_mnist.py --output data/fashion_mnist
    python benchmarks/choosing.py [--dataset data/fashion_mnist] [--seeds 2] [train.py's options]

Trains on 40 pictures of each of five classes, and asks every checkpoint about 5,000 others. Half of these are
what the chosen one is tested on; from the others validation splits of each size are drawn, 1,000 times.
Prints the mean test accuracy of what each rule chooses. Options that are not its own go to train.py.
"""

import argparse
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np

from suite.evaluation.predictions import predict_split
from suite.model import modelfolder
from suite.records import reading

CLASSES = ("T-shirt", "Dress", "Coat", "Sandal", "Bag")
TRAINED = 40  # pictures of each
SIZES = (10, 20, 50, 200, 1000)  # of validation splits
DRAWS = 1000


def main():
    options, rest = parse_options()
    print("| validation pictures | %s |" % " | ".join(RULES))
    print("| ---: |%s" % (" ---: |" * len(RULES)))
    with tempfile.TemporaryDirectory() as folder:
        convert(options.dataset, folder)
        runs = [answers(folder, seed, rest) for seed in range(options.seeds)]
    for size in SIZES:
        chosen = np.mean([choose(*run, size) for run in runs], axis=0)
        print("| %d | %s |" % (size, " | ".join("%.4f" % each for each in chosen)))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--dataset", default="data/fashion_mnist", help="folder that data/fashion_mnist.py wrote"
    )
    parser.add_argument("--seeds", type=int, default=2, help="trainings")
    return parser.parse_known_args()


def convert(dataset, folder):
    """Records of a few pictures to train on and many to test, in `folder`/records."""
    for split, most in (("train", TRAINED), ("test", None)):
        for name in CLASSES:
            source, target = os.path.join(dataset, split, name), os.path.join(folder, "dataset", split, name)
            os.makedirs(target)
            for file in sorted(os.listdir(source))[:most]:
                os.symlink(os.path.abspath(os.path.join(source, file)), os.path.join(target, file))
    arguments = ["--dataset", os.path.join(folder, "dataset"), "--follow_links", "--image_size", "32"]
    run("FlowIO.py", *arguments, "--output", os.path.join(folder, "records"))


def answers(folder, seed, more):
    """The probabilities of all checkpoints of a training, [checkpoints, pictures, classes]; the labels."""
    records, output = os.path.join(folder, "records"), os.path.join(folder, "model-%d" % seed)
    arguments = ["--data", records, "--output", output, "--mini", "--seed", str(seed), "--keep", "1000"]
    run("train.py", *arguments, "--save_num", "25", "--bn_batches", "0", *more)
    model, records = modelfolder.load_model(output), reading.load_records(records)
    every = [
        predict_split(model._replace(checkpoint=each), records, "test", 500)
        for each in modelfolder.checkpoints(output)
    ]
    return np.array([each.probabilities for each in every]), every[0].labels


def run(script, *arguments):
    """Run a script of the suite."""
    command = [sys.executable, os.path.join(ROOT, script), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


# --- the rules, from accuracies and losses of the checkpoints in turn ---------------------


def smooth(values):
    """Means with the neighbours before and after; float [checkpoints]."""
    padded = np.pad(values, 1, mode="edge")
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def last_within(right, size, errors):
    """The last checkpoint that is at most so many standard errors worse than the most accurate before it."""
    highest = np.maximum.accumulate(right)
    return np.flatnonzero(right >= highest - errors * np.sqrt(highest * (1 - highest) / size))[-1]


RULES = {
    "most accurate, then least loss": lambda right, loss, size: np.lexsort([loss, -right])[0],
    "least loss": lambda right, loss, size: loss.argmin(),
    "most accurate, smoothed": lambda right, loss, size: np.lexsort([smooth(loss), -smooth(right)])[0],
    "least loss, smoothed": lambda right, loss, size: smooth(loss).argmin(),
    "the last": lambda right, loss, size: len(loss) - 1,
    "the last within a standard error": lambda right, loss, size: last_within(right, size, 1),
    "within two": lambda right, loss, size: last_within(right, size, 2),
}


def choose(probabilities, labels, size):
    """The mean test accuracy of what each of RULES chooses by validation splits of `size` pictures."""
    rng = np.random.RandomState(0)
    order = rng.permutation(len(labels))
    tested, pool = np.split(order, 2)
    right = probabilities.argmax(2) == labels
    losses = -np.log(np.maximum(probabilities[:, np.arange(len(labels)), labels], 1e-7))
    test_accuracy = right[:, tested].mean(1)
    found = []
    for _ in range(DRAWS):
        drawn = rng.choice(pool, size, replace=False)
        measured = right[:, drawn].mean(1), losses[:, drawn].mean(1)
        found.append([test_accuracy[rule(*measured, size)] for rule in RULES.values()])
    return np.mean(found, axis=0)


if __name__ == "__main__":
    main()
