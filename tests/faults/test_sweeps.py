"""The sweeps of this folder in small numbers; `make test-faults` runs them in large ones."""

import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.mark.slow
@pytest.mark.parametrize(
    "sweep",
    [
        ["kills.py", "--kills", "3", "--signals", "1"],
        ["damage.py", "--count", "110"],
        ["fuzz.py", "--count", "1000"],
    ],
)
def test_a_small_sweep(sweep, tmp_path):
    command = [sys.executable, os.path.join(HERE, sweep[0]), *sweep[1:]]
    done = subprocess.run(command, cwd=str(tmp_path), capture_output=True, encoding="utf-8", timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert done.stdout.count("|") > 20
