"""The model folder: what it says of a model, and the network that it describes.

train.py writes it, the other scripts read it: checkpoints `model.ckpt-<step>.*`, the best of them in
`best/`, and `model.json`, which says everything about the network and the classes, so that nobody has
to type it again.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
from typing import NamedTuple

from suite.files import jsonfile
from suite.process import device, tf_versions
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf


class Model(NamedTuple):
    """What a model folder says, and one of its checkpoints."""

    folder: str
    checkpoint: str  # path without extension
    network: dict  # see `logits`
    classes: list[str]  # in index order
    image_size: int  # pixels
    normalize: str  # see preprocessing.normalize
    keep_size: bool  # whether it was trained on pictures that FlowIO.py had not reduced


def load(path: str) -> Model:
    """The model that `path` names: a model folder (its best checkpoint, else its latest) or a checkpoint.

    Raises:
        UserError: there is no such model, or it was written by another version of the suite.
    """
    folder, checkpoint = path, None
    if os.path.exists(path + ".index"):
        folder, checkpoint = os.path.dirname(path) or ".", path
    elif not os.path.isdir(path):
        raise UserError("%s: no such model folder or checkpoint; train.py makes one" % path)
    for candidate in (folder, os.path.dirname(os.path.abspath(folder))):
        if os.path.exists(os.path.join(candidate, "model.json")):
            folder, start_at = candidate, folder
            break
    else:
        raise UserError("%s: not a model folder, there is no model.json; train.py makes one" % path)
    description = jsonfile.read(os.path.join(folder, "model.json"))
    if not checkpoint:
        checkpoint = latest_checkpoint(os.path.join(start_at, "best")) or latest_checkpoint(start_at)
    if not checkpoint:
        raise UserError("%s: no checkpoint in it yet; train.py saves one every --save_num steps" % path)
    return Model(
        folder,
        checkpoint,
        description["network"],
        description["classes"],
        description["image_size"],
        description["normalize"],
        description.get("keep_size", False),
    )


def latest_checkpoint(folder: str) -> str | None:
    """The checkpoint that the folder's `checkpoint` file points to, or None where there is none.

    As tf.train.latest_checkpoint, without the seconds that importing TensorFlow takes. Where that file is
    missing or damaged, as after a kill or on a bad disk, it is the one of the highest step.
    """
    found = checkpoints(folder)
    if not found:
        return None
    path = os.path.join(folder, "checkpoint")
    try:
        with open(path, encoding="utf-8") as file:
            quoted = re.search(r'^model_checkpoint_path: ("(\\.|[^"\\])*")', file.read(), re.MULTILINE)
        name = os.fsdecode(ast.literal_eval("b" + quoted.group(1))) if quoted else None
    except (OSError, ValueError, SyntaxError):
        name = None
    if name and os.path.join(folder, name) in found:
        return os.path.join(folder, name)
    warn("warning: %s is missing or damaged; taking %s" % (path, found[-1]))
    return found[-1]


warn = functools.lru_cache(None)(say)  # each line once


def checkpoints(folder: str) -> list[str]:
    """The whole checkpoints in a folder, the highest step last."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = [name[: -len(".index")] for name in names if re.fullmatch(r".+\.ckpt-\d+\.index", name)]
    found = [each for each in found if any(name.startswith(each + ".data-") for name in names)]
    return [os.path.join(folder, each) for each in sorted(found, key=checkpoint_step)]


def checkpoint_step(checkpoint: str) -> int:
    """The step in a checkpoint's name: 2000 for models/resnet/model.ckpt-2000."""
    return int(checkpoint.rpartition("-")[2])


def latest_step(folder: str) -> int:
    """The step of the folder's latest checkpoint, 0 where there is none."""
    checkpoint = latest_checkpoint(folder)
    return checkpoint_step(checkpoint) if checkpoint else 0


def logits(images, network, classes, is_train, layout=None, **options):
    """The network that model.json describes, over normalised pictures.

    Args:
        images: float32 [batch, size, size, 3].
        network: {"layers": 50, "mini": False, "shortcut": "zero_pad", "preactivation": False}.
        layout: "NHWC" or "NCHW" inside; by default the faster one on this machine, which for training
            on the CPU also gets other gradients, see cpu_gradients.py.
        options: more options of resnet.inference.
    """
    import resnet
    from suite.model import cpu_gradients  # here, because TensorFlow comes with them

    demos = resnet.ResNet_mini_demo if network["mini"] else resnet.ResNet_demo
    layout = layout or device.data_format()
    if layout == "NCHW":
        images = tf.transpose(images, [0, 3, 1, 2])
    on_cpu = layout == "NHWC" and not device.gpus() and not tf_versions.has_onednn()
    with cpu_gradients.instead() if is_train and on_cpu else contextlib.nullcontext():
        return resnet.inference(
            images,
            demos["layer_%d" % network["layers"]],
            len(classes),
            is_train,
            network["shortcut"],
            network["preactivation"],
            network.get("zero_init_residual", False),
            network.get("dropout", 0),
            data_format=layout,
            **options,
        )


def add_mirror_option(parser):
    """--mirror, of the scripts that answer."""
    parser.add_argument(
        "--mirror",
        action="store_true",
        help="the mean of the answers for a picture and its mirror image: a little better, twice the time",
    )


def restore(model, images, layout=None, mirror=False):
    """Build the model's network over `images` and restore its weights; `layout`: see `logits`.

    Args:
        mirror: answer with the mean for a picture and its mirror image.
    Returns:
        A session on the default graph, and the float32 probabilities [batch, classes].
    Raises:
        UserError: the checkpoint is damaged or does not fit model.json.
    """
    if mirror:
        images = tf.concat([images, tf.reverse(images, [2])], 0)
    probabilities = tf.nn.softmax(logits(images, model.network, model.classes, False, layout))
    if mirror:
        probabilities = tf.add_n(tf.split(probabilities, 2)) / 2
    session = tf.Session(config=device.session_config())
    load_weights(session, model.checkpoint)
    return session, probabilities


AVERAGED = "/ExponentialMovingAverage"  # suffix of the averages that train.py --ema keeps


def load_weights(session, checkpoint):
    """Give the default graph's variables their values in a checkpoint, or the averages of them that it holds.

    Raises:
        UserError: the checkpoint is damaged or does not fit the graph.
    """
    try:
        reader = tf.train.load_checkpoint(checkpoint)
        values = {}
        for variable in tf.global_variables():
            name = variable.op.name
            name += AVERAGED if reader.has_tensor(name + AVERAGED) else ""
            values[variable.initializer.inputs[1]] = reader.get_tensor(name)
        session.run([variable.initializer for variable in tf.global_variables()], values)
    except tf_versions.checkpoint_errors() as error:
        reason = tf_versions.reason(error)
        raise UserError("%s: cannot be restored: %s" % (checkpoint, reason)) from error
