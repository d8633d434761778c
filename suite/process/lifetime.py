"""How a script starts, ends, and tidies up, also where a signal ends it."""

import contextlib
import os
import select
import shutil
import signal
import sys
import tempfile
import threading

from suite.process import tf_versions
from suite.process.errors import Stopped, UserError
from suite.process.terminal import is_terminal, say

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a terminal that closes; not with nohup
    STOP_SIGNALS.append(signal.SIGHUP)
_tidying: list = []  # what `tidying` was given


def stop_at_once():
    """Let stop signals end the process where it is, with exit status 128 + the signal's number.

    Not by an exception, which destructors forget and which can crash C code that it comes through.
    """
    ours = os.getpid()
    messages = os.dup(2) if sys.stderr else None  # tf_versions.silent may have sent 2 elsewhere by then

    def stop(signal_number, frame):
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        try:
            if os.getpid() == ours:  # not in a process that has just been forked
                tidy_up()
                # A pipe that nobody reads may be full.
                if messages is not None and select.select([], [messages], [], 0)[1]:
                    line = "%s%s: stopped\n" % ("\r\033[K" if is_terminal() else "", program())
                    os.write(messages, os.fsencode(line))
        finally:
            os._exit(128 + signal_number)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


def tidy_up():
    """What `tidying` was given, where the process is about to end without leaving these contexts."""
    for tidy in reversed(_tidying):
        with contextlib.suppress(OSError):
            tidy()


def stop_within_libraries():
    """Let stop signals end the process also while the main thread waits inside one, where no handler runs."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)  # gets the number of each signal as it comes

    def wait():
        number = os.read(reader, 1)[0]
        tidy_up()
        os._exit(128 + number)

    threading.Thread(target=wait, daemon=True).start()


def catch_stop_signals():
    """A list that the number of the first stop signal is appended to; the second ends all at once."""
    received = []

    def handle(signal_number, frame):
        received.append(signal_number)
        stop_at_once()
        if signal_number == signal.SIGHUP:  # which comes twice, from the shell and from the system
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        elif select.select([], [sys.stderr], [], 0)[1]:  # not into a full pipe
            say("stopping after this step; a second signal stops at once, without saving")

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    return received


@contextlib.contextmanager
def tidying(tidy):
    """Have `tidy()` called at the end of the context, also where that is a stop signal's."""
    _tidying.append(tidy)
    try:
        yield
    finally:
        tidy()
        _tidying.remove(tidy)


@contextlib.contextmanager
def temporary_folder():
    """A folder that goes at the end of the context; see `tidying`."""
    folder = tempfile.mkdtemp()
    with tidying(lambda: shutil.rmtree(folder, ignore_errors=True)):
        yield folder


def program():
    """The script's name, for messages."""
    return os.path.basename(sys.argv[0])


def run(main):
    """End the process with the exit status of `main()`, or of the exception that it ended with."""
    from suite.process import interrupt  # here, because importing it changes what a program does

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    notebook = interrupt.in_notebook()
    if not notebook:
        stop_at_once()
    if not sys.stdout:  # a service may start us with it closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    # A file name need not be text.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if hasattr(stream, "reconfigure"):  # not where it is closed, and a notebook's are its own
            stream.reconfigure(errors=errors)
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        say("%s: error: %s" % (program(), error))
        status = error.exit_status
    except Stopped as stopped:
        say("%s: stopped; %s" % (program(), stopped))
        status = stopped.exit_status
    except SystemExit as end:  # argparse's, after --help or a mistake
        status = end.code
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        # Of the machine's failures, such as a full disk or memory, one line says enough.
        if not isinstance(error, (OSError, MemoryError)) and not tf_versions.is_tensorflow_error(error):
            raise
        if isinstance(error, OSError) and error.filename:
            # os.makedirs says "File exists" of a file in the place of a folder.
            reason = "is a file, not a folder" if isinstance(error, FileExistsError) else error.strerror
            say("%s: error: %s: %s" % (program(), os.fsdecode(error.filename), reason))
        else:
            say("%s: error: %s: %s" % (program(), type(error).__name__, tf_versions.reason(error)))
        status = 1
    for signal_number in STOP_SIGNALS:  # all is done; the exit status should say so
        signal.signal(signal_number, before[signal_number] if notebook else signal.SIG_IGN)
    sys.exit(status)
