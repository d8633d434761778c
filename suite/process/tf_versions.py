"""`tf`: TensorFlow 1.15, or 2.15, which carries the same interface on as `tensorflow.compat.v1`.

1.15 is what the suite is written for and the reference; 2.15 is for machines that 1.15 does not serve. The
files, checkpoints, records and exports are the same. What differs stands here alone.
"""

import contextlib
import functools
import importlib
import os
import re
import sys
import threading
import warnings


class _TensorFlow:
    """`tensorflow.compat.v1`, imported at first use.

    The import takes seconds; `--help` and a mistake in the command line should not wait for it.
    """

    def __getattr__(self, name):
        value = getattr(import_tensorflow(), name)
        setattr(self, name, value)  # the next time it is found without coming here
        return value


tf = _TensorFlow()


# Told without importing it: 1.15 has packages for Python up to 3.8, 2.15 from 3.9 on.
VERSION = "1.15" if sys.version_info < (3, 9) else "2.15"


def import_tensorflow():
    """Import TensorFlow and change nothing in it: in a program of somebody else's it may have other users."""
    return importlib.import_module("tensorflow.compat.v1")


@functools.lru_cache(None)
def as_version_1():
    """For a process that is ours alone: version 2 builds graphs and runs them in sessions, as version 1."""
    let_xla_do_without_ptxas()
    module = import_tensorflow()
    if module.__version__.startswith("2."):
        verbosity = module.logging.get_verbosity()
        module.logging.set_verbosity(module.logging.FATAL)  # it advises against what comes now
        module.disable_v2_behavior()
        module.logging.set_verbosity(verbosity)
        warnings.filterwarnings("ignore", "`tf.layers", UserWarning)


def is_2():
    """Whether it is TensorFlow 2.15; imports it."""
    return tf.__version__.startswith("2.")


def has_onednn():
    """Whether the CPU's convolutions are oneDNN's: in Intel's build of 1.15; in 2.15, if not switched off."""
    if is_2():
        from tensorflow.python.util import _pywrap_util_port as build
    else:
        from tensorflow.python import pywrap_tensorflow as build
    return build.IsMklEnabled()


def reason(error):
    """What an exception says, in one line. Version 2 says first where in the graph it was."""
    return re.match(r"(?:Graph execution error:.*?\nNode: [^\n]*\n)?([^\n]*)", str(error), re.DOTALL).group(1)


def is_tensorflow_error(error):
    """Whether TensorFlow's runtime raised it; asked without importing TensorFlow."""
    return "tensorflow" in sys.modules and isinstance(error, tf.errors.OpError)


def checkpoint_errors():
    """What reading a checkpoint may raise. Where one is too short, version 2 raises Python's IndexError."""
    return tf.errors.OpError, ValueError, IndexError


_advice = threading.Lock()


@contextlib.contextmanager
def without_advice():
    """No advice against functions of version 1, in TensorFlow's log or as warnings.

    For where the program is somebody else's. The switches are the whole program's, so one thread at a time.
    """
    from tensorflow.python.util import deprecation

    with _advice, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = deprecation._PRINT_DEPRECATION_WARNINGS
        deprecation._PRINT_DEPRECATION_WARNINGS = False
        try:
            yield
        finally:
            deprecation._PRINT_DEPRECATION_WARNINGS = kept


def forbid_tf32():
    """No TF32, for which GPUs from Ampere on leave out 13 of the 23 bits of each factor.

    To be called before a GPU is opened.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # which NVIDIA's libraries obey, and read when they are set up
    if VERSION == "2.15":  # has kernels of its own, too
        tf.config.experimental.enable_tensor_float_32_execution(False)


def let_xla_do_without_ptxas():
    """Where CUDA lacks that compiler the driver compiles for XLA; version 2 would abort the process.

    To be called before TensorFlow is imported.
    """
    if VERSION == "2.15":  # another would abort at a flag that it does not know
        flags = os.environ.get("XLA_FLAGS", ""), "--xla_gpu_unsafe_fallback_to_driver_on_ptxas_not_found=true"
        os.environ["XLA_FLAGS"] = " ".join(flags).strip()


@contextlib.contextmanager
def silent(verbose):
    """Nothing on standard error, where TensorFlow Lite of 2.15 writes whatever the level of the log is."""
    if verbose:
        yield
        return
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def cuda():
    """What it needs for GPUs."""
    return "CUDA 12.2 and cuDNN 8.9" if is_2() else "CUDA 10.0 and cuDNN 7"


def cuda_code():
    """The compute capabilities that the build has code for: sm_XY, or compute_XY, which comes as PTX too.

    None are known of builds of 1.15 but the one of its makers.
    """
    if is_2():
        return tf.sysconfig.get_build_info().get("cuda_compute_capabilities", [])
    from tensorflow.python.platform import build_info

    in_its_wheel = ["compute_%d" % number for number in (35, 37, 52, 60, 61, 70)]
    return in_its_wheel if getattr(build_info, "cuda_version_number", None) == "10" else []


def gpu_details(session_config):
    """[name, (major, minor) of the compute capability] of each GPU that it sees.

    Args:
        session_config: a tf.ConfigProto; 1.15 opens the GPUs, as a session would, to ask them.
    """
    if is_2():
        details = tf.config.experimental.get_device_details
        gpus = map(details, tf.config.experimental.list_physical_devices("GPU"))
        return [[gpu["device_name"], gpu["compute_capability"]] for gpu in gpus]
    from tensorflow.python.client import device_lib

    said = [each.physical_device_desc for each in device_lib.list_local_devices(session_config)]
    found = re.findall(r"name: (.*?), pci bus.*compute capability: (\d+)\.(\d+)", "\n".join(said))
    return [[name, (int(major), int(minor))] for name, major, minor in found]


def requirements(purpose):
    """The name of the file that lists the packages for a purpose."""
    return "requirements/tf%d-%s.txt" % (2 if is_2() else 1, purpose)
