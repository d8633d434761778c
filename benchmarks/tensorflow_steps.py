"""One contender of throughput.py: steps of a network in TensorFlow, see turns.serve.

    python benchmarks/tensorflow_steps.py WHO {train,infer} LAYERS {full,mini} SIZE BATCH [MORE]

All compute a softmax cross entropy over the classes, with momentum and an L2 penalty when they train, on
pictures that are in memory already.

ours        train.py's step, MORE being a layout, NHWC or NCHW, and options of train.py; for inference the
            graph that predict.py runs
ours_plain  the same with TensorFlow's own gradients of convolutions
slim        TF-Slim's resnet_v1, which TensorFlow 1.15 carries
keras       tf.keras.applications
author      our network the way the article's author trains it: projections, is_train fed as a placeholder,
            pictures and labels fed by feed_dict, the loss fetched at each step
product     a matrix product of 2048 x 2048, for how much the processor can do
"""

import contextlib
import os
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import random_model
from turns import serve

import resnet
import train
from suite.model import cpu_gradients, inference_graph, modelfolder
from suite.model.network import build_logits
from suite.process import device, tf_versions
from suite.process.tf_versions import tf
from suite.records import reading
from suite.training import memory, step, xla
from suite.training.config import complete_options, make_config
from suite.training.options import parse_options

CLASSES = {"full": 1000, "mini": 10}
PRODUCT = 2048


def main():
    who, work, layers, width, size, batch, *more = sys.argv[1:]
    layers, size, batch, classes = int(layers), int(size), int(batch), CLASSES[width]
    tf_versions.as_version_1()
    tf.logging.set_verbosity(tf.logging.FATAL)
    rng = np.random.RandomState(0)
    pictures = rng.normal(0, 1, [batch, size, size, 3]).astype(np.float32)
    labels = rng.randint(0, classes, [batch])
    share_gpu()
    make = globals()["%s_%s" % (who, work)]
    serve(*make(layers, width == "mini", pictures, labels, classes, *more), peak)


def share_gpu():
    """Where several stand ready on one GPU, each of its sessions takes GPU_SHARE of its memory at most."""
    config = device.session_config

    def session_config(*arguments, **options):
        shared = config(*arguments, **options)
        shared.gpu_options.per_process_gpu_memory_fraction = float(os.environ.get("GPU_SHARE", 0))
        return shared

    device.session_config = session_config


def peak():
    """{"peak": bytes of the GPU that were taken at most}, where TensorFlow tells."""
    if device.gpus() and tf_versions.is_2():
        return {"peak": tf.config.experimental.get_memory_info("GPU:0")["peak"]}
    return {}


def held(pictures, labels):
    """Both as variables, so that they are neither fed nor folded into the graph."""
    return tf.Variable(pictures, trainable=False), tf.Variable(labels.astype(np.int64), trainable=False)


def stepping(operation, forward, config=None):
    """The facts, and a function that runs `operation` in a session of the default graph.

    Args:
        forward: a graph with one picture's logits, whose multiply-adds are counted.
        config: a tf.ConfigProto.
    """
    session = tf.Session(config=config or device.session_config())
    session.run(tf.global_variables_initializer())
    tf.get_default_graph().finalize()
    return {"multiply_adds": memory.multiply_adds(forward)}, lambda: session.run(operation)


def one_picture(build, size):
    """A graph of `build(images)` for one picture."""
    with tf.Graph().as_default() as graph:
        build(tf.zeros([1, size, size, 3]))
    return graph


def network(layers, mini):
    return {"layers": layers, "mini": mini, "shortcut": "zero_pad", "preactivation": False}


# --- ours ----------------------------------------


def settings(layers, mini, size, batch, classes, *more):
    """What model.json would hold of a training with these options of train.py, and its tf.ConfigProto."""
    names = list(map(str, range(classes)))
    records = reading.Records("", names, size, False, {"train": {}}, {}, None)
    arguments = ["--layers", str(layers), "--optimizer", "momentum", "--batch_size", str(batch)]
    options = parse_options([*arguments, *(["--mini"] if mini else []), *more])
    complete_options(options, records, None, None)
    config = make_config(options, records)
    compiles, _, _ = xla.decide(config, None, options.step)
    return config, train.run_config(vars(options), None, compiles).session_config


def ours_train(layers, mini, pictures, labels, classes, *more):
    if more and more[0] in ("NHWC", "NCHW"):
        layout, *more = more
        # Whatever layout the step asks for.
        step.build_logits = lambda *four, **options: build_logits(*four[:4], layout, **options)
    batch, size = pictures.shape[:2]
    config, session_config = settings(layers, mini, size, batch, classes, *more)
    image, label = held(pictures, labels)
    tf.train.create_global_step()
    spec = step.training_step({"image": image, "label": label}, config)
    forward = one_picture(
        lambda images: build_logits(images, config["network"], config["classes"], False), size
    )
    facts, run = stepping(spec.train_op, forward, session_config)
    fixed, per_picture = memory.estimate_of(spec.train_op, batch)
    return dict(facts, foreseen=fixed + batch * per_picture), run


def ours_plain_train(*arguments):
    cpu_gradients.instead = contextlib.suppress
    return ours_train(*arguments)


def ours_infer(layers, mini, pictures, labels, classes):
    size = pictures.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        random_model.make(folder, network(layers, mini), classes, size)
        graph_def = inference_graph.frozen_graph(modelfolder.load_model(folder), device.data_format())
    tf.import_graph_def(graph_def, {"images": held(pictures, labels)[0].read_value()}, name="net")
    answer = tf.get_default_graph().get_operation_by_name("net/probabilities")
    names = range(classes)
    forward = one_picture(lambda images: build_logits(images, network(layers, mini), names, False), size)
    return stepping(answer, forward)


# --- others ----------------------------------------


def slim_network(layers, classes, is_training):
    from tensorflow.contrib import slim
    from tensorflow.contrib.slim.nets import resnet_v1

    def build(images):
        with slim.arg_scope(resnet_v1.resnet_arg_scope(weight_decay=1e-4)):
            return getattr(resnet_v1, "resnet_v1_%d" % layers)(images, classes, is_training=is_training)[0]

    return build


def slim_train(layers, mini, pictures, labels, classes):
    from tensorflow.contrib import slim

    image, label = held(pictures, labels)
    logits = slim_network(layers, classes, True)(image)
    tf.losses.sparse_softmax_cross_entropy(label, tf.squeeze(logits, [1, 2]))
    optimizer = tf.train.MomentumOptimizer(0.01, 0.9, use_nesterov=True)
    train_op = slim.learning.create_train_op(tf.losses.get_total_loss(), optimizer)
    return stepping(train_op.op, one_picture(slim_network(layers, classes, False), pictures.shape[1]))


def slim_infer(layers, mini, pictures, labels, classes):
    answer = tf.nn.softmax(slim_network(layers, classes, False)(held(pictures, labels)[0]))
    return stepping(answer.op, one_picture(slim_network(layers, classes, False), pictures.shape[1]))


def keras_model(layers, classes, size, batch=None):
    images = tf.keras.Input(batch_shape=(batch, size, size, 3))
    make = getattr(tf.keras.applications, "ResNet%d" % layers)
    return make(weights=None, classes=classes, input_tensor=images)


def keras_facts(layers, classes, size):
    with tf.Graph().as_default() as graph, tf.Session():
        keras_model(layers, classes, size, 1)
    return {"multiply_adds": memory.multiply_adds(graph)}


def keras_train(layers, mini, pictures, labels, classes):
    facts = keras_facts(layers, classes, pictures.shape[1])
    model = keras_model(layers, classes, pictures.shape[1])
    model.compile(tf.keras.optimizers.SGD(0.01, 0.9, nesterov=True), "sparse_categorical_crossentropy")
    return facts, lambda: model.train_on_batch(pictures, labels)


def keras_infer(layers, mini, pictures, labels, classes):
    facts = keras_facts(layers, classes, pictures.shape[1])
    model = keras_model(layers, classes, pictures.shape[1])
    return facts, lambda: model.predict_on_batch(pictures)


def author_train(layers, mini, pictures, labels, classes):
    size = pictures.shape[1]
    demos = (resnet.ResNet_mini_demo if mini else resnet.ResNet_demo)["layer_%d" % layers]
    image, label = tf.placeholder(tf.float32, [None, size, size, 3]), tf.placeholder(tf.int64, [None])
    is_train = tf.placeholder(tf.bool, [])

    def switched_batch_norm(data, is_train, **_):
        return tf.layers.batch_normalization(data, training=is_train, fused=True, name="batch_norm")

    kept, resnet.batch_norm = resnet.batch_norm, switched_batch_norm
    logits = resnet.inference(image, demos, classes, is_train, "projection")
    resnet.batch_norm = kept
    loss = tf.losses.sparse_softmax_cross_entropy(label, logits)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = tf.train.MomentumOptimizer(0.01, 0.9).minimize(loss)
    feed = {image: pictures, label: labels, is_train: True}
    forward = one_picture(lambda images: resnet.inference(images, demos, classes, False, "projection"), size)
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    facts = {"multiply_adds": memory.multiply_adds(forward)}
    return facts, lambda: session.run([train_op, loss], feed)


def product_train(*_):
    factor = tf.Variable(tf.random.normal([PRODUCT, PRODUCT]))
    operation = tf.matmul(factor, factor).op
    session = tf.Session()
    session.run(tf.global_variables_initializer())
    return {"multiply_adds": PRODUCT**3}, lambda: session.run(operation)


product_infer = product_train


if __name__ == "__main__":
    main()
