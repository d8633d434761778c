"""What these tests run on: the first GPU. `GPU_TEST_DEVICE=cpu` tries the tests themselves without one."""

import os

import pytest
from training.test_hardware import train_small  # noqa: F401  (a fixture)

from suite.process import device

DEVICE = os.environ.get("GPU_TEST_DEVICE", "gpu:0")


def pytest_configure():
    if DEVICE != "cpu" and not device.gpus():
        pytest.exit("TensorFlow sees no GPU on this machine, and these tests need one", returncode=1)
