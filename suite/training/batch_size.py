"""--batch_size auto: the smallest batch that the machine computes nearly as fast as any, found by trying."""

import copy
import statistics
import time

import numpy as np

from suite.process import device
from suite.process.errors import UsageError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records.preprocessing import finish_views
from suite.training import memory, xla
from suite.training.config import complete_options, make_config
from suite.training.step import training_step

SIZES = (32, 64, 128, 256, 512, 1024)
SHARE = 10  # of the training pictures a batch is a tenth at most
FASTER = 1.1  # a batch twice the size must be so many times as fast
STEPS, UNTIMED = 5, 2  # of which the median is taken, after some


def choose(options, records, existing, weights):
    """The batch size, which is said with its rate; a training that is resumed keeps its own.

    Args:
        options: from options.parse_options, not yet completed; stays as it is.
        records, existing, weights: see config.complete_options.
    Raises:
        UsageError: there are several devices.
    """
    if existing:
        return existing["options"]["batch_size"]
    if options.step == 0:  # nothing is trained
        return SIZES[0]
    if len(device.gpus()) > 1:
        raise UsageError("--batch_size auto: works on one device; give a number, or --device gpu:0")
    most = records.count("train") // SHARE
    sizes = [size for size in SIZES if size <= most]
    if len(sizes) < 2:
        size = sizes[0] if sizes else max(2, 2 ** (most.bit_length() - 1))
        say("batch: %d pictures, as a tenth of all is the most" % size)
        return size
    say("trying batches of %d to %d pictures" % (sizes[0], sizes[-1]))
    best, fastest, tried = sizes[0], 0, []
    for size in sizes:
        rate = measure(options, records, weights, size)
        tried.append("%d: %s" % (size, "%.3g pictures/s" % rate if rate else "does not fit"))
        if not rate or rate < FASTER * fastest:
            break
        best, fastest = size, rate
    say("batch: %d pictures (%s)" % (best, ", ".join(tried)))
    return best


def measure(options, records, weights, size):
    """Pictures/s that a training with batches of so many takes; None where they do not fit into memory."""
    options = copy.copy(options)
    options.batch_size = size
    complete_options(options, records, None, weights)
    config = make_config(options, records)
    compiles, _, _ = xla.decide(config, None, options.step)
    shape = [size, config["image_size"], config["image_size"], 3]
    # On a GPU they come as they are, and are normalised there.
    as_seen = tf.uint8 if device.gpus() else tf.float32
    pixels = np.random.RandomState(0).randint(0, 256, shape, np.uint8).astype(as_seen.as_numpy_dtype)
    with tf.Graph().as_default():
        tf.train.create_global_step()
        images = tf.placeholder(as_seen, shape)
        seen = finish_views({"image": images}, config["normalize"]) if device.gpus() else images
        features = {"image": seen, "label": tf.zeros([size], tf.int64)}
        train_op = training_step(features, config).train_op
        fixed, per_picture = memory.estimate_of(train_op, size)
        if fixed + size * per_picture > memory.ROOM * memory.memory_limit():
            return None
        try:
            session_config = device.session_config(
                options.workers, compiles, mixed_precision=options.mixed_precision
            )
            with tf.Session(config=session_config) as session:
                session.run(tf.global_variables_initializer())
                step = session.make_callable(train_op, [images])
                return size / median_seconds(lambda: step(pixels))
        except tf.errors.ResourceExhaustedError:
            return None


def median_seconds(step):
    """Of some steps, after others in which memory is taken and kernels are chosen."""
    taken = []
    for _ in range(UNTIMED + STEPS):
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[UNTIMED:])
