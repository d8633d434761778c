"""What has to be before a script imports what it needs: Ctrl-C is one line, and so is Windows.

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


if not in_notebook():
    for number in (_signal.SIGINT, _signal.SIGTERM):
        _signal.signal(number, stop)
