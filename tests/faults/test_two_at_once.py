"""Two processes that want the same folder, and one that died with it."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from helpers import ROOT, refuses, run

from suite.files import atomic
from suite.process import errors


def start(script, *arguments):
    command = [sys.executable, os.path.join(ROOT, script), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")


@pytest.fixture
def training(workspace, tmp_path):
    """A training that has begun, and its arguments."""
    arguments = ["--mini", "--data", workspace.records, "--output", tmp_path / "model", "--step", 9999]
    process = start("train.py", *arguments, "--log_num", 1, "--save_num", 2)
    for line in process.stderr:
        if line.startswith("step 3/"):
            break
    yield process, arguments
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_second_training_is_refused_until_the_first_has_died(workspace, training):
    process, arguments = training
    process.send_signal(signal.SIGSTOP)  # it would take half of the processor
    refused = start("train.py", *arguments)
    assert "model: another process of this suite is using it" in refused.communicate()[1].splitlines()[-1]
    assert refused.returncode == 1
    # Its records are read only, so others may read them, too, and nobody may replace them.
    run("evaluate.py", "--data", workspace.records, "--model", workspace.model)
    before = os.stat(workspace.records).st_ino
    flowio = ["--dataset", workspace.dataset, "--output", workspace.records, "--image_size", 32]
    refuses("FlowIO.py", *flowio, says="another process of this suite is using it", status=1)
    assert os.stat(workspace.records).st_ino == before
    # A lock is not left by the dead.
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = start("train.py", *arguments[:-1], 2, "--save_num", 2)
    said = again.communicate()[1]
    assert again.returncode == 0 and "trained to step" in said or "is at step" in said, said


def test_a_folder_that_was_replaced_is_locked_anew(tmp_path):
    """Who waited for the old folder of a name holds the new one afterwards."""
    folder = tmp_path / "records"
    folder.mkdir()
    with atomic.replacing(str(folder), re.compile(".*")) as partial:
        open(os.path.join(partial, "new"), "w").close()
        with pytest.raises(errors.UserError, match="another process"):
            in_other_process("lock", folder)
    held = atomic.lock(str(folder))
    with pytest.raises(errors.UserError, match="another process"):
        in_other_process("replacing", folder)
    os.close(held)
    in_other_process("replacing", folder)


def in_other_process(function, folder):
    program = """if True:
        import json, re, sys
        from suite.files import atomic
        from suite.process import errors
        atomic.LOCK_SECONDS = 0
        try:
            if %r == "lock":
                atomic.lock(%r)
            else:
                with atomic.replacing(%r, re.compile(".*")):
                    pass
        except errors.UserError as error:
            json.dump(str(error), sys.stdout)
    """
    command = [sys.executable, "-c", program % (function, str(folder), str(folder))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    if done.stdout:
        raise errors.UserError(json.loads(done.stdout.decode()))


@pytest.mark.slow
def test_two_conversions_at_once(workspace, tmp_path):
    """One of them goes through, or both one after the other; the records are whole in any case."""
    arguments = ["--dataset", workspace.dataset, "--output", tmp_path / "records", "--image_size", 32]
    processes = [start("FlowIO.py", *arguments) for _ in range(3)]
    said = [process.communicate()[1] for process in processes]
    assert not any("Traceback" in each for each in said), said
    assert 0 in [process.returncode for process in processes]
    for process, each in zip(processes, said):
        assert process.returncode == 0 or "another process of this suite is using it" in each
    assert sorted(os.listdir(str(tmp_path))) == ["records"]
    run("evaluate.py", "--data", tmp_path / "records", "--model", workspace.model)
