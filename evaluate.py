"""Measure a trained model on pictures that it was not trained on.

    python evaluate.py [--model models/resnet] [--data data/tfrecords | --pictures FOLDER] [--split test]
                       [--compare OTHER]

A --model of train.py --folds is measured on train and val, and suspects.csv lists labels that may be wrong.
Prints accuracy and a table of the classes; writes evaluation.json, predictions.csv and report.html, by
default to the model folder's evaluation/. Every picture of the split, or of FOLDER/<class name>/, is counted
once.
"""

from __future__ import annotations

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import contextlib
import os
import re

from suite.evaluation import catalogue, metrics, out_of_fold, pictures, report, suspects
from suite.evaluation.predictions import check_fit, latency, match_classes, predict_split
from suite.files import atomic, csvfile, jsonfile
from suite.files.schemas import FOLDS, MODEL, RECORDS, SPLITS
from suite.model.network import add_mirror_option, warn_of_mirror
from suite.pictures import sandbox
from suite.process import commandline, device, lifetime, terminal
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.records import fingerprints, folds, reading, writing

AVERAGES = {"macro": "mean", "weighted": "weighted mean"}  # what a reader calls them
OWN_FILES = re.compile(r"evaluation\.json|(predictions|skipped|suspects)\.csv|report\.html")


def main():
    """Evaluate, and print what came out. Returns the exit status: 1 if a picture could not be used."""
    options = parse_options()
    model = out_of_fold.load_model(options.model)
    other = out_of_fold.load_model(options.compare) if options.compare else None
    out_of_fold.check_options(options, model, other)
    options.split = options.split or (FOLDS if model.folds else "test")
    warn_of_other_data(options, model)
    refuse_other_view(options, model, other)
    warn_of_mirror(options, model)
    output = options.output or os.path.join(model.folder, "evaluation")
    with atomic.replacing(output, OWN_FILES) as folder, source(options, model, folder) as found:
        records, unknown, skipped = found
        for each in filter(None, (model, other)):
            check_fit(each, records)
            if each.folds:
                folds.read(each.folder, records)
        device.start(options)
        if other:
            match_classes(other, records)  # refused now rather than after an evaluation
        predictions, results = measure(model, other, records, options, unknown)
        write_results(folder, predictions, results, model, records, options.language)
        if options.pictures:
            writing.write_skipped(folder, skipped)
            writing.say_skipped(skipped, output)
    print_results(results, output)
    return 1 if skipped else 0


def measure(model, other, records, options, unknown):
    """Have the model answer, and another one that it is compared with.

    Args:
        other: the modelfolder.Model of --compare, or None.
        unknown: {class: pictures} of folders that the model knows no class of.
    Returns:
        The Predictions, and the content of evaluation.json but for what `write_results` adds.
    """
    seen = count_seen(model, records, options.split)
    predictions = predict(model, records, options)
    results = {
        "checkpoint": model.checkpoint,
        "split": options.split,
        "mirror": options.mirror,
        "seen": seen,
        "data": None if options.pictures else options.data,
        "pictures": options.pictures,
        "unknown_classes": unknown,
    }
    answers = predictions.labels, predictions.probabilities
    results.update(metrics.measure(*answers, model.classes, model.temperature))
    whole = len(predictions.labels) // options.batch_size  # the last batch may be smaller
    results["latency"] = latency(predictions.seconds[:whole], options.batch_size)
    if other:
        results["compare"] = compare(predictions, other, records, options)
    return predictions, results


def write_results(folder, predictions, results, model, records, language):
    """Write predictions.csv, evaluation.json and report.html; of folds what may be labelled wrongly, too."""
    write_predictions(folder, predictions, model.classes)
    suspected = None
    if model.folds:
        suspected = suspects.find(predictions.labels, predictions.probabilities)
        results.update(folds=len(model.folds), suspects=len(suspected))
        write_suspects(folder, predictions, suspected, model.classes)
    jsonfile.write(os.path.join(folder, "evaluation.json"), results)
    report.write_html(folder, results, predictions, model, records, language, suspected)


def refuse_other_view(options, model, other):
    """Raises UserError where --pictures would be decoded for one model, and compared on another.

    Args:
        other: the modelfolder.Model of --compare, or None.
    """
    if not (options.pictures and other):
        return
    here, there = (
        (each.folder, each.image_size, each.fit, " --keep_size" * each.keep_size) for each in (model, other)
    )
    if here[1:] != there[1:]:
        message = (
            "--compare %s: sees %d pixels (--fit %s%s), %s %d (%s%s); with --pictures evaluate each by itself"
        )
        raise UserError(message % (*there, *here))


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    parser.add_argument("--model", default=MODEL, help="model folder, or one checkpoint in it")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--data", default=RECORDS, help="folder that FlowIO.py wrote")
    group.add_argument("--pictures", metavar="FOLDER", help="pictures in class folders, in place of --data")
    parser.add_argument("--split", choices=SPLITS, help="which pictures of --data (default: test)")
    parser.add_argument("--output", metavar="DIR", help="folder to write, else evaluation/ in the model's")
    parser.add_argument("--compare", metavar="OTHER", help="another model, to test which one is better")
    parser.add_argument(
        "--language",
        choices=catalogue.LANGUAGES,
        default=catalogue.default_language(),
        help="of report.html; by default that of your locale",
    )
    add_mirror_option(parser)
    parser.add_argument(
        "--batch_size", type=commandline.number(int, 1), default=32, help="pictures computed at a time"
    )
    writing.add_source_options(parser.add_argument_group("with --pictures"))
    options = parser.parse_args(arguments)
    if options.pictures and options.split:
        parser.error("argument --split: not with --pictures; name the split's own folder, as FOLDER/test")
    for name in ("layout", "formats", "sandbox", "follow_links", "workers"):
        if commandline.is_given(name) and not options.pictures:
            parser.error("argument --%s: only with --pictures; FlowIO.py has read those of --data" % name)
    sandbox.check_option(options, parser)
    return options


def warn_of_other_data(options, model):
    """Say where the records that are taken because none were named are not those that were trained on."""
    trained = model.options.get("data")
    if not trained or options.pictures or commandline.is_given("data"):
        return
    if os.path.realpath(trained) != os.path.realpath(options.data):
        values = model.folder, trained, options.data
        say("warning: %s was trained on %s, and is measured on %s; --data names others" % values)


@contextlib.contextmanager
def source(options, model, folder):
    """What `pictures.converted` yields, or the same of records.

    Raises:
        UserError: there is no picture to evaluate.
    """
    if options.pictures:
        with pictures.converted(options, model, folder) as found:
            yield found
        return
    atomic.lock(options.data)
    records = reading.load_records(options.data)
    if model.folds:
        plan = folds.read(model.folder, records)
        records = folds.choose(records, plan, FOLDS, range(1, plan["folds"] + 1))
    if not records.count(options.split):
        raise UserError("%s: no pictures in the %s split" % (options.data, options.split))
    yield records, {}, []


def count_seen(model, records, split, name=""):
    """Say whether the model has seen the pictures of a split, on which its figure would be no test's.

    Args:
        name: what the lines begin with.
    Returns:
        {"trained_on", "validated_on"}: how many of them; None where that is not known.
    """
    if model.folds:  # to each picture the one answers that has not
        return {"trained_on": 0, "validated_on": 0}
    these = fingerprints.from_json(records.fingerprints.get(split))
    known = {name: fingerprints.from_json(model.fingerprints.get(name)) for name in ("train", "val")}
    if these is None or None in known.values():
        older = records.name if these is None else model.folder
        say("%s is of an older version; whether these pictures were trained on is not known" % older)
        return None
    shared = {name: fingerprints.count_shared(these, known[name]) for name in known}
    for split_seen, use in (
        ("train", "trained on"),
        ("val", "validated on, and the best checkpoint chosen by them"),
    ):
        count, exact = shared[split_seen]
        if count:
            figures = name, "" if exact else "about ", count, records.count(split), use
            say("warning: %s%s%d of %d pictures were %s; this is not the figure of a test" % figures)
    return {"trained_on": shared["train"][0], "validated_on": shared["val"][0]}


def compare(predictions, other, records, options):
    """How another model answers the same pictures.

    Args:
        predictions: the first model's.
        other: the second modelfolder.Model.
    Returns:
        {"checkpoint", "seen", "accuracy", "accuracy_ci95"} of the other one, and the test of metrics.mcnemar.
    Raises:
        UserError: see `predict_split`.
    """
    say("comparing with %s" % other.checkpoint)
    seen = count_seen(other, records, options.split, "%s: " % other.folder)
    others = predict(other, records, options)
    return {
        "checkpoint": other.checkpoint,
        "seen": seen,
        "accuracy": float(others.correct.mean()),
        "accuracy_ci95": metrics.wilson_interval(int(others.correct.sum()), len(others.correct)),
        **metrics.mcnemar(predictions.correct, others.correct),
    }


def predict(model, records, options):
    """The Predictions for options.split; see `predict_split`, or out_of_fold.predict."""
    if model.folds:
        return out_of_fold.predict(model, records, options.batch_size, options.mirror)
    return predict_split(model, records, options.split, options.batch_size, options.mirror)


def write_predictions(folder, predictions, classes):
    """predictions.csv, a row for each picture: the true class, the predicted one, the probability of each."""
    columns = predictions.filenames, predictions.labels, predictions.predicted, predictions.probabilities
    rows = (
        (name, classes[i], classes[j], *("%.6f" % value for value in (each[j], *each)))
        for name, i, j, each in zip(*columns)
    )
    path = os.path.join(folder, "predictions.csv")
    csvfile.write(path, ["filename", "label", "predicted", "probability", *classes], rows)


def write_suspects(folder, predictions, suspected, classes):
    """suspects.csv, a row for each picture whose label may be wrong; `suspected`: from suspects.find."""
    rows, predicted = [], predictions.predicted
    for i in suspected:
        label, suggested = predictions.labels[i], predicted[i]
        shares = ("%.6f" % predictions.probabilities[i][each] for each in (label, suggested))
        rows.append((predictions.filenames[i], classes[label], classes[suggested], *shares))
    columns = ["filename", "label", "suggested", "label_probability", "suggested_probability"]
    csvfile.write(os.path.join(folder, "suspects.csv"), columns, rows)


def compared(other):
    """Which model is the better one, of what `compare` returned."""
    if other["p_value"] > metrics.CHANCE:
        return "no difference shown between the two models"
    better = "this" if other["only_first_right"] > other["only_other_right"] else "the other"
    return "%s model is the better one" % better


def name_pictures(results):
    """What was measured on: 24 test pictures, 24 pictures of a folder, or of train and val."""
    if results.get("folds"):
        values = terminal.counted(results["n"], "picture"), results["folds"]
        return "%s of train and val, each answered by the one of %d models that has not seen it" % values
    if results.get("pictures"):
        return "%s of %s" % (terminal.counted(results["n"], "picture"), results["pictures"])
    return terminal.counted(results["n"], results["split"] + " picture")


def print_results(results, folder):
    """Print what evaluation.json holds, as far as a line or a table can show it."""
    print_classes(results)
    print_accuracy(results)
    print_thresholds(results)
    print_latency(results["latency"])
    print_comparison(results.get("compare"))
    if "suspects" in results:
        print("labels that may be wrong: %(suspects)d of %(n)d" % results)
        print("%s lists them, the likeliest first" % os.path.join(folder, "suspects.csv"))
    say("wrote %s, evaluation.json, predictions.csv" % os.path.join(folder, "report.html"))


def print_classes(results):
    """Precision, recall and F1 of each class, and their means."""
    rows = [("class", "precision", "recall", "f1", "n")]
    for row in results["per_class"]:
        # The pictures that each figure is of.
        of = {"precision": row["predicted"], "recall": row["n"], "f1": row["n"] or row["predicted"]}
        rows.append((row["label"], *("%.3f" % row[name] if of[name] else "-" for name in of), row["n"]))
    for name, label in AVERAGES.items():
        rows.append((label, *("%.3f" % results[name][each] for each in rows[0][1:4])))
    terminal.print_table(rows, (9, 9, 9, 7))
    few = ["%s (%d)" % (row["label"], row["n"]) for row in results["per_class"] if row["n"] < metrics.FEW]
    if few:
        line = "fewer than %d pictures, which tell nothing of a class: %s" % (metrics.FEW, terminal.some(few))
        print(terminal.printable(line))


def print_accuracy(results):
    """How often it is right, beside what needs no model, and what its probabilities are worth."""
    low, high = results["accuracy_ci95"]
    print(
        "accuracy %.4f on %s (95%% interval %.4f to %.4f)"
        % (results["accuracy"], name_pictures(results), low, high)
    )
    if metrics.is_wide([low, high]):
        print("that interval is so wide that the accuracy tells nothing; test on 100 pictures or more")
    baseline = results["baseline"]
    print(
        "always answering %s would give %.4f" % (terminal.printable(baseline["label"]), baseline["accuracy"])
    )
    top_k = results["top_k"]
    if top_k["k"] < len(results["per_class"]):
        low, high = top_k["accuracy_ci95"]
        values = (top_k["k"], top_k["accuracy"], low, high)
        print("right class among the first %d: %.4f (95%% interval %.4f to %.4f)" % values)
    off = results["calibration"]
    line = "log loss %.4f; probabilities off by %.4f on average (expected calibration error)"
    print(line % (results["log_loss"], off["ece"]))
    if results["temperature"] != 1:
        line = "off by %.4f before the temperature of %.2f that train.py fitted on val"
        print(line % (off["ece_before"], results["temperature"]))


def print_thresholds(results):
    """What --threshold of predict.py gives how precise answers."""
    rows = [("precision wanted", "threshold", "answered", "precision", "95% interval")]
    for row in results["thresholds"]:
        figures = [row[name] for name in ("threshold", "answered", "precision")]
        interval = "%.3f to %.3f" % tuple(row["precision_ci95"])
        rows.append(("%g" % row["wanted"], *("%.3f" % each for each in figures), interval))
    if results["thresholds"] and not results.get("folds"):  # which are not of the model that predict.py takes
        terminal.print_table(rows, (9, 9, 9, 14))
        of_what = "these thresholds" + (" of predict.py --mirror" if results.get("mirror") else "")
        print(of_what + " were chosen on the same pictures: on others they will do a little worse")


def print_latency(timed):
    """How long a batch took; `timed`: what `latency` returned."""
    if timed:
        line = "a batch of %(batch_size)d takes %(p50_ms).0f ms (median of %(batches)d"
        line += "; 90%% within %(p90_ms).0f ms" if timed["batches"] >= 10 else ""
        line += ", 99%% within %(p99_ms).0f ms" if timed["batches"] >= 100 else ""
        print(line % timed + ")")


def print_comparison(other):
    """Which model is the better one; `other`: what `compare` returned, or None."""
    if not other:
        return
    print(compared(other))
    print("%s: accuracy %.4f" % (other["checkpoint"], other["accuracy"]))
    print(
        "right where the other is wrong: this model %(only_first_right)d, the other %(only_other_right)d"
        % other
    )
    print("if both were equally good, chance of a split so uneven: %(p_value).3g (McNemar's test)" % other)


if __name__ == "__main__":
    lifetime.run(main)
