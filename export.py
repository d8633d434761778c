"""Write a trained model in the form that other programs want.

    python export.py [--model models/resnet] [--format {saved_model,frozen_graph,tflite,onnx}] [--output PATH]

saved_model is what TensorFlow Serving loads: the signature serving_default takes the bytes of JPEG and
PNG files. The others take `images`, float32 [n, size, size, 3], RGB of 0 to 255, and give
`probabilities`, float32 [n, classes]; labels.txt lies beside them. What was written is run and
compared with the checkpoint before it takes its place, saved_model on whole files too.
"""

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import io
import os
import re

import numpy as np
from PIL import Image

from suite.files import atomic
from suite.files.schemas import MODEL
from suite.model import formats, inference_graph, modelfolder
from suite.model.network import restore_session
from suite.pictures import imagefile
from suite.process import commandline, device, lifetime, tf_versions
from suite.process.errors import UsageError, UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import preprocessing

SAVED_MODEL_FILES = re.compile(r"saved_model\.pb|variables")
TOLERANCE = 1e-3  # of probabilities: float32 in another order gave up to 2e-4, the least fault tried 3e-2
FILE_TOLERANCE = 0.02  # and from predict.py's, where another library decodes the same files
SAMPLE_SIDES = (0.5, 1, 1.1, 2, 6)  # of the files that are compared, in what the network sees


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
        check_labels(output, model.classes)
        target = atomic.replacing_file(output)
    with target as path:
        say("preparing the model")
        graph_def = inference_graph.frozen_graph(model, "NHWC", ["probabilities"])
        files = sample_files(model.image_size)
        pixels, expected = predict(files, model)
        say("writing and running it as %s" % options.format)
        found = formats.write_and_run(
            options.format, graph_def, model, pixels, path, options.quantize, options.verbose
        )
        compare(found, expected, np.inf if options.quantize else TOLERANCE)
        if options.format == "saved_model":
            found = formats.run_saved_model(path, files, "serving_default")
            compare(found, expected, FILE_TOLERANCE, "predict.py's probabilities of whole files")
    if options.format != "saved_model":
        write_labels(os.path.dirname(output), model.classes)
    print(output)


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__, tf32="no")  # which is further from a CPU than TOLERANCE
    parser.add_argument("--model", default=MODEL, help="model folder, or one checkpoint in it")
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
        return os.path.join(folder, "saved_model", str(modelfolder.checkpoint_step(model.checkpoint) or 0))
    return folder


def file_name(output, suffix):
    """`output` itself if it is named like a file of this format, else model.<suffix> in that folder."""
    return output if output.endswith(suffix) else os.path.join(output, "model" + suffix)


def check_labels(output, classes):
    """Refuse to write labels.txt over one that is not of an export, or of another one, too.

    Raises:
        UserError: it would.
    """
    folder, name = os.path.split(output)
    path = os.path.join(folder, "labels.txt")
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        if file.read() == labels(classes):
            return
    suffixes = tuple(formats.SUFFIXES.values())
    exports = sorted(each for each in os.listdir(folder or ".") if each.endswith(suffixes))
    for other in exports:
        if other != name:
            raise UserError("%s: is of another model, that of %s; choose another --output" % (path, other))
    if not exports:
        raise UserError("%s: is there already, and no export's; choose another --output" % path)


def write_labels(folder, classes):
    """Write labels.txt."""
    with atomic.replacing_file(os.path.join(folder, "labels.txt")) as partial, open(partial, "wb") as file:
        file.write(labels(classes))


def labels(classes):
    """The content of labels.txt: a line for each class, in index order."""
    return "".join("%s\n" % name.replace("\n", "\\n") for name in classes).encode("utf-8")


# --- what must come out ----------------------------------------


def sample_files(image_size):
    """The bytes of picture files smaller and larger than the network sees: JPEG, PNG, and transparent PNG."""
    rng = np.random.RandomState(0)
    files = []
    for share in SAMPLE_SIDES:
        width = round(share * image_size)
        coarse = Image.fromarray(rng.randint(0, 256, [8, 8, 4]).astype(np.uint8))
        fine = coarse.resize((width, width * 5 // 4), Image.NEAREST)
        for mode, format in (("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG")):
            file = io.BytesIO()
            fine.convert(mode).save(file, format)
            files.append(file.getvalue())
    return files


def predict(files, model):
    """What predict.py sees of files, float32 [n, size, size, 3] of 0..255, and the checkpoint's answers.

    Raises:
        UserError: see network.restore_session.
    """
    stored_size = None if model.keep_size else model.image_size
    with tf.Graph().as_default():
        jpeg = tf.placeholder(tf.string, [])
        centre = preprocessing.centre(jpeg, model.image_size, model.fit)
        images = tf.placeholder(tf.float32, [None, model.image_size, model.image_size, 3])
        session, probabilities = restore_session(model, preprocessing.normalize(images, model.normalize))
        with session:
            small = [imagefile.encode(data, stored_size, fit=model.fit) for data in files]
            pixels = np.array([session.run(centre, {jpeg: data}) for data in small])
            return pixels, session.run(probabilities, {images: pixels})


def compare(found, expected, tolerance=TOLERANCE, reference="the checkpoint's probabilities"):
    """Say how far the exported model's probabilities are from what they should be; float32 [n, classes] each.

    Raises:
        UserError: further than `tolerance`.
    """
    difference = float(np.abs(found - expected).max())
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    say("largest difference from %s: %.1e" % (reference, difference))
    say("the same answer on %d of %d pictures" % (same, len(expected)))
    if not difference <= tolerance:
        raise UserError(
            "the exported model differs from %s by more than %g; nothing was written" % (reference, tolerance)
        )


if __name__ == "__main__":
    lifetime.run(main)
