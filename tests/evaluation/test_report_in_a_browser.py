"""report.html in a real browser: what a click does, how wide it is, what stands where."""

import contextlib
import io
import json

import numpy as np
import pytest
from evaluation.test_report import NASTY, make_page, make_report
from helpers import find
from PIL import Image

from suite.evaluation import report


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


@pytest.mark.parametrize("size", [224, 256])  # whole, and with a frame
def test_maps_are_switched_on_and_off(browser, tmp_path, size):
    path, _ = make_report(tmp_path, 40, ["a", "b"], size=size, maps=7)
    browser.get("file://" + path)

    def colours():
        """Of the first picture, upper left and lower right: how much redder than blue they are, 0 to 1."""
        data = find(browser, "#mistakes .frame")[0].screenshot_as_png
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) / 255
        redder = (image[:, :, 0] - image[:, :, 2])[10:-10, 10:-10]
        return redder[:9, :9].mean(), np.abs(redder[-30:, -30:]).max()

    assert not any(each.is_displayed() for each in find(browser, ".map"))
    switch = find(browser, "#maps")[0]
    for toggle in (switch.click, lambda: find(browser, "body")[0].send_keys("m")):
        toggle()
        assert switch.is_selected() and all(each.is_displayed() for each in find(browser, ".map"))
        upper, lower = colours()
        assert upper > 0.3 and lower < 0.02  # orange there, grey here
        place, frame = box(browser, "#mistakes .map"), box(browser, "#mistakes .frame")
        assert place["width"] == pytest.approx(frame["width"] * 224 / size, abs=1)
        assert place["left"] - frame["left"] == pytest.approx(frame["width"] * (size - 224) / size / 2, abs=1)
        switch.send_keys(" ")
        assert not any(each.is_displayed() for each in find(browser, ".map"))


def test_a_command_is_copied_as_it_is(browser, tmp_path):
    folder = tmp_path / "my model"
    folder.mkdir()
    rng = np.random.RandomState(0)
    labels, predicted = rng.randint(0, 2, (2, 200))
    make_page(folder, labels, predicted, ["a", "b"])
    browser.get("file://%s/report.html" % folder)
    expected = "python train.py --model imagenet --output '%s-2'" % folder
    for width in (360, 1100):
        with screen(browser, width):
            assert [each.text for each in find(browser, "code")] == [expected]
            selected = "getSelection().selectAllChildren(document.querySelector('code'))"
            assert browser.execute_script(selected + "; return getSelection().toString()").strip() == expected


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


@pytest.mark.slow
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
    path, _ = make_report(tmp_path, 40, ["猫", "dog", "古建筑", "花朵", "昆虫"])  # some of few pictures
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
