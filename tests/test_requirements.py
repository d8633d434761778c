"""requirements/: a Python is found, and locks hold what the lists ask for."""

import os
import re
import subprocess
import sys

import pytest
from helpers import ROOT


def test_a_python_is_found_past_a_dead_shim(tmp_path):
    wanted = "%d.%d" % sys.version_info[:2]
    shim = tmp_path / "bin" / ("python" + wanted)
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\necho 'pyenv: python: command not found' >&2; exit 127\n")
    real = tmp_path / "pyenv" / "versions" / (wanted + ".99") / "bin" / "python"
    real.parent.mkdir(parents=True)
    real.symlink_to(sys.executable)
    shim.chmod(0o755)
    environment = {"PATH": "%s:/usr/bin:/bin" % shim.parent, "PYENV_ROOT": str(tmp_path / "pyenv")}
    command = [os.path.join(ROOT, "requirements", "python.sh"), wanted]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    version = subprocess.run([found.decode().strip(), "--version"], stdout=subprocess.PIPE).stdout
    assert version.decode().startswith("Python " + wanted)
    environment["PYTHON"] = "/bin/true-is-not-python"
    refused = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert refused.returncode == 1 and "is no Python " + wanted in refused.stderr


def test_without_a_python37_the_other_tensorflow_is_offered(tmp_path):
    command = [os.path.join(ROOT, "requirements", "python.sh"), "3.7"]
    nothing = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    refused = subprocess.run(command, env=nothing, capture_output=True, encoding="utf-8")
    assert refused.returncode == 1 and refused.stdout == ""
    assert "none was found" in refused.stderr and "make demo TF=2.15" in refused.stderr


@pytest.mark.parametrize(
    "asked, lock, constraints",
    [
        ("requirements.txt", "tf1.lock", "tf1-constraints.txt"),
        ("requirements/intel.txt", "intel.lock", "tf1-constraints.txt"),
        ("requirements/tf2.txt", "tf2.lock", "tf2-constraints.txt"),
    ],
)
def test_the_lock_has_the_versions_that_are_asked_for(asked, lock, constraints):
    def pins(name):
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            lines = re.findall(r"^([\w-]+)==([\w.]+)", file.read(), re.MULTILINE)
        return {(package.lower().replace("_", "-"), release) for package, release in lines}

    locked, asked = pins("requirements/" + lock), pins(asked)
    constrained = {pin for pin in pins("requirements/" + constraints) if pin[0] in dict(locked)}
    assert len(locked) > 20
    same = {("tensorflow-gpu", "1.15"), ("tensorflow", "1.15")}  # as 1.15.0
    assert (asked | constrained) - same <= locked
