"""A trained model as a graph that only predicts, and its cache, from which predict.py starts at once.

Variables become constants and batch norms become part of the convolutions before them. The cache is a file
beside the checkpoint, `inference-2.15.cache`, one for each TensorFlow, and with -nchw one for GPUs. For a CPU
its weights are mapped into memory as they are, which saves the copies that reading a large GraphDef costs. It
may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import mmap
import os
import struct
from typing import BinaryIO, NamedTuple

import numpy as np

from suite.files import atomic
from suite.model.maps import features_and_maps
from suite.model.network import restore_session
from suite.process import tf_versions
from suite.process.errors import UserError
from suite.process.tf_versions import tf

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The files of ours whose code runs when the graph is made.
MADE_BY = (
    *("resnet.py", "suite/model/inference_graph.py", "suite/model/maps.py", "suite/model/modelfolder.py"),
    *("suite/model/network.py", "suite/process/device.py", "suite/process/tf_versions.py"),
)
CACHE = "inference-%s.cache"
FORMER_CACHE = "inference.cache"  # of earlier versions of the suite, for whichever TensorFlow came last
# BLAKE2 of all that follows; the key of what is cached; where the GraphDef begins. Between this and the
# GraphDef lie the weights.
HEADER = struct.Struct("<32s24sQ")
ALIGNMENT = 64  # bytes; TensorFlow uses a slice in place only if it is aligned
# All that a network is made of. A graph can hold operations that read and write files, and a model folder may
# come from anywhere.
OPERATIONS = {
    *("Placeholder", "Const", "ImmutableConst", "Slice", "Reshape", "Identity", "Pad", "Conv2D", "BiasAdd"),
    *("FusedBatchNormV3", "Relu", "MaxPool", "AddV2", "Mean", "MatMul", "RealDiv", "Softmax", "Transpose"),
}
OUTPUTS = ["probabilities", "features", "maps"]
SMALLEST_MAPPED = 1024  # values; smaller constants stay in the GraphDef


# --- from a checkpoint to a graph ----------------------------------------


def frozen_graph(model, data_format, outputs=OUTPUTS):
    """The model as a GraphDef of constants, batch norms folded.

    `images` (float32 [n, size, size, 3], normalised) gives `probabilities` (float32 [n, classes]), `features`
    and `maps`, see maps.features_and_maps. What is not fetched costs no time.

    Args:
        data_format: the layout inside, "NHWC" (runs anywhere) or "NCHW" (GPUs only).
        outputs: those of OUTPUTS that it is to have.
    Raises:
        UserError: see network.restore_session.
    """
    with tf.Graph().as_default() as graph, tf_versions.without_advice():
        images = tf.placeholder(tf.float32, [None, model.image_size, model.image_size, 3], "images")
        session, probabilities = restore_session(model, images, data_format, cpu_only=True)
        for name, tensor in zip(OUTPUTS, (probabilities, *features_and_maps(data_format))):
            tf.identity(tensor, name)
        with session:
            graph_def = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), outputs)
        graph_def = tf.graph_util.remove_training_nodes(graph_def, outputs)
        fold_batch_norms(graph_def)
        return tf.graph_util.extract_sub_graph(graph_def, outputs)


def fold_batch_norms(graph_def):
    """Make each batch norm behind a convolution part of its kernel, and a bias.

    The others, such as those before a convolution, stay.
    """
    nodes = {node.name: node for node in graph_def.node}
    for node in graph_def.node:
        if node.op != "FusedBatchNormV3" or nodes[node.input[0]].op != "Conv2D":
            continue
        kernel = nodes[nodes[node.input[0]].input[1]]
        gamma, beta, mean, variance = (nodes[name] for name in node.input[1:])
        scale = value(gamma).astype(float) / np.sqrt(value(variance) + node.attr["epsilon"].f)
        set_value(kernel, value(kernel) * scale)
        set_value(beta, value(beta) - value(mean) * scale)
        node.op = "BiasAdd"
        node.input[:] = [node.input[0], beta.name]
        for name in set(node.attr) - {"T", "data_format"}:
            del node.attr[name]


def value(constant):
    """The numpy array in a Const node."""
    return tf.make_ndarray(constant.attr["value"].tensor)


def set_value(constant, array):
    """Put an array into a Const node, as float32."""
    tensor = tf.make_tensor_proto(array.astype(np.float32))
    constant.attr["value"].tensor.CopyFrom(tensor)


# --- the cache ----------------------------------------


class Cached(NamedTuple):
    """A cache that was read."""

    graph_def: bytes
    file: BinaryIO  # open, so that the weights in it stay these, whatever takes its name meanwhile


def cache_path(model, data_format="NHWC"):
    """Where the checkpoint's cache for this TensorFlow and a layout lies, or would."""
    name = tf_versions.VERSION + ("" if data_format == "NHWC" else "-" + data_format.lower())
    return os.path.join(os.path.dirname(model.checkpoint), CACHE % name)


def cache_key(model, data_format):
    """24 bytes that change with anything that the graph is made from; None where the checkpoint is gone.

    The checkpoint's index holds a checksum of each of its tensors.
    """
    digest = hashlib.blake2b(digest_size=24)
    if not os.path.exists(model.checkpoint + ".index"):
        return None
    for path in (model.checkpoint + ".index", *(os.path.join(ROOT, each) for each in MADE_BY)):
        with open(path, "rb") as file:
            digest.update(file.read())
    made_from = [model.network, len(model.classes), model.image_size, model.temperature]
    digest.update(json.dumps([*made_from, data_format, tf_versions.VERSION]).encode())
    return digest.digest()


def read_cache(model, data_format="NHWC"):
    """A Cached; None where there is none, an outdated or a damaged one.

    Needs no TensorFlow, so that it can run in a thread while that is imported.
    """
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(open(cache_path(model, data_format), "rb"))
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # mmap refuses an empty file by a ValueError
            return None
        with data, memoryview(data) as view:
            if len(data) < HEADER.size:
                return None
            digest, key, graph_at = HEADER.unpack_from(data)
            found = hashlib.blake2b(view[32:], digest_size=32).digest()
            if key != cache_key(model, data_format) or digest != found:
                return None
            opened.pop_all()
            return Cached(data[graph_at:], file)


def load_graph(model, cached, data_format="NHWC"):
    """The model's GraphDef, see `frozen_graph`, from the cache if possible; else it is built and cached.

    Args:
        cached: what `read_cache` returned; its file has to stay open until the graph has run.
        data_format: the one that `read_cache` was given.
    Raises:
        UserError: the cache holds operations that are not a network's.
    """
    if cached is None:
        key = cache_key(model, data_format)
        graph_def = frozen_graph(model, data_format)
        if key and key == cache_key(model, data_format):  # else another took the checkpoint's place meanwhile
            write_cache(model, graph_def, key, data_format)
        return graph_def
    graph_def = tf.GraphDef.FromString(cached.graph_def)
    strange = {node.op for node in graph_def.node} - OPERATIONS
    if strange or graph_def.library.function:
        raise UserError(
            "%s: holds what no network of ours does (%s), and may come from a stranger; remove it"
            % (cache_path(model, data_format), ", ".join(sorted(strange)) or "functions")
        )
    for node in graph_def.node:
        if node.op == "ImmutableConst":
            node.attr["memory_region_name"].s = b"/dev/fd/%d" % cached.file.fileno()
    return graph_def


def write_cache(model, graph_def, key, data_format="NHWC"):
    """Write the cache whole or not at all; a folder that cannot be written to gets none.

    Args:
        key: the `cache_key` of what the graph was made from.
    """
    weights = []
    if data_format == "NHWC":  # a GPU has its own memory: there mapped weights would be copied for each batch
        graph_def, weights = map_weights(graph_def)
    graph_at = HEADER.size + sum(array.nbytes for array in weights)
    rest = [struct.pack("<24sQ", key, graph_at), *weights, graph_def.SerializeToString()]
    digest = hashlib.blake2b(digest_size=32)
    for part in rest:
        digest.update(part)
    path = cache_path(model, data_format)
    folder = os.path.dirname(path)
    atomic.remove_abandoned(folder)
    with atomic.unique_partial(folder) as partial, contextlib.suppress(OSError):
        with open(partial, "wb") as file:
            file.writelines([digest.digest(), *rest])
        os.replace(partial, path)
        atomic.remove(os.path.join(folder, FORMER_CACHE))


def map_weights(graph_def):
    """Take the large constants out of a GraphDef.

    Returns:
        A GraphDef in which they are slices of one ImmutableConst, which maps the cache's file as one
        vector of float32; and the list of the arrays, padded, that lie in the file behind HEADER.
    """
    weights, places, at = [], {}, HEADER.size // 4
    for node in graph_def.node:
        if node.op == "Const" and value(node).dtype == np.float32 and value(node).size >= SMALLEST_MAPPED:
            array = value(node)
            weights.append(np.pad(array.ravel(), (0, -array.size % (ALIGNMENT // 4)), "constant"))
            places[node.name + ":0"] = at, array.shape
            at += weights[-1].size
    with tf.Graph().as_default() as graph, tf_versions.without_advice():
        shared = functools.lru_cache(None)(lambda *numbers: tf.constant(numbers))  # fewer nodes load faster
        file = tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[at], memory_region_name="")
        tensors = {}
        for name, (begin, shape) in places.items():
            size = -(-int(np.prod(shape)) // 16) * 16
            tensors[name] = tf.reshape(tf.slice(file, [begin], shared(size)), shared(*shape))
        tf.import_graph_def(graph_def, tensors, name="")
        return tf.graph_util.extract_sub_graph(graph.as_graph_def(), OUTPUTS), weights
