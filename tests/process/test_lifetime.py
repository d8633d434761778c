"""How a script ends: by a signal, without a reader, without a package."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT

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


@pytest.mark.parametrize("is_ignored, status", [(False, 129), (True, 143)])
def test_a_terminal_that_closes_stops_it_but_with_nohup(is_ignored, status):
    """SIGHUP, and then SIGTERM."""
    handler = signal.SIG_IGN if is_ignored else signal.SIG_DFL
    code = "import os, time; from suite.process import lifetime; lifetime.stop_at_once()"
    code += "; os.kill(os.getpid(), 1); os.kill(os.getpid(), 15)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, preexec_fn=lambda: signal.signal(signal.SIGHUP, handler))
    assert done.returncode == status


def test_a_terminal_that_closes_lets_a_training_save():
    """Though SIGHUP comes twice then, from the shell and from the system."""
    code = "import os, time; from suite.process import lifetime; received = lifetime.catch_stop_signals()"
    code += "; [(os.kill(os.getpid(), 1), time.sleep(0.01)) for _ in 'ab']; print(len(received))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) == b"1\n"


def test_a_signal_ends_it_though_nobody_reads_what_it_says():
    """A pipe that is full, as of a pager that waits."""
    code = "import sys, time; from suite.process import lifetime; lifetime.stop_at_once()"
    code += "; print(flush=True); sys.stderr.write('x' * 10**6)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        process.stdout.readline()
        time.sleep(0.5)
        process.terminate()
        assert process.wait(timeout=30) == 143


def test_what_nobody_can_read_does_not_end_the_work():
    """Standard error is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "from suite.process.terminal import say; say('x'); print('done')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.parametrize("script", ["FlowIO.py", "train.py", "evaluate.py", "predict.py", "export.py"])
def test_a_missing_package_is_one_line(script):
    """-S: without what is installed."""
    command = [sys.executable, "-S", os.path.join(ROOT, script), "--help"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env={})
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"%s: error: \w+ is not installed for .*\n" % script, done.stderr)


def test_other_failures_of_an_import_are_not_hidden():
    for statement, says in (("import PIL.none", "No module"), ("raise KeyError(1)", "KeyError: 1")):
        code = "from suite.process import interrupt\n" + statement
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
        assert done.returncode == 1 and "Traceback" in done.stderr and says in done.stderr
