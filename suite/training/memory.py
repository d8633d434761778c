"""The memory that a training takes, told from its graph: for --dry_run, and where it does not suffice."""

import contextlib
import math
import os
import resource

from suite.files.schemas import SPLITS
from suite.model.network import build_logits
from suite.process import device, terminal
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.training.step import training_step

BASE = 350e6  # bytes that Python and TensorFlow take by themselves
# How much more is really taken, because operations run side by side and freed memory has gaps: from
# benchmarks/growth.py.
SLACK = 1.3
ROOM = 0.8  # of the memory a suggested --batch_size takes at most this share
# Pictures that one device is given at a time where nothing is trained; --batch_size is of all devices.
AT_ONCE = 256
HOPELESS = 2  # a batch estimated at more than so many times the memory is refused
# Operations whose result is their input's memory: always, or where nothing else needs that any more.
ALIASES = {"Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient"}
IN_PLACE = {"Add", "AddV2", "AddN", "BiasAdd", "Mul", "Sub", "Relu", "ReluGrad", "RealDiv"}
VARIABLES = {"VariableV2", "VarHandleOp"}


def print_needs(config, records, devices=1):
    """Print parameters, multiply-adds, memory on each of the devices, and data."""
    options = config["options"]
    parameters, operations = of_one_picture(config)
    print(f"parameters: {parameters:,}")
    print(f"multiply-adds: {operations:,} per picture")
    fixed, per_picture = estimate(config, devices)
    needed = fixed + options["batch_size"] / devices * per_picture
    each = " on each of %d devices" % devices if devices > 1 else ""
    values = needed / 1e9, each, options["batch_size"]
    print("memory: about %.1f GB%s to train, for %d pictures per step" % values)
    files = [name for split in SPLITS for name in records.shard_names(split)]
    taken = sum(records.shards.get(name, 0) for name in files)
    print("records: %s, %.1f MB" % (terminal.counted(len(files), "file"), taken / 1e6))
    for name in records.classes:
        numbers = ["%d %s" % (records.counts[split].get(name, 0), split) for split in SPLITS]
        print("  %s: %s" % (name, ", ".join(numbers)))


def of_one_picture(config):
    """The network's parameters, and the multiply-adds of its forward pass."""
    size = config["image_size"]
    with tf.Graph().as_default() as graph:
        build_logits(tf.zeros([1, size, size, 3]), config["network"], config["classes"], False)
        return sum(v.shape.num_elements() for v in tf.trainable_variables()), multiply_adds(graph)


def check_batch(batch_size, train_op):
    """Warn of a batch that will hardly fit: the system may kill the process without a word, or oneDNN crash.

    Args:
        batch_size: pictures per step.
        train_op: of the training, in whose graph we are.
    Raises:
        UserError: it cannot fit.
    """
    fixed, per_picture = estimate_of(train_op, batch_size)
    share = (fixed + batch_size * per_picture) / memory_limit()
    if share > HOPELESS:
        raise UserError(too_large(batch_size, fixed, per_picture))
    if share > 1:
        say("warning: " + too_large(batch_size, fixed, per_picture))


def out_of_memory(config, devices=1):
    """What to say where the memory did not suffice; `devices`: that share each batch."""
    return "out of memory: " + too_large(config["options"]["batch_size"], *estimate(config, devices), devices)


def too_large(batch_size, fixed, per_picture, devices=1):
    """That a batch does not fit, and the one that would; the arguments as from `estimate`."""
    pictures = batch_size / devices
    message = "--batch_size %d needs about %.1f GB%s where there are %.1f; "
    each = " on each of %d devices" % devices if devices > 1 else ""
    message %= batch_size, (fixed + pictures * per_picture) / 1e9, each, memory_limit() / 1e9
    fits = min(ROOM * memory_limit() - fixed, pictures * per_picture / 2) / per_picture
    if fits < 2:
        return message + "take --mini, fewer --layers or smaller pictures (FlowIO.py --image_size)"
    return message + "--batch_size %d would fit" % (devices * 2 ** int(math.log2(fits)))


def estimate(config, devices=1):
    """Bytes that a training takes on each device: those for any batch, and those for each picture in it."""
    batch_size, size = config["options"]["batch_size"] // devices, config["image_size"]
    with tf.Graph().as_default():
        tf.train.create_global_step()
        features = {
            "image": tf.placeholder(tf.float32, [batch_size, size, size, 3]),
            "label": tf.placeholder(tf.int64, [batch_size]),
        }
        return estimate_of(training_step(features, config).train_op, batch_size)


def estimate_of(train_op, batch_size):
    """`estimate`, for a training whose graph is built already."""
    return SLACK * (BASE + variable_bytes()), SLACK * peak_bytes(train_op) / batch_size


def memory_limit():
    """Bytes that a training may take: on the GPU, else of the machine, its container or its ulimit."""
    if device.gpus():
        with tf.Session(config=device.session_config()) as session:
            devices = session.list_devices()
        return min(each.memory_limit_bytes for each in devices if each.device_type == "GPU")
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        with open("/proc/self/statm") as file:
            virtual, resident = (int(pages) * resource.getpagesize() for pages in file.read().split()[:2])
        limits.append(address_space - (virtual - resident))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(path) as file:  # the former may say "max"
            limits.append(int(file.read()))
    return min(limits)


def multiply_adds(graph):
    """Those of all convolutions and matrix products in the graph, which must know its shapes."""
    total = 0
    for operation in graph.get_operations():
        if operation.type == "Conv2D":
            kernel = operation.inputs[1].shape.as_list()
            total += operation.outputs[0].shape.num_elements() * kernel[0] * kernel[1] * kernel[2]
        elif operation.type == "MatMul":
            total += operation.outputs[0].shape.num_elements() * operation.inputs[0].shape.as_list()[1]
    return total


def variable_bytes():
    """Those of all variables of the default graph, the optimizer's too."""
    return sum(v.shape.num_elements() * v.dtype.size for v in tf.global_variables())


def peak_bytes(fetch):
    """The most that tensors take at once while `fetch` is computed, besides the variables.

    Goes through the operations in the order of their making, gives each result its bytes, and takes
    them back after the last operation that reads it.
    """
    operations = needed_by(fetch)
    # Of a tensor: the one whose memory it is. An operation of a branch may read one that is made after it.
    owner = {tensor: tensor for operation in operations for tensor in operation.outputs}
    last_read = {}
    for at, operation in enumerate(operations):
        if operation.type in ALIASES and operation.inputs:
            owner[operation.outputs[0]] = owner[operation.inputs[0]]
        for tensor in operation.inputs:
            last_read[owner[tensor]] = at

    live = peak = 0
    held = {}  # bytes of each tensor that is alive
    for at, operation in enumerate(operations):
        reads = dict.fromkeys(owner[tensor] for tensor in operation.inputs)
        ending = [tensor for tensor in reads if last_read[tensor] == at]
        if operation.type not in VARIABLES | ALIASES:
            for tensor in operation.outputs:
                size = bytes_of(tensor)
                if operation.type in IN_PLACE:
                    taken = next((each for each in ending if held.get(each) == size), None)
                    live -= held.pop(taken, 0)
                held[tensor] = size
                live += size
        peak = max(peak, live)
        for tensor in ending + [tensor for tensor in operation.outputs if tensor not in last_read]:
            live -= held.pop(tensor, 0)
    return peak


def needed_by(fetch):
    """The operations that `fetch` depends on, in the order of their making."""
    found, waiting = set(), [fetch]
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return [operation for operation in fetch.graph.get_operations() if operation in found]


def bytes_of(tensor):
    """0 for what refers to a variable's memory, or has no known shape."""
    if tensor.dtype._is_ref_dtype or not tensor.shape.is_fully_defined() or not tensor.dtype.size:
        return 0
    return tensor.shape.num_elements() * tensor.dtype.size
