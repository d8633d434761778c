"""How many wrong labels train.py --folds and evaluate.py find, and how many right ones they suspect.

    python benchmarks/label_errors.py [--count 6000] [--share 0.05] [--seed 0] [train.py's options]

Moves a share of Fashion-MNIST's first training pictures to the folder of another class, trains folds on them,
evaluates, and compares the suspects with what was moved: those of suspects.csv and of cleanlab's rules.
Options that are not its own go to train.py.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
from cleanlab import latent_estimation, pruning

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from suite.evaluation import metrics, suspects


def main():
    options, rest = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        dataset, records, model = (os.path.join(folder, name) for name in ("dataset", "records", "model"))
        run("data/fashion_mnist.py", "--output", dataset, "--count", options.count)
        moved = mislabel(os.path.join(dataset, "train"), options.share, random.Random(options.seed))
        run("FlowIO.py", "--dataset", dataset, "--output", records, "--image_size", 32)
        run("train.py", "--data", records, "--output", model, "--mini", "--seed", options.seed, *rest)
        run("evaluate.py", "--data", records, "--model", model)
        names, labels, probabilities = read_answers(os.path.join(model, "evaluation"))
    wrong = np.array([name in moved for name in names])
    print("%d pictures, %d of them labelled wrong" % (len(names), wrong.sum()))
    print("| suspected | pictures | precision | 95% interval | recall |\n| --- | ---: | ---: | --- | ---: |")
    for rule, chosen in rules(labels, probabilities, wrong.sum()):
        found, low_high = wrong[chosen].sum(), metrics.wilson_interval(wrong[chosen].sum(), len(chosen))
        row = rule, len(chosen), found / len(chosen), *low_high, found / wrong.sum()
        print("| %s | %d | %.3f | %.3f to %.3f | %.3f |" % row)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--count", type=int, default=6000, help="pictures")
    parser.add_argument("--share", type=float, default=0.05, help="of them that are labelled wrong")
    parser.add_argument("--seed", type=int, default=0, help="of these, of folds and weights")
    return parser.parse_known_args()


def run(script, *arguments):
    subprocess.run(
        [sys.executable, os.path.join(ROOT, script), *map(str, arguments)], check=True, stdout=sys.stderr
    )


def mislabel(folder, share, rng):
    """Move a share of all pictures to another class's folder; returns their names in the records."""
    classes = sorted(os.listdir(folder))
    pictures = [
        (label, name) for label in classes for name in sorted(os.listdir(os.path.join(folder, label)))
    ]
    moved = set()
    for label, name in rng.sample(pictures, round(share * len(pictures))):
        other = os.path.join(rng.choice([each for each in classes if each != label]), "moved_" + name)
        os.rename(os.path.join(folder, label, name), os.path.join(folder, other))
        moved.add(os.path.join("train", other))
    return moved


def read_answers(folder):
    """predictions.csv: names, labels int64 [n], probabilities float64 [n, classes]."""
    with open(os.path.join(folder, "evaluation.json"), encoding="utf-8") as file:
        classes = [row["label"] for row in json.load(file)["per_class"]]
    with open(os.path.join(folder, "predictions.csv"), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.array([classes.index(row["label"]) for row in rows])
    return (
        [row["filename"] for row in rows],
        labels,
        np.array([[float(row[c]) for c in classes] for row in rows]),
    )


def rules(labels, probabilities, count):
    """(name, indices of what is suspected) of each rule."""
    own = probabilities[np.arange(len(labels)), labels]
    margin = own - probabilities.max(1)
    mistakes = np.flatnonzero(probabilities.argmax(1) != labels)
    found = suspects.find(labels, probabilities)
    yield "suspects.csv", found
    for number in (count // 3, count):
        yield "the first %d of it" % number, found[:number]
        margins = mistakes[np.argsort(margin[mistakes], kind="stable")]
        yield "the %d mistakes of the lowest margin" % number, margins[:number]
    joint, off_diagonal = latent_estimation.compute_confident_joint(
        labels, probabilities, return_indices_of_off_diagonals=True
    )
    yield "cleanlab, `confident_learning`", np.intersect1d(off_diagonal, mistakes)
    for method in ("prune_by_noise_rate", "prune_by_class", "both"):
        mask = pruning.get_noise_indices(
            labels, probabilities, confident_joint=joint, prune_method=method, n_jobs=1
        )
        yield "cleanlab, `%s`" % method, np.flatnonzero(mask)
    yield "all mistakes", mistakes


if __name__ == "__main__":
    main()
