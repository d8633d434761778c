"""Where TensorFlow computes: --device, the GPUs that it sees, how its sessions take memory and threads."""

import argparse
import contextlib
import glob
import os
import shutil

from suite.process import commandline, tf_versions
from suite.process.errors import UsageError
from suite.process.terminal import counted, say
from suite.process.tf_versions import tf

NVIDIA = "0x10de"  # its number as a vendor of PCI devices


def start(options):
    """Import TensorFlow as --device, --tf32 and --verbose ask for, and say which device it uses.

    For scripts: it sets the environment, and makes version 2 behave as version 1.

    Raises:
        UsageError: --device names a GPU that TensorFlow does not see.
    """
    visible = visible_devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    if options.tf32 == "no":
        tf_versions.forbid_tf32()
    tf_versions.as_version_1()
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


def choose(name):
    """Where one session computes, for a program whose TensorFlow has other users: nothing global is set.

    Args:
        name: "auto", "cpu", "gpu:0", ... of the GPUs that TensorFlow sees.
    Returns:
        What tf.device takes, the layout of the network there, and a tf.ConfigProto.
    Raises:
        UsageError: there is no such device.
    """
    try:
        commandline.device_name(name)
    except argparse.ArgumentTypeError as error:
        raise UsageError("device: %s" % error) from None
    seen = gpus()
    if name == "cpu" or name == "auto" and not seen:
        return "/cpu:0", "NHWC", session_config(cpu_only=True)
    number = int(name[len("gpu:") :]) if name != "auto" else 0
    if number >= len(seen):
        raise UsageError("device %s: TensorFlow sees %s" % (name, counted(len(seen), "GPU")))
    return "/gpu:%d" % number, "NCHW", session_config()


def gpus():
    """A list of the GPUs that TensorFlow sees; imports it."""
    return tf.config.experimental.list_physical_devices("GPU")


def data_format():
    """The layout that convolutions are fastest in; checkpoints are the same in both."""
    return "NCHW" if gpus() else "NHWC"


def likely_data_format(device):
    """What `data_format` will be for --device; does not import TensorFlow."""
    return "NCHW" if device != "cpu" and has_nvidia() else "NHWC"


def session_config(workers=0, cpu_only=False):
    """GPU memory grows as needed instead of being taken whole; `workers` CPU threads, 0: as many as cores."""
    config = tf.ConfigProto(
        device_count={"GPU": 0} if cpu_only else {},
        gpu_options=tf.GPUOptions(allow_growth=True),
        intra_op_parallelism_threads=workers,
        inter_op_parallelism_threads=workers,
    )
    # A second round of rewriting the graph takes up to seconds at the start and makes no step faster.
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    return config
