"""evaluate.py, metrics.py and report.py: right numbers, and a page that shows them."""

import collections
import dataclasses
import json
import os
import shutil
import types

import numpy as np
import pytest
import sklearn.metrics
from helpers import draw_dataset, refuses, run
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

import evaluate
from suite.evaluation import metrics, predictions
from suite.model import modelfolder
from suite.model.network import warn_of_mirror
from suite.process.errors import UserError
from suite.records import reading

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


def test_thresholds_by_hand(capsys):
    """30 answers: 20 right at 0.9, one wrong at 0.8, eight right at 0.7, one wrong at 0.6: 0.933 in all."""
    confidence = np.array([0.9] * 20 + [0.8] + [0.7] * 8 + [0.6])
    labels = np.array([0] * 20 + [1] + [0] * 8 + [1])
    results = metrics.measure(labels, np.stack([confidence, 1 - confidence], 1), ["a", "b"])
    found = [(row["wanted"], row["threshold"], row["answered"]) for row in results["thresholds"]]
    assert found == [(0.95, 0.601, 29 / 30), (0.99, 0.801, 20 / 30)]
    assert results["thresholds"][0]["precision"] == 28 / 29
    assert results["thresholds"][1]["precision_ci95"] == metrics.wilson_interval(20, 20)
    evaluate.print_results(dict(results, split="test", latency=None), "evaluation")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0.95", "0.601", "0.967", "0.966", "0.828", "to", "0.994"] in rows


@pytest.mark.parametrize("right", [True, False])
def test_no_thresholds_where_none_helps(right):
    """All answers are right, or none is, with a probability of 1."""
    results = metrics.measure(np.full(5, int(not right)), np.eye(2)[[0] * 5], ["a", "b"])
    assert results["thresholds"] == []


def test_the_temperature_is_that_of_the_least_log_loss():
    """Labels are drawn by softmax(logits / 2.5), and by scipy's minimum of the loss with one picture more."""
    rng = np.random.RandomState(0)
    logits = rng.normal(0, 4, [20000, 5]).astype(np.float32)
    drawn = (softmax(logits / 2.5, 1).cumsum(1) > rng.rand(20000, 1)).argmax(1)
    assert metrics.fit_temperature(drawn, logits) == pytest.approx(2.5, rel=0.03)
    labels, logits = drawn[:150], logits[:150].astype(float)

    def loss(log_temperature):
        logs = log_softmax(logits / np.exp(log_temperature), 1)
        return -150 * logs[np.arange(150), labels].mean() - logs.mean()

    expected = np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8}).x)
    assert metrics.fit_temperature(labels, logits) == pytest.approx(expected, rel=1e-5)


def test_a_temperature_leaves_doubt_where_all_answers_were_right():
    """Of 100 right ones Laplace's rule of succession would doubt one in 102."""
    logits = 30 * np.eye(4)[np.arange(100) % 4]
    found = softmax(logits / metrics.fit_temperature(logits.argmax(1), logits), 1).max()
    assert found == pytest.approx(1 - 3 / 4 / 101, abs=1e-6)


@pytest.mark.parametrize("logits", [np.zeros([9, 3]), 1e6 * np.eye(3)[np.arange(9) % 3]])
def test_a_temperature_has_limits(logits):
    found = metrics.fit_temperature((np.arange(9) + 1) % 3, logits)
    assert 0.0499 < found < 20.001


def test_what_the_error_was_before_the_temperature(capsys):
    rng = np.random.RandomState(0)
    logits, labels = rng.normal(0, 2, [300, 3]), rng.randint(0, 3, 300)
    results = metrics.measure(labels, softmax(logits / 1.7, 1), list("abc"), 1.7)
    before = metrics.measure(labels, softmax(logits, 1), list("abc"))
    assert results["temperature"] == 1.7 and before["temperature"] == 1
    assert results["calibration"]["ece_before"] == pytest.approx(before["calibration"]["ece"])
    assert before["calibration"]["ece_before"] == pytest.approx(before["calibration"]["ece"])
    assert metrics.heated(logits, 1) is logits  # copies are large, of many pictures and classes
    for each in results, before:
        evaluate.print_results(dict(each, split="test", latency=None), "evaluation")
    assert capsys.readouterr().out.count("before the temperature of 1.70") == 1


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


def test_figures_of_no_pictures_are_none(capsys):
    """Of c there is no picture, and none is taken for b."""
    results = metrics.measure(np.array([0, 0, 1]), np.eye(4)[[0, 2, 0]], ["a", "b", "c", "d"])
    evaluate.print_results(dict(results, split="test", latency=None), "evaluation")
    table = [line.split() for line in capsys.readouterr().out.splitlines()[1:5]]
    assert table == [
        ["a", "0.500", "0.500", "0.500", "2"],
        ["b", "-", "0.000", "0.000", "1"],
        ["c", "0.000", "-", "0.000", "0"],
        ["d", "-", "-", "-", "0"],
    ]


def test_classes_of_few_pictures_are_named(capsys):
    labels = np.array([0] * 10 + [1] * 9 + [2])
    results = metrics.measure(labels, np.eye(4)[labels], ["a", "b", "\x1b[31mc", "d"])
    evaluate.print_results(dict(results, split="test", latency=None), "evaluation")
    out = capsys.readouterr().out
    assert "fewer than 10 pictures, which tell nothing of a class: b (9), \\x1b[31mc (1), d (0)\n" in out


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
    with pytest.raises(UserError, match="class dog"):
        predictions.match_classes(model, dataclasses.replace(records, classes=["ant", "dog"]))


def test_classes_of_an_older_version_in_two_spellings_stay_two(capsys):
    both = ["cafe\u0301", "caf\u00e9", "tri"]
    model = modelfolder.Model("model", None, None, both, 32, "per_image", False)
    records = reading.Records("records", both[::-1], 32, False, None, None, None)
    assert list(predictions.match_classes(model, records)) == [2, 1, 0]
    one = modelfolder.Model("model", None, None, ["tri", "caf\u00e9"], 32, "per_image", False)
    assert list(predictions.match_classes(one, dataclasses.replace(records, classes=["cafe\u0301"]))) == [1]
    capsys.readouterr()
    with pytest.raises(UserError, match="'Tri' and 'tri' differ by case or by spaces only"):
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


@pytest.mark.parametrize(
    "of_records, of_model, says",
    [
        (True, False, "r holds whole pictures (--keep_size), m saw"),
        (False, True, "m saw whole pictures (--keep_size), r"),
    ],
)
def test_whole_pictures_and_reduced_ones_are_told_apart(capsys, of_records, of_model, says):
    records = types.SimpleNamespace(fit="crop", keep_size=of_records, name="r", folder="r")
    predictions.check_fit(types.SimpleNamespace(fit="crop", keep_size=of_model, folder="m"), records)
    assert says in capsys.readouterr().err
    records.keep_size = of_model
    predictions.check_fit(types.SimpleNamespace(fit="crop", keep_size=of_model, folder="m"), records)
    assert capsys.readouterr().err == ""


def test_pictures_are_not_decoded_for_one_model_and_shown_to_another():
    one = types.SimpleNamespace(folder="one", image_size=64, fit="crop", keep_size=True)
    options = types.SimpleNamespace(pictures="p")
    evaluate.refuse_other_view(options, one, None)
    evaluate.refuse_other_view(options, one, one)
    for name, value in (("image_size", 32), ("fit", "pad"), ("keep_size", False)):
        other = types.SimpleNamespace(**dict(vars(one), **{name: value}))
        with pytest.raises(UserError, match="with --pictures evaluate each by itself"):
            evaluate.refuse_other_view(options, one, other)


def test_a_mirror_image_may_be_of_something_else(capsys):
    for augment, mirror, warned in (("none", True, True), ("flip", True, False), ("none", False, False)):
        model = types.SimpleNamespace(folder="m %s" % augment, options={"augment": augment})
        warn_of_mirror(types.SimpleNamespace(mirror=mirror), model)
        assert ("never saw a mirror image" in capsys.readouterr().err) == warned
