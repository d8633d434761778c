"""The fixtures: one small trained model for all tests, copies of it, and graphs."""

import shutil

import hypothesis
import pytest
from helpers import Workspace

from suite.process.tf_versions import tf

# The same examples in every run: a red test means a change of the code.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("workspace"))


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
