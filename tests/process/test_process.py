"""Where it computes, and how it ends by a signal."""

import subprocess
import sys

import pytest
from helpers import ROOT

from suite.process import device


@pytest.mark.parametrize(
    "asked, already, expected",
    [
        ("auto", None, None),
        ("auto", "2,3", "2,3"),
        ("cpu", "2,3", "-1"),
        ("gpu:0", None, "0"),
        ("gpu:1", None, "1"),
        ("gpu:1", "2,3", "3"),
        ("gpu:2", "2,3", "-1"),
        ("gpu:0", "", ""),
    ],
)
def test_the_device_is_chosen_among_the_visible_ones(asked, already, expected):
    assert device.visible_devices(asked, already) == expected


MOMENTS = {
    "anywhere": "os.kill(os.getpid(), 15)",
    "in a destructor": "class Forgets:\n def __del__(self): os.kill(os.getpid(), 15)\nForgets()",
    "while a module forgets all exceptions": "try: os.kill(os.getpid(), 15)\nexcept BaseException: pass",
    "in a process that was forked, too": "if not os.fork(): os.kill(os.getpid(), 15)\nos.wait()\n"
    "os.kill(os.getpid(), 15)",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_stops_at_once_and_tidies_once(moment):
    body = MOMENTS[moment].split("\n") + ["time.sleep(9)"]
    code = [
        "import os, time",
        "from suite.process import lifetime",
        "def main():",
        " with lifetime.tidying(lambda: os.write(1, b'tidied')):",
    ]
    code += ["  " + line for line in body] + ["lifetime.run(main)"]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"tidied", b"-c: stopped\n")
