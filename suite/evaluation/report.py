"""report.html: an evaluation to look at, one file that needs nothing else."""

import base64
import collections
import io
import itertools
import math
import os

import numpy as np
from PIL import Image

from suite.evaluation import advice, catalogue, metrics
from suite.model import modelfolder
from suite.model.maps import finer_from, spread
from suite.pictures import drawing
from suite.process import device
from suite.process.terminal import columns
from suite.process.tf_versions import tf
from suite.records.preprocessing import crop_side

HERE = os.path.dirname(os.path.abspath(__file__))
MOST_CLASSES = 30  # that the confusion matrix shows; of more, those with the most mistakes
NAME_COLUMNS = 22  # of a heading of the matrix, as a terminal counts them
GALLERY = 48  # of the worst mistakes
DOUBTFUL = 16  # of the right answers given with the least probability
SURE = 0.9  # a probability above which an answer is not in doubt
PER_CELL = 12  # pictures behind a cell of the confusion matrix
MOST_PICTURES = 600
THUMBNAIL = 320  # pixels, twice of what a page shows them in, for screens with two pixels in place of one
THUMBNAIL_BYTES = 3000 * 1000  # of all together, so that the page stays below 5 MB and opens at once
CURVE_POINTS = 300
LARGEST = 1e30  # a loss that is drawn
SMOOTHED = 0.1  # of a curve, that each of its points is the mean of


def write_html(folder, results, predictions, model, records, language, suspected=None):
    """Write report.html into `folder`.

    Args:
        results: what evaluation.json holds.
        predictions: see predictions.Predictions.
        model: see modelfolder.Model.
        records: see reading.load_records.
        language: one of catalogue.LANGUAGES.
        suspected: indices of the pictures whose labels may be wrong; None where that is not asked.
    """
    shown = confused_classes(np.array(results["confusion_matrix"]))
    order, galleries = choose_pictures(predictions, shown, suspected)
    finer = finer_from(model)
    maps = None if finer else predictions.maps
    pictures = read_pictures(records, results["split"], order, model, maps)
    curves = training_curves(model.folder)
    step = modelfolder.checkpoint_step(model.checkpoint)
    html = (
        environment(language)
        .get_template("report.html")
        .render(
            language=catalogue.LANGUAGES[language],
            results=results,
            advice=advice.advise(results, model, train_accuracy(curves, step)),
            chance=metrics.CHANCE,
            is_wide=metrics.is_wide(results["accuracy_ci95"]),
            pictures=[row_of(predictions, i, pictures[i]) for i in order if i in pictures],
            mistakes=len(galleries["mistakes"]),
            all_mistakes=int((~predictions.correct).sum()),
            doubtful=len(galleries["doubtful"]),
            finer=finer,
            has_maps=maps is not None,
            shown=shown,
            sure=SURE,
            few=metrics.FEW,
            guess=math.log(len(model.classes)),
            curves=curves,
            step=step,
        )
    )
    path = os.path.join(folder, "report.html")
    with open(path, "w", encoding="utf-8", errors="xmlcharrefreplace") as file:
        file.write(html)


def environment(language):
    """A jinja2.Environment of the templates in this folder, whose words are put in a language."""
    page = catalogue.environment(HERE, language)
    page.filters["shorten"] = shorten
    return page


def shorten(name):
    """A class's name of at most NAME_COLUMNS, its end kept, which is where long names differ."""
    if columns(name) <= NAME_COLUMNS:
        return name
    begin, end = "", ""
    while columns(begin + end) < NAME_COLUMNS - 4:  # so that two wide signs and the dots fit
        begin, end = name[: len(begin) + 1], name[len(name) - len(end) - 1 :]
    return begin + "…" + end


# --- which pictures, and how small ----------------------------------------


def choose_pictures(predictions, shown, suspected=None):
    """The pictures that the report shows, the most telling ones first.

    Args:
        shown: the classes that the confusion matrix shows.
        suspected: in place of the worst mistakes, those whose labels may be wrong.
    Returns:
        A list of at most MOST_PICTURES indices without repetition: the galleries, then up to PER_CELL for
        each cell of the matrix, a first one for each, then a second; and the galleries, {"mistakes": [index],
        "doubtful": [index]}.
    """
    labels, predicted = predictions.labels, predictions.predicted
    confidence, correct = predictions.confidence, predictions.correct
    mistakes = sorted(np.flatnonzero(~correct), key=lambda i: -confidence[i])
    hits = sorted(np.flatnonzero(correct), key=lambda i: confidence[i])
    doubtful = [i for i in hits[:DOUBTFUL] if confidence[i] <= SURE]
    galleries = {
        "mistakes": list(mistakes if suspected is None else suspected)[:GALLERY],
        "doubtful": doubtful,
    }
    cells = collections.defaultdict(list)
    for i in mistakes + hits:
        if labels[i] in shown and predicted[i] in shown:
            cells[labels[i], predicted[i]].append(i)
    rounds = itertools.zip_longest(*(cell[:PER_CELL] for cell in cells.values()))
    behind = [i for i in itertools.chain(*rounds) if i is not None]
    return list(dict.fromkeys(galleries["mistakes"] + doubtful + behind))[:MOST_PICTURES], galleries


def read_pictures(records, split, order, model, maps=None):
    """A split's pictures for the page, as many of `order` as THUMBNAIL_BYTES hold.

    Args:
        order: indices into the split, in the records' order.
        model: the modelfolder.Model that saw them.
        maps: see predictions.Predictions.
    Returns:
        {index: [data URI of a small JPEG, width, height, side]}: the latter three are those of the picture in
        the records and of the square in its middle that the network saw, in pixels. With `maps` also the data
        URI of a PNG, that square's map.
    """
    wanted, jpegs, index = set(order), {}, 0
    for path in records.shard_paths(split):
        for record in tf.python_io.tf_record_iterator(path):
            if index in wanted:
                features = tf.train.Example.FromString(record).features.feature
                jpegs[index] = shrink(features["image/encoded"].bytes_list.value[0])
            index += 1
    pictures, size = {}, 0
    with tf.Graph().as_default(), tf.Session(config=device.session_config()) as session:
        shape = tf.placeholder(tf.int32, [2])
        side = crop_side(shape, model.image_size, records.fit)
        for index in order:
            jpeg, (width, height) = jpegs[index]
            png = b"" if maps is None else drawing.map_png(spread(maps[index], model))
            size += len(jpeg) + len(png)
            if size > THUMBNAIL_BYTES:
                break
            seen = int(session.run(side, {shape: [height, width]}))
            pictures[index] = [data_uri(jpeg, "jpeg"), width, height, seen]
            pictures[index] += [data_uri(png, "png")] if png else []
    return pictures


def data_uri(data, format):
    """The bytes of an image file, as an address that a page can hold."""
    return "data:image/%s;base64,%s" % (format, base64.b64encode(data).decode("ascii"))


def shrink(jpeg):
    """JPEG bytes of at most THUMBNAIL pixels down and across from JPEG bytes, and what these are, (w, h)."""
    image = Image.open(io.BytesIO(jpeg))
    size = image.size
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=75, optimize=True)
    return small.getvalue(), size


def row_of(predictions, i, picture):
    """What the page says of a picture: [file name, true class, [[class, probability] twice], picture]."""
    best = np.argsort(-predictions.probabilities[i], kind="stable")[:2]
    top = [[int(label), round(float(predictions.probabilities[i][label]), 4)] for label in best]
    name = predictions.filenames[i].encode("utf-8", "backslashreplace").decode("utf-8")
    return [name, int(predictions.labels[i]), top, picture]


def confused_classes(matrix):
    """The indices of the classes that the confusion matrix shows, in their order."""
    off = matrix - np.diag(matrix.diagonal())
    worst = np.argsort(-(off.sum(0) + off.sum(1)), kind="stable")[:MOST_CLASSES]
    return sorted(int(i) for i in worst)


# --- how it was trained ----------------------------------------


def training_curves(folder):
    """What log.csv in a model folder tells: [{"name", "training", "smooth", "validation", "top"}].

    `name` is "accuracy" or "loss"; the next three are [[step, value]], of batches, of these smoothed, and of
    checkpoints; `top` is where an axis should end. Only curves that have points.
    """
    rows, curves = modelfolder.read_log(folder), []
    for name in ("accuracy", "loss"):
        training, validation = points_of(rows, name), points_of(rows, "val_" + name)
        if not training:
            continue
        size = -(-len(training) // CURVE_POINTS)
        training = [np.mean(training[i : i + size], 0).tolist() for i in range(0, len(training), size)]
        smooth = smoothed(training)
        top = 1 if name == "accuracy" else axis_end(max(value for _, value in smooth + validation))
        curve = {"name": name, "training": training, "smooth": smooth, "validation": validation, "top": top}
        curves.append(curve)
    return curves


def points_of(rows, column):
    """[[step, value]] of a column of log.csv, but for steps and values that nothing but damage writes."""
    points = []
    for row in rows:
        try:
            value = float(row[column])
        except ValueError:  # of the other kind of row, or damaged
            continue
        if int(row["step"]) and 0 <= value < LARGEST:
            points.append([int(row["step"]), value])
    return points


def smoothed(points):
    """[[step, value]], each value the mean of the SMOOTHED part of all that lies around it."""
    steps, values = zip(*points)
    window = np.ones(2 * int(len(points) * SMOOTHED / 2) + 1)
    means = np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")
    return [[step, float(mean)] for step, mean in zip(steps, means)]


def axis_end(value):
    """The smallest 1, 2, 4 or 8 times a power of ten that is not below a value: its quarters are short."""
    power = 10.0 ** math.floor(math.log10(value or 1))
    return next(power * i for i in (1, 2, 4, 8, 10) if power * i >= value)


def train_accuracy(curves, step):
    """The smoothed accuracy of the training, at a step where there is one, else at the end; or None."""
    points = next((curve["smooth"] for curve in curves if curve["name"] == "accuracy"), [])
    before = [value for at, value in points if step is None or at <= step]
    return before[-1] if before else None
