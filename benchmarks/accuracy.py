"""What each recipe reaches, and what changes when one of its settings does.

    python benchmarks/accuracy.py --data RECORDS [RECORDS ...] --step 600 [--seeds 5] [--only REGEX] [...]

Trains with each of SETTINGS on each of the records, from each of the seeds, and evaluates the last checkpoint
on the split --split. A row pools the answers of all these runs; records may be several random splits of one
data set. Its last column is what it gains over the first row: the mean over pairs of runs of the same records
and seed, and Student's 95% interval. In the mean recall each class counts alike, which is what class weights
are for. Options that are not its own go to train.py.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
from scipy import stats

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from suite.evaluation import metrics

SETTINGS = (
    "--recipe article",
    "--recipe article --optimizer momentum --schedule cosine --warmup 0.05",
    "--recipe article --zero_init_residual",
    "--recipe modern",
    "--recipe modern --optimizer adam",
    "--recipe modern --mixup 0.2",
    "--recipe modern --stem small",
    "--recipe modern --ema 0.99",
    "--recipe modern --clip_norm 1",
    "--recipe modern --dropout 0.5",
    "--recipe modern --class_weight balanced",
    "--recipe modern --augment none",
    "--recipe modern --augment standard",
)


def main():
    options, rest = parse_options()
    print("| settings | accuracy on %s | of | 95%% interval | mean recall | gain |" % options.split)
    print("| --- | ---: | ---: | --- | ---: | --- |")
    first = None
    for setting in SETTINGS:
        if re.search(options.only, setting):
            arguments = [*setting.split(), "--step", options.step, "--save_num", options.step, *rest]
            found = [
                measure(records, options.split, [*arguments, "--seed", str(seed)])
                for records in options.data
                for seed in range(options.seeds)
            ]
            accuracies = np.array([each["accuracy"] for each in found])
            total = sum(each["n"] for each in found)
            right = round(sum(each["accuracy"] * each["n"] for each in found))
            recall = np.mean([each["macro"]["recall"] for each in found])
            row = setting, right / total, total, *metrics.wilson_interval(right, total), recall
            first = accuracies if first is None else first
            print(
                "| `%s` | %.4f | %d | %.4f to %.4f | %.4f |" % row, gain(accuracies - first), "|", flush=True
            )


def gain(differences):
    """For a table: the mean of some differences, and its 95% interval."""
    if len(differences) < 2 or not differences.any():
        return "%+.4f" % differences.mean()
    half = stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1)
    return "%+.4f (%+.4f to %+.4f)" % (
        differences.mean(),
        differences.mean() - half,
        differences.mean() + half,
    )


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", required=True, help="folders that FlowIO.py wrote")
    parser.add_argument("--step", required=True, help="of each training")
    parser.add_argument(
        "--seeds", type=int, default=1, help="trainings of each setting on each of the records"
    )
    parser.add_argument("--split", default="val", help="to evaluate on")
    parser.add_argument("--only", default="", metavar="REGEX", help="only settings in which it is found")
    return parser.parse_known_args()


def measure(records, split, arguments):
    """What evaluate.py says of the last checkpoint of one training: the content of evaluation.json."""
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        output_of([*script("train.py"), "--data", records, "--output", model, *arguments])
        step = arguments[arguments.index("--step") + 1]
        checkpoint = os.path.join(model, "model.ckpt-%s" % step)
        output_of([*script("evaluate.py"), "--model", checkpoint, "--data", records, "--split", split])
        with open(os.path.join(model, "evaluation", "evaluation.json"), encoding="utf-8") as file:
            return json.load(file)


def script(name):
    return sys.executable, os.path.join(ROOT, name)


def output_of(command):
    """What a command prints; ends this one where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout


if __name__ == "__main__":
    main()
