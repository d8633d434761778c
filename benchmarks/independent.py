"""Does train.py train as well as an independent training? The same network and recipe, written in PyTorch.

    make .venv-peers/run
    python data/fashion_mnist.py --count 9000 --val_count 3000 --output data/fashion_small
    python FlowIO.py --dataset data/fashion_small --output data/fashion_small_records --image_size 32
    python benchmarks/independent.py [--seeds 10] [--step 600]

Each trains from as many seeds on the same 6,000 pictures and answers the 3,000 of val with its last weights
and moving averages, which train.py would otherwise make anew at the end. Prints the accuracies, how far the
means differ, with Welch's 95% interval, and the same for He et al.'s initialisation in place of Glorot's.
"""

import argparse
import os

import numpy as np
from accuracy import ROOT, measure, output_of
from scipy import stats

HERE = os.path.dirname(os.path.abspath(__file__))
WAYS = ("train.py", "PyTorch, glorot", "PyTorch, he")


def main():
    options = parse_options()
    found = {way: [] for way in WAYS}
    print("| seed | %s |\n| ---: |%s" % (" | ".join(WAYS), " ---: |" * len(WAYS)))
    for seed in range(options.seeds):
        for way in WAYS:
            found[way].append(train(way, seed, options))
        print("| %d | %s |" % (seed, " | ".join("%.4f" % found[way][-1] for way in WAYS)), flush=True)
    print("| mean | %s |" % " | ".join("%.4f" % np.mean(found[way]) for way in WAYS))
    for one, other in ((WAYS[0], WAYS[1]), (WAYS[2], WAYS[1])):
        low, high = welch_interval(found[one], found[other])
        difference = np.mean(found[one]) - np.mean(found[other])
        print("%s less %s: %+.4f (95%% interval %+.4f to %+.4f)" % (one, other, difference, low, high))


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default=os.path.join(ROOT, "data", "fashion_small"))
    parser.add_argument("--data", default=os.path.join(ROOT, "data", "fashion_small_records"))
    parser.add_argument("--pytorch", default=os.path.join(ROOT, ".venv-peers", "bin", "python"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--step", type=int, default=600)
    return parser.parse_args()


def train(way, seed, options):
    """The accuracy on val after the last step of one training."""
    if way == "train.py":
        steps = "--step", options.step, "--save_num", options.step
        arguments = "--mini", "--recipe", "article", "--bn_batches", 0, *steps, "--seed", seed
        return measure(options.data, "val", [str(each) for each in arguments])["accuracy"]
    script = os.path.join(HERE, "pytorch_training.py")
    start = way.split(", ")[1]
    command = [options.pytorch, script, options.dataset, str(options.step), str(seed), start]
    return float(output_of(command))


def welch_interval(one, other):
    """Of the difference of two means: the ends of its 95% interval."""
    spreads = [np.var(each, ddof=1) / len(each) for each in (one, other)]
    freedom = sum(spreads) ** 2 / sum(s**2 / (len(each) - 1) for s, each in zip(spreads, (one, other)))
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(spreads))
    difference = np.mean(one) - np.mean(other)
    return difference - half, difference + half


if __name__ == "__main__":
    main()
