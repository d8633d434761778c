"""Whether XLA compiles the network: --xla, and what auto means."""

import functools

from suite.process import device, tf_versions
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.training import memory
from suite.training.monitor import duration

# What it takes and saves, for each convolution, and for each thousand million multiply-adds of a batch's
# forward pass: from the table of an H200 in benchmarks/README.md. A slower card has more to save.
COMPILE = 0.25  # seconds, once
LAUNCHES = 0.14e-3  # seconds a step
ARITHMETIC = 0.045e-3
WORTH = 1.2  # XLA must save so many times the seconds that compiling takes


def choose(config, strategy, *to_come):
    """Whether to let XLA compile the training, and its validation; see `decide`, whose reason is said."""
    trains, validates, why = decide(config, strategy, *to_come)
    if why:
        say("xla: %s: %s" % ("on" if trains else "off", why))
    return trains, validates


def decide(config, strategy, steps, graphs=1, validations=0):
    """What --xla means, and where that is auto and there is a GPU, why.

    Args:
        config: the content of model.json.
        strategy: a tf.distribute.Strategy, or None.
        steps: that are to come.
        graphs: that are built for them.
        validations: batches that are to be validated on.
    Returns:
        Whether to let XLA compile the training; the same of the validation; and a text or None.
    """
    options = config["options"]
    if options["xla"] != "auto" or not device.gpus():
        asked = options["xla"] == "yes"
        return asked, asked, None
    if strategy:
        return False, False, "it was not measured on several devices; --xla yes takes it"
    _, multiply_adds = memory.of_one_picture(config)
    compiling = COMPILE * options["layers"]
    taken = graphs * compiling
    saved = LAUNCHES * options["layers"] + ARITHMETIC * multiply_adds / 1e9 * options["batch_size"]
    why = "%d steps take about %s less, compiling them %s" % (steps, duration(steps * saved), duration(taken))
    if steps * saved <= WORTH * taken:
        return False, False, why
    problem = cannot_compile()
    if problem:
        return False, False, "%s; but it cannot compile here: %s" % (why, problem)
    # The last batch is smaller, and compiled anew.
    return True, validations * saved > 2 * WORTH * compiling, why


def print_state():
    """Print whether XLA can compile for the GPU, where there is one."""
    if device.gpus():
        problem = cannot_compile()
        print("XLA: %s" % ("cannot compile here: " + problem if problem else "compiles"))


@functools.lru_cache(None)
def cannot_compile():
    """Why XLA cannot compile for the GPU, in one line; None where it can.

    It needs parts of CUDA (libdevice, ptxas) that TensorFlow runs without.
    """
    place = "/gpu:0" if device.gpus() else "/cpu:0"
    with tf.Graph().as_default(), tf.device(place):
        numbers = tf.placeholder(tf.float32, [2])
        (result,) = tf.xla.experimental.compile(lambda x: tf.exp(tf.tanh(x)), [numbers])
        try:
            with tf.Session(config=device.session_config()) as session:
                session.run(result, {numbers: [0, 1]})
        except tf.errors.OpError as error:
            return tf_versions.reason(error)
    return None
