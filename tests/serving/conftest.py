"""serve.py, running."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from helpers import MINUTES, ROOT


class Serving:
    """A serve.py that serves a model, and all that it said."""

    def __init__(self, model, *options):
        command = [sys.executable, os.path.join(ROOT, "serve.py"), "--model", model, "--port", "0"]
        self.process = subprocess.Popen(
            [*command, *map(str, options)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self.said = []
        started = threading.Event()

        def listen():
            for line in self.process.stderr:
                self.said.append(line.rstrip("\n"))
                if line.startswith("serving "):
                    started.set()
            started.set()

        self.thread = threading.Thread(target=listen)
        self.thread.start()
        assert started.wait(MINUTES * 60) and self.process.poll() is None, self.said
        self.name, self.port = re.search(r"serving (.*) at http://.*:(\d+)/$", self.said[-1]).groups()
        self.port = int(self.port)

    def stop(self, number=signal.SIGTERM):
        """Returns the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(60)
        self.thread.join()
        assert not any("Traceback" in line for line in self.said), self.said
        return status


@pytest.fixture
def start():
    """Starts a Serving."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            serving = Serving(*arguments)
            stack.callback(lambda: serving.process.poll() is None and serving.stop())
            return serving

        yield start


@pytest.fixture(scope="module")
def serving(workspace):
    """A Serving of the workspace's model."""
    serving = Serving(workspace.model, "--log")
    yield serving
    assert serving.stop() == 0
