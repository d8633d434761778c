"""The fixtures: one small trained model for all tests, copies of it, and graphs."""

import os
import shutil

import hypothesis
import pytest
import small.sitecustomize
from helpers import Workspace

from suite.process.tf_versions import tf

# What scripts of the tests are run with, as this process is.
os.environ["PYTHONPATH"] = os.path.dirname(small.sitecustomize.__file__)

# The same examples in every run: a red test means a change of the code.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser):
    message = (
        "of the files of slow tests run every N-th, from number K on, 0 being the first; `versions` stay"
    )
    parser.addoption("--share", metavar="K/N", help=message)


def pytest_collection_modifyitems(config, items):
    """Leave out what --share leaves to others."""
    if not config.option.share:
        return
    first, step = map(int, config.option.share.split("/"))
    shared = [item for item in items if has(item, "slow") and not has(item, "versions")]
    files = sorted({item.nodeid.partition("::")[0] for item in shared})[first::step]
    left_out = {item for item in shared if item.nodeid.partition("::")[0] not in files}
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def has(item, mark):
    return item.get_closest_marker(mark) is not None


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture
def whole_network(monkeypatch):
    """Half as wide, ResNet-50 has all of its bottlenecks in a test."""
    import resnet

    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(resnet, "ResNet_mini_demo", small.sitecustomize.WHOLE)


@pytest.fixture
def copy(workspace, tmp_path):
    """A copy of the trained model's folder."""
    folder = str(tmp_path / "model")
    shutil.copytree(workspace.model, folder)
    return folder


@pytest.fixture
def graph():
    """A TensorFlow graph of the test's own."""
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
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
