"""Count what a GPU is given to do in one step of train.py, by part: where a small batch waits for launches.

    python benchmarks/step_operations.py [options of train.py]

Operations of the graph as it is built for a GPU; those that only describe (constants, shapes, references to
variables) are left out. Needs no GPU.
"""

import collections
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

from suite.process import device
from suite.process.tf_versions import tf
from suite.records import reading
from suite.training import memory
from suite.training.config import complete_options, make_config
from suite.training.options import parse_options
from suite.training.step import training_step

DESCRIPTIONS = {
    *("Const", "Identity", "NoOp", "Placeholder", "VariableV2", "VarHandleOp", "ReadVariableOp", "Shape"),
    *("Reshape", "StopGradient", "Squeeze", "ExpandDims", "BroadcastGradientArgs", "StridedSlice", "Pack"),
}
# By what is in their names, in this order; the rest is the network, forward and backward.
PARTS = {
    "batch norm's moving statistics": ("AssignMovingAvg",),
    "the optimizer": ("/Apply", "/update_", "ResourceApply"),
    "the penalty on weights and its gradient": ("L2Loss",),
    "sums of gradients": ("AddN",),
}


def main():
    tf.logging.set_verbosity(tf.logging.FATAL)
    device.gpus = lambda: ["GPU:0"]  # as if there were one
    names, size = list(map(str, range(1000))), 224
    records = reading.Records("", names, size, False, {"train": dict.fromkeys(names, 1)}, {}, None)
    options = parse_options()
    complete_options(options, records, None, None)
    with tf.Graph().as_default():
        tf.train.create_global_step()
        features = {
            "image": tf.placeholder(tf.float32, [options.batch_size, size, size, 3]),
            "label": tf.placeholder(tf.int64, [options.batch_size]),
        }
        operations = memory.needed_by(training_step(features, make_config(options, records)).train_op)
    counts = collections.Counter(map(part, operations))
    counts.pop(None)
    for name, count in counts.most_common():
        print("%-42s %5d" % (name, count))
    print("%-42s %5d" % ("in all", sum(counts.values())))


def part(operation):
    """Which of PARTS an operation belongs to; None for one that only describes."""
    if operation.type in DESCRIPTIONS:
        return None
    for name, signs in PARTS.items():
        if any(sign in operation.name or sign in "/" + operation.type for sign in signs):
            return name
    return "the network, forward and backward"


if __name__ == "__main__":
    main()
