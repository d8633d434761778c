"""Write a trained model in the form that other programs want.

    python export.py [--model models/resnet] [--format {saved_model,frozen_graph,tflite,onnx}] [--output PATH]

saved_model is what TensorFlow Serving loads: the signature serving_default takes the bytes of JPEG and
PNG files. The others take `images`, float32 [n, size, size, 3], RGB of 0 to 255, and give
`probabilities`, float32 [n, classes]; labels.txt lies beside them. What was written is run and
compared with the checkpoint before it takes its place.
"""

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import os
import re
import sys

import numpy as np

from suite.files import atomic
from suite.model import inference_graph, modelfolder
from suite.process import commandline, device, lifetime, tf_versions
from suite.process.errors import UsageError, UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import preprocessing

SUFFIXES = {"frozen_graph": ".pb", "tflite": ".tflite", "onnx": ".onnx"}
SAVED_MODEL_FILES = re.compile(r"saved_model\.pb|variables")
TOLERANCE = 1e-4  # largest difference of a probability from the checkpoint's
SAMPLES = 16  # pictures that are compared
OPSET = 13  # of ONNX; what onnxruntime 1.10 and onnxruntime-web run


def main():
    """Write, compare and put into place; print where that is."""
    options = parse_options()
    if options.format == "onnx":
        check_onnx()
    model = modelfolder.load(options.model)
    device.start(options)
    output = options.output or default_output(model, options.format)
    if options.format == "saved_model":
        target = atomic.replacing(output, SAVED_MODEL_FILES)
    else:
        output = file_name(output, SUFFIXES[options.format])
        target = atomic.replacing_file(output)
    with target as path:
        network = inference_graph.freeze(model, "NHWC")
        pixels, expected = sample(model)
        found = write_and_run(options, network, model, pixels, path)
        compare(found, expected, options.quantize)
    if options.format != "saved_model":
        write_labels(os.path.dirname(output), model.classes)
    print(output)


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    parser.add_argument("--model", default="models/resnet", help="model folder, or one checkpoint in it")
    parser.add_argument(
        "--format", choices=("saved_model", *SUFFIXES), default="saved_model", help="what to write"
    )
    parser.add_argument(
        "--output", metavar="PATH", help="where to write it (default: in the model folder's export/)"
    )
    parser.add_argument(
        "--quantize", action="store_true", help="with tflite: weights of 8 bits, a quarter of the size"
    )
    options = parser.parse_args(arguments)
    if options.quantize and options.format != "tflite":
        parser.error("--quantize: goes with --format tflite")
    return options


def check_onnx():
    """Raises UsageError where the packages for ONNX are not installed."""
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        message = "--format onnx: needs %s; pip install -r %s"
        raise UsageError(message % (error.name, tf_versions.requirements("export"))) from error


def default_output(model, format):
    """The folder to write to where --output does not say."""
    folder = os.path.join(model.folder, "export")
    if format == "saved_model":  # TensorFlow Serving wants a number below the model's folder
        return os.path.join(folder, "saved_model", str(modelfolder.checkpoint_step(model.checkpoint)))
    return folder


def file_name(output, suffix):
    """`output` itself if it is named like a file of this format, else model.<suffix> in that folder."""
    return output if output.endswith(suffix) else os.path.join(output, "model" + suffix)


def write_labels(folder, classes):
    """labels.txt: a line for each class, in index order."""
    path = os.path.join(folder, "labels.txt")
    with atomic.replacing_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines("%s\n" % name.replace("\n", "\\n") for name in classes)


# --- what must come out ----------------------------------------


def sample(model):
    """Pictures, float32 [SAMPLES, size, size, 3] of 0..255, and the checkpoint's probabilities for them.

    Raises:
        UserError: see modelfolder.restore.
    """
    rng = np.random.RandomState(0)
    coarse = rng.uniform(0, 255, [SAMPLES, 8, 8, 3])
    repeat = -(-model.image_size // 8)
    pixels = coarse.repeat(repeat, 1).repeat(repeat, 2)[:, : model.image_size, : model.image_size]
    pixels = np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).round().astype(np.float32)
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, model.image_size, model.image_size, 3])
        session, probabilities = modelfolder.restore(model, preprocessing.normalize(images, model.normalize))
        with session:
            return pixels, session.run(probabilities, {images: pixels})


def compare(found, expected, quantized=False):
    """Say how far the exported model's probabilities are from the checkpoint's; float32 [n, classes] each.

    Raises:
        UserError: further than TOLERANCE, and not because it was quantised.
    """
    difference = float(np.abs(found - expected).max())
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    say("largest difference from the checkpoint's probabilities: %.1e" % difference)
    say("the same answer on %d of %d pictures" % (same, len(expected)))
    if not difference <= TOLERANCE and not quantized:
        raise UserError(
            "the exported model differs from the checkpoint by more than %g; nothing was written" % TOLERANCE
        )


# --- the formats ----------------------------------------


def write_and_run(options, network, model, pixels, path):
    """Write the format to `path`, run it and return the probabilities of `pixels`.

    Args:
        network: what inference_graph.freeze returned.
        pixels: float32 [n, size, size, 3] of 0..255.
    Returns:
        float32 [n, classes].
    """
    if options.format == "saved_model":
        write_saved_model(path, network, model)
        return run_saved_model(path, pixels)
    if options.format == "frozen_graph":
        with open(path, "wb") as file:
            file.write(with_normalisation(network, model).SerializeToString())
        return run_frozen_graph(path, pixels)
    if options.format == "tflite":
        with tf_versions.silent(options.verbose):
            write_tflite(path, with_normalisation(network, model, batch_size=1), options.quantize)
            return run_tflite(path, pixels)
    write_onnx(path, with_normalisation(network, model))
    return run_onnx(path, pixels)


def with_normalisation(network, model, batch_size=None):
    """A GraphDef from `images`, float32 [n, size, size, 3] of 0..255, to `probabilities`.

    Args:
        network: what inference_graph.freeze returned.
        batch_size: the n that it takes; None: any.
    """
    with tf.Graph().as_default() as graph:
        shape = [batch_size, model.image_size, model.image_size, 3]
        classify(network, model, tf.placeholder(tf.float32, shape, "images"), "probabilities")
        # An older TensorFlow refuses attributes that it does not know, even with their default.
        return tf.train.export_meta_graph(graph=graph, strip_default_attrs=True).graph_def


def classify(network, model, images, name=None):
    """float32 [n, classes], from float32 [n, size, size, 3] of 0..255."""
    inputs = {"images": preprocessing.normalize(images, model.normalize)}
    (probabilities,) = tf.import_graph_def(network, inputs, ["probabilities:0"], name="network")
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


def write_saved_model(folder, network, model):
    """SavedModel with the signatures serving_default (files) and pixels.

    Both give `probabilities`, float32 [n, classes], `label`, string [n], and `classes`, string
    [n, classes].
    """
    with tf.Graph().as_default(), tf.Session() as session:
        files = tf.placeholder(tf.string, [None], "image_bytes")
        decoded = tf.map_fn(lambda data: decode_file(data, model.image_size), files, tf.float32)
        # Who feeds pixels passes over the decoding.
        images = tf.placeholder_with_default(decoded, [None, model.image_size, model.image_size, 3], "images")
        probabilities = classify(network, model, images)
        names = tf.constant(model.classes)
        outputs = {
            "probabilities": probabilities,
            "label": tf.gather(names, tf.argmax(probabilities, 1)),
            "classes": tf.tile(names[tf.newaxis], [tf.shape(probabilities)[0], 1]),
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


def decode_file(data, image_size):
    """float32 [size, size, 3] of 0..255, from the bytes of a JPEG or PNG file of any size.

    As preprocess_for_evaluation, but reduced in one step. A graph cannot see EXIF orientation or colour
    profiles.
    """

    def jpeg():
        return tf.cast(tf.image.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"), tf.float32)

    def png():
        colours, opacity = tf.split(tf.cast(tf.image.decode_png(data, channels=4), tf.float32), [3, 1], 2)
        return 255 + (colours - 255) * (opacity / 255)  # laid on white, as imagefile.to_rgb does

    pixels = tf.cond(tf.image.is_jpeg(data), jpeg, png)
    shape = tf.shape(pixels)[:2]
    side = preprocessing.crop_side(shape, image_size)
    top, left = tf.unstack((shape - side) // 2)
    return preprocessing.resize(pixels[top : top + side, left : left + side], image_size)


def run_saved_model(folder, pixels):
    """The probabilities of `pixels`, by the signature for them."""
    with tf.Graph().as_default(), tf.Session(config=device.session_config()) as session:
        loaded = tf.saved_model.load(session, [tf.saved_model.tag_constants.SERVING], folder)
        signature = loaded.signature_def["pixels"]
        fetch = signature.outputs["probabilities"].name
        return session.run(fetch, {signature.inputs["images"].name: pixels})


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
        content = converter.convert()
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


if __name__ == "__main__":
    lifetime.run(main)
