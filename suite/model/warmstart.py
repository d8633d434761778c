"""Start from other weights: a checkpoint of ours or of TF-Slim's resnet_v2, or Keras's file of the latter.

Those two, for ImageNet, fit `--shortcut projection --preactivation`, which is what such a file chooses by
itself.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple

from suite.files import classnames
from suite.files.schemas import IMAGENET
from suite.model import keras_weights, modelfolder, recipes
from suite.model.network import AVERAGED, STATISTICS, complete
from suite.process import commandline, device, tf_versions
from suite.process.errors import UserError
from suite.process.terminal import say, some
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


class Weights(NamedTuple):
    """The weights of another checkpoint."""

    checkpoint: str  # path without extension; or Keras's file
    reader: Any  # what tf.train.load_checkpoint returned, or a keras_weights.KerasWeights
    names: dict[str, str]  # our name -> name in the checkpoint
    network: dict  # see network.build_logits
    normalize: str  # see preprocessing.normalize
    classes: list[str] | None  # in index order, where it is known
    # See modelfolder.Model; None for those of others.
    fingerprints: dict | None = None
    recipe: str | None = None
    image_size: int | None = None
    fit: str | None = None
    temperature: float = 1
    settings: dict = {}  # of recipes.OF_THE_PICTURES, those that it was trained with


def open_weights(path: str, layers: int | None) -> Weights:
    """The Weights that --model names: a model folder, a checkpoint in one, one of TF-Slim's, or Keras's file.

    Args:
        path: "imagenet" is the file for `layers`, by default 50, downloaded where it is not there.
    Raises:
        UserError: it is none of them.
    """
    if is_imagenet(path):
        path = keras_weights.imagenet(layers or 50)
    if keras_weights.is_hdf5(path):
        reader = keras_weights.KerasWeights(path)
        return Weights(path, reader, reader.names, slims_network(reader.layers), "minus1_1", None)
    folder = os.path.dirname(os.path.abspath(path))
    is_ours = os.path.isdir(path) or os.path.exists(os.path.join(folder, "model.json"))
    if os.path.basename(folder) == modelfolder.BEST:
        is_ours = is_ours or os.path.exists(os.path.join(os.path.dirname(folder), "model.json"))
    model = modelfolder.load_model(path) if is_ours else None
    reader = open_checkpoint(model.checkpoint if model else path)
    names = sorted(reader.get_variable_to_shape_map(), key=len)
    if model:
        ours = {name.replace(AVERAGED, ""): name for name in names}
        return Weights(
            model.checkpoint,
            reader,
            ours,
            model.network,
            model.normalize,
            model.classes,
            fingerprints=model.fingerprints,
            recipe=model.options.get("recipe"),
            image_size=model.image_size,
            fit=model.fit,
            temperature=model.temperature,
            settings={name: model.options.get(name) for name in recipes.OF_THE_PICTURES},
        )
    depth = next((match.group(1) for match in map(SLIM.match, names) if match), None)
    if not depth:
        raise UserError("%s: neither a checkpoint of train.py's nor of TF-Slim's resnet_v2" % path)
    ours = {our_name(name): name for name in names}
    return Weights(path, reader, ours, slims_network(int(depth)), "minus1_1", None)


def is_imagenet(path: str) -> bool:
    """Whether --model means what is downloaded, and no folder of that name."""
    return path.lower() == IMAGENET and not modelfolder.is_model(path)


def slims_network(layers: int) -> dict:
    """What TF-Slim's resnet_v2 is, and so Keras's; see network.build_logits."""
    return complete({"layers": layers, "mini": False, "shortcut": "projection", "preactivation": True})


def open_checkpoint(path: str) -> Any:
    """What reads a checkpoint of TensorFlow's, see tf.train.load_checkpoint.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if not os.path.exists(path) and not os.path.exists(path + ".index"):
        raise UserError(commandline.missing(path, "no such model folder or checkpoint", is_weights))
    try:
        return tf.train.load_checkpoint(modelfolder.literal(path))
    except tf_versions.checkpoint_errors() as error:
        raise UserError("%s: not a checkpoint, or damaged" % path) from error


def is_weights(path: str) -> bool:
    """Whether a path may be what `open_weights` takes; TF-Slim's first checkpoints are one file."""
    return modelfolder.is_model(path) or path.endswith((".ckpt", ".h5")) and os.path.isfile(path)


def our_name(slim_name: str) -> str:
    """resnet/group_1/bottleneck_2/conv_3/kernel for .../block1/unit_2/bottleneck_v2/conv3/weights."""
    for pattern, ours in SLIM_NAMES:
        slim_name = re.sub(pattern, ours, slim_name)
    return slim_name


def write_checkpoint(weights, classes, target):
    """Write the default graph's variables as the checkpoint `target`, with the weights; see `take_over`."""
    with tf.Session(config=device.session_config()) as session:
        session.run(tf.global_variables_initializer())
        take_over(session, weights, classes)
        saver = tf.train.Saver(tf.global_variables(), save_relative_paths=True)
        saver.save(session, target, global_step=0, write_meta_graph=False)


def take_over(session, weights, classes):
    """Give the variables of the session's graph, which have values, the weights that fit, and say which.

    Weights and moving statistics go by name and shape, the classifier's columns by class name; where the
    other checkpoint names no classes, as TF-Slim's, it is taken whole or not at all. All else stays, such as
    the optimizer's slots and the step.

    Raises:
        UserError: it is of another network, or damaged.
    """
    say("taking over the weights of %s" % weights.checkpoint)
    names = {base_name(variable) for variable in tf.trainable_variables()}
    theirs = classnames.index_of(weights.classes or [])
    kept = [name for name in classes if classnames.find(theirs, name) is not None]
    shapes = weights.reader.get_variable_to_shape_map()
    values, fresh, by_column = {}, [], False
    for variable in tf.global_variables():
        name = base_name(variable)
        if name not in names and not name.endswith(STATISTICS):
            continue
        found, shape = weights.names.get(name), variable.shape.as_list()
        is_classifier = name.startswith("logits/")
        if is_classifier and weights.classes:
            fits = found and kept and shapes[found][:-1] == shape[:-1]
        else:
            fits = found and shapes[found] == shape
        if not fits and not is_classifier:
            raise UserError("%s: does not fit: it has no %s of %s" % (weights.checkpoint, name, shape))
        if not fits:
            fresh += [name] if name not in fresh else []
            continue
        try:
            value = weights.reader.get_tensor(found)
        except (*tf_versions.checkpoint_errors(), OSError) as error:
            raise UserError("%s: damaged (%s)" % (weights.checkpoint, tf_versions.reason(error))) from error
        if is_classifier and weights.classes:
            by_column, mixed = True, session.run(variable)
            for each in kept:
                mixed[..., classes.index(each)] = value[..., classnames.find(theirs, each)]
            value = mixed
        values[variable] = value
    session.run([v.initializer for v in values], {v.initializer.inputs[1]: values[v] for v in values})
    say_what_was_taken(weights, classes, names, fresh, kept if by_column else [])


def base_name(variable):
    """Its name, or that of the variable whose average it is."""
    return variable.op.name.replace(AVERAGED, "")


def say_what_was_taken(weights, classes, names, fresh, kept):
    """Say which weights were taken, which start fresh and which were left out.

    Args:
        names: of all weights of the network; fresh: of those that were not taken.
        kept: the classes whose columns of the classifier were taken.
    """
    say("weights of %s: %d of %d taken" % (weights.checkpoint, len(names) - len(fresh), len(names)))
    if kept and len(kept) < len(classes):
        new = [name for name in classes if name not in kept]
        say("classifier: of %s; starts fresh: %s" % (some(kept), some(new)))
    if fresh:
        say("start fresh: %s" % some(fresh))
    unused = [theirs for name, theirs in weights.names.items() if name not in names and is_weight(theirs)]
    ours = classnames.index_of(classes)
    gone = [name for name in weights.classes or [] if classnames.find(ours, name) is None]
    if unused or gone:
        say("left out: %s" % some(unused + gone))


def is_weight(name: str) -> bool:
    """Whether it is a weight of a network, and not an optimizer's slot, a statistic or the step."""
    return name.endswith(("kernel", "weight", "weights", "bias", "biases", "gamma", "beta"))
