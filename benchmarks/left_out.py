"""Does a network notice pictures of a class that it was never trained on, better than by their probability?

    python data/draw_demo.py --output data/demo
    python data/fashion_mnist.py --output data/fashion_mnist --count 6000 --val_count 1000
    python benchmarks/left_out.py data/demo/dataset data/fashion_mnist /usr/share/tuxpaint/stamps

Each class is left out in turn: a mini network learns the others, and is shown their test pictures and all of
the one left out. Prints how well each score tells these two apart, as the area under the ROC curve (AUROC),
and what it gains over the maximum probability: mean and 95% interval (Student's t) over the classes left out.
"""

import argparse
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from suite.evaluation.metrics import fit_temperature
from suite.files.schemas import SPLITS
from suite.model import modelfolder
from suite.model.network import restore_session
from suite.pictures import folders
from suite.process.tf_versions import tf
from suite.records import reading

NEIGHBOURS = 10
SMALLEST = 30  # pictures of a class that is taken


def main():
    options, rest = parse_options()
    every = []
    for dataset in options.datasets:
        print("\n%s\n\n| left out | accuracy | %s |" % (dataset, " | ".join(SCORES)))
        print("| --- | ---: |%s" % (" ---: |" * len(SCORES)))
        areas = list(leave_out_each(dataset, rest))
        summarise(areas)
        every += areas
    print("\ntogether\n")
    summarise(every)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("datasets", nargs="+", metavar="FOLDER", help="class folders, as for FlowIO.py")
    return parser.parse_known_args()


def leave_out_each(dataset, more):
    """Yield float [scores], the AUROC of each, for each class left out; `more`: options for train.py."""
    names, sources = folders.list_sources(dataset, "auto", True)
    sources = [source for source in sources if source.filename.lower().endswith((".png", ".jpg"))]
    counts = np.bincount([source.label for source in sources])
    classes = [name for name, count in zip(names, counts) if count >= SMALLEST]
    with tempfile.TemporaryDirectory() as folder:
        everything = convert(dataset, sources, names, classes, os.path.join(folder, "everything"))
        for left_out in classes:
            others = [name for name in classes if name != left_out]
            seen = convert(dataset, sources, names, others, os.path.join(folder, left_out))
            output = os.path.join(folder, "model-" + left_out)
            steps = ["--step", "400", "--save_num", "100", *more]
            run("train.py", "--data", seen, "--output", output, "--mini", *steps)
            accuracy, areas = measure(modelfolder.load_model(output), seen, everything, left_out)
            cells = ["%.3f" % each for each in (accuracy, *areas)]
            print("| %s | %s |" % (left_out, " | ".join(cells)), flush=True)
            yield areas


def convert(dataset, sources, names, classes, folder):
    """Records of some classes, in `folder`/records, which is returned."""
    for source in sources:
        if names[source.label] in classes:
            name = source.filename.replace(os.sep, "-")
            link = os.path.join(folder, "dataset", source.given or "", names[source.label], name)
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(os.path.abspath(os.path.join(dataset, source.filename)), link)
    records = os.path.join(folder, "records")
    arguments = ["--dataset", os.path.join(folder, "dataset"), "--follow_links", "--image_size", "32"]
    run("FlowIO.py", *arguments, "--output", records)
    return records


def measure(model, seen, everything, left_out):
    """The test accuracy on what is seen, and the AUROC of each score for all pictures of `left_out`."""
    train, val, test = (look(model, seen, [split]) for split in SPLITS)
    strange = look(model, everything, SPLITS)
    chosen = strange["label"] == reading.load_records(everything).classes.index(left_out)
    strange = {key: values[chosen] for key, values in strange.items()}
    accuracy = (test["logits"].argmax(1) == test["label"]).mean()
    temperature = fit_temperature(val["label"], val["logits"])
    areas = [
        auroc(score(train, test, temperature), score(train, strange, temperature))
        for score in SCORES.values()
    ]
    return accuracy, np.array(areas)


def run(script, *arguments):
    """Run a script of the suite."""
    command = [sys.executable, os.path.join(ROOT, script), *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def look(model, folder, splits):
    """{"label": int [n], "logits": float [n, classes], "features": float [n, channels]} of splits."""
    records, found = reading.load_records(folder), []
    for split in splits:
        with tf.Graph().as_default() as graph:
            dataset = reading.read_for_evaluation(records, split, 100, model.normalize)
            batch = tf.data.make_one_shot_iterator(dataset).get_next()
            session, _ = restore_session(model, batch["image"])
            tensors = [graph.get_tensor_by_name(name) for name in ("logits_out:0", "resnet/features:0")]
            with session:
                for _ in range(-(-records.count(split) // 100)):
                    found.append(session.run([batch["label"], *tensors]))
    label, logits, features = (np.concatenate(column) for column in zip(*found))
    return {
        "label": label,
        "logits": logits.astype(float),
        "features": features.reshape(len(label), -1).astype(float),
    }


def auroc(seen, unseen):
    """The probability that a picture of the unseen scores higher than one of the seen; ties count half."""
    seen = np.sort(seen)
    below = np.searchsorted(seen, unseen, "left") + np.searchsorted(seen, unseen, "right")
    return below.mean() / 2 / len(seen)


def summarise(areas):
    """Print means and gains over the first score; `areas`: float [classes, scores]."""
    gains = np.array(areas) - np.array(areas)[:, :1]
    half = stats.t.ppf(0.975, len(areas) - 1) * stats.sem(gains)
    limits = zip(gains.mean(0), gains.mean(0) - half, gains.mean(0) + half)
    print("| mean | | %s |" % " | ".join("%.3f" % area for area in np.mean(areas, 0)))
    print("| gain | | | %s |" % " | ".join("%+.3f (%+.3f to %+.3f)" % each for each in list(limits)[1:]))


# --- scores, the higher the stranger: float [n] from what `look` gave of the training and of n pictures ---


def unit(features):
    """Features as vectors of length 1."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def centres(train):
    """The mean of each class; float [classes, channels]."""
    return np.array([train["features"][train["label"] == i].mean(0) for i in np.unique(train["label"])])


def probability(train, of, temperature):
    """By its logarithmic odds, which order as it does where float64 has no number between it and 1."""
    logits = np.sort(of["logits"] / temperature, 1)
    return logsumexp(logits[:, :-1], axis=1) - logits[:, -1]


def max_logit(train, of, temperature):
    return -of["logits"].max(1)


def energy(train, of, temperature):  # Liu et al. 2020
    return -logsumexp(of["logits"], axis=1)


def cosine(train, of, temperature):
    return -(unit(of["features"]) @ unit(centres(train)).T).max(1)


def mahalanobis(train, of, temperature):  # Lee et al. 2018
    middle = centres(train)
    _, at = np.unique(train["label"], return_inverse=True)
    covariance = np.cov((train["features"] - middle[at]).T)
    covariance += 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    off = of["features"][:, None] - middle
    return np.einsum("ncd,de,nce->nc", off, np.linalg.inv(covariance), off, optimize=True).min(1)


def neighbours(train, of, temperature):  # Sun et al. 2022
    near = unit(of["features"]) @ unit(train["features"]).T
    return -np.partition(near, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]


SCORES = {
    "probability": probability,
    "max logit": max_logit,
    "energy": energy,
    "cosine to centres": cosine,
    "Mahalanobis": mahalanobis,
    "10th neighbour": neighbours,
}

if __name__ == "__main__":
    main()
