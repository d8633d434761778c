"""What ends a conversion: a full disk, and a killed process."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

import pytest
from helpers import (
    ROOT,
    draw_dataset,
    folder_bytes,
    run,
    write_slow_dataset,
)

from suite.process.workers import map_in_processes


@pytest.mark.slow
@pytest.mark.parametrize("step", ["encode_all", "write_shards", "write_dataset_json"])
def test_a_full_disk_leaves_the_old_records(tmp_path, step):
    """A limit on the size of files, set before one of the steps, stands for the disk."""
    draw_dataset(tmp_path / "dataset", 12, ["apple", "kiwi"])
    arguments = ["--dataset", str(tmp_path / "dataset"), "--output", str(tmp_path / "out")]
    run("FlowIO.py", *arguments, "--image_size", 32)
    before = folder_bytes(str(tmp_path / "out"))
    program = """if True:
        import atexit, resource, FlowIO
        from suite.records import writing
        from suite.process import lifetime
        # Coverage is saved after this, `make coverage`.
        atexit.register(resource.setrlimit, resource.RLIMIT_FSIZE, (-1, -1))
        def limited(*arguments, step=writing.%s):
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, -1))
            result = step(*arguments)
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            return result
        writing.%s = limited
        lifetime.run(FlowIO.main)
    """
    command = [sys.executable, "-c", program % (step, step), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "out: no space left to write there" in done.stderr.splitlines()[-1]
    assert folder_bytes(str(tmp_path / "out")) == before
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "out"]


@pytest.mark.slow
@pytest.mark.versions
def test_a_worker_killed_while_it_writes(monkeypatch):
    parent, send = os.getpid(), connection.Connection._send

    def send_half(self, data, *rest):
        if os.getpid() != parent:
            os.write(self.fileno(), bytes(data[: len(data) // 2]))
            os.kill(os.getpid(), signal.SIGKILL)
        send(self, data, *rest)

    monkeypatch.setattr(connection.Connection, "_send", send_half)
    with pytest.raises(BrokenProcessPool):
        list(map_in_processes(bytes, [10**5] * 100, 2))


def test_whoever_wants_no_more_results_does_not_wait():
    """Often enough to meet results that are there, on their way and not begun; a hang is the timeout's."""
    program = """if True:
        import contextlib, multiprocessing
        from suite.process.workers import map_in_processes
        for end in range(60):
            with contextlib.closing(map_in_processes(abs, range(-200, 0), 2)) as results:
                assert [next(results) for _ in range(end)] == list(range(200, 200 - end, -1))
                if end % 3 == 2:  # one is killed at the same time
                    multiprocessing.active_children()[0].kill()
    """
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_no_process_is_left_waiting(tmp_path, victim):
    """A killed worker ends the conversion with a message; killing the conversion ends its workers."""
    write_slow_dataset(tmp_path / "dataset", 60)
    command = [sys.executable, os.path.join(ROOT, "FlowIO.py"), "--dataset", tmp_path / "dataset"]
    command = [str(part) for part in command + ["--output", tmp_path / "out", "--workers", 2]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    children = []
    while len(children) < 2:
        time.sleep(0.02)
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as file:
            children = file.read().split()
    time.sleep(0.3)
    os.kill(int(children[0]) if victim == "worker" else process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    if victim == "worker":
        assert process.returncode == 1 and "a worker process was killed" in err and "Traceback" not in err
        assert os.listdir(str(tmp_path)) == ["dataset"]
    deadline = time.time() + 30
    while any(os.path.exists("/proc/%s" % child) for child in children):
        assert time.time() < deadline
        time.sleep(0.1)
