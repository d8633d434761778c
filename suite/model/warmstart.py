"""Start from the weights of another checkpoint: one of ours, or one of TF-Slim's resnet_v2.

TF-Slim's ImageNet checkpoints fit `--shortcut projection --preactivation`, which is what such a file
chooses by itself.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import numpy as np

from suite.model import modelfolder
from suite.model.network import AVERAGED
from suite.process import device, tf_versions
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf

SLIM = re.compile(r"resnet_v2_(50|101|152)/")
# What TF-Slim calls the parts of its names, in the order of the replacements.
SLIM_NAMES = (
    (r"^resnet_v2_\d+/", ""),
    (r"^block(\d)/unit_(\d+)/bottleneck_v2/", r"resnet/group_\1/bottleneck_\2/"),
    (r"conv(\d)/", r"conv_\1/"),
    (r"preact/", "preactivation/batch_norm/"),
    (r"postnorm/", "resnet/batch_norm/"),
    (r"BatchNorm/", "batch_norm/"),
    (r"weights$", "kernel"),
    (r"biases$", "bias"),
)
LISTED = 6  # names shown of what was left out


class Weights(NamedTuple):
    """The weights of another checkpoint."""

    checkpoint: str  # path without extension
    names: dict[str, str]  # our name -> name in the checkpoint
    network: dict  # see network.build_logits
    normalize: str  # see preprocessing.normalize
    classes: list[str] | None  # in index order, where it is known


def open_weights(path: str) -> Weights:
    """The Weights that --model names: a model folder, a checkpoint in one, or a checkpoint of TF-Slim's.

    Raises:
        UserError: it is none of them.
    """
    model = None
    if os.path.isdir(path) or os.path.exists(
        os.path.join(os.path.dirname(os.path.abspath(path)), "model.json")
    ):
        model = modelfolder.load_model(path)
    names = read_names(model.checkpoint if model else path)
    if model:
        ours = {name.replace(AVERAGED, ""): name for name in sorted(names, key=len)}
        return Weights(model.checkpoint, ours, model.network, model.normalize, model.classes)
    layers = next((match.group(1) for match in map(SLIM.match, names) if match), None)
    if not layers:
        raise UserError("%s: neither a checkpoint of train.py's nor of TF-Slim's resnet_v2" % path)
    network = {
        "layers": int(layers),
        "mini": False,
        "shortcut": "projection",
        "preactivation": True,
        "zero_init_residual": False,
        "dropout": 0,
    }
    return Weights(path, {our_name(name): name for name in names}, network, "minus1_1", None)


def read_names(path: str) -> list[str]:
    """The names of the variables in a checkpoint.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if not os.path.exists(path) and not os.path.exists(path + ".index"):
        raise UserError("%s: no such model folder or checkpoint" % path)
    try:
        return [name for name, _ in tf.train.list_variables(path)]
    except tf_versions.checkpoint_errors() as error:
        raise UserError("%s: not a checkpoint, or damaged" % path) from error


def our_name(slim_name: str) -> str:
    """resnet/group_1/bottleneck_2/conv_3/kernel for .../block1/unit_2/bottleneck_v2/conv3/weights."""
    for pattern, ours in SLIM_NAMES:
        slim_name = re.sub(pattern, ours, slim_name)
    return slim_name


def write_checkpoint(weights, classes, target):
    """Write the default graph's variables as the checkpoint `target`, with the weights that fit.

    Weights go by name and shape. The classifier's columns are put in the order of `classes` where the
    other checkpoint has the same ones. Everything else, such as the optimizer's slots, starts fresh.

    Raises:
        UserError: next to nothing fits, or the other checkpoint is damaged.
    """
    variables = tf.global_variables()
    names = {variable.op.name.replace(AVERAGED, "") for variable in tf.trainable_variables()}
    reader = tf.train.load_checkpoint(weights.checkpoint)
    shapes = reader.get_variable_to_shape_map()
    values, fresh = {}, []
    for variable in variables:
        name = variable.op.name.replace(AVERAGED, "")
        found = weights.names.get(name)
        if name == "global_step" or not found or shapes[found] != variable.shape.as_list():
            if name in names:
                fresh.append(variable.op.name)
            continue
        try:
            value = reader.get_tensor(found)
        except tf_versions.checkpoint_errors() as error:
            raise UserError("%s: damaged (%s)" % (weights.checkpoint, tf_versions.reason(error))) from error
        if name.startswith("logits/"):
            value = reorder(value, weights.classes, classes)
        values[variable.initializer.inputs[1]] = value
    if len(fresh) > len(names) / 2:
        raise UserError(
            "%s: does not fit this network, %d of its %d weights are missing there or have another shape; "
            "leave out --layers, --mini, --shortcut and the like, and they are chosen to fit"
            % (weights.checkpoint, len(fresh), len(names))
        )
    with tf.Session(config=device.session_config()) as session:
        session.run(tf.global_variables_initializer(), values)
        tf.train.Saver(variables).save(session, target, global_step=0, write_meta_graph=False)
    say_what_was_taken(weights, classes, names, fresh)


def reorder(value, theirs, ours):
    """The classifier's columns in the order of our classes, where both know the same ones.

    Args:
        value: float32 [..., classes].
        theirs, ours: lists of str in index order; `theirs` None where it is not known.
    """
    if not theirs or theirs == ours or sorted(theirs) != sorted(ours):
        return value
    return np.take(value, [theirs.index(name) for name in ours], -1)


def say_what_was_taken(weights, classes, names, fresh):
    """Say which weights were taken, which start fresh and which were left out.

    Args:
        names: of all weights of the network; fresh: of those that were not taken.
    """
    say("weights of %s: %d of %d taken" % (weights.checkpoint, len(names) - len(fresh), len(names)))
    if fresh:
        say("start fresh: %s" % some(fresh))
    unused = [theirs for ours, theirs in weights.names.items() if ours not in names and is_weight(theirs)]
    if unused:
        say("left out: %s" % some(unused))
    elif weights.classes and sorted(weights.classes) != sorted(classes) and not fresh:
        say("warning: the classifier that was taken knows other classes: %s" % some(weights.classes))


def is_weight(name: str) -> bool:
    """Whether it is a weight of a network, and not an optimizer's slot, a statistic or the step."""
    return name.endswith(("kernel", "weight", "weights", "bias", "biases", "gamma", "beta"))


def some(names: list[str]) -> str:
    """The first LISTED, for a message, and how many more there are."""
    return ", ".join(names[:LISTED]) + (" and %d more" % (len(names) - LISTED) if len(names) > LISTED else "")
