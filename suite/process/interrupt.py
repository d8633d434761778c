"""Ctrl-C while a script still imports what it needs: one line, no traceback. Imported before all else.

`lifetime.run` takes over. Before this file is reached, Python itself starts, and answers in its own way.
"""

import _signal  # `signal` makes enumerations at first, and until that is done Ctrl-C gives a traceback
import os
import sys


def stop(signal_number, frame):
    """End at once: nothing has been begun. Not by an exception, which some imports would swallow."""
    os.write(2, b"%s: stopped\n" % os.fsencode(os.path.basename(sys.argv[0])))
    os._exit(128 + signal_number)


for number in (_signal.SIGINT, _signal.SIGTERM):
    _signal.signal(number, stop)
