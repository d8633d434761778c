"""Say what is on pictures.

    python predict.py IMAGE [IMAGE ...] [--model models/resnet] [--top 3] [--json | --csv] [--save DIR]

IMAGE is a file, a folder, or - for file names on standard input. A picture that cannot be used is
reported, the others are answered, and the exit status is 1.
"""

from __future__ import annotations

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import codecs
import csv
import io
import itertools
import json
import os
import re
import sys
from multiprocessing.pool import ThreadPool
from typing import Iterable, Iterator, NamedTuple

import numpy as np
from PIL import Image

from suite.files import atomic, classnames, csvfile
from suite.model import inference_graph, modelfolder
from suite.model.network import add_mirror_option
from suite.pictures import drawing, imagefile, recognition, sandbox
from suite.process import commandline, device, lifetime, terminal, tf_versions
from suite.process.errors import UserError
from suite.process.pipeline import Ahead
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import preprocessing

UNKNOWN = "unknown"  # the answer below --threshold
SAVED_SIDE = 800  # pixels; the shorter side of what --save writes has little more at most


class Pending(NamedTuple):
    """A picture on its way."""

    path: str
    data: bytes | np.ndarray | None  # of the file made small; later float32 [size, size, 3]
    view: bytes | None  # JPEG to draw on, with --save
    error: str | None  # why there is no answer
    remark: str = ""  # one of imagefile.REMARKS


def main():
    """Returns the exit status: 1 if a picture could not be used."""
    options = parse_options()
    paths = list_images(options.images)
    model = modelfolder.load_model(options.model)
    if options.save:
        atomic.make_folder(options.save)
    unknown = answer_below_threshold(model.classes)
    if options.threshold and unknown != UNKNOWN:
        say("warning: there is a class %s; below --threshold the answer is %s" % (UNKNOWN, unknown))
    failed = False
    imagefile.warm_up((*imagefile.FORMATS, *options.formats))
    with ThreadPool() as pool:
        # Both go on while TensorFlow is imported, and import nothing themselves.
        cached = pool.apply_async(inference_graph.read_cache, [model])
        encoded = Ahead(pool, lambda path: encode_file(path, model, options), paths, options.batch_size)
        device.start(options)
        decode, classify = build(model, cached.get(), options.mirror)
        decoded = Ahead(pool, decode, encoded, options.batch_size)
        show = printer(options)
        for batch in decoded.batches(options.batch_size):
            answers = iter(classify([picture.data for picture in batch if not picture.error]))
            for picture in batch:
                if picture.error:
                    failed = True
                    show(picture.path, None, None, picture.error)
                    continue
                if picture.remark:
                    say("warning: %s: %s" % (picture.path, picture.remark))
                label, predictions = best(
                    next(answers), model.classes, options.top, options.threshold, unknown
                )
                show(picture.path, label, predictions, None)
                if options.save:
                    save(options.save, picture, "%s %s" % (label, percent(predictions[0])))
    return 1 if failed else 0


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    number = commandline.number
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder, or - for names on stdin")
    parser.add_argument("--model", default="models/resnet", help="model folder, or one checkpoint in it")
    parser.add_argument("--top", type=number(int, 1), default=3, help="classes to name")
    parser.add_argument(
        "--threshold",
        type=number(float, 0, 1),
        default=0,
        metavar="P",
        help="answer %s where the best probability is lower" % UNKNOWN,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object per line")
    form.add_argument("--csv", action="store_true", help="a table of file, label, probability and error")
    parser.add_argument("--save", metavar="DIR", help="write each picture there, with its label drawn on")
    imagefile.add_formats_option(parser, "pictures go before it: predict.py photo.tif --formats TIFF")
    sandbox.add_option(parser)
    add_mirror_option(parser)
    parser.add_argument("--batch_size", type=number(int, 1), default=32, help="pictures computed at a time")
    options = parser.parse_args(arguments)
    sandbox.check_option(options, parser)
    return options


def list_images(images: list[str]) -> Iterator[str]:
    """The paths that the command line names, folders and standard input opened up.

    Raises:
        UserError: a folder has no files. Whether the others exist is seen on reading them.
    """
    paths: list[Iterable[str]] = []
    for image in images:
        if image == "-":
            paths.append(names_on_stdin())
        elif os.path.isdir(image):
            inside = imagefile.list_files(image)
            if not inside:
                raise UserError("%s: no files in this folder" % image)
            paths.append(inside)
        else:
            paths.append([image])
    return itertools.chain.from_iterable(paths)


def names_on_stdin() -> Iterator[str]:
    """The file names on standard input, as they come.

    Raises:
        UserError: it is closed.
    """
    if sys.stdin is None:
        raise UserError("-: standard input is closed; file names are read from there, one a line")
    # Not from sys.stdin: a thread that waits for that holds a lock, which Python wants when it ends.
    return split_names(iter(lambda: os.read(0, 1 << 16), b""))


def split_names(blocks: Iterator[bytes]) -> Iterator[str]:
    """File names from blocks of bytes: they end at NULs where the first does, else with the lines.

    Raises:
        UserError: there are none, or it is something else.
    """
    first = b""
    for block in blocks:
        first += block
        if b"\0" in first or b"\n" in first:
            break
    if recognition.is_picture(first):
        raise UserError("-: takes file names, one a line, and these are the bytes of a picture")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError("-: the file names are in UTF-16; write them in UTF-8")
    if first.startswith(codecs.BOM_UTF8):
        first = first[len(codecs.BOM_UTF8) :]
    end = b"\0" if b"\0" in first else b"\n"
    rest, found = b"", False
    for block in itertools.chain([first], blocks, [end]):
        *names, rest = (rest + block).split(end)
        for name in names:
            if end == b"\n" and name.endswith(b"\r"):
                name = name[:-1]
            if name:
                found = True
                yield os.fsdecode(name)
    if not found:
        raise UserError("-: no file names on standard input")


# --- from files to answers ----------------------------------------


def encode_file(path, model, options):
    """A Pending of JPEG bytes, or of the reason why the file cannot be used. Needs no TensorFlow.

    Args:
        model: see modelfolder.Model; the JPEG is made as FlowIO.py made those that it was trained on.
    """
    formats = (*imagefile.FORMATS, *options.formats)
    try:
        data = imagefile.read_file(path)
        small = sandbox.encode_and_hash if options.sandbox else imagefile.load_and_encode
        *_, view, _ = small(data, SAVED_SIDE, formats) if options.save else (None, None)
        *_, jpeg, remark = small(data, None if model.keep_size else model.image_size, formats, model.fit)
        return Pending(path, jpeg, view, None, remark)
    except imagefile.BadPicture as error:
        return Pending(path, None, None, str(error))


def build(model, cached, mirror=False):
    """The two steps from a JPEG to an answer, both of which any thread may call.

    Args:
        cached: what inference_graph.read_cache returned.
        mirror: see network.restore_session.
    Returns:
        decode: a function from what `encode_file` returned to a Pending of float32 pixels.
        classify: a function from a list of pixels to float32 probabilities [len(list), classes].
    Raises:
        UserError: see inference_graph.load_graph.
    """
    with tf.Graph().as_default():
        jpeg = tf.placeholder(tf.string, [])
        pixels = preprocessing.preprocess_for_evaluation(jpeg, model.image_size, model.normalize, model.fit)
        graph_def = inference_graph.load_graph(model, cached)
        elements = ["images:0", "probabilities:0"]
        images, probabilities = tf.import_graph_def(graph_def, return_elements=elements)
        session_config = device.session_config()
        # TensorFlow's rewriting of the graph takes longer at the start than it saves afterwards.
        session_config.graph_options.rewrite_options.disable_meta_optimizer = True
        session = tf.Session(config=session_config)
    decode_jpeg = session.make_callable(pixels, [jpeg])
    compute = session.make_callable(probabilities, [images])

    def decode(picture):
        if picture.error:
            return picture
        try:
            return picture._replace(data=decode_jpeg(picture.data))
        except tf.errors.InvalidArgumentError as error:
            return picture._replace(error="damaged: %s" % tf_versions.reason(error))

    def classify(pictures):
        if not pictures:
            return []
        pictures = np.stack(pictures)
        return (compute(pictures) + compute(pictures[:, :, ::-1])) / 2 if mirror else compute(pictures)

    return decode, classify


def answer_below_threshold(classes):
    """UNKNOWN, in as many brackets as it takes to be no class."""
    answer = UNKNOWN
    taken = {classnames.blurred(name) for name in classes}
    while answer in taken:
        answer = "(%s)" % answer
    return answer


def best(probabilities, classes, top, threshold, unknown=UNKNOWN):
    """What to say of a picture.

    Args:
        probabilities: float32 [classes].
        top: how many classes to name.
        threshold: from 0 to 1.
    Returns:
        The label, `unknown` below `threshold`; and [{"label", "probability"}], the most probable first.
    """
    order = (-probabilities).argsort(kind="stable")[:top]
    predictions = [{"label": classes[i], "probability": float(probabilities[i])} for i in order]
    label = predictions[0]["label"] if predictions[0]["probability"] >= threshold else unknown
    return label, predictions


def percent(prediction: dict) -> str:
    """98.2% for a probability of 0.982."""
    return "%.1f%%" % (100 * prediction["probability"])


# --- what the user sees ----------------------------------------


def printer(options):
    """A function (path, label, predictions, error) that prints one result as the options ask for."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    # Elsewhere what an encoding lacks is spelt by Python's escapes, which are not JSON's.
    ascii_only = not re.fullmatch("utf-?8", sys.stdout.encoding or "", re.IGNORECASE)

    def print_json(path, label, predictions, error):
        answer = {"error": error} if error else {"predictions": predictions}
        if options.threshold and not error:
            answer["label"] = label
        print(json.dumps(dict(image=path, **answer), ensure_ascii=ascii_only), flush=True)

    def print_row(path, label, predictions, error):
        probability = "" if error else "%.6f" % predictions[0]["probability"]
        table.writerow([csvfile.harmless(each or "") for each in (path, label, probability, error)])
        sys.stdout.flush()

    def print_line(path, label, predictions, error):
        if error:
            say("%s: %s" % (path, error))
            return
        names = ", ".join("%s %s" % (each["label"], percent(each)) for each in predictions)
        answer = names if label == predictions[0]["label"] else "%s (%s)" % (label, names)
        print(terminal.printable("%s: %s" % (path, answer)), flush=True)

    if options.csv:
        table.writerow(["file", "label", "probability", "error"])
    return print_json if options.json else print_row if options.csv else print_line


def save(folder, picture, text):
    """Write the picture as <its name>.jpg with `text` under it; no file that exists is replaced."""
    image = drawing.caption(Image.open(io.BytesIO(picture.view)), text)
    name = os.path.splitext(os.path.basename(picture.path))[0]
    for number in itertools.count(1):
        path = os.path.join(folder, "%s%s.jpg" % (name, "" if number == 1 else "-%d" % number))
        try:
            with open(path, "xb") as file:
                image.save(file, "JPEG", quality=imagefile.JPEG_QUALITY)
            return
        except FileExistsError:
            pass


if __name__ == "__main__":
    lifetime.run(main)
