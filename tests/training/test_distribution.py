"""Training on several machines: TF_CONFIG, and two workers on this one."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml
from helpers import ROOT, config_for, draw_dataset, read_log, refuses
from papers import SCALE, blocks

import FlowIO
import resnet
from suite.model import modelfolder
from suite.process import errors
from suite.process.tf_versions import tf
from suite.records import reading
from suite.training import distribution
from suite.training.options import parse_options
from suite.training.step import training_step


@pytest.mark.parametrize(
    "config, says",
    [
        ("{", "cannot be understood"),
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
    monkeypatch.setenv("TF_CONFIG", json.dumps({"task": {"type": "chief", "index": 1}}))
    assert distribution.read_environment() == distribution.ALONE
    tf.estimator.RunConfig()  # which refuses what is left of it


@pytest.mark.parametrize("asked", ["--folds 3", "--patience 5", "--batch_size auto"])
def test_what_works_on_one_machine_only(asked):
    """So on one that TF_CONFIG names, as a cluster's script does that was started with one node."""
    options = parse_options(asked.split())
    distribution.check_options(distribution.ALONE, options)
    with pytest.raises(errors.UsageError, match="works on one machine only, and TF_CONFIG names 2"):
        distribution.check_options(distribution.Machines(["a:1", "b:2"], 0), options)


def free_ports(count):
    """So many, below those that the system gives to whoever asks for any."""
    ports: set = set()
    while len(ports) < count:
        port = random.SystemRandom().randrange(10000, 30000)
        with contextlib.suppress(OSError), socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            ports.add(port)
    return list(ports)


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
@pytest.mark.versions
def test_two_workers_train_one_network(workspace, tmp_path, start_workers):
    output = str(tmp_path / "model")
    processes = start_workers(workspace, output, "--step", 4, "--save_num", 2)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "step 4: validation accuracy" in said[0] and "validation accuracy" not in said[1]
    assert modelfolder.load_model(output) and len(read_log(output)) == 6

    # One is stopped: the other says so and stops, and the same command goes on.
    processes = start_workers(workspace, output, "--step", 9999, "--save_num", 2)
    for line in processes[0].stderr:
        if line.startswith("step 7/"):
            break
    processes[1].terminate()  # it does not wait for the other, to save together
    assert processes[1].wait(timeout=30) == 128 + signal.SIGTERM
    rest = processes[0].communicate(timeout=120)[1]
    assert processes[0].returncode == 1 and "Traceback" not in rest, rest
    assert "machine 1 (127.0.0.1:" in rest and "goes on from step" in rest
    reached = modelfolder.checkpoint_step(modelfolder.latest_checkpoint(output))
    processes = start_workers(workspace, output, "--step", reached + 2, "--save_num", 2)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "resuming at step %d" % reached in said[0]
    assert modelfolder.latest_checkpoint(output).endswith("model.ckpt-%d" % (reached + 2))


# --- the shares of the machines ----------------------------------------


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_shares_are_even_whatever_the_numbers(tmp_path, monkeypatch, cache):
    """47 pictures in 5 files for 3 machines: all different, and each seen as often as the others."""
    draw_dataset(tmp_path / "dataset", 24, ["apple", "kiwi"])
    os.remove(str(tmp_path / "dataset" / "kiwi" / "0.png"))
    monkeypatch.setattr(reading, "PICTURES_PER_SHARD", 10)
    monkeypatch.setattr(reading, "CACHE_BYTES", cache)
    arguments = ["--dataset", tmp_path / "dataset", "--output", tmp_path / "records", "--image_size", 32]
    arguments += ["--train_ratio", 1, "--val_ratio", 0]
    monkeypatch.setattr(sys, "argv", ["FlowIO.py", *map(str, arguments)])
    assert FlowIO.main() == 0
    records = reading.load_records(str(tmp_path / "records"))
    assert len(records.shard_names("train")) == 5
    seen = [[], []]
    for index in range(3):
        with tf.Graph().as_default(), tf.Session() as session:
            share = (47 + 2 - index) // 3
            dataset = reading.read_for_training(records, "train", 1, "none", 7, index, 3)
            name = tf.data.make_one_shot_iterator(dataset).get_next()["filename"]
            for epoch in seen:
                epoch += [session.run(name)[0] for _ in range(share)]
    for epoch in seen:
        assert len(epoch) == len(set(epoch)) == 47


@pytest.mark.slow
def test_eight_devices_take_the_mean_of_eight_gradients(workspace, tmp_path, monkeypatch):
    """Each has its part of the batch, normalised by itself. A first step is linear in the gradient."""
    groups = [{"depth": 64 * 2**i, "num_class": 1} for i in range(4)]
    monkeypatch.setattr(resnet, "ResNet_mini_demo", {"layer_50": groups})
    config, _ = config_for(workspace, "--optimizer", "momentum", "--batch_size", 32)
    rng = np.random.RandomState(0)
    images = rng.normal(size=[8, 4, 32, 32, 3]).astype(np.float32)
    images *= np.arange(1, 9)[:, None, None, None, None]  # so that the parts have other statistics
    labels = rng.randint(0, 3, [8, 4])

    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.create_global_step()
        part = tf.placeholder(tf.int32, [])
        features = {"image": tf.gather(images, part), "label": tf.gather(labels, part)}
        train_op, weights, saver = (
            training_step(features, config).train_op,
            tf.trainable_variables(),
            tf.train.Saver(),
        )
        session.run(tf.global_variables_initializer())
        begin, before = saver.save(session, str(tmp_path / "model.ckpt"), 0), session.run(weights)
        alone = []
        for each in range(8):
            saver.restore(session, begin)
            session.run(train_op, {part: each})
            alone.append([after - value for after, value in zip(session.run(weights), before)])
        names = [weight.op.name for weight in weights]

    strategy = tf.distribute.MirroredStrategy(["/cpu:%d" % number for number in range(8)])
    session_config = tf.ConfigProto(device_count={"CPU": 8})
    run_config = tf.estimator.RunConfig(train_distribute=strategy, session_config=session_config)
    estimator = tf.estimator.Estimator(
        lambda features, labels, mode: training_step(features, config), str(tmp_path), run_config
    )
    parts = {"image": images, "label": labels}
    estimator.train(lambda: tf.data.Dataset.from_tensor_slices((parts, labels)), steps=1)
    together = [estimator.get_variable_value(name) - value for name, value in zip(names, before)]

    largest = max(np.abs(move).max() for move in together)
    for moves, move in zip(zip(*alone), together):
        np.testing.assert_allclose(move, np.mean(moves, 0), rtol=1e-3, atol=1e-4 * largest)
    assert max(np.abs(first - second).max() for first, second in zip(*alone[:2])) > 0.1 * largest


# --- docs/scale.md ----------------------------------------


def block_of(paper, kind):
    (body,) = [body for found, body in blocks(paper) if found == kind]
    return body


@pytest.mark.parametrize("paper", SCALE)
def test_the_job_for_kubernetes(paper, monkeypatch):
    """It is YAML whose command train.py takes, and so is the TF_CONFIG that the operator sets."""
    spec = yaml.safe_load(block_of(paper, "yaml"))["spec"]["tfReplicaSpecs"]["Worker"]
    (container,) = spec["template"]["spec"]["containers"]
    assert container["name"] == "tensorflow" and container["ports"][0]["containerPort"] == 2222
    assert [each["name"] for each in container["volumeMounts"]] == ["shared"]
    python, script, *arguments = container["command"]
    assert (python, script) == ("python", "train.py")
    assert parse_options(arguments).batch_size % spec["replicas"] == 0
    addresses = ["resnet-worker-%d.default.svc:2222" % number for number in range(spec["replicas"])]
    task = {"type": "worker", "index": 2}
    config = {"cluster": {"worker": addresses}, "task": task, "environment": "cloud"}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert distribution.read_environment() == distribution.Machines(addresses, 2)


@pytest.mark.parametrize("paper", SCALE)
@pytest.mark.parametrize("nodes", [["node1"], ["gpu-a01", "gpu-a02", "gpu-b7.cluster"]])
def test_the_script_for_slurm(paper, nodes, tmp_path, monkeypatch):
    """With Slurm's commands and python played by others; srun starts its command on each node."""
    commands = {
        "scontrol": 'test "$*" = "show hostnames nodes[1-3]" && printf "%%s\\n" %s' % " ".join(nodes),
        "srun": 'for SLURM_NODEID in %s; do export SLURM_NODEID; "$@"; done'
        % " ".join(map(str, range(len(nodes)))),
        "python": 'echo "$TF_CONFIG"; echo "$@" >&2',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text("#!/bin/bash\n%s\n" % body)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv-tf2-gpu" / "bin").mkdir(parents=True)
    (tmp_path / ".venv-tf2-gpu" / "bin" / "activate").write_text("")
    script = block_of(paper, "bash").replace("cd /shared/resnet-suite", "cd %s" % tmp_path)
    environment = {"PATH": "%s:/usr/bin:/bin" % tmp_path, "SLURM_JOB_NODELIST": "nodes[1-3]"}
    done = subprocess.run(
        ["bash"], input=script, env=environment, capture_output=True, encoding="utf-8", check=True
    )
    found = done.stdout.splitlines()
    assert len(found) == len(nodes)
    for index, config in enumerate(found):
        monkeypatch.setenv("TF_CONFIG", config)
        assert json.loads(config)["task"] == {"type": "worker", "index": index}
        machines = distribution.Machines([node + ":2222" for node in nodes], index)
        assert distribution.read_environment() == (machines if len(nodes) > 1 else distribution.ALONE)
    assert parse_options(done.stderr.splitlines()[-1].split()[1:]).batch_size == 128
