"""Where TensorFlow computes: --device, the GPUs that it sees, how its sessions take memory and threads."""

import argparse
import contextlib
import glob
import os
import re
import shutil
import subprocess

from suite.process import commandline, tf_versions
from suite.process.errors import UsageError
from suite.process.terminal import counted, say
from suite.process.tf_versions import tf

NVIDIA = "0x10de"  # its number as a vendor of PCI devices
DRIVER = "/proc/driver/nvidia/version"


def start(options):
    """Import TensorFlow as --device, --tf32 and --verbose ask for, and say which device it uses.

    For scripts: it sets the environment, and makes version 2 behave as version 1.

    Raises:
        UsageError: --device names a GPU that TensorFlow does not see.
    """
    visible = visible_devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    tf_versions.as_version_1()
    if options.tf32 == "no":
        tf_versions.forbid_tf32()
    tf.logging.set_verbosity(tf.logging.INFO if options.verbose else tf.logging.FATAL)

    if gpus():
        for gpu in gpus():  # tf.distribute opens them by itself, and would take all of their memory
            with contextlib.suppress(RuntimeError, ValueError):  # a notebook has opened or divided them
                tf.config.experimental.set_memory_growth(gpu, True)
        say("device: %s" % counted(len(gpus()), "GPU"))
        return
    if options.device not in ("auto", "cpu"):
        raise UsageError("--device %s: TensorFlow sees no such GPU; use cpu" % options.device)
    say(*describe())
    if options.device == "auto" and has_nvidia():
        with_cuda = "this build needs %s" % tf_versions.cuda()
        for_cpus = "this build is for CPUs alone; README.md has the others, under GPUs"
        say("warning: TensorFlow sees no GPU; " + (with_cuda if tf.test.is_built_with_cuda() else for_cpus))


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


def describe():
    """What computes, a line for each GPU, or one for the CPU: its name and what is known of it."""
    if not gpus():
        return ["device: CPU, %s" % counted(os.cpu_count(), "core")]
    line = "device: %s, compute capability %d.%d, driver %s; %s"
    cards = tf_versions.gpu_details(session_config())
    return [line % (name, *able, driver() or "unknown", suits(able)) for name, able in cards]


def suits(capability):
    """How TensorFlow's code runs on a GPU of this compute capability, (major, minor), in words.

    Binary code runs on its own major and any later minor one; PTX is compiled for any later one.
    """
    code = {name: divmod(int(re.sub(r"\D", "", name)), 10) for name in tf_versions.cuda_code()}
    if not code:
        return "this build does not say what GPUs it has code for"
    fitting = {name: each for name, each in code.items() if each <= capability}
    if any(major == capability[0] for major, _ in fitting.values()):
        return "this TensorFlow has code for it"
    compiled = [each for name, each in fitting.items() if name.startswith("compute")]
    if not compiled:
        return "this TensorFlow cannot run on it: it has code from %d.%d on" % min(code.values())
    latest = "this TensorFlow has code up to %d.%d, which the driver compiles at the first use, for minutes"
    return latest % max(compiled)


def cores():
    """How many this process may use, as taskset or a cpuset has it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def driver():
    """The version of NVIDIA's driver; None where it does not say."""
    with contextlib.suppress(OSError), open(DRIVER) as file:
        found = re.search(r"NVRM version:.*?\s(\d+\.[\d.]+)\s", file.read())
        if found:
            return found.group(1)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError):
        asked = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
        try:
            answer = asked.communicate(timeout=10)[0].split("\n")[0]
            return answer if asked.returncode == 0 else None
        except subprocess.TimeoutExpired:  # it may hang in the driver, where it cannot even be killed
            asked.kill()
    return None


def data_format():
    """The layout that convolutions are fastest in; checkpoints are the same in both."""
    return "NCHW" if gpus() else "NHWC"


def likely_data_format(device):
    """What `data_format` will be for --device; does not import TensorFlow."""
    return "NCHW" if device != "cpu" and has_nvidia() else "NHWC"


def session_config(workers=0, xla=False, cpu_only=False, mixed_precision=False):
    """How a session computes. GPU memory grows as needed instead of being taken whole.

    What a GPU has no code for, such as pictures for TensorBoard, the CPU computes, as tf.estimator has it.

    Args:
        workers: CPU threads; 0: as many as cores.
        xla: whether XLA compiles what it can.
        cpu_only: whether it leaves GPUs alone.
        mixed_precision: whether TensorFlow may take float16, which it is told once for all later sessions.
    """
    config = tf.ConfigProto(
        device_count={"GPU": 0} if cpu_only else {},
        allow_soft_placement=True,
        gpu_options=tf.GPUOptions(allow_growth=True),
        intra_op_parallelism_threads=workers,
        inter_op_parallelism_threads=workers,
    )
    # A second round of rewriting the graph takes up to seconds at the start and makes no step faster.
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    rewriting.auto_mixed_precision = rewriting.ON if mixed_precision else rewriting.OFF
    if xla:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return config
