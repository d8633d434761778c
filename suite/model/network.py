"""The network that model.json describes, and its weights. Of the suite, this file alone imports resnet.py."""

import contextlib
import os

from suite.model import modelfolder
from suite.process import device, tf_versions
from suite.process.errors import UserError
from suite.process.terminal import say_once
from suite.process.tf_versions import tf

FORMER = {"stem": "article", "zero_init_residual": False, "dropout": 0}  # of before there were these options
STATISTICS = ("moving_mean", "moving_variance")  # what the names of batch norms' end with
AVERAGED = "/ExponentialMovingAverage"  # suffix of the averages that train.py --ema keeps

# What describes the network. A model folder that is resumed answers it, or --model does, else these.
NETWORK = {
    "layers": 50,
    "mini": False,
    "shortcut": "zero_pad",
    "preactivation": False,
    "stem": "article",
    "zero_init_residual": None,  # the recipe's
    "dropout": None,  # the recipe's
}


def complete(network):
    """The "network" of a model.json, with what one of an earlier version does not say."""
    return {**FORMER, **network}


def build_logits(images, network, classes, is_train, data_format=None, **options):
    """The network that model.json describes, over normalised pictures.

    Args:
        images: float32 [batch, size, size, 3].
        network: {"layers": 50, "mini": False, "shortcut": "zero_pad", "preactivation": False} at least; see
            FORMER for the rest.
        data_format: "NHWC" or "NCHW" inside; by default the faster one on this machine, which for training
            on the CPU also gets other gradients, see cpu_gradients.py.
        options: more options of resnet.inference.
    """
    import resnet  # here, because TensorFlow comes with it
    from suite.model import cpu_gradients

    network = complete(network)
    demos = resnet.ResNet_mini_demo if network["mini"] else resnet.ResNet_demo
    data_format = data_format or device.data_format()
    if data_format == "NCHW":
        images = tf.transpose(images, [0, 3, 1, 2])
    on_cpu = data_format == "NHWC" and not device.gpus() and not tf_versions.has_onednn()
    with cpu_gradients.instead() if is_train and on_cpu else contextlib.nullcontext():
        return resnet.inference(
            images,
            demos["layer_%d" % network["layers"]],
            len(classes),
            is_train,
            network["shortcut"],
            network["preactivation"],
            network["zero_init_residual"],
            network["dropout"],
            data_format=data_format,
            stem=network["stem"],
            **options,
        )


def add_mirror_option(parser):
    """--mirror, of the scripts that answer."""
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="the mean of the answers for a picture and its mirror image: a little better, twice the time",
    )


def warn_of_mirror(options, model):
    """Say where --mirror is asked of a model to which a mirror image is of something else."""
    if options.mirror and model.options.get("augment") == "none":
        message = "warning: --mirror: %s was trained with --augment none, so it never saw a mirror image"
        say_once(message % model.folder)


def restore_session(model, images, data_format=None, mirror=False, cpu_only=False):
    """Build the model's network over `images` and restore its weights; `data_format`: see `build_logits`.

    Args:
        mirror: answer with the mean for a picture and its mirror image.
        cpu_only: leave GPUs alone.
    Returns:
        A session on the default graph, and the float32 probabilities [batch, classes].
    Raises:
        UserError: the checkpoint is damaged or does not fit model.json.
    """
    if mirror:
        images = tf.concat([images, tf.reverse(images, [2])], 0)
    logits = build_logits(images, model.network, model.classes, False, data_format)
    probabilities = tf.nn.softmax(logits / model.temperature)
    if mirror:
        probabilities = tf.add_n(tf.split(probabilities, 2)) / 2
    session = tf.Session(config=device.session_config(cpu_only=cpu_only))
    load_weights(session, model.checkpoint)
    return session, probabilities


def load_weights(session, checkpoint):
    """Give the default graph's variables their values in a checkpoint, or the averages of them that it holds.

    Raises:
        UserError: the checkpoint is damaged or does not fit the graph.
    """
    try:
        reader = tf.train.load_checkpoint(modelfolder.literal(checkpoint))
        shapes, values = reader.get_variable_to_shape_map(), {}
        for variable in tf.global_variables():
            name, shape = variable.op.name, variable.shape.as_list()
            name += AVERAGED if reader.has_tensor(name + AVERAGED) else ""
            if shapes.get(name) != shape:
                values = checkpoint, name, shape
                raise UserError(
                    "%s: has no %s of %s, which model.json says; was one of them replaced?" % values
                )
            values[variable.initializer.inputs[1]] = reader.get_tensor(name)
        session.run([variable.initializer for variable in tf.global_variables()], values)
    except tf_versions.checkpoint_errors() as error:
        reason = tf_versions.reason(error)
        if not os.path.exists(checkpoint + ".index"):
            reason = "it is gone, train.py may have replaced it meanwhile; run the same command again"
        raise UserError("%s: cannot be restored: %s" % (checkpoint, reason)) from error
