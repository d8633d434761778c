"""What the scripts share: how they start and fail, the device they use, and the model folder.

A model folder is what train.py writes and evaluate.py and predict.py read: checkpoints
`model.ckpt-<step>.*`, the best of them in `best/`, and `model.json`, which says everything about
the network and the classes, so that nobody has to type it again.
"""

import argparse
import ast
import collections
import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import sys

MODEL_VERSION = 1  # of model.json


class UserError(Exception):
    """A mistake of the user's: shown as one line, never as a traceback. Exit status 1."""

    exit_status = 1


class UsageError(UserError):
    """A mistake in the command line. Exit status 2."""

    exit_status = 2


class Stopped(BaseException):
    """SIGINT or SIGTERM asked the process to end. Exit status 128 + the signal's number."""

    def __init__(self, signal_number):
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


# --- TensorFlow ----------------------------------------


class _TensorFlow:
    """`tensorflow.compat.v1`, imported at first use.

    The import takes seconds; `--help` and a mistake in the command line should not wait for it.
    """

    def __getattr__(self, name):
        value = getattr(importlib.import_module("tensorflow.compat.v1"), name)
        setattr(self, name, value)  # the next time it is found without coming here
        return value


tf = _TensorFlow()


def start(options):
    """Import TensorFlow as --device and --verbose ask for, and say which device it uses.

    Raises:
        UsageError: --device names a GPU that TensorFlow does not see.
    """
    visible = visible_devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    tf.logging.set_verbosity(tf.logging.INFO if options.verbose else tf.logging.FATAL)

    if gpus():
        say("device: %d GPU%s" % (len(gpus()), "s" if len(gpus()) > 1 else ""))
        return
    if options.device not in ("auto", "cpu"):
        raise UsageError("--device %s: TensorFlow sees no such GPU; use cpu" % options.device)
    say("device: CPU, %d cores" % os.cpu_count())
    if options.device == "auto" and tf.test.is_built_with_cuda():
        say("warning: this TensorFlow is built for GPUs and sees none (it needs CUDA 10.0 and cuDNN 7)")


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
    """The GPUs that TensorFlow sees."""
    return tf.config.experimental.list_physical_devices("GPU")


def is_intel():
    """Whether this is Intel's build of TensorFlow, whose convolutions are oneDNN's."""
    from tensorflow.python import pywrap_tensorflow

    return pywrap_tensorflow.IsMklEnabled()


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
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class ArgumentParser(argparse.ArgumentParser):
    """Answers a mistake in one line; knows --device and --verbose."""

    def __init__(self, doc):
        super().__init__(
            description=doc.split("\n")[0],
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, *arguments):
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
        self.exit(2, "%s: error: %s\n" % (self.prog, message))


def device(text):
    """An argparse type: auto, cpu or gpu:<number>."""
    if not re.match(r"(auto|cpu|gpu:\d+)\Z", text):
        raise argparse.ArgumentTypeError("%r is none of auto, cpu, gpu:0, gpu:1, ..." % text)
    return text


def number(kind, low, high=float("inf")):
    """An argparse type: a number of type `kind` (int or float) from `low` to `high`."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            limits = "from %g to %g" % (low, high) if high < float("inf") else "of at least %g" % low
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError("%r is not %s %s" % (text, what, limits))
        return value

    return parse


_live = False  # whether the terminal's last line is one that say_live wrote


def is_terminal():
    return sys.stderr is not None and sys.stderr.isatty()


def say(line):
    """What is not a result goes to standard error."""
    global _live
    print(("\r\033[K" if _live else "") + line, file=sys.stderr, flush=True)
    _live = False


def say_live(line):
    """Show on the terminal a line that the next one takes the place of."""
    global _live
    width = shutil.get_terminal_size().columns - 1
    print("\r\033[K" + line[:width], end="", file=sys.stderr, flush=True)
    _live = True


def stop_at_once():
    """Let SIGINT and SIGTERM raise Stopped, wherever the process is."""

    def stop(signal_number, frame):
        raise Stopped(signal_number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def run(main):
    """End the process with the exit status of `main()`, or of the exception that it ended with."""
    stop_at_once()
    # A file name need not be text.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if stream:  # a service may start us with either closed
            stream.reconfigure(errors=errors)
    program = os.path.basename(sys.argv[0])
    try:
        status = main() or 0
        if sys.stdout:
            sys.stdout.flush()
    except UserError as error:
        say("%s: error: %s" % (program, str(error).replace("\n", "\\n")))  # names may hold newlines
        status = error.exit_status
    except Stopped as stopped:
        say("%s: stopped" % program)
        status = stopped.exit_status
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except Exception as error:
        # Of the machine's failures, such as a full disk or memory, one line says enough.
        if not isinstance(error, (OSError, MemoryError)) and not is_tensorflow_error(error):
            raise
        say("%s: error: %s: %s" % (program, type(error).__name__, str(error).split("\n")[0]))
        status = 1
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, signal.SIG_IGN)  # all is done; the exit status should say so
    sys.exit(status)


def is_tensorflow_error(error):
    """Whether TensorFlow's runtime raised it; asked without importing TensorFlow."""
    return "tensorflow" in sys.modules and isinstance(error, tf.errors.OpError)


# --- the model folder ----------------------------------------

# folder: str; checkpoint: str, path without extension; network: dict, see `logits`; classes: list of
# str in index order; image_size: int, pixels; normalize: str, see FlowIO.normalize; keep_size: whether
# it was trained on pictures that FlowIO.py had not reduced.
Model = collections.namedtuple("Model", "folder checkpoint network classes image_size normalize keep_size")


def load_model(path):
    """The model that `path` names: a model folder (its best checkpoint, else its latest) or a checkpoint.

    Raises:
        UserError: there is no such model, or it was written by another version of the suite.
    """
    folder, checkpoint = path, None
    if os.path.exists(path + ".index"):
        folder, checkpoint = os.path.dirname(path) or ".", path
    elif not os.path.isdir(path):
        raise UserError("%s: no such model folder or checkpoint; train.py makes one" % path)
    for candidate in (folder, os.path.dirname(os.path.abspath(folder))):
        if os.path.exists(os.path.join(candidate, "model.json")):
            folder, start_at = candidate, folder
            break
    else:
        raise UserError("%s: not a model folder, there is no model.json; train.py makes one" % path)
    description = read_json(os.path.join(folder, "model.json"), MODEL_VERSION, "train.py")
    if not checkpoint:
        checkpoint = latest_checkpoint(os.path.join(start_at, "best")) or latest_checkpoint(start_at)
    if not checkpoint:
        raise UserError("%s: no checkpoint in it yet; train.py saves one every --save_num steps" % path)
    fields = ("network", "classes", "image_size", "normalize")
    keep_size = description.get("keep_size", False)
    return Model(folder, checkpoint, *(description[field] for field in fields), keep_size)


def latest_checkpoint(folder):
    """The checkpoint that the folder's `checkpoint` file points to, or None.

    As tf.train.latest_checkpoint, without the seconds that importing TensorFlow takes.
    """
    try:
        with open(os.path.join(folder, "checkpoint"), encoding="utf-8") as file:
            quoted = re.search(r'^model_checkpoint_path: ("(\\.|[^"\\])*")', file.read(), re.MULTILINE)
        name = os.fsdecode(ast.literal_eval("b" + quoted.group(1)))
    except (OSError, ValueError, SyntaxError, AttributeError):  # no such file, or damaged
        return None
    checkpoint = os.path.join(folder, name)
    return checkpoint if os.path.exists(checkpoint + ".index") else None


def checkpoint_step(checkpoint):
    """The step in a checkpoint's name: 2000 for models/resnet/model.ckpt-2000."""
    return int(checkpoint.rpartition("-")[2])


def latest_step(folder):
    """The step of the folder's latest checkpoint, 0 where there is none."""
    checkpoint = latest_checkpoint(folder)
    return checkpoint_step(checkpoint) if checkpoint else 0


def logits(images, network, classes, is_train, layout=None, **options):
    """The network that model.json describes, over normalised pictures.

    Args:
        images: float32 [batch, size, size, 3].
        network: {"layers": 50, "mini": False, "shortcut": "zero_pad", "preactivation": False}.
        layout: "NHWC" or "NCHW" inside; by default the faster one on this machine, which for training
            on the CPU also gets other gradients, see cpu_gradients.py.
        options: more options of resnet.inference.
    """
    import cpu_gradients  # here, because TensorFlow comes with them
    import resnet

    demos = resnet.ResNet_mini_demo if network["mini"] else resnet.ResNet_demo
    layout = layout or data_format()
    if layout == "NCHW":
        images = tf.transpose(images, [0, 3, 1, 2])
    on_cpu = layout == "NHWC" and not gpus() and not is_intel()
    with cpu_gradients.instead() if is_train and on_cpu else contextlib.nullcontext():
        return resnet.inference(
            images,
            demos["layer_%d" % network["layers"]],
            len(classes),
            is_train,
            network["shortcut"],
            network["preactivation"],
            network.get("zero_init_residual", False),
            network.get("dropout", 0),
            data_format=layout,
            **options,
        )


def restore(model, images, layout=None):
    """Build the model's network over `images` and restore its weights; `layout`: see `logits`.

    Returns:
        A session on the default graph, and the float32 probabilities [batch, classes].
    Raises:
        UserError: the checkpoint is damaged or does not fit model.json.
    """
    probabilities = tf.nn.softmax(logits(images, model.network, model.classes, False, layout))
    session = tf.Session(config=session_config())
    load_weights(session, model.checkpoint)
    return session, probabilities


AVERAGED = "/ExponentialMovingAverage"  # suffix of the averages that train.py --ema keeps


def load_weights(session, checkpoint):
    """Give the default graph's variables their values in a checkpoint, or the averages of them that it holds.

    Raises:
        UserError: the checkpoint is damaged or does not fit the graph.
    """
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        values = {}
        for variable in tf.global_variables():
            name = variable.op.name
            name += AVERAGED if reader.has_tensor(name + AVERAGED) else ""
            values[variable.initializer.inputs[1]] = reader.get_tensor(name)
        session.run([variable.initializer for variable in tf.global_variables()], values)
    except (tf.errors.OpError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise UserError("%s: cannot be restored: %s" % (checkpoint, reason)) from error


# --- JSON files with a version ----------------------------------------


def write_json(path, content):
    """Write the dict `content` whole or not at all."""
    with open(path + ".partial", "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")
    os.replace(path + ".partial", path)


def read_json(path, version, maker):
    """The dict in a file that `maker` wrote with this format version, or a UserError."""
    try:
        # Records may lie on gs:// or hdfs://; a local file should not wait for TensorFlow.
        with (tf.gfile.GFile if "://" in path else open)(path, "rb") as file:
            content = json.loads(file.read().decode("utf-8"))
        found = content.get("format_version")
    except (ValueError, AttributeError) as error:
        raise UserError("%s: damaged, not JSON; write it again with %s" % (path, maker)) from error
    if found != version:
        raise UserError(
            "%s: format version %s, this suite reads %s; write it again with %s"
            % (path, found, version, maker)
        )
    return content
