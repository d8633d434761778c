"""evaluate.py, metrics.py and report.py: right numbers, and a page that shows them."""

import collections
import dataclasses
import io
import json
import os
import shutil

import numpy as np
import pytest
import sklearn.metrics
import tensorflow.compat.v1 as tf
from helpers import draw_dataset, refuses, run
from PIL import Image
from scipy.stats import binomtest

import evaluate
from suite.evaluation import metrics, predictions, report
from suite.model import modelfolder
from suite.process import errors
from suite.records import reading, writing

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


def test_every_picture_is_counted_once(workspace):
    results, rows = workspace.results()
    total = reading.load_records(workspace.records).count("test")
    assert results["n"] == len(rows) == len({row["filename"] for row in rows}) == total
    assert all(row["filename"].startswith(row["label"] + "/") for row in rows)
    run("evaluate.py", "--batch_size", total - 1, cwd=workspace.folder)  # a last batch of one
    again, rows_again = workspace.results()
    assert again["confusion_matrix"] == results["confusion_matrix"] and len(rows_again) == total
    assert again["latency"] is None  # of the two batches one is the first, and one is not whole


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
    refuses("evaluate.py", "--data", tmp_path, says="no records there", status=1)
    refuses("evaluate.py", "--split", "dev", says="--split", status=2)


# --- the report ----------------------------------------

NASTY = "</script><script>window.hacked = true</script>"


def make_records(folder, labels, classes):
    """Records of a test split as FlowIO.py writes them, quickly: a few JPEGs over and over."""
    rng = np.random.RandomState(0)
    jpegs = []
    for _ in range(20):
        image = Image.fromarray(rng.randint(0, 256, (8, 8, 3)).astype(np.uint8)).resize((96, 96))
        file = io.BytesIO()
        image.save(file, "JPEG")
        jpegs.append(file.getvalue())
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


def make_report(folder, count, classes, seed=0, **more):
    """A report of random answers that are mostly right; the path and the answers."""
    rng = np.random.RandomState(seed)
    labels = rng.randint(0, len(classes), count)
    probabilities = rng.dirichlet(np.full(len(classes), 0.3), count)
    sure = rng.rand(count) < 0.7
    probabilities[sure, labels[sure]] += 2
    probabilities /= probabilities.sum(1, keepdims=True)
    names = ["%s/%d.jpg" % (classes[label], i) for i, label in enumerate(labels)]
    answers = predictions.Predictions(names, labels, probabilities, [0.1, 0.1])
    results = dict(metrics.measure(labels, probabilities, classes), checkpoint="model", split="test", **more)
    model = modelfolder.Model(str(folder), None, None, classes, 32, "per_image", False)
    report.write_html(str(folder), results, answers, model, make_records(folder, labels, classes))
    return str(folder / "report.html"), answers


@pytest.mark.slow
@pytest.mark.parametrize("count, classes", [(10000, 10), (10000, 1000), (2, 2)])
def test_the_report_stays_small(tmp_path, count, classes):
    path, answers = make_report(tmp_path, count, ["class %d" % i for i in range(classes)])
    assert os.path.getsize(path) < 5e6
    order, galleries = report.choose_pictures(answers)
    assert len(order) == len(set(order))
    wrong = answers.probabilities.argmax(1) != answers.labels
    assert wrong[galleries["mistakes"]].all() and not wrong[galleries["doubtful"]].any()
    cells = collections.Counter(zip(answers.labels[order], answers.probabilities.argmax(1)[order]))
    shown = cells[0, 0]
    assert shown <= report.PER_CELL + report.DOUBTFUL


def test_the_report_escapes_names(tmp_path):
    path, _ = make_report(tmp_path, 40, [NASTY, "b & c"])
    with open(path, encoding="utf-8") as file:
        html = file.read()
    assert html.count("<script") == 1 and html.count("</script") == 1
    assert "&lt;/script&gt;&lt;script&gt;" in html and "b &amp; c" in html


@pytest.mark.parametrize("mirror", [False, True])
def test_the_report_says_how_it_answered(tmp_path, mirror):
    path, _ = make_report(tmp_path, 20, ["a", "b"], mirror=mirror)
    with open(path, encoding="utf-8") as file:
        assert ("each picture and its mirror image" in file.read()) == mirror


def test_the_report_holds_the_pictures_of_the_records(tmp_path):
    path, answers = make_report(tmp_path, 30, ["a", "b"])
    records = reading.Records(str(tmp_path), ["a", "b"], 32, False, {"test": {"a": 15, "b": 15}}, {}, None)
    thumbnails = report.make_thumbnails(records, "test", [3, 23])
    assert list(thumbnails) == [3, 23] and thumbnails[3] == thumbnails[23]  # each 20th picture is the same
    assert thumbnails[3] != report.make_thumbnails(records, "test", [4])[4]


def test_the_most_confused_classes_are_shown():
    matrix = np.diag(np.full(100, 5))
    matrix[70, 71] = 9
    shown = report.confused_classes(matrix)
    assert len(shown) == report.MOST_CLASSES and {70, 71} <= set(shown) and shown == sorted(shown)


def test_the_training_curve_comes_from_the_model_folder(workspace):
    curves = {curve["name"]: curve["points"] for curve in report.training_curves(workspace.model)}
    assert [step for step, _ in curves["validation"]] == [50, 100]
    assert len(curves["training"]) == 10 and all(0 <= value <= 1 for _, value in curves["training"])
    assert report.training_curves(workspace.records) == []


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
    assert find(browser, "#cell p")[0].text.startswith("b & c, taken for d: %d" % count)
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


@pytest.mark.parametrize("width", [375, 1100])
def test_the_page_is_no_wider_than_the_screen(browser, tmp_path, width):
    path, _ = make_report(tmp_path, 3000, ["a rather long name of a class %d" % i for i in range(40)])
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.get("file://" + path)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
