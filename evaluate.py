"""Measure a trained model on pictures that it was not trained on.

    python evaluate.py [--model models/resnet] [--data data/tfrecords] [--split test] [--compare OTHER]

Prints accuracy and a table of the classes; writes evaluation.json, predictions.csv and report.html, by
default to the model folder's evaluation/. Every picture of the split is counted once.
"""

from __future__ import annotations

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import dataclasses
import os
import re
import time
from typing import NamedTuple

import numpy as np

from suite.evaluation import metrics, report
from suite.files import atomic, csvfile, jsonfile
from suite.files.schemas import SPLITS
from suite.model import modelfolder
from suite.model.network import add_mirror_option, restore_session
from suite.process import commandline, device, lifetime, terminal
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import reading

OWN_FILES = re.compile(r"evaluation\.json|predictions\.csv|report\.html")


class Answers(NamedTuple):
    """What a model answered for a split of n pictures."""

    filenames: list[str]
    labels: np.ndarray  # int64 [n], indices into the model's classes
    probabilities: np.ndarray  # float32 [n, classes]
    seconds: list[float]  # that each batch took


def main():
    """Evaluate, and print what came out."""
    options = parse_options()
    atomic.hold(options.data)
    records = reading.load_records(options.data)
    device.start(options)
    model = modelfolder.load(options.model)
    other = modelfolder.load(options.compare) if options.compare else None
    if other:
        match_classes(other, records)  # refused now rather than after an evaluation
    if not records.count(options.split):
        raise UserError("%s: no pictures in the %s split" % (options.data, options.split))

    output = options.output or os.path.join(model.folder, "evaluation")
    with atomic.replacing(output, OWN_FILES) as folder:
        answers = answer(model, records, options)
        results = {"checkpoint": model.checkpoint, "split": options.split, "mirror": options.mirror}
        results.update(metrics.measure(answers.labels, answers.probabilities, model.classes))
        whole = len(answers.labels) // options.batch_size  # the last batch may be smaller
        results["latency"] = latency(answers.seconds[:whole], options.batch_size)
        if other:
            results["compare"] = compare(answers, other, records, options)
        write_predictions(folder, answers, model.classes)
        jsonfile.write(os.path.join(folder, "evaluation.json"), results)
        report.write(folder, results, answers, model, records)
    print_results(results, output)


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    parser.add_argument("--model", default="models/resnet", help="model folder, or one checkpoint in it")
    parser.add_argument("--data", default="data/tfrecords", help="folder that FlowIO.py wrote")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which pictures")
    parser.add_argument("--output", metavar="DIR", help="folder to write, else evaluation/ in the model's")
    parser.add_argument("--compare", metavar="OTHER", help="another model, to test which one is better")
    add_mirror_option(parser)
    parser.add_argument(
        "--batch_size", type=commandline.number(int, 1), default=32, help="pictures computed at a time"
    )
    return parser.parse_args(arguments)


def match_classes(model, records):
    """The model's class index of each of the records' classes, matched by name: int64 [classes].

    Raises:
        UserError: the records hold pictures of a class that the model does not know.
    """
    unknown = [name for name in records.classes if name not in model.classes]
    if unknown:
        raise UserError(
            "%s has class %s, which %s does not know; it knows %s"
            % (records.folder, unknown[0], model.folder, ", ".join(model.classes))
        )
    missing = [name for name in model.classes if name not in records.classes]
    if missing:
        warning = "warning: %s has no pictures of %s, which %s knows"
        modelfolder.warn(warning % (records.folder, ", ".join(missing), model.folder))
    return np.array([model.classes.index(name) for name in records.classes])


def answer(model, records, options):
    """The network's Answers to each picture of the split, in the records' order.

    Pictures of records that were made for another size are decoded for the model's.

    Raises:
        UserError: see `match_classes` and restore_session; or a record is damaged.
    """
    label_map = match_classes(model, records)
    if records.image_size != model.image_size:
        say(
            "warning: %s was made for %d pixels, %s sees %d"
            % (records.folder, records.image_size, model.folder, model.image_size)
        )
    records = dataclasses.replace(records, image_size=model.image_size)
    total = records.count(options.split)
    filenames, labels, probabilities, seconds = [], [], [], []
    with tf.Graph().as_default():
        dataset = reading.read_for_evaluation(records, options.split, options.batch_size, model.normalize)
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        session, outputs = restore_session(model, batch["image"], mirror=options.mirror)
        fetches = batch["filename"], batch["label"], outputs
        bar = terminal.progress_bar("evaluate", total)
        with reading.naming_damage(records), session, bar:
            while len(filenames) < total:
                began = time.perf_counter()
                names, truth, values = session.run(fetches)
                seconds.append(time.perf_counter() - began)
                filenames += [os.fsdecode(name) for name in names]
                labels.append(label_map[truth])
                probabilities.append(values)
                bar.update(len(names))
    return Answers(filenames, np.concatenate(labels), np.concatenate(probabilities), seconds)


def latency(seconds, batch_size):
    """Percentiles of the time that a batch takes, reading included; None if there is only one.

    The first batch is left out: it allocates memory and chooses kernels.

    Args:
        seconds: a list of float, for each batch.
    Returns:
        {"batch_size", "batches" (how many were timed), "p50_ms", "p90_ms", "p99_ms" (milliseconds)}.
    """
    if len(seconds) < 2:
        return None
    p50, p90, p99 = (float(value) for value in 1000 * np.percentile(seconds[1:], (50, 90, 99)))
    batches = len(seconds) - 1
    return {"batch_size": batch_size, "batches": batches, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}


def compare(answers, other, records, options):
    """How another model answers the same pictures.

    Args:
        answers: the first model's Answers.
        other: the second modelfolder.Model.
    Returns:
        {"checkpoint", "accuracy", "accuracy_ci95"} of the other one, and the test of metrics.mcnemar.
    Raises:
        UserError: see `answer`.
    """
    say("comparing with %s" % other.checkpoint)
    right, other_right = (
        each.probabilities.argmax(1) == each.labels for each in (answers, answer(other, records, options))
    )
    return {
        "checkpoint": other.checkpoint,
        "accuracy": float(other_right.mean()),
        "accuracy_ci95": metrics.wilson_interval(int(other_right.sum()), len(other_right)),
        **metrics.mcnemar(right, other_right),
    }


def write_predictions(folder, answers, classes):
    """predictions.csv, a row for each picture: the true class, the predicted one and its probability."""
    path = os.path.join(folder, "predictions.csv")
    predicted, confidence = answers.probabilities.argmax(1), answers.probabilities.max(1)
    rows = zip(answers.filenames, answers.labels, predicted, confidence)
    rows = [(filename, classes[i], classes[j], "%.6f" % value) for filename, i, j, value in rows]
    csvfile.write(path, ["filename", "label", "predicted", "probability"], rows)


def print_results(results, folder):
    """Print what evaluation.json holds, as far as a line or a table can show it."""
    rows = [(row["label"], row, "%d" % row["n"]) for row in results["per_class"]]
    rows += [("mean", results["macro"], ""), ("weighted mean", results["weighted"], "")]
    width = max(terminal.columns(terminal.printable(name)) for name, _, _ in rows)
    print(terminal.left("class", width) + " %9s %9s %9s %7s" % ("precision", "recall", "f1", "n"))
    for name, row, n in rows:
        values = (row["precision"], row["recall"], row["f1"], n)
        print((terminal.left(name, width) + " %9.3f %9.3f %9.3f %7s" % values).rstrip())
    low, high = results["accuracy_ci95"]
    print(
        "accuracy %.4f on %s (95%% interval %.4f to %.4f)"
        % (results["accuracy"], terminal.counted(results["n"], results["split"] + " picture"), low, high)
    )
    top_k = results["top_k"]
    if top_k["k"] < len(results["per_class"]):
        low, high = top_k["accuracy_ci95"]
        values = (top_k["k"], top_k["accuracy"], low, high)
        print("right class among the first %d: %.4f (95%% interval %.4f to %.4f)" % values)
    values = (results["log_loss"], results["calibration"]["ece"])
    print("log loss %.4f, expected calibration error %.4f" % values)
    timed = results["latency"]
    if timed:
        line = "a batch of %(batch_size)d takes %(p50_ms).0f ms (median of %(batches)d"
        line += "; 90%% within %(p90_ms).0f ms" if timed["batches"] >= 10 else ""
        line += ", 99%% within %(p99_ms).0f ms" if timed["batches"] >= 100 else ""
        print(line % timed + ")")
    if "compare" in results:
        other = results["compare"]
        print("%s: accuracy %.4f" % (other["checkpoint"], other["accuracy"]))
        print(
            "right where the other is wrong: this model %(only_first_right)d, the other %(only_other_right)d"
            % other
        )
        print("were both equally good, chance of so uneven a split: %(p_value).3g (McNemar's test)" % other)
    say("wrote %s, evaluation.json, predictions.csv" % os.path.join(folder, "report.html"))


if __name__ == "__main__":
    lifetime.run(main)
