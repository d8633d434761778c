"""Measure a trained model on pictures that it was not trained on.

    python evaluate.py [--model models/resnet] [--data data/tfrecords] [--split test]

Prints accuracy and a table of the classes; writes evaluation.json, predictions.csv and report.html
to the model folder's evaluation/. Every picture of the split is counted once.
"""

import csv
import os

import jinja2
import numpy as np
from tqdm import tqdm

import FlowIO
import runtime
from runtime import UserError, say, tf

TEMPLATES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")
TOP_K = 5  # or as many as there are classes
MOST_MISTAKES = 50  # that the report lists


def main():
    options = parse_options()
    records = FlowIO.load_records(options.data)
    runtime.start(options)
    model = runtime.load_model(options.model)
    label_map = match_classes(model, records)
    if not FlowIO.count(records, options.split):
        raise UserError("%s: no pictures in the %s split" % (options.data, options.split))

    filenames, labels, probabilities = predict_split(model, records, options)
    labels = label_map[labels]
    results = measure(labels, probabilities, model.classes)
    results = dict(checkpoint=model.checkpoint, split=options.split, **results)

    folder = os.path.join(model.folder, "evaluation")
    os.makedirs(folder, exist_ok=True)
    write_predictions(folder, filenames, labels, probabilities, model.classes)
    runtime.write_json(os.path.join(folder, "evaluation.json"), results)
    write_report(folder, results, filenames, labels, probabilities, model.classes)
    print_results(results, folder)


def parse_options(arguments=None):
    parser = runtime.ArgumentParser(__doc__)
    parser.add_argument("--model", default="models/resnet", help="model folder, or one checkpoint in it")
    parser.add_argument("--data", default="data/tfrecords", help="folder that FlowIO.py wrote")
    parser.add_argument("--split", choices=FlowIO.SPLITS, default="test", help="which pictures")
    parser.add_argument(
        "--batch_size", type=runtime.number(int, 1), default=32, help="pictures computed at a time"
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
        say("warning: %s has no pictures of %s" % (records.folder, ", ".join(missing)))
    return np.array([model.classes.index(name) for name in records.classes])


def predict_split(model, records, options):
    """The network's answer to each picture of the split.

    Returns:
        filenames, list of str; labels, int64 [n], indices into the records' classes; probabilities,
        float32 [n, the model's classes].
    """
    if records.image_size != model.image_size:
        say(
            "warning: %s was made for %d pixels, the model sees %d"
            % (records.folder, records.image_size, model.image_size)
        )
    records = records._replace(image_size=model.image_size)
    total = FlowIO.count(records, options.split)
    filenames, labels, probabilities = [], [], []
    with tf.Graph().as_default():
        dataset = FlowIO.read(records, options.split, options.batch_size, model.normalize)
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        session, answer = runtime.restore(model, batch["image"])
        fetches = batch["filename"], batch["label"], answer
        with session, tqdm(desc="evaluate", total=total, unit="img", disable=None) as bar:
            while len(filenames) < total:
                names, truth, answers = session.run(fetches)
                filenames += [os.fsdecode(name) for name in names]
                labels.append(truth)
                probabilities.append(answers)
                bar.update(len(names))
    return filenames, np.concatenate(labels), np.concatenate(probabilities)


def measure(labels, probabilities, classes):
    """Accuracy and what explains it.

    Args:
        labels: int64 [n], indices into `classes`; n > 0.
        probabilities: float [n, classes].
    Returns:
        The dict that evaluation.json holds. A precision, recall or F1 whose denominator is zero
        (no picture of the class, or none predicted) is 0.
    """
    predicted = probabilities.argmax(1)
    matrix = np.zeros([len(classes), len(classes)], int)  # rows: true, columns: predicted
    np.add.at(matrix, (labels, predicted), 1)
    right = matrix.diagonal()
    n_true, n_predicted = matrix.sum(1), matrix.sum(0)
    k = min(TOP_K, len(classes))
    in_top_k = (np.argsort(-probabilities, 1, kind="stable")[:, :k] == labels[:, None]).any(1)
    per_class = [
        {
            "label": name,
            "precision": ratio(right[i], n_predicted[i]),
            "recall": ratio(right[i], n_true[i]),
            "f1": ratio(2 * right[i], n_true[i] + n_predicted[i]),
            "n": int(n_true[i]),
        }
        for i, name in enumerate(classes)
    ]
    return {
        "n": len(labels),
        "accuracy": ratio(right.sum(), len(labels)),
        "accuracy_ci95": wilson_interval(int(right.sum()), len(labels)),
        "top_k": {"k": k, "accuracy": float(in_top_k.mean())},
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
    }


def ratio(part, whole):
    return float(part) / float(whole) if whole else 0.0


def wilson_interval(successes, n, z=1.959964):
    """The 95% score interval of a proportion (Wilson 1927): [low, high], within 0 and 1."""
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return [max(0.0, float(low)), min(1.0, float(high))]


def write_predictions(folder, filenames, labels, probabilities, classes):
    path = os.path.join(folder, "predictions.csv")
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label", "predicted", "probability"])
        for row in zip(filenames, labels, predicted, confidence):
            writer.writerow([row[0], classes[row[1]], classes[row[2]], "%.6f" % row[3]])


def write_report(folder, results, filenames, labels, probabilities, classes):
    """report.html: one file that needs nothing else; names are escaped by the template."""
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES]
    mistakes = [(filenames[i], classes[labels[i]], classes[predicted[i]], confidence[i]) for i in wrong]
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    html = templates.get_template("report.html").render(results=results, mistakes=mistakes)
    path = os.path.join(folder, "report.html")
    with open(path, "w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.write(html)


def print_results(results, folder):
    width = max(len(row["label"]) for row in results["per_class"] + [{"label": "class"}])
    print("%-*s %9s %9s %9s %7s" % (width, "class", "precision", "recall", "f1", "n"))
    for row in results["per_class"]:
        print(
            "%-*s %9.3f %9.3f %9.3f %7d"
            % (width, row["label"], row["precision"], row["recall"], row["f1"], row["n"])
        )
    low, high = results["accuracy_ci95"]
    print(
        "accuracy %.4f on %d %s pictures (95%% interval %.4f to %.4f)"
        % (results["accuracy"], results["n"], results["split"], low, high)
    )
    top_k = results["top_k"]
    if top_k["k"] < len(results["per_class"]):
        print("right class among the first %d: %.4f" % (top_k["k"], top_k["accuracy"]))
    say("wrote evaluation.json, predictions.csv and report.html to %s" % folder)


if __name__ == "__main__":
    runtime.run(main)
