"""evaluate.py, metrics.py and report.py: right numbers, and a page that shows them."""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import shutil

import numpy as np
import pytest
import sklearn.metrics
import tensorflow.compat.v1 as tf
from helpers import draw_dataset, file_bytes, read_log, refuses, run
from PIL import Image
from scipy.stats import binomtest

import evaluate
from suite.evaluation import metrics, predictions, report
from suite.model import modelfolder
from suite.process import errors
from suite.records import preprocessing, reading, writing

# --- the numbers ----------------------------------------


@pytest.fixture(scope="module")
def sample():
    """labels, probabilities of 6 classes, of which two have no pictures, and what metrics.measure says."""
    rng = np.random.RandomState(0)
    labels = rng.randint(0, 4, 200)
    probabilities = rng.dirichlet(np.ones(6), 200)
    return labels, probabilities, metrics.measure(labels, probabilities, list("abcdef"))


def test_measures_against_scikit_learn(sample):
    labels, probabilities, results = sample
    predicted = probabilities.argmax(1)
    assert results["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    matrix = sklearn.metrics.confusion_matrix(labels, predicted, labels=range(6))
    np.testing.assert_array_equal(results["confusion_matrix"], matrix)
    scores = sklearn.metrics.precision_recall_fscore_support
    expected = scores(labels, predicted, labels=range(6), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "n"), expected):
        np.testing.assert_allclose([row[name] for row in results["per_class"]], values)
    for average in ("macro", "weighted"):
        expected = scores(labels, predicted, average=average, zero_division=0)
        np.testing.assert_allclose(
            [results[average][key] for key in ("precision", "recall", "f1")], expected[:3]
        )
    expected = sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=range(6))
    assert results["top_k"]["k"] == 5 and results["top_k"]["accuracy"] == pytest.approx(expected)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=range(6))
    assert results["log_loss"] == pytest.approx(expected)


def test_a_class_that_does_not_occur_does_not_spoil_the_mean():
    labels, probabilities = np.array([0, 1]), np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]])
    assert metrics.measure(labels, probabilities, list("abc"))["macro"]["f1"] == 1


def test_k_is_bounded_by_the_classes():
    results = metrics.measure(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), ["a", "b"])
    assert results["top_k"]["k"] == 2 and results["top_k"]["accuracy"] == 1


def test_a_probability_of_zero_gives_a_finite_loss():
    loss = metrics.measure(np.array([1]), np.array([[1.0, 0.0]], np.float32), ["a", "b"])["log_loss"]
    assert loss == pytest.approx(126 * np.log(2))  # the smallest normal float32 is 2^-126


def test_wilson_interval():
    # Newcombe 1998, Table I: 81 of 263, 0 of 20 and 1 of 29.
    np.testing.assert_allclose(metrics.wilson_interval(81, 263), [0.2553, 0.3662], atol=1e-4)
    np.testing.assert_allclose(metrics.wilson_interval(0, 20), [0, 0.1611], atol=1e-4)
    np.testing.assert_allclose(metrics.wilson_interval(1, 29), [0.0061, 0.1718], atol=1e-4)


def test_a_threshold_withholds_doubtful_answers_right_and_wrong():
    """Right: 0.9 and 0.7; wrong: 0.95, 0.6 and 0.79."""
    first = np.array([0.9, 0.7, 0.95, 0.6, 0.79])
    results = metrics.measure(np.array([0, 0, 1, 1, 1]), np.stack([first, 1 - first], 1), ["a", "b"])
    assert results["threshold"] == {"threshold": 0.8, "right": 1, "wrong": 2}


def test_the_baseline_is_the_share_of_the_most_frequent_class(capsys):
    probabilities = np.eye(3)[[0, 0, 2, 2]]
    results = metrics.measure(np.array([0, 1, 1, 2]), probabilities, ["a", "\x1b[31mb", "c"])
    assert results["baseline"] == {"label": "\x1b[31mb", "accuracy": 0.5}
    evaluate.print_results(dict(results, split="test", latency=None), "evaluation")
    out = capsys.readouterr().out
    assert (
        "always answering \\x1b[31mb would give 0.5000\n" in out
        and "so wide that the accuracy tells nothing" in out
    )


def test_an_interval_that_tells_something(capsys):
    probabilities = np.eye(2)[[0] * 50 + [1] * 50]
    results = metrics.measure(np.array([0] * 100), probabilities, ["a", "b"])
    assert results["accuracy_ci95"] == pytest.approx([0.4038, 0.5962], abs=1e-4)  # the widest of 100 pictures
    evaluate.print_results(dict(results, split="test", latency=None), "evaluation")
    assert "tells nothing" not in capsys.readouterr().out


def test_calibration_by_hand():
    confidence = np.array([0.55, 0.55, 0.95, 0.95, 1.0])
    right = np.array([True, False, True, True, False])
    result = metrics.calibration(right, confidence)
    # 2 pictures at 0.55, half of them right; 3 in the last bin, 2/3 right at a mean of 0.9667.
    assert result["ece"] == pytest.approx(2 / 5 * 0.05 + 3 / 5 * 0.3)
    filled = [each for each in result["bins"] if each["n"]]
    assert [(each["low"], each["n"]) for each in filled] == [(0.5, 2), (0.9, 3)]
    assert filled[1]["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("first, other", [(0, 0), (1, 0), (7, 2), (2, 7), (30, 30), (400, 300)])
def test_mcnemar_is_the_exact_binomial_test(first, other):
    right = np.array([True] * first + [False] * other + [True, False])
    other_right = np.array([False] * first + [True] * other + [True, False])
    result = metrics.mcnemar(right, other_right)
    assert (result["only_first_right"], result["only_other_right"]) == (first, other)
    expected = binomtest(first, first + other, 0.5).pvalue if first + other else 1
    assert result["p_value"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "first, other, said",
    [
        (9, 9, "no difference shown"),
        (6, 1, "no difference shown"),  # p = 0.125
        (6, 0, "this model is the better one"),  # p = 0.03125
        (0, 6, "the other model is the better one"),
    ],
)
def test_a_comparison_begins_with_what_it_shows(first, other, said, capsys):
    right = np.array([True] * first + [False] * other)
    results = metrics.measure(np.array([0, 1]), np.eye(2), ["a", "b"])
    compared = {"checkpoint": "models/other", "accuracy": 0.5, **metrics.mcnemar(right, ~right)}
    evaluate.print_results(dict(results, split="test", latency=None, compare=compared), "evaluation")
    assert said in capsys.readouterr().out.splitlines()[-4]


def test_latency_leaves_the_first_batch_out():
    assert predictions.latency([9.0], 32) is None
    result = predictions.latency([9.0] + [0.001 * i for i in range(1, 102)], 8)
    assert result["batches"] == 101 and result["batch_size"] == 8
    assert [result[key] for key in ("p50_ms", "p90_ms", "p99_ms")] == pytest.approx([51, 91, 100])


@pytest.mark.parametrize(
    "batches, said",
    [
        (3, "(median of 3)"),
        (10, "(median of 10; 90% within 46 ms)"),
        (100, "(median of 100; 90% within 46 ms, 99% within 50 ms)"),
    ],
)
def test_a_share_of_the_batches_is_said_where_there_are_enough(batches, said, capsys):
    results = metrics.measure(np.array([0, 1]), np.eye(2), ["a", "b"])
    timed = {"batch_size": 32, "batches": batches, "p50_ms": 26, "p90_ms": 46, "p99_ms": 50}
    evaluate.print_results(dict(results, split="test", latency=timed), "evaluation")
    out = capsys.readouterr().out
    assert "\na batch of 32 takes 26 ms %s\n" % said in out and "on 2 test pictures" in out


# --- the script ----------------------------------------


def test_every_picture_is_counted_once(workspace, monkeypatch):
    results, rows = workspace.results()
    total = reading.load_records(workspace.records).count("test")
    assert results["n"] == len(rows) == len({row["filename"] for row in rows}) == total
    assert all(row["filename"].startswith(row["label"] + "/") for row in rows)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    out, _ = run("evaluate.py", "--batch_size", total - 1, cwd=workspace.folder)  # a last batch of one
    with open(os.path.join(workspace.model, "evaluation", "report.html"), encoding="utf-8") as file:
        assert '<html lang="zh-CN">' in file.read() and "accuracy" in out  # the page alone is in Chinese
    again, rows_again = workspace.results()
    assert again["confusion_matrix"] == results["confusion_matrix"] and len(rows_again) == total
    assert again["latency"] is None  # of the two batches one is the first, and one is not whole


def test_the_table_of_predictions(workspace):
    """A column for each class behind the answer; begins with the mark that Excel tells UTF-8 by."""
    results, rows = workspace.results()
    with open(os.path.join(workspace.model, "evaluation", "predictions.csv"), "rb") as file:
        assert file.read(4) == b"\xef\xbb\xbff"
    classes = [row["label"] for row in results["per_class"]]
    assert list(rows[0]) == ["filename", "label", "predicted", "probability", *classes]
    for row in rows:
        values = {name: float(row[name]) for name in classes}
        assert sum(values.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(values, key=values.get)
        assert row["probability"] == row[row["predicted"]]


def test_a_class_that_a_spreadsheet_would_run_heads_no_column(tmp_path):
    answers = predictions.Predictions(["a.jpg"], np.array([0]), np.array([[1.0, 0.0]]), [])
    evaluate.write_predictions(str(tmp_path), answers, ["=1+1", "b"])
    lines = (tmp_path / "predictions.csv").read_text("utf-8-sig").splitlines()
    assert lines[0].split(",")[4:] == ["'=1+1", "b"] and lines[1].endswith(",1.000000,1.000000,0.000000")


def test_the_first_five_are_printed_where_there_are_more_classes(capsys):
    """Of seven classes the right one comes first, fifth, sixth and last."""
    probabilities = np.tile(np.arange(7, 0, -1) / 28, [4, 1])
    results = metrics.measure(np.array([0, 4, 5, 6]), probabilities, list("abcdefg"))
    evaluate.print_results(dict(results, split="test", latency=None), "evaluation")
    assert "right class among the first 5: 0.5000 (" in capsys.readouterr().out


@pytest.mark.slow
def test_two_models_are_compared_on_the_same_pictures(workspace, tmp_path):
    before = workspace.results()
    other, elsewhere = os.path.join(workspace.model, "model.ckpt-50"), str(tmp_path / "elsewhere")
    arguments = ["--data", workspace.records, "--split", "train", "--output", elsewhere]
    run("evaluate.py", *arguments, "--model", other)
    alone, other_rows = workspace.results(elsewhere)
    one = os.path.join(workspace.model, "model.ckpt-100")
    out, err = run("evaluate.py", *arguments, "--model", one, "--compare", other)
    assert "wrote %s" % os.path.join(elsewhere, "report.html") in err and workspace.results() == before
    results, rows = workspace.results(elsewhere)
    compared = results["compare"]
    assert compared["checkpoint"] == other and compared["accuracy"] == alone["accuracy"]
    right, other_right = ([row["label"] == row["predicted"] for row in each] for each in (rows, other_rows))
    pairs = collections.Counter(zip(right, other_right))
    assert compared["only_first_right"] == pairs[True, False]
    assert compared["only_other_right"] == pairs[False, True]
    assert "McNemar" in out
    assert "this model %d, the other %d\n" % (pairs[True, False], pairs[False, True]) in out


def test_an_impossible_comparison_is_refused_at_once(workspace, tmp_path):
    arguments = ["--model", workspace.model, "--data", workspace.records, "--compare", tmp_path / "none"]
    refuses("evaluate.py", *arguments, says="none: no such model folder", status=1)


def test_classes_are_matched_by_name(capsys):
    model = modelfolder.Model("model", None, None, ["ant", "bee", "cat"], 32, "per_image", False)
    records = reading.Records("records", ["cat", "ant"], 32, False, None, None, None)
    assert list(predictions.match_classes(model, records)) == [2, 0]
    assert "records has no pictures of bee, which model knows" in capsys.readouterr().err
    with pytest.raises(errors.UserError, match="class dog"):
        predictions.match_classes(model, dataclasses.replace(records, classes=["ant", "dog"]))


def test_classes_of_an_older_version_in_two_spellings_stay_two(capsys):
    both = ["cafe\u0301", "caf\u00e9", "tri"]
    model = modelfolder.Model("model", None, None, both, 32, "per_image", False)
    records = reading.Records("records", both[::-1], 32, False, None, None, None)
    assert list(predictions.match_classes(model, records)) == [2, 1, 0]
    one = modelfolder.Model("model", None, None, ["tri", "caf\u00e9"], 32, "per_image", False)
    assert list(predictions.match_classes(one, dataclasses.replace(records, classes=["cafe\u0301"]))) == [1]
    capsys.readouterr()
    with pytest.raises(errors.UserError, match="'Tri' and 'tri' differ by case or by spaces only"):
        predictions.match_classes(one, dataclasses.replace(records, classes=["Tri"]))


def test_records_with_other_classes_shift_no_index(workspace, tmp_path):
    """Kiwis and bananas alone: their indices differ from the model's, their names do not."""
    draw_dataset(tmp_path / "dataset", 20, ["kiwi", "banana"], seed=5)
    run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32)
    model = tmp_path / "model"
    shutil.copytree(workspace.model, str(model))
    _, err = run("evaluate.py", "--model", model, "--data", tmp_path / "out", "--split", "train")
    assert "has no pictures of grapes" in err
    with open(str(model / "evaluation" / "evaluation.json")) as file:
        results = json.load(file)
    assert results["accuracy"] > 0.8 and [row["n"] > 0 for row in results["per_class"]] == [True, False, True]


def test_evaluation_refuses_what_does_not_fit(workspace, tmp_path):
    data = ["--data", workspace.records]
    refuses("evaluate.py", "--model", tmp_path / "none", *data, says="no such model", status=1)
    refuses("evaluate.py", "--model", tmp_path, *data, says="no model.json", status=1)
    refuses("evaluate.py", "--model", workspace.model, "--data", tmp_path, says="no records there", status=1)
    refuses("evaluate.py", "--split", "dev", says="--split", status=2)


# --- the report ----------------------------------------

NASTY = "</script><script>window.hacked = true</script>"


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


def make_report(folder, count, classes, seed=0, language="en", size=96, never_right=(), **more):
    """A report of random answers that are mostly right; the path and the answers.

    Args:
        size: of the pictures, in pixels.
        never_right: classes of which none is.
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
    answers = predictions.Predictions(names, labels, probabilities, [0.1, 0.1])
    results = dict(metrics.measure(labels, probabilities, classes), checkpoint="model", split="test", **more)
    model = modelfolder.Model(str(folder), "model.ckpt-20", None, classes, 32, "per_image", False)
    records = make_records(folder, labels, classes, noise(size))
    report.write_html(str(folder), results, answers, model, records, language)
    return str(folder / "report.html"), answers


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


@pytest.mark.slow
@pytest.mark.parametrize("count, classes, size", [(10000, 10, 320), (10000, 1000, 96), (2, 2, 96)])
def test_the_report_stays_small(tmp_path, count, classes, size):
    path, answers = make_report(tmp_path, count, ["class %d" % i for i in range(classes)], size=size)
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
    pictures = report.read_pictures(records, "test", [3, 23], 32)
    assert list(pictures) == [3, 23] and pictures[3] == pictures[23]  # each 20th picture is the same
    assert pictures[3] != report.read_pictures(records, "test", [4], 32)[4]


@pytest.mark.parametrize("width, height", [(96, 96), (48, 37), (37, 60), (32, 32), (20, 30)])
def test_the_frame_is_what_the_network_sees(tmp_path, graph, width, height):
    """White in the frame and black around reaches the network as white; with a black rim in it, as such."""

    def paint(rim):
        image = Image.new("RGB", (width, height))
        image.paste("white", (left + rim, top + rim, left + side - rim, top + side - rim))
        return file_bytes(image, "JPEG", quality=100, subsampling=0)

    records = make_records(tmp_path, [0], ["a"], [file_bytes(Image.new("RGB", (width, height)), "JPEG")])
    _, *size, side = report.read_pictures(records, "test", [0], 32)[0]
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


def test_a_long_name_keeps_its_end():
    assert report.shorten("class 12") == "class 12"
    assert report.shorten("a rather long name of a class 12") == "a rather … class 12"
    assert report.shorten("这是一个非常非常长的类别名称12") == "这是一个非…别名称12"


@pytest.mark.parametrize("n, judged", [(9, False), (10, True)])
def test_bars_of_few_pictures_are_pale(tmp_path, n, judged):
    answers = predictions.Predictions(["a.jpg"] * n, np.zeros(n, int), np.tile([0.95, 0.05], [n, 1]), [])
    results = metrics.measure(answers.labels, answers.probabilities, ["a", "b"])
    model = modelfolder.Model(str(tmp_path), None, None, ["a", "b"], 32, "per_image", False)
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
    steps = [report.checkpoint_step(name) for name in ("best/recalibrated.ckpt-240", "mine", None)]
    assert steps == [240, None, None]


# --- the report in a browser ----------------------------------------


@pytest.fixture(scope="module")
def browser():
    if not shutil.which("chromedriver"):
        if os.environ.get("CI"):
            pytest.fail("CI installs chromium and chromium-driver")
        pytest.skip("needs Debian's chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,1400"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def test_a_click_on_a_cell_shows_its_pictures(browser, tmp_path):
    path, answers = make_report(tmp_path, 300, [NASTY, "b & c", "d"])
    browser.get("file://" + path)
    cell = find(browser, "#matrix button[data-true='1'][data-answer='2']")[0]
    count = int(cell.text)
    predicted = answers.probabilities.argmax(1)
    behind = [i for i in range(300) if (answers.labels[i], predicted[i]) == (1, 2)]
    assert count == len(behind)
    cell.click()
    lines = find(browser, "#cell")[0].text.splitlines()
    assert lines[:2] == ["is: b & c", "taken for: d"] and lines[2].startswith("pictures: %d" % count)
    captions = [each.text for each in find(browser, "#cell figcaption")]
    assert 0 < len(captions) <= count
    assert {caption.splitlines()[-1] for caption in captions} <= {answers.filenames[i] for i in behind}
    drawn = "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
    assert browser.execute_script(drawn)


def test_a_click_on_a_heading_sorts(browser, tmp_path):
    path, _ = make_report(tmp_path, 200, ["b", "c", "a"])
    browser.get("file://" + path)

    def column(number):
        return [row.text for row in find(browser, "#classes tbody td:nth-child(%d)" % number)]

    find(browser, "#classes th button")[0].click()
    assert column(1) == ["a", "b", "c"]
    find(browser, "#classes th button")[2].click()
    assert column(3) == sorted(column(3), key=float, reverse=True)
    find(browser, "#classes th button")[2].click()
    assert column(3) == sorted(column(3), key=float)


def test_the_page_runs_only_its_own_script_and_loads_nothing(browser, tmp_path):
    path, _ = make_report(tmp_path, 300, [NASTY, "<img src=x onerror='window.hacked = true'>", "d"])
    browser.get_log("performance")
    browser.get("file://" + path)
    for cell in find(browser, "#matrix button"):
        cell.click()
    assert browser.execute_script("return window.hacked") is None
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    requests = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requests.append(message["params"]["request"]["url"])
    assert [url for url in requests if not url.startswith("data:")] == ["file://" + path]


@contextlib.contextmanager
def screen(browser, width):
    """A screen of so many pixels, of a phone or not."""
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def box(browser, selector):
    """Where the first element lies: {"left", "top", "right", "bottom", "width", "height"} in pixels."""
    return browser.execute_script(
        "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector
    )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [360, 1100])
def test_the_page_is_no_wider_than_the_screen(browser, tmp_path, width, language):
    classes = ["a rather long name of a class %d" % i for i in range(40)] + ["x" * 60, "很长的类别名称" * 6]
    path, _ = make_report(tmp_path, 3000, classes, language=language)
    cut = """
        const outside = each => each.getBoundingClientRect().right > innerWidth + 1;
        return [...document.querySelectorAll("body *")]
            .filter(each => outside(each) && !each.closest(".wide, .frame"))  // which scroll, and are to cut
            .map(each => each.outerHTML.slice(0, 80));
    """
    with screen(browser, width):
        browser.get("file://" + path)
        find(browser, "#matrix button")[0].click()
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script(cut) == []


def test_both_tables_use_the_width(browser, tmp_path):
    path, _ = make_report(tmp_path, 300, ["猫", "dog", "古建筑", "花朵", "昆虫"])
    with screen(browser, 1100):
        browser.get("file://" + path)
        classes, matrix = box(browser, "#classes"), box(browser, "#matrix")
        assert matrix["left"] > classes["right"] and abs(matrix["top"] - classes["top"]) < 5
    with screen(browser, 360):
        browser.get("file://" + path)
        assert box(browser, "#matrix")["top"] > box(browser, "#classes")["bottom"]
        assert box(browser, "#classes")["right"] <= 360 and box(browser, "#matrix")["right"] <= 360
        assert box(browser, "#classes tbody td:nth-child(2)")["height"] < 40  # no figure is broken


def test_chinese_headings_stand_upright(browser, tmp_path):
    path, _ = make_report(tmp_path, 60, ["古代建筑", "dog"])
    browser.get("file://" + path)
    style = "const style = getComputedStyle(document.querySelector('#matrix thead th:nth-child(2)'));"
    style += "return [style.writingMode, style.textOrientation, style.transform, style.rotate]"
    assert browser.execute_script(style) == ["vertical-rl", "mixed", "none", "none"]
    four = box(browser, "#matrix thead th:nth-child(2)")
    assert four["height"] > 1.5 * four["width"]


def test_a_class_of_which_none_is_right_stands_out(browser, tmp_path):
    path, _ = make_report(tmp_path, 60, ["a", "b", "c"], never_right=["b"])
    browser.get("file://" + path)
    assert [each.text for each in find(browser, "#classes .none")] == ["b", "0.000"]


def test_a_caption_has_two_labelled_lines_and_a_picture_its_frame(browser, tmp_path):
    path, answers = make_report(tmp_path, 60, ["a cat", "b dog"])
    browser.get("file://" + path)
    (first, *_), _ = report.choose_pictures(answers, [0, 1])
    names, label, said = ["a cat", "b dog"], answers.labels[first], answers.predicted[first]
    share = "%.0f%%" % (100 * answers.confidence[first])
    lines = find(browser, "#mistakes figcaption")[0].text.splitlines()
    assert lines[:2] == ["is: " + names[label], "taken for: %s %s" % (names[said], share)]
    image, frame = box(browser, "#mistakes img"), box(browser, "#mistakes .frame i")
    assert frame["width"] == pytest.approx(image["width"] * 84 / 96, abs=1)  # 96 pixels by 256/224
    assert frame["left"] - image["left"] == pytest.approx(image["width"] * 6 / 96, abs=1)
