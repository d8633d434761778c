"""Where TensorFlow computes: --device, the GPUs that it sees, how its sessions take memory and threads."""

import contextlib
import glob
import os
import shutil

from suite.process import tf_versions
from suite.process.errors import UsageError
from suite.process.terminal import counted, say
from suite.process.tf_versions import tf

NVIDIA = "0x10de"  # its number as a vendor of PCI devices


def start(options):
    """Import TensorFlow as --device and --verbose ask for, and say which device it uses.

    Raises:
        UsageError: --device names a GPU that TensorFlow does not see.
    """
    visible = visible_devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    tf_versions.import_tensorflow()
    tf.logging.set_verbosity(tf.logging.INFO if options.verbose else tf.logging.FATAL)

    if gpus():
        say("device: %s" % counted(len(gpus()), "GPU"))
        return
    if options.device not in ("auto", "cpu"):
        raise UsageError("--device %s: TensorFlow sees no such GPU; use cpu" % options.device)
    say("device: CPU, %s" % counted(os.cpu_count(), "core"))
    if options.device == "auto" and has_nvidia() and tf.test.is_built_with_cuda():
        say("warning: TensorFlow sees no GPU; this build needs %s" % tf_versions.cuda())


def has_nvidia():
    """Whether the machine has an NVIDIA device, with a driver or without. Does not import TensorFlow."""
    if shutil.which("nvidia-smi") or os.path.exists("/dev/nvidia0"):
        return True
    for path in glob.glob("/sys/bus/pci/devices/*/vendor"):
        with contextlib.suppress(OSError), open(path) as file:
            if file.read().strip() == NVIDIA:
                return True
    return False


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


def session_config(workers=0, xla=False):
    """How a session computes. GPU memory grows as needed instead of being taken whole.

    Args:
        workers: CPU threads; 0: as many as cores.
        xla: whether XLA compiles what it can.
    """
    config = tf.ConfigProto(
        gpu_options=tf.GPUOptions(allow_growth=True),
        intra_op_parallelism_threads=workers,
        inter_op_parallelism_threads=workers,
    )
    # A second round of rewriting the graph takes up to seconds at the start and makes no step faster.
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    if xla:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return config
