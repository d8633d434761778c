"""What has to be before a script imports what it needs: Ctrl-C is one line, and so are Windows and a Python
that lacks the packages.

`lifetime.run` takes over. Before this file is reached, Python itself starts, and answers in its own way.
"""

import _signal  # `signal` makes enumerations at first, and until that is done Ctrl-C gives a traceback
import builtins
import os
import sys

if sys.platform == "win32":
    sys.exit("%s: error: Windows is supported by WSL only: wsl --install, and run it there" % sys.argv[0])


def in_notebook():
    """Whether this runs within IPython, as by %run: others' work is in the process, which must not end."""
    return "__IPYTHON__" in vars(builtins)


def stop(signal_number, frame):
    """End at once: nothing has been begun. Not by an exception, which some imports would swallow."""
    os.write(2, b"%s: stopped\n" % os.fsencode(os.path.basename(sys.argv[0])))
    os._exit(128 + signal_number)


def explain(kind, error, traceback):
    """Answer what is not caught: where a package is not installed, in one line."""
    missing = getattr(error, "name", None) if kind is ModuleNotFoundError else None
    if not missing or "." in missing or missing == "suite":
        sys.__excepthook__(kind, error, traceback)
        return
    cure = "source .venv/bin/activate (of make demo TF=2.15: .venv-tf2), or pip install -r requirements.txt"
    package = {"PIL": "Pillow"}.get(missing, missing)
    names = os.path.basename(sys.argv[0]), package, sys.executable, cure
    sys.stderr.write("%s: error: %s is not installed for %s; %s\n" % names)


if not in_notebook():
    sys.excepthook = explain
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, stop)
