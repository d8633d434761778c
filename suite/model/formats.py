"""The forms in which other programs want a model: each is written, and run as they would."""

import os
import sys
import tempfile

import numpy as np

from suite.model import encoding
from suite.process import device, lifetime, tf_versions
from suite.process.tf_versions import tf
from suite.records import preprocessing

SUFFIXES = {"frozen_graph": ".pb", "tflite": ".tflite", "onnx": ".onnx"}
OPSET = 13  # of ONNX; what onnxruntime 1.10 and onnxruntime-web run


def write_and_run(format, graph_def, model, pixels, path, quantize=False, verbose=False):
    """Write the format to `path`, run it and return the probabilities of `pixels`.

    Args:
        graph_def: what inference_graph.frozen_graph returned.
        pixels: float32 [n, size, size, 3] of 0..255.
        quantize: with tflite, weights of 8 bits.
        verbose: let TensorFlow Lite say what it likes.
    Returns:
        float32 [n, classes].
    """
    if format == "saved_model":
        write_saved_model(path, graph_def, model)
        return run_saved_model(path, pixels)
    if format == "frozen_graph":
        with open(path, "wb") as file:
            file.write(with_normalisation(graph_def, model).SerializeToString())
        return run_frozen_graph(path, pixels)
    if format == "tflite":
        with tf_versions.silent(verbose):
            write_tflite(path, with_normalisation(graph_def, model, batch_size=1), quantize)
            return run_tflite(path, pixels)
    write_onnx(path, with_normalisation(graph_def, model))
    return run_onnx(path, pixels)


def with_normalisation(graph_def, model, batch_size=None):
    """A GraphDef from `images`, float32 [n, size, size, 3] of 0..255, to `probabilities`.

    Args:
        graph_def: what inference_graph.frozen_graph returned.
        batch_size: the n that it takes; None: any.
    """
    with tf.Graph().as_default() as graph:
        shape = [batch_size, model.image_size, model.image_size, 3]
        import_network(graph_def, model, tf.placeholder(tf.float32, shape, "images"), "probabilities")
        # An older TensorFlow refuses attributes that it does not know, even with their default.
        return tf.train.export_meta_graph(graph=graph, strip_default_attrs=True).graph_def


def import_network(graph_def, model, images, name=None):
    """float32 [n, classes], from float32 [n, size, size, 3] of 0..255."""
    inputs = {"images": preprocessing.normalize(images, model.normalize)}
    (probabilities,) = tf.import_graph_def(graph_def, inputs, ["probabilities:0"], name="network")
    return tf.identity(probabilities, name)


def run_frozen_graph(path, pixels):
    """The probabilities of `pixels`."""
    with open(path, "rb") as file:
        graph_def = tf.GraphDef.FromString(file.read())
    with tf.Graph().as_default(), tf.Session(config=device.session_config()) as session:
        images, probabilities = tf.import_graph_def(
            graph_def, return_elements=["images:0", "probabilities:0"]
        )
        return session.run(probabilities, {images: pixels})


def write_saved_model(folder, graph_def, model):
    """SavedModel with the signatures serving_default (files) and pixels.

    Both give `probabilities`, float32 [n, classes], `label`, string [n], and `classes`, string [n, classes].
    To a file that is no JPEG or PNG or damaged, the answer is probabilities of 0 and an empty label: JSON has
    no NaN, and the other files of the batch are answered. Of n = 0 files or pictures the answer is as long.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        files = tf.placeholder(tf.string, [None], "image_bytes")
        decode = tf.autograph.experimental.do_not_convert(lambda data: decode_file(data, model))
        decoded = tf.map_fn(decode, files, tf.float32)
        # Who feeds pixels passes over the decoding.
        images = tf.placeholder_with_default(decoded, [None, model.image_size, model.image_size, 3], "images")
        count = tf.shape(images)[0]
        at_least_one = tf.pad(images, [[0, tf.cast(tf.equal(count, 0), tf.int32)], [0, 0], [0, 0], [0, 0]])
        probabilities = import_network(graph_def, model, at_least_one)[:count]
        is_picture = tf.reduce_all(tf.is_finite(images), [1, 2, 3])
        probabilities = tf.where_v2(is_picture[:, tf.newaxis], probabilities, 0.0)
        names = tf.constant(model.classes)
        outputs = {
            "probabilities": probabilities,
            "label": tf.where_v2(is_picture, tf.gather(names, tf.argmax(probabilities, 1)), ""),
            "classes": tf.tile(names[tf.newaxis], [count, 1]),
        }
        signature = tf.saved_model.predict_signature_def
        signatures = {
            "serving_default": signature({"image_bytes": files}, outputs),
            "pixels": signature({"images": images}, outputs),
        }
        builder = tf.saved_model.Builder(os.path.join(folder, "new"))
        tags = [tf.saved_model.tag_constants.SERVING]
        builder.add_meta_graph_and_variables(session, tags, signatures, strip_default_attrs=True)
        builder.save()
    for name in os.listdir(os.path.join(folder, "new")):  # the builder wants to make its folder itself
        os.rename(os.path.join(folder, "new", name), os.path.join(folder, name))
    os.rmdir(os.path.join(folder, "new"))


def decode_file(data, model):
    """float32 [size, size, 3] of 0..255 as predict.py sees a JPEG or PNG file, or of NaN where it sees none.

    Args:
        data: the bytes, a scalar string tensor.
        model: see modelfolder.Model.
    """

    @tf.autograph.experimental.do_not_convert  # which would take seconds and find nothing to do
    def decode(data):
        jpeg = encoding.encode(data, None if model.keep_size else model.image_size, model.fit)
        return preprocessing.centre(jpeg, model.image_size, model.fit)

    # A graph knows no exceptions, but a Dataset can leave out what raises one.
    pictures = tf.data.Dataset.from_tensors(data).map(decode).apply(tf.data.experimental.ignore_errors())
    nothing = tf.data.Dataset.from_tensors(
        tf.fill([model.image_size, model.image_size, 3], np.float32("nan"))
    )
    return tf.data.experimental.get_single_element(pictures.concatenate(nothing).take(1))


def run_saved_model(folder, values, name="pixels"):
    """The probabilities of `values`, by the signature for pixels or, "serving_default", for files."""
    with tf.Graph().as_default(), tf.Session(config=device.session_config()) as session:
        loaded = tf.saved_model.load(session, [tf.saved_model.tag_constants.SERVING], folder)
        signature = loaded.signature_def[name]
        (tensor,) = signature.inputs.values()
        return session.run(signature.outputs["probabilities"].name, {tensor.name: values})


def write_tflite(path, graph_def, quantize):
    """A FlatBuffer for TensorFlow Lite; with `quantize` its weights are int8."""
    with tf.Graph().as_default(), tf.Session() as session:
        elements = ["images:0", "probabilities:0"]
        images, probabilities = tf.import_graph_def(graph_def, return_elements=elements, name="")
        # The converter is a program beside this Python, which is not on the PATH of everyone.
        os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        converter = tf.lite.TFLiteConverter.from_session(session, [images], [probabilities])
        if quantize:
            converter.optimizations = [tf.lite.Optimize.OPTIMIZE_FOR_SIZE]
        with lifetime.temporary_folder() as folder:  # for files that the converter leaves behind
            before, tempfile.tempdir = tempfile.tempdir, folder
            try:
                content = converter.convert()
            finally:
                tempfile.tempdir = before
    with open(path, "wb") as file:
        file.write(content)


def run_tflite(path, pixels):
    """The probabilities of `pixels`, one picture after the other."""
    interpreter = tf.lite.Interpreter(path)
    interpreter.allocate_tensors()
    answers = []
    for picture in pixels:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture[np.newaxis])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(answers)


def write_onnx(path, graph_def):
    """An ONNX model of opset OPSET whose input and output have the names without TensorFlow's ":0"."""
    import onnx
    import tf2onnx

    converted, _ = tf2onnx.convert.from_graph_def(
        graph_def, input_names=["images:0"], output_names=["probabilities:0"], opset=OPSET
    )
    graph = converted.graph
    renamed = {"images:0": "images", "probabilities:0": "probabilities"}
    for value in (*graph.input, *graph.output):
        value.name = renamed[value.name]
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    onnx.checker.check_model(converted)
    onnx.save(converted, path)


def run_onnx(path, pixels):
    """The probabilities of `pixels`, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"images": pixels})[0]
