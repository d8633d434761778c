"""What the scripts share: how they start and fail, their command line, and the device they use."""

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import unicodedata

from suite.process import tf_versions
from suite.process.tf_versions import tf


class UserError(Exception):
    """A mistake of the user's: shown as one line, never as a traceback. Exit status 1."""

    exit_status = 1


class UsageError(UserError):
    """A mistake in the command line. Exit status 2."""

    exit_status = 2


class Stopped(BaseException):
    """SIGINT or SIGTERM asked train.py to end. Exit status 128 + the signal's number."""

    def __init__(self, signal_number):
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


# --- TensorFlow ----------------------------------------


def start(options):
    """Import TensorFlow as --device and --verbose ask for, and say which device it uses.

    Raises:
        UsageError: --device names a GPU that TensorFlow does not see.
    """
    visible = visible_devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    tf_versions.load()
    tf.logging.set_verbosity(tf.logging.INFO if options.verbose else tf.logging.FATAL)

    if gpus():
        say("device: %s" % counted(len(gpus()), "GPU"))
        return
    if options.device not in ("auto", "cpu"):
        raise UsageError("--device %s: TensorFlow sees no such GPU; use cpu" % options.device)
    say("device: CPU, %s" % counted(os.cpu_count(), "core"))
    if options.device == "auto" and tf.test.is_built_with_cuda():
        say("warning: TensorFlow sees no GPU; this build needs %s" % tf_versions.cuda())


def visible_devices(device, already):
    """What CUDA_VISIBLE_DEVICES must be for --device, or None to leave it.

    `already` is its present value, None if not set: "gpu:1" is the second of those that it names.
    """
    if device == "auto":
        return already
    if device == "cpu":
        return "-1"
    number = device[len("gpu:") :]
    if already is None:
        return number
    named = already.split(",")
    return named[int(number)] if int(number) < len(named) else "-1"


def gpus():
    """A list of the GPUs that TensorFlow sees; imports it."""
    return tf.config.experimental.list_physical_devices("GPU")


def data_format():
    """The layout that convolutions are fastest in; checkpoints are the same in both."""
    return "NCHW" if gpus() else "NHWC"


def session_config(workers=0):
    """GPU memory grows as needed instead of being taken whole; `workers` CPU threads, 0: as many as cores."""
    config = tf.ConfigProto(
        gpu_options=tf.GPUOptions(allow_growth=True),
        intra_op_parallelism_threads=workers,
        inter_op_parallelism_threads=workers,
    )
    # A second round of rewriting the graph takes up to seconds at the start and makes no step faster.
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    return config


# --- the command line ----------------------------------------


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults, but for switches and options that have none."""

    def _get_help_string(self, action):
        shown = action.default not in (None, []) and action.default is not False
        return super()._get_help_string(action) if shown else action.help


class ArgumentParser(argparse.ArgumentParser):
    """Answers a mistake in one line; knows --device and --verbose."""

    def __init__(self, doc):
        super().__init__(
            description=doc.split("\n")[0],
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, *arguments):
        """As argparse's; also keeps TensorFlow's C++ code quiet from here on, unless --verbose was given."""
        group = self.add_argument_group("machine")
        group.add_argument(
            "--device",
            type=device,
            default="auto",
            metavar="{auto,cpu,gpu:0,...}",
            help="where to compute",
        )
        group.add_argument("--verbose", action="store_true", help="show TensorFlow's own messages")
        options = super().parse_args(*arguments)
        if not options.verbose:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # has to be there when TensorFlow is imported
        return options

    def error(self, message):
        """End with exit status 2 and one line, without argparse's lines of usage."""
        self.exit(2, "%s: error: %s\n" % (self.prog, message))


def device(text):
    """An argparse type: auto, cpu or gpu:<number>, as str."""
    if not re.match(r"(auto|cpu|gpu:\d+)\Z", text):
        raise argparse.ArgumentTypeError("%r is none of auto, cpu, gpu:0, gpu:1, ..." % text)
    return text


def number(kind, low, high=float("inf")):
    """An argparse type: a number of type `kind` (int or float) from `low` to `high`, both included."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high or value == float("inf"):
            limits = "from %g to %g" % (low, high) if high < float("inf") else "of at least %g" % low
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError("%r is not %s %s" % (text, what, limits))
        return value

    return parse


def printable(text):
    """Text from outside for a terminal, its control characters, which could do anything there, spelt out."""
    return re.sub("[\0-\x1f\x7f-\x9f]", lambda match: "\\x%02x" % ord(match.group()), text)


def counted(number, noun, plural=None):
    """1 picture, 2 pictures; `plural` where it takes more than an s."""
    return "%d %s" % (number, noun if number == 1 else plural or noun + "s")


def columns(text):
    """How many columns of a terminal a text takes: Chinese signs are as wide as two others."""
    widths = (2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
    return sum(width for sign, width in zip(text, widths) if not unicodedata.combining(sign))


def left(text, width):
    """Text from outside for a table: `printable`, and filled up with spaces to a number of columns."""
    return printable(text) + " " * (width - columns(printable(text)))


def csv_cell(text):
    """Text from outside for a table; what a spreadsheet would run gets a ' before it, as OWASP advises."""
    return "'" + text if re.match(r"[=+@\t\r]|-(?![0-9.]+\Z)", text) else text


_live = False  # whether the terminal's last line is one that say_live wrote


def is_terminal():
    """Whether a person may be watching standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def say(line):
    """What is not a result goes to standard error."""
    global _live
    print(("\r\033[K" if _live else "") + printable(line), file=sys.stderr, flush=True)
    _live = False


def say_live(line):
    """Show on the terminal a line that the next one takes the place of."""
    global _live
    width = shutil.get_terminal_size().columns - 1
    print("\r\033[K" + line[:width], end="", file=sys.stderr, flush=True)
    _live = True


STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_tidying: list = []  # what `tidying` was given


def stop_at_once():
    """Let SIGINT and SIGTERM end the process where it is, with exit status 128 + the signal's number.

    Not by an exception, which destructors forget and which can crash C code that it comes through.
    """
    ours = os.getpid()
    messages = os.dup(2) if sys.stderr else None  # tf_versions.silent may have sent 2 elsewhere by then

    def stop(signal_number, frame):
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        try:
            if os.getpid() == ours:  # not in a process that has just been forked
                for tidy in reversed(_tidying):
                    with contextlib.suppress(OSError):
                        tidy()
                if messages is not None:
                    line = "%s%s: stopped\n" % ("\r\033[K" if is_terminal() else "", program())
                    os.write(messages, os.fsencode(line))
        finally:
            os._exit(128 + signal_number)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


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


def progress_bar(what, total):
    """A bar of pictures on the terminal, if standard error is one."""
    from tqdm import tqdm  # here, because train.py and predict.py have no use for it

    return tqdm(desc=what, total=total, unit="img", disable=None)


def program():
    """The script's name, for messages."""
    return os.path.basename(sys.argv[0])


def run(main):
    """End the process with the exit status of `main()`, or of the exception that it ended with."""
    stop_at_once()
    # A file name need not be text.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if stream:  # a service may start us with either closed
            stream.reconfigure(errors=errors)
    try:
        status = main() or 0
        if sys.stdout:
            sys.stdout.flush()
    except UserError as error:
        say("%s: error: %s" % (program(), error))
        status = error.exit_status
    except Stopped as stopped:
        say("%s: stopped" % program())
        status = stopped.exit_status
    except SystemExit as end:  # argparse's, after --help or a mistake
        status = end.code
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        # Of the machine's failures, such as a full disk or memory, one line says enough.
        if not isinstance(error, (OSError, MemoryError)) and not is_tensorflow_error(error):
            raise
        if isinstance(error, OSError) and error.filename:
            # os.makedirs says "File exists" of a file in the place of a folder.
            reason = "is a file, not a folder" if isinstance(error, FileExistsError) else error.strerror
            say("%s: error: %s: %s" % (program(), os.fsdecode(error.filename), reason))
        else:
            say("%s: error: %s: %s" % (program(), type(error).__name__, tf_versions.reason(error)))
        status = 1
    for signal_number in STOP_SIGNALS:
        signal.signal(signal_number, signal.SIG_IGN)  # all is done; the exit status should say so
    sys.exit(status)


def is_tensorflow_error(error):
    """Whether TensorFlow's runtime raised it; asked without importing TensorFlow."""
    return "tensorflow" in sys.modules and isinstance(error, tf.errors.OpError)
