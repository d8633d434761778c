"""What fine-tuning reaches with few pictures: each setting, training from scratch, and the least.

    python data/fashion_mnist.py --output data/fashion_mnist
    python benchmarks/finetuning.py [--dataset data/fashion_mnist] [--only REGEX] [train.py's options]

A stand-in for ImageNet, whose files were not to be had here: the mini network of the same shape learns seven
of Fashion-MNIST's classes, once, into models/seven. Each setting then starts from it, with some pictures of
each of the three other classes and --seeds draws of them; a row pools the answers to 3,000 test pictures.
The least is scikit-learn's logistic regression on the features of the network as it was. Options that are not
its own go to the fine-tuning.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from suite.evaluation import metrics
from suite.files.schemas import FINE_TUNING
from suite.model import modelfolder, recipes
from suite.model.network import restore_session
from suite.process.tf_versions import tf
from suite.records.reading import load_records, read_for_evaluation

# The classes that are fine-tuned on: they have kin among the others, as most photos have in ImageNet.
NEW = ("Coat", "Dress", "Shirt")
COUNTS = (10, 20, 40, 80)  # pictures of each
SHAPE = ["--mini", "--preactivation", "--shortcut", "projection"]
PRETRAINED = os.path.join(ROOT, "models", "seven")
PRETRAINING = ["--recipe", "modern", "--zero_init_residual", "no", "--batch_size", "64", "--epochs", "4"]

SCRATCH, LEAST = "from scratch, `--recipe modern`, as many steps", "logistic regression on its features"
SETTINGS = (
    "--recipe finetune",
    "--recipe finetune --freeze 0",
    "--recipe finetune --lr 0.05",
    "--recipe finetune --lr 0.003",
    "--recipe finetune --epochs 20",
    "--recipe finetune --augment standard",
    "--recipe finetune --bn_batches 0",
)


def main():
    options, rest = parse_options()
    if not os.path.exists(os.path.join(PRETRAINED, "model.json")):
        pretrain(options.dataset)
    with tempfile.TemporaryDirectory() as folder:
        print("| settings |%s" % "".join(" %d of each | 95%% interval |" % count for count in options.counts))
        print("| --- |%s" % (" ---: | --- |" * len(options.counts)))
        for setting in (SCRATCH, LEAST, *SETTINGS):
            if re.search(options.only, setting):
                cells = [pooled(setting, count, options, folder, rest) for count in options.counts]
                name = "`%s`" % setting if setting in SETTINGS else setting
                print(
                    "| %s |%s" % (name, "".join(" %.4f | %.4f to %.4f |" % cell for cell in cells)),
                    flush=True,
                )


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--dataset", default="data/fashion_mnist", help="folder that data/fashion_mnist.py wrote"
    )
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="pictures of each class")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the pictures")
    parser.add_argument("--only", default="", metavar="REGEX", help="only rows in whose name it is found")
    return parser.parse_known_args()


def pretrain(dataset):
    """Train on the classes that are not NEW."""
    with tempfile.TemporaryDirectory() as folder:
        classes = sorted(set(os.listdir(os.path.join(dataset, "train"))) - set(NEW))
        records = convert(dataset, folder, dict.fromkeys(classes))
        run("train.py", "--data", records, "--output", PRETRAINED, *SHAPE, *PRETRAINING)
        run("evaluate.py", "--data", records, "--model", PRETRAINED)


def convert(dataset, folder, most, seed=0):
    """Records of so many pictures of each class, drawn by the seed, to train on, and of all to test."""
    links = os.path.join(folder, "dataset")
    for split in ("train", "test"):
        for name, count in most.items():
            source, target = os.path.join(dataset, split, name), os.path.join(links, split, name)
            os.makedirs(target)
            files = np.random.RandomState(seed).permutation(sorted(os.listdir(source)))
            for file in files[: count if split == "train" else None]:
                os.symlink(os.path.abspath(os.path.join(source, file)), os.path.join(target, file))
    records = os.path.join(folder, "records")
    run(
        "FlowIO.py",
        "--dataset",
        links,
        "--follow_links",
        "--image_size",
        "32",
        "--output",
        records,
        status=None,
    )
    return records


def pooled(setting, count, options, folder, more):
    """The accuracy over all draws, and its 95% interval."""
    right = total = 0
    for seed in range(options.seeds):
        drawn = os.path.join(folder, "%d-%d" % (count, seed))
        records = os.path.join(drawn, "records")
        if not os.path.exists(records):
            convert(options.dataset, drawn, dict.fromkeys(NEW, count), seed)
        correct = least(records) if setting == LEAST else fine_tune(setting, records, seed, more)
        right, total = right + correct.sum(), total + len(correct)
    return (right / total, *metrics.wilson_interval(right, total))


def fine_tune(setting, records, seed, more):
    """Which of the test pictures the last checkpoint gets right; bool [pictures]."""
    if setting == SCRATCH:
        steps = recipes.default_steps(FINE_TUNING, load_records(records).count("train"), 32)
        settings = [*SHAPE, "--recipe", "modern", "--step", steps]
    else:
        settings = ["--model", PRETRAINED, *setting.split()]
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        run("train.py", "--data", records, "--output", model, "--seed", seed, *settings, *more)
        run("evaluate.py", "--model", model, "--data", records)
        with open(os.path.join(model, "evaluation", "evaluation.json"), encoding="utf-8") as file:
            matrix = np.array(json.load(file)["confusion_matrix"])
    return np.arange(matrix.sum()) < matrix.trace()


def least(records):
    """The same of a logistic regression on the pooled features of the pretrained network."""
    model, found = modelfolder.load_model(PRETRAINED), load_records(records)
    images, labels = {}, {}
    for split in ("train", "test"):
        with tf.Graph().as_default():
            dataset = read_for_evaluation(found, split, found.count(split), model.normalize)
            batch = tf.data.make_one_shot_iterator(dataset).get_next()
            session, _ = restore_session(model, batch["image"])
            with session:
                features, labels[split] = session.run(["resnet/features:0", batch["label"]])
        images[split] = features.reshape(len(features), -1)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(images["train"], labels["train"])
    return classifier.predict(images["test"]) == labels["test"]


def run(script, *arguments, status=0):
    """Run a script of the suite; `status` None: whatever it exits with."""
    command = [sys.executable, os.path.join(ROOT, script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode not in (status, 0):
        sys.exit(done.stderr[-2000:])


if __name__ == "__main__":
    main()
