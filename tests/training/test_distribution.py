"""Training on several machines: TF_CONFIG, and two workers on this one."""

import json
import os
import socket
import subprocess
import sys

import pytest
from helpers import ROOT, read_log, refuses

from suite.model import modelfolder
from suite.process import errors
from suite.training import distribution


@pytest.mark.parametrize(
    "config, says",
    [
        ("{", "not what TensorFlow expects"),
        ('{"cluster": {"ps": ["a:1"]}}', "neither chief nor worker"),
        ('{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}', "not host:port"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
            "not in its cluster",
        ),
    ],
)
def test_a_wrong_TF_CONFIG(monkeypatch, config, says):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(errors.UsageError, match=says):
        distribution.read_environment()


def test_TF_CONFIG(monkeypatch):
    task = {"type": "worker", "index": 0}
    jobs = {"chief": ["a:1"], "worker": ["b:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": task}))
    assert distribution.read_environment() == distribution.Machines(["a:1", "b:2"], 1)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["b:2"]}, "task": task}))
    assert distribution.read_environment() == distribution.ALONE
    assert distribution.read_environment() == distribution.ALONE


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def start_workers():
    """A function that starts train.py on two machines, which are this one; what is left of them is killed."""
    started = []
    yield lambda *arguments: started.extend(start_both(*arguments)) or started[-2:]
    for process in started:
        process.kill()


def start_both(workspace, output, *arguments):
    addresses = ["127.0.0.1:%d" % port for port in free_ports(2)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, os.path.join(ROOT, "train.py"), "--mini", "--data", workspace.records]
        command += ["--output", output, "--log_num", "1", *map(str, arguments)]
        environment = dict(os.environ, TF_CONFIG=json.dumps(config))
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", env=environment))
    return processes


def test_more_machines_than_pictures_are_refused(workspace, tmp_path, monkeypatch):
    """One without any would wait for pictures for ever, and the others for it."""
    cluster = {"worker": ["127.0.0.1:%d" % port for port in range(20000, 20200)]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0}}))
    arguments = ["--data", workspace.records, "--output", tmp_path / "model"]
    refuses("train.py", *arguments, says="fewer training pictures than machines", status=1)


@pytest.mark.slow
def test_two_workers_train_one_network(workspace, tmp_path, start_workers):
    output = str(tmp_path / "model")
    processes = start_workers(workspace, output, "--step", 4, "--save_num", 2)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "step 4: validation accuracy" in said[0] and "validation accuracy" not in said[1]
    assert modelfolder.load_model(output) and len(read_log(output)) == 6

    # One is killed: the other says so and stops, and the same command goes on.
    processes = start_workers(workspace, output, "--step", 9999, "--save_num", 2)
    for line in processes[0].stderr:
        if line.startswith("step 7/"):
            break
    processes[1].kill()
    rest = processes[0].communicate(timeout=120)[1]
    assert processes[0].returncode == 1 and "Traceback" not in rest, rest
    assert "machine 1 (127.0.0.1:" in rest and "goes on from step" in rest
    reached = modelfolder.checkpoint_step(modelfolder.latest_checkpoint(output))
    processes = start_workers(workspace, output, "--step", reached + 2, "--save_num", 2)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "resuming at step %d" % reached in said[0]
    assert modelfolder.latest_checkpoint(output).endswith("model.ckpt-%d" % (reached + 2))
