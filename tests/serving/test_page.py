"""The page to drop photos on, in a real browser."""

import base64
import http.client
import json
import re

import pytest
from helpers import content_of, file_bytes, find, gradient, pictures_of

from suite.serving import page

pytestmark = pytest.mark.slow

# As a browser does where somebody drops or pastes files: {name: base64}.
DROP = """
const [kind, files] = arguments;
const transfer = new DataTransfer();
for (const [name, content] of Object.entries(files)) {
  const bytes = Uint8Array.from(atob(content), sign => sign.charCodeAt(0));
  transfer.items.add(new File([bytes], name, {type: "image/png"}));
}
const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
  : new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true});
document.body.dispatchEvent(event);
"""


@pytest.fixture
def show(browser, serving):
    """Opens the page, for somebody who reads a language, on a screen of a width."""

    def show(language="en-US", width=1100):
        browser.get_log("browser")
        for command, given in (
            ("Network.enable", {}),
            ("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": language}}),
            (
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
            ),
        ):
            browser.execute_cdp_cmd(command, given)
        browser.get("http://127.0.0.1:%d/" % serving.port)
        return browser

    yield show
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})


def hand_over(browser, kind, **files):
    coded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    browser.execute_script(DROP, kind, coded)


def answers(browser, count):
    """[(title, names of the bars, name of the file)], the newest first, when there are so many."""
    from selenium.webdriver.support.wait import WebDriverWait

    wait = WebDriverWait(browser, 60)
    wait.until(lambda _: len(find(browser, "li")) == count and not find(browser, "li .waiting"))
    return [
        (
            item.find_element("css selector", "h2").text,
            [each.text for each in item.find_elements("css selector", "dt")],
            item.find_element("css selector", ".name").text,
        )
        for item in find(browser, "li")
    ]


def test_drop_paste_and_choose(show, workspace, tmp_path):
    paths = pictures_of(workspace, 3)
    labels = [path.split("/")[-2] for path in paths]
    browser = show()
    hand_over(browser, "dragover")
    assert find(browser, "#drop.over")
    hand_over(browser, "drop", **{"one.png": content_of(paths[0]), "two.png": content_of(paths[1])})
    assert len(answers(browser, 2)) == 2 and not find(browser, "#drop.over")
    hand_over(browser, "paste", **{"three.png": content_of(paths[2])})
    answers(browser, 3)
    find(browser, "#choose")[0].send_keys("\n".join(paths))
    found = answers(browser, 6)
    assert [name for _, _, name in found[3:]] == ["three.png", "two.png", "one.png"]
    for title, bars, _ in found:
        assert bars[0] == title and len(bars) == 3
    assert sorted(title for title, _, _ in found[:3]) == sorted(title for title, _, _ in found[3:])
    assert sum(title == label for (title, _, _), label in zip(found[3:], reversed(labels))) >= 2
    assert [each["message"] for each in browser.get_log("browser")] == []
    width = "return document.querySelector('dd i').getBoundingClientRect().width"
    assert browser.execute_script(width) > 20
    # For those who do not see it.
    assert find(browser, "#said[role=status]")[0].get_attribute("textContent")


def test_what_cannot_be_used_and_what_is_unknown(show, workspace):
    browser = show()
    hand_over(browser, "drop", **{"notes.txt": b"no picture"})
    ((title, bars, _),) = answers(browser, 1)
    assert title == "this cannot be used: not a picture in JPEG, PNG, BMP or GIF format" and not bars
    browser.execute_script(
        "const range = document.getElementById('threshold'); range.value = 100;"
        "range.dispatchEvent(new Event('input'))"
    )
    assert find(browser, "#percent")[0].text == "100%"
    hand_over(browser, "drop", **{"x.png": file_bytes(gradient(), "PNG")})
    title, bars, _ = answers(browser, 2)[0]
    assert title == "unknown" and len(bars) == 3


def test_a_server_that_has_gone(show, serving):
    browser = show()
    browser.execute_script("window.fetch = () => Promise.reject(new TypeError())")
    hand_over(browser, "drop", **{"x.png": file_bytes(gradient(), "PNG")})
    assert answers(browser, 1)[0][0] == "the server does not answer"


ANSWER = "window.fetch = () => Promise.resolve(new Response(arguments[0], {status: arguments[1]}))"


@pytest.mark.parametrize(
    "body, status, says",
    [
        ("<html>", 413, "the file is too large: HTTP 413"),
        ("<html>", 504, "something in front of the server answers in its place: HTTP 504"),
        ('{"message": "no"}', 403, "something in front of the server answers in its place: HTTP 403"),
    ],
)
def test_a_proxy_that_answers_for_it(show, body, status, says):
    browser = show()
    browser.execute_script(ANSWER, body, status)
    hand_over(browser, "drop", **{"x.png": file_bytes(gradient(), "PNG")})
    assert answers(browser, 1)[0][0] == says


def test_a_token_that_no_header_can_carry(show):
    browser = show()
    browser.execute_script("document.body.insertAdjacentHTML('beforeend', '<input id=token value=令牌>')")
    hand_over(browser, "drop", **{"x.png": file_bytes(gradient(), "PNG")})
    assert answers(browser, 1)[0][0] == "the token is missing or wrong"


def test_a_class_called_unknown(show):
    browser = show("zh")
    for label, title, kind in (("unknown", "unknown", ""), ("(unknown)", "(不认识)", "unsure")):
        predictions = [{"label": "unknown", "probability": 0.5}, {"label": "cat", "probability": 0.5}]
        content = {"results": [{"image": "", "label": label, "predictions": predictions}]}
        browser.execute_script(ANSWER, json.dumps(content), 200)
        hand_over(browser, "drop", **{"x.png": file_bytes(gradient(), "PNG")})
        count = len(find(browser, "li"))
        assert answers(browser, count)[0][0] == title
        assert find(browser, "li h2")[0].get_attribute("class") == kind


@pytest.mark.parametrize("width", [360, 1100])
def test_in_chinese_on_any_screen(show, width):
    browser = show("zh-CN,zh;q=0.9,en;q=0.8", width)
    assert find(browser, "h1")[0].text == "图片上是什么？"
    name = "a-very-long-name" * 20 + ".png"
    hand_over(browser, "drop", **{name: file_bytes(gradient(), "PNG"), "坏的.png": b"x"})
    titles = {title for title, _, _ in answers(browser, 2)}
    assert any(title.startswith("这张图片无法使用：") for title in titles)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_keyboard_reaches_everything(show):
    from selenium.webdriver import ActionChains, Keys

    browser = show()
    reached = []
    for _ in range(3):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        reached.append(browser.switch_to.active_element.get_attribute("id"))
    assert reached == ["choose", "take", "threshold"]


def test_a_phone_converts_what_is_not_in_the_list(show):
    accepted = find(show(), "#choose")[0].get_attribute("accept")
    assert "image/jpeg" in accepted and "hei" not in accepted and "*" not in accepted


def test_nothing_else_can_run_or_be_loaded(serving):
    connection = http.client.HTTPConnection("127.0.0.1", serving.port)
    connection.request("GET", "/", headers={"Accept-Language": "de, zh-TW;q=0.5"})
    response = connection.getresponse()
    html, policy = response.read().decode("utf-8"), response.headers["Content-Security-Policy"]
    connection.close()
    assert response.headers["Content-Language"] == "zh-CN" and response.headers["Vary"] == "Accept-Language"
    assert (
        policy.startswith("default-src 'none'; ")
        and "unsafe" not in policy
        and "frame-ancestors 'none'" in policy
    )
    assert not re.search(r"https?://|src=|@import|url\(", html) and " on" + "click" not in html


@pytest.mark.parametrize(
    "accepted, language",
    [
        ("", "en"),
        ("de", "en"),
        ("zh", "zh"),
        ("zh-Hant-TW,en", "zh"),
        ("en-GB;q=0.9, zh", "en"),
        (";;,", "en"),
    ],
)
def test_the_language_of_a_browser(accepted, language):
    assert page.choose_language(accepted) == language
