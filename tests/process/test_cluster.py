"""cluster.py: a scheduler and two workers of Dask on this machine, and what can go wrong with them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import distributed
import pytest
from helpers import ROOT, draw_dataset, folder_bytes, run, write_slow_dataset

import FlowIO
from suite.process import cluster
from suite.process.errors import UserError


@contextlib.contextmanager
def started(folder, source=ROOT):
    """A distributed.Client of a scheduler and two workers that find the suite in the folder `source`."""
    file = str(folder / "scheduler.json")
    common = ["--scheduler-file", file, "--no-dashboard"]
    worker = [*common, "--nthreads", "1", "--local-directory", str(folder / "workers")]
    alone = [*common, "--host", "127.0.0.1", "--port", "0"]
    processes = [start("dask_scheduler", alone, source)]
    processes += [start("dask_worker", worker, source) for _ in range(2)]
    try:
        while not os.path.exists(file):
            assert processes[0].poll() is None
            time.sleep(0.1)
        with distributed.Client(scheduler_file=file, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            client.processes = processes
            yield client
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def start(name, arguments, folder):
    """As python -m distributed.cli.NAME, which with Python 3.7 wants another click than Flask's."""
    code = "from distributed.cli.%s import main; main()" % name
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=folder, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with started(tmp_path_factory.mktemp("cluster")) as client:
        yield client


def address(client):
    return client.scheduler.address


def echoes(count):
    """Items for subprocess.getoutput that take some time, and what it makes of them."""
    return ["sleep 0.02; echo %d" % number for number in range(count)], [str(each) for each in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--sandbox", "--fit", "pad"]])
def test_the_same_bytes_as_on_one_machine(client, tmp_path, more):
    draw_dataset(tmp_path / "dataset", 12, ["apple", "kiwi"])
    (tmp_path / "dataset" / "kiwi" / "0.jpg").write_bytes(b"damaged")  # the first of all
    arguments = ["--dataset", "dataset", "--image_size", 32, *more]
    there = run(
        "FlowIO.py", *arguments, "--output", "out", "--cluster", address(client), cwd=tmp_path, status=1
    )
    written = folder_bytes(tmp_path / "out")
    here = run("FlowIO.py", *arguments, "--output", "out", cwd=tmp_path, status=1)
    assert written == folder_bytes(tmp_path / "out") and len(written) > 5
    assert there[0] == here[0] and there[1].splitlines()[1:] == here[1].splitlines()[1:]
    assert there[1].splitlines()[0] == "device: CPU, the workers of " + address(client)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_survived(client):
    items, expected = echoes(120)
    results = cluster.map_on_cluster(subprocess.getoutput, items, address(client), __file__)
    found = [next(results)]
    os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)
    found += results
    assert found == expected


@pytest.mark.slow
def test_what_kills_each_worker_ends_the_work(client):
    with pytest.raises(BrokenProcessPool):
        list(cluster.map_on_cluster(os._exit, [1], address(client), __file__))
    client.wait_for_workers(2, timeout=120)  # which are started anew


@pytest.mark.slow
def test_no_more_is_begun_than_asked_for(client, tmp_path):
    items = [str(tmp_path / str(number)) for number in range(400)]
    results = cluster.map_on_cluster(os.mkdir, items, address(client), __file__)
    next(results)
    time.sleep(1)
    assert len(os.listdir(str(tmp_path))) <= (4 * 2 + 1) * cluster.CHUNK
    results.close()
    wait_until_nothing_is_left(client)


def wait_until_nothing_is_left(client):
    """No task of others at the scheduler; those that run are let end."""
    deadline = time.time() + 30
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.time() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_stop_signal_leaves_nothing(client, tmp_path):
    write_slow_dataset(tmp_path / "dataset", 50)
    command = [sys.executable, os.path.join(ROOT, "FlowIO.py"), "--dataset", str(tmp_path / "dataset")]
    command += ["--output", str(tmp_path / "out"), "--cluster", address(client)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    while not any(client.processing().values()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.splitlines()[1:] == ["FlowIO.py: stopped"], err
    assert os.listdir(str(tmp_path)) == ["dataset"]
    wait_until_nothing_is_left(client)


@pytest.mark.slow
def test_workers_that_differ_are_refused(client, monkeypatch):
    same = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: {**same, "numpy": "0.1"})
    with pytest.raises(UserError, match="has numpy %s, not 0.1; start all" % same["numpy"]):
        list(cluster.map_on_cluster(str, [1], address(client), __file__))


@pytest.mark.slow
def test_workers_that_do_not_see_the_pictures_are_refused(client, tmp_path):
    """The process's own folder stands for a file system that only this machine has."""
    draw_dataset(tmp_path / "dataset", 2, ["apple", "kiwi"])
    arguments = ["--dataset", "/proc/self/cwd/dataset", "--output", "out", "--cluster", address(client)]
    _, err = run("FlowIO.py", *arguments, cwd=tmp_path, status=1)
    assert "does not see /proc/self/cwd/dataset/apple/0.png as it is here" in err.splitlines()[1]
    assert os.listdir(str(tmp_path)) == ["dataset"]


def test_a_worker_compares_itself(tmp_path):
    expected = {**cluster.versions(), str(tmp_path / "0.png"): 3}
    with pytest.raises(UserError, match="does not see"):
        cluster.check(expected)
    (tmp_path / "0.png").write_bytes(b"of another size")
    with pytest.raises(UserError, match="does not see"):
        cluster.check(expected)
    (tmp_path / "0.png").write_bytes(b"abc")
    cluster.check(expected)
    for name in cluster.versions():
        with pytest.raises(UserError, match="has %s .*, not 0; start all of them" % name):
            cluster.check({**expected, name: "0"})


@pytest.mark.slow
def test_workers_without_the_suite_are_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    with started(tmp_path, str(tmp_path / "elsewhere")) as client, pytest.raises(
        UserError, match="start all"
    ):
        list(cluster.map_on_cluster(str, [1], address(client), __file__))


@pytest.mark.slow
@pytest.mark.parametrize("gone, says", [(0, "has gone; start"), (1, "has no workers; python -m")])
def test_what_goes_and_stays_away(tmp_path, monkeypatch, gone, says):
    monkeypatch.setattr(cluster, "PATIENCE", 2)
    monkeypatch.setattr(cluster, "TIMEOUT", 2)
    with started(tmp_path) as client:
        results = cluster.map_on_cluster(subprocess.getoutput, echoes(400)[0], address(client), __file__)
        next(results)
        for process in client.processes[gone:] if gone else client.processes[:1]:
            process.terminate()
            process.wait(60)
        with pytest.raises(UserError, match=says):
            list(results)


@pytest.mark.slow
def test_no_scheduler(monkeypatch):
    monkeypatch.setattr(cluster, "TIMEOUT", 1)
    with pytest.raises(UserError, match="no scheduler of Dask answers there"):
        list(cluster.map_on_cluster(str, [1], "tcp://127.0.0.1:1", __file__))


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--cluster", "10.0.0.1:8786"], "is not tcp://host:port or tls://host:port"),
        (["--cluster", "tcp://10.0.0.1:8786", "--workers", "8"], "--workers: not with --cluster"),
        (
            ["--cluster", "tcp://10.0.0.1:8786"],
            "--cluster: Dask is missing; pip install -r requirements/cluster.txt",
        ),
    ],
)
def test_wrong_options(monkeypatch, capsys, arguments, says):
    monkeypatch.setattr(sys, "argv", ["FlowIO.py", *arguments])
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        FlowIO.parse_options()
    assert end.value.code == 2 and says in capsys.readouterr().err
