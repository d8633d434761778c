"""report.html: an evaluation to look at, one file that needs nothing else."""

import base64
import collections
import glob
import io
import os

import jinja2
import numpy as np
from PIL import Image

from suite.model import modelfolder
from suite.process.tf_versions import tf

HERE = os.path.dirname(os.path.abspath(__file__))
MOST_CLASSES = 30  # that the confusion matrix shows; of more, those with the most mistakes
GALLERY = 48  # of the worst mistakes
DOUBTFUL = 16  # of the right answers given with the least probability
PER_CELL = 12  # pictures behind a cell of the confusion matrix
THUMBNAIL = 96  # pixels
THUMBNAIL_BYTES = 3000 * 1000  # of all together, so that the page opens at once
CURVE_POINTS = 300


def write_html(folder, results, predictions, model, records):
    """Write report.html into `folder`.

    Args:
        results: what evaluation.json holds.
        predictions: see predictions.Predictions.
        model: see modelfolder.Model.
        records: see reading.load_records.
    """
    order, galleries = choose_pictures(predictions)
    thumbnails = make_thumbnails(records, results["split"], order)
    shown = confused_classes(np.array(results["confusion_matrix"]))
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True)
    html = page.get_template("report.html").render(
        results=results,
        pictures=[row_of(predictions, i, thumbnails[i]) for i in order if i in thumbnails],
        mistakes=len(galleries["mistakes"]),
        all_mistakes=int((~predictions.correct).sum()),
        doubtful=len(galleries["doubtful"]),
        shown=shown,
        curves=training_curves(model.folder),
    )
    path = os.path.join(folder, "report.html")
    with open(path, "w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.write(html)


# --- which pictures, and how small ----------------------------------------


def choose_pictures(predictions):
    """The pictures that the report shows, the most telling ones first.

    Returns:
        A list of indices without repetition: the galleries, then up to PER_CELL for each pair of true
        and predicted class; and the galleries, {"mistakes": [index], "doubtful": [index]}.
    """
    labels, predicted = predictions.labels, predictions.predicted
    confidence, correct = predictions.confidence, predictions.correct
    mistakes = sorted(np.flatnonzero(~correct), key=lambda i: -confidence[i])
    hits = sorted(np.flatnonzero(correct), key=lambda i: confidence[i])
    galleries = {"mistakes": mistakes[:GALLERY], "doubtful": hits[:DOUBTFUL]}
    chosen = dict.fromkeys(galleries["mistakes"] + galleries["doubtful"])
    cells = collections.Counter((labels[i], predicted[i]) for i in chosen)
    for i in mistakes + hits:
        cell = labels[i], predicted[i]
        if i not in chosen and cells[cell] < PER_CELL:
            chosen[i] = None
            cells[cell] += 1
    return list(chosen), galleries


def make_thumbnails(records, split, order):
    """{index: data URI of a small JPEG} of a split's pictures, as many of `order` as THUMBNAIL_BYTES hold."""
    wanted, jpegs, index = set(order), {}, 0
    for path in records.shard_paths(split):
        for record in tf.python_io.tf_record_iterator(path):
            if index in wanted:
                features = tf.train.Example.FromString(record).features.feature
                jpegs[index] = shrink(features["image/encoded"].bytes_list.value[0])
            index += 1
    thumbnails, size = {}, 0
    for index in order:
        size += len(jpegs[index])
        if size > THUMBNAIL_BYTES:
            break
        thumbnails[index] = "data:image/jpeg;base64," + base64.b64encode(jpegs[index]).decode("ascii")
    return thumbnails


def shrink(jpeg):
    """JPEG bytes of at most THUMBNAIL pixels down and across, from JPEG bytes."""
    image = Image.open(io.BytesIO(jpeg))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=75)
    return small.getvalue()


def row_of(predictions, i, thumbnail):
    """What the page says of a picture: [thumbnail, file name, true class, [[class, probability] twice]]."""
    best = np.argsort(-predictions.probabilities[i], kind="stable")[:2]
    top = [[int(label), round(float(predictions.probabilities[i][label]), 4)] for label in best]
    name = predictions.filenames[i].encode("utf-8", "backslashreplace").decode("utf-8")
    return [thumbnail, name, int(predictions.labels[i]), top]


def confused_classes(matrix):
    """The indices of the classes that the confusion matrix shows, in their order."""
    off = matrix - np.diag(matrix.diagonal())
    worst = np.argsort(-(off.sum(0) + off.sum(1)), kind="stable")[:MOST_CLASSES]
    return sorted(int(i) for i in worst)


# --- how it was trained ----------------------------------------


def training_curves(folder):
    """[{"name", "points": [[step, value]]}] of the accuracy while training, from TensorBoard's files."""
    found = []
    for name, place in (("training", folder), ("validation", os.path.join(folder, modelfolder.VALIDATION))):
        points = sorted(read_scalars(place, "accuracy").items())
        step = -(-len(points) // CURVE_POINTS) or 1
        means = [np.mean(points[i : i + step], axis=0).tolist() for i in range(0, len(points), step)]
        if means:
            found.append({"name": name, "points": means})
    return found


def read_scalars(folder, tag):
    """{step: value} of a scalar summary."""
    values = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "events.out.tfevents.*"))):
        try:
            for event in tf.train.summary_iterator(path):
                values.update((event.step, v.simple_value) for v in event.summary.value if v.tag == tag)
        except tf.errors.DataLossError:  # cut off when the training was killed
            continue
    return values
