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

import numpy as np

from suite.files import atomic
from suite.model import formats, inference_graph, modelfolder
from suite.model.network import restore_session
from suite.process import commandline, device, lifetime, tf_versions
from suite.process.errors import UsageError, UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import preprocessing

SAVED_MODEL_FILES = re.compile(r"saved_model\.pb|variables")
TOLERANCE = 1e-4  # largest difference of a probability from the checkpoint's
SAMPLES = 16  # pictures that are compared


def main():
    """Write, compare and put into place; print where that is."""
    options = parse_options()
    if options.format == "onnx":
        check_onnx()
    model = modelfolder.load_model(options.model)
    device.start(options)
    output = options.output or default_output(model, options.format)
    if options.format == "saved_model":
        target = atomic.replacing(output, SAVED_MODEL_FILES)
    else:
        output = file_name(output, formats.SUFFIXES[options.format])
        target = atomic.replacing_file(output)
    with target as path:
        say("preparing the model")
        graph_def = inference_graph.frozen_graph(model, "NHWC")
        pixels, expected = sample(model)
        say("writing and running it as %s" % options.format)
        found = formats.write_and_run(
            options.format, graph_def, model, pixels, path, options.quantize, options.verbose
        )
        compare(found, expected, options.quantize)
    if options.format != "saved_model":
        write_labels(os.path.dirname(output), model.classes)
    print(output)


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    parser.add_argument("--model", default="models/resnet", help="model folder, or one checkpoint in it")
    parser.add_argument(
        "--format", choices=("saved_model", *formats.SUFFIXES), default="saved_model", help="what to write"
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
        UserError: see network.restore_session.
    """
    rng = np.random.RandomState(0)
    coarse = rng.uniform(0, 255, [SAMPLES, 8, 8, 3])
    repeat = -(-model.image_size // 8)
    pixels = coarse.repeat(repeat, 1).repeat(repeat, 2)[:, : model.image_size, : model.image_size]
    pixels = np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).round().astype(np.float32)
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, model.image_size, model.image_size, 3])
        session, probabilities = restore_session(model, preprocessing.normalize(images, model.normalize))
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


if __name__ == "__main__":
    lifetime.run(main)
