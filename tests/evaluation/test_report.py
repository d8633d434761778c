"""report.html: what it shows, how small it stays, and what it does in a browser."""

import collections
import itertools
import json
import os
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import ROOT, file_bytes, read_log
from PIL import Image

from suite.evaluation import metrics, predictions, report
from suite.model import modelfolder
from suite.records import preprocessing, reading, writing

# --- the report ----------------------------------------

NASTY = "</script><script>window.hacked = true</script>"
MODEL = modelfolder.Model("", "", {}, ["a", "b"], 32, "per_image", False)


def test_pages_hold_nothing_that_browsers_of_2022_cannot_parse():
    """One sign that they do not know, and none of the script runs."""
    for name in ("evaluation/report.html", "serving/page.html"):
        with open(os.path.join(ROOT, "suite", name), encoding="utf-8") as file:
            assert not re.search(r"\(\?<|\?\?=|\|\|=|&&=|static \{", file.read())


def noise(size):
    """JPEG bytes of a few square pictures, `size` pixels on a side."""
    rng = np.random.RandomState(0)
    blocks = [rng.randint(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(20)]
    return [file_bytes(Image.fromarray(each).resize((size, size)), "JPEG") for each in blocks]


def make_records(folder, labels, classes, jpegs):
    """Records of a test split as FlowIO.py writes them, quickly: a few JPEGs over and over."""
    counts = {"train": {}, "val": {}, "test": dict(collections.Counter(classes[i] for i in labels))}
    records = reading.Records(str(folder), classes, 32, False, counts, {}, None)
    names = reading.shard_names("test", len(labels))
    sizes = [reading.PICTURES_PER_SHARD] * len(names)
    for name, start in zip(names, np.cumsum([0, *sizes])):
        with tf.python_io.TFRecordWriter(str(folder / name)) as writer:
            for i in range(start, min(start + reading.PICTURES_PER_SHARD, len(labels))):
                features = {"image/encoded": writing.feature(jpegs[i % len(jpegs)])}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    return records


def make_report(
    folder, count, classes, seed=0, language="en", size=96, never_right=(), suspected=None, maps=0, **more
):
    """A report of random answers that are mostly right; the path and the answers.

    Args:
        size: of the pictures, in pixels.
        never_right: classes of which none is.
        suspected: see report.write_html.
        maps: positions of the maps, down and across, whose upper left speaks for the answer; 0: too few.
    """
    rng = np.random.RandomState(seed)
    labels = rng.randint(0, len(classes), count)
    probabilities = rng.dirichlet(np.full(len(classes), 0.3), count)
    sure = rng.rand(count) < 0.7
    probabilities[sure, labels[sure]] += 2
    for name in never_right:
        probabilities[labels == classes.index(name), classes.index(name)] = 0
    probabilities /= probabilities.sum(1, keepdims=True)
    names = ["%s/%d.jpg" % (classes[label], i) for i, label in enumerate(labels)]
    where = np.tile(np.subtract.outer(np.linspace(1, -1, maps), np.linspace(0, 2, maps)), [count, 1, 1])
    answers = predictions.Predictions(names, labels, probabilities, [0.1, 0.1], where if maps else None)
    results = dict(metrics.measure(labels, probabilities, classes), checkpoint="model", split="test", **more)
    image_size = 32 * maps or 32
    model = modelfolder.Model(str(folder), "model.ckpt-20", {}, classes, image_size, "per_image", False)
    records = make_records(folder, labels, classes, noise(size))
    report.write_html(str(folder), results, answers, model, records, language, suspected)
    return str(folder / "report.html"), answers


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.slow
@pytest.mark.parametrize(
    "count, classes, size, maps", [(10000, 10, 320, 32), (10000, 1000, 96, 0), (2, 2, 96, 0)]
)
def test_the_report_stays_small(tmp_path, count, classes, size, maps):
    path, _ = make_report(tmp_path, count, ["class %d" % i for i in range(classes)], size=size, maps=maps)
    assert os.path.getsize(path) < 5e6


def test_which_pictures_are_chosen():
    rng = np.random.RandomState(0)
    labels, probabilities = rng.randint(0, 4, 2000), rng.dirichlet(np.full(4, 0.3), 2000)
    labels[:1500] = probabilities[:1500].argmax(1)
    answers = predictions.Predictions([""] * 2000, labels, probabilities, [])
    order, galleries = report.choose_pictures(answers, [0, 1, 2])
    assert len(order) == len(set(order)) <= report.MOST_PICTURES
    assert not answers.correct[galleries["mistakes"]].any() and answers.correct[galleries["doubtful"]].all()
    behind = order[len(galleries["mistakes"]) + len(galleries["doubtful"]) :]
    cells = collections.Counter(zip(labels[behind], answers.predicted[behind]))
    assert set(cells) <= set(itertools.product(range(3), repeat=2)) and len(cells) == 9
    assert max(cells.values()) <= report.PER_CELL


def test_each_cell_gets_a_picture_before_any_gets_two():
    labels = np.array([0] * 5 + [1] * 3 + [2])
    answers = predictions.Predictions([""] * 9, labels, np.eye(3)[labels], [])
    order, galleries = report.choose_pictures(answers, [0, 1, 2])
    assert order == [0, 5, 8, 1, 6, 2, 7, 3, 4] and galleries == {"mistakes": [], "doubtful": []}


def test_no_answer_surer_than_90_percent_is_in_doubt():
    sure = np.array([0.95, 0.9, 0.91, 0.6])
    answers = predictions.Predictions([""] * 4, np.zeros(4, int), np.stack([sure, 1 - sure], 1), [])
    assert report.choose_pictures(answers, [0, 1])[1] == {"mistakes": [], "doubtful": [3, 1]}


def test_a_report_of_folds_shows_suspects_in_place_of_mistakes(tmp_path):
    """The first ones come first, in both languages, and nothing is said of one training."""
    suspected = [7, 3, 11]
    for language, title, untold in (
        ("en", "Labels that may be wrong", "Training"),
        ("zh", "可能标错的图片", "训练过程"),
    ):
        folder = tmp_path / language
        folder.mkdir()
        more = {"folds": 3, "suspects": 3, "suspected": suspected, "language": language}
        path, answers = make_report(folder, 40, ["a", "b"], **more)
        page = read(path)
        shown = json.loads(re.search(r"^const pictures = (.*);$", page, re.MULTILINE).group(1))
        assert [name for name, *_ in shown[:3]] == [answers.filenames[i] for i in suspected]
        assert "pictures.slice(0, 3)" in page and title in page
        assert "<h2>%s</h2>" % untold not in page
        assert ("40 pictures of the train and val splits" in page) == (language == "en")


def test_the_report_escapes_names(tmp_path):
    path, _ = make_report(tmp_path, 40, [NASTY, "b & c"])
    html = read(path)
    assert html.count("<script") == 1 and html.count("</script") == 1
    assert "&lt;/script&gt;&lt;script&gt;" in html and "b &amp; c" in html


@pytest.mark.parametrize("mirror", [False, True])
def test_the_report_says_how_it_answered(tmp_path, mirror):
    path, _ = make_report(tmp_path, 20, ["a", "b"], mirror=mirror)
    assert ("each picture and its mirror image" in read(path)) == mirror


def test_the_report_holds_the_pictures_of_the_records(tmp_path):
    path, answers = make_report(tmp_path, 30, ["a", "b"])
    records = reading.Records(str(tmp_path), ["a", "b"], 32, False, {"test": {"a": 15, "b": 15}}, {}, None)
    pictures = report.read_pictures(records, "test", [3, 23], MODEL)
    assert list(pictures) == [3, 23] and pictures[3] == pictures[23]  # each 20th picture is the same
    assert pictures[3] != report.read_pictures(records, "test", [4], MODEL)[4]


@pytest.mark.parametrize("width, height", [(96, 96), (48, 37), (37, 60), (32, 32), (20, 30)])
def test_the_frame_is_what_the_network_sees(tmp_path, graph, width, height):
    """White in the frame and black around reaches the network as white; with a black rim in it, as such."""

    def paint(rim):
        image = Image.new("RGB", (width, height))
        image.paste("white", (left + rim, top + rim, left + side - rim, top + side - rim))
        return file_bytes(image, "JPEG", quality=100, subsampling=0)

    records = make_records(tmp_path, [0], ["a"], [file_bytes(Image.new("RGB", (width, height)), "JPEG")])
    _, *size, side = report.read_pictures(records, "test", [0], MODEL)[0]
    left, top = (width - side) // 2, (height - side) // 2
    assert size == [width, height]
    views = [preprocessing.preprocess_for_evaluation(paint(rim), 32, "minus1_1") for rim in (0, 2)]
    with tf.Session() as session:
        whole, rimmed = session.run(views)
    assert whole.min() > 0.9
    assert max(rimmed[0].max(), rimmed[-1].max(), rimmed[:, 0].max(), rimmed[:, -1].max()) < 0


@pytest.mark.parametrize("language, text", [("en", "What to do next"), ("zh", "下一步做什么")])
def test_the_report_is_in_one_language(tmp_path, language, text):
    page = read(make_report(tmp_path, 40, ["a", "b"], language=language)[0])
    assert text in page and ("precision" in page) == (language == "en")
    assert '<html lang="%s">' % {"en": "en", "zh": "zh-CN"}[language] in page


@pytest.mark.parametrize(
    "language, said", [("en", "From <b>--image_size</b> 101 on"), ("zh", "从 <b>--image_size</b> 101 起")]
)
def test_maps_that_are_too_coarse_are_not_offered(tmp_path, language, said):
    page = read(make_report(tmp_path, 40, ["a", "b"], language=language)[0])
    assert said in page and 'id="maps"' not in page


def rows_of(page):
    """The rows of the table of classes, as lists of their cells."""
    body = re.search("<tbody>(.*?)</tbody>", page, re.DOTALL).group(1)
    return [re.findall("<td[^>]*>([^<]*)", row) for row in body.split("<tr>")[1:]]


@pytest.mark.parametrize("language, text", [("en", "the temperature of 1.40"), ("zh", "温度 1.40")])
def test_the_report_says_what_the_temperature_changed_and_which_thresholds_there_are(
    tmp_path, language, text
):
    row = {"threshold": 0.61, "answered": 0.5, "precision": 0.95, "precision_ci95": [0.8, 0.99]}
    path, _ = make_report(tmp_path, 30, ["a", "b"], language=language, temperature=1.4, thresholds=[row])
    page = read(path)
    assert text in page and "<code>--threshold 0.61</code>" in page and "80.0%" in page
    page = make_page(tmp_path, [0] * 30, [0] * 30, ["a", "b"], language=language)
    assert text not in page and "<code>--threshold" not in page
    page = read(make_report(tmp_path, 30, ["a", "b"], language=language, thresholds=[row], mirror=True)[0])
    assert "<code>--mirror --threshold 0.61</code>" in page
    # The models of folds are none that predict.py takes.
    page = read(make_report(tmp_path, 30, ["a", "b"], language=language, thresholds=[row], folds=3)[0])
    assert "0.61" not in page and 'id="thresholds"' not in page


@pytest.mark.parametrize(
    "language, said", [("en", "so that this is no fair comparison"), ("zh", "这样比不公平")]
)
@pytest.mark.parametrize("seen, told", [({"trained_on": 7}, True), ({"trained_on": 0}, False), (None, False)])
def test_a_model_that_knows_the_pictures_is_no_fair_one_to_compare_with(tmp_path, language, said, seen, told):
    right = np.arange(30) < 20
    other = {"checkpoint": "other", "accuracy": 0.3, "seen": seen, **metrics.mcnemar(right, ~right)}
    page = read(make_report(tmp_path, 30, ["a", "b"], language=language, compare=other)[0])
    assert (said in page) == told


def make_page(folder, labels, predicted, classes, trained_on=None, language="en"):
    """The page of answers that are sure."""
    probabilities = np.eye(len(classes))[predicted]
    answers = predictions.Predictions(["a.jpg"] * len(labels), np.array(labels), probabilities, [])
    results = dict(metrics.measure(answers.labels, probabilities, classes), split="test", checkpoint="")
    model = modelfolder.Model(str(folder), "mine", {}, classes, 32, "per_image", False, trained_on)
    records = make_records(folder, labels, classes, noise(96))
    report.write_html(str(folder), results, answers, model, records, language)
    return read(str(folder / "report.html"))


@pytest.mark.parametrize("language, few, none", [("en", "%d, few", "untested"), ("zh", "%d，太少", "未测试")])
def test_a_class_of_few_test_pictures_or_none_says_so(tmp_path, language, few, none):
    labels = [0] * 10 + [1] * 9 + [2]
    page = make_page(tmp_path, labels, labels, ["a", "b", "c", "d"], language=language)
    assert rows_of(page) == [
        ["a", "1.000", "1.000", "1.000", "10"],
        ["b", "1.000", "1.000", "1.000", few % 9],
        ["c", "1.000", "1.000", "1.000", few % 1],
        ["d", "–", "–", "–", none],
    ]


@pytest.mark.parametrize(
    "language, said",
    [
        ("en", "bee (9 to train on), cow (8), dog (7), elk (6), fox (5) and 1 more: too few pictures"),
        (
            "zh",
            "bee（训练图片 9 张）、cow（8 张）、dog（7 张）、elk（6 张）、fox（5 张），还有 1 类：训练图",
        ),
    ],
)
def test_classes_with_the_same_advice_share_a_sentence(tmp_path, language, said):
    classes = ["ant", "bee", "cow", "dog", "elk", "fox", "gnu"]
    labels = [0] * 60 + [1, 2, 3, 4, 5, 6] * 3
    trained_on = dict(zip(classes, [500, 9, 8, 7, 6, 5, 4]))
    predicted = [0] * 60 + [1, 2, 3, 4, 5, 6] * 2 + [0] * 6
    page = make_page(tmp_path, labels, predicted, classes, trained_on, language)
    items = [re.sub("<.*?>", "", item) for item in re.findall("<li>(.*?)</li>", page, re.DOTALL)]
    assert len([item for item in items if said in item]) == 1


def test_a_long_name_keeps_its_end():
    assert report.shorten("class 12") == "class 12"
    assert report.shorten("a rather long name of a class 12") == "a rather … class 12"
    assert report.shorten("这是一个非常非常长的类别名称12") == "这是一个非…别名称12"


@pytest.mark.parametrize("n, judged", [(9, False), (10, True)])
def test_bars_of_few_pictures_are_pale(tmp_path, n, judged):
    answers = predictions.Predictions(["a.jpg"] * n, np.zeros(n, int), np.tile([0.95, 0.05], [n, 1]), [])
    results = metrics.measure(answers.labels, answers.probabilities, ["a", "b"])
    model = modelfolder.Model(str(tmp_path), "mine", {}, ["a", "b"], 32, "per_image", False)
    records = make_records(tmp_path, answers.labels, ["a", "b"], noise(96))
    report.write_html(str(tmp_path), dict(results, split="test"), answers, model, records, "en")
    page = read(str(tmp_path / "report.html"))
    assert ("Too few pictures to judge" in page) == ('class="few"' in page) == (not judged)


def test_the_most_confused_classes_are_shown():
    matrix = np.diag(np.full(100, 5))
    matrix[70, 71] = 9
    shown = report.confused_classes(matrix)
    assert len(shown) == report.MOST_CLASSES and {70, 71} <= set(shown) and shown == sorted(shown)


def test_the_training_curves_come_from_the_model_folder(workspace):
    curves = {curve["name"]: curve for curve in report.training_curves(workspace.model)}
    for name in ("accuracy", "loss"):
        for which, column in (("training", name), ("validation", "val_" + name)):
            rows = [row for row in read_log(workspace.model) if row[column]]
            expected = [[int(row["step"]), float(row[column])] for row in rows]
            np.testing.assert_allclose(curves[name][which], expected)
        assert [step for step, _ in curves[name]["smooth"]] == list(range(10, 101, 10))
    assert report.training_curves(workspace.records) == []


def test_a_smoothed_curve_is_the_mean_of_what_lies_around():
    values = np.random.RandomState(0).rand(50)
    smooth = report.smoothed(list(zip(range(50), values)))  # each of 5
    assert [step for step, _ in smooth] == list(range(50))
    assert smooth[20][1] == pytest.approx(values[18:23].mean()) and smooth[0][1] == pytest.approx(
        values[:3].mean()
    )
    assert report.smoothed([[10, 0.5]]) == [[10, 0.5]]


@pytest.mark.parametrize(
    "value, end", [(0, 1), (0.3, 0.4), (1, 1), (1.01, 2), (6.9, 8), (9, 10), (3e-5, 4e-5)]
)
def test_where_an_axis_ends(value, end):
    assert report.axis_end(value) == pytest.approx(end)


def test_a_damaged_log_is_drawn_as_far_as_it_goes(tmp_path):
    whole = "%s,1,%s,0.5,0.1,,,"
    lines = [",".join(modelfolder.LOG_COLUMNS)]
    lines += [whole % each for each in ((0, 1), (10, "nan"), (20, "1e308"), (30, "x"), (40, "-1"), ("a", 1))]
    (tmp_path / "log.csv").write_text("\n".join([*lines, whole % (50, 2), "60,1,"]))
    accuracy, loss = report.training_curves(str(tmp_path))
    assert loss["training"] == [[50, 2]] and [step for step, _ in accuracy["training"]] == [
        10,
        20,
        30,
        40,
        50,
    ]
    make_report(tmp_path, 10, ["a", "b"])


def test_the_accuracy_of_the_training_is_that_at_the_checkpoint():
    curves = [{"name": "accuracy", "smooth": [[10, 0.2], [20, 0.4], [30, 0.6]]}]
    assert [report.train_accuracy(curves, step) for step in (5, 20, 25, None)] == [None, 0.4, 0.4, 0.6]
    assert report.train_accuracy([], 20) is None
    steps = [modelfolder.checkpoint_step(name) for name in ("best/recalibrated.ckpt-240", "mine")]
    assert steps == [240, None]
