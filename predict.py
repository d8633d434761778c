"""Say what is on pictures.

    python predict.py IMAGE [IMAGE ...] [--model models/resnet] [--top 3] [--json | --csv] [--save DIR]

IMAGE is a file, a folder, or - for file names on standard input. A picture that cannot be used is
reported, the others are answered, and the exit status is 1. Within a program:

    from predict import Classifier
    with Classifier("models/resnet") as classify:
        print(classify("photo.jpg").label)
"""

from __future__ import annotations

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import codecs
import contextlib
import csv
import io
import itertools
import json
import os
import re
import sys
from typing import Any, Iterable, Iterator, NamedTuple

import numpy as np
from PIL import Image

from suite.files import atomic, csvfile
from suite.files.schemas import MODEL
from suite.model import classifier, modelfolder
from suite.model.classifier import UNKNOWN, Classifier
from suite.model.maps import finer_from, spread
from suite.model.network import add_mirror_option, warn_of_mirror
from suite.model.reader import Reader
from suite.pictures import drawing, imagefile, recognition, sandbox
from suite.pictures.imagefile import BadPicture
from suite.process import commandline, device, lifetime, terminal
from suite.process.errors import UserError
from suite.process.pipeline import Ahead
from suite.process.terminal import say
from suite.records import preprocessing

LONGEST_NAME = 220  # bytes, of 255, that a file of --save and --explain takes from its picture's name
SAVED_SIDE = 800  # pixels; the shorter side of what --save writes has little more at most


class Pending(NamedTuple):
    """A picture on its way."""

    path: str
    picture: Any  # what Reader.encode returned or raised; later what Classifier.prepare made of that
    view: bytes | None = None  # JPEG to draw on, with --save and --explain
    seen: tuple | None = None  # where on that lies what the network sees, with --explain


def main():
    """Returns the exit status: 1 if a picture could not be used."""
    options = parse_options()
    paths = list_images(options.images)
    model = modelfolder.load_model(options.model)
    warn_of_mirror(options, model)
    for folder in filter(None, (options.save, options.explain)):
        atomic.make_folder(folder)
        atomic.remove_abandoned(folder)
    warn_of_unknown(model.classes, options)
    if options.explain and finer_from(model):
        line = "warning: --explain: %s sees %d pixels, too few to say where; from --image_size %d on it can"
        say(line % (model.folder, model.image_size, finer_from(model)))
    imagefile.warm_up((*imagefile.FORMATS, *options.formats))
    # Its threads go on while TensorFlow is imported, and import nothing themselves.
    likely = device.likely_data_format(options.device)
    reader = Reader(model, likely, options.sandbox, options.formats)
    encoded = Ahead(reader.pool, lambda path: encode_file(path, reader, options), paths, options.batch_size)
    device.start(options)
    if not reader.cached(device.data_format()):
        say("preparing the model for prediction, once for each checkpoint")
    keeping = writing_features(options.features, model.checkpoint)
    with keeping as features, Classifier(model, mirror=options.mirror, reader=reader) as classify:
        return answer_all(encoded, reader, classify, options, features)


def answer_all(encoded, reader, classify, options, features):
    """Show the answer for each Pending as it comes; append to `features`. Returns the exit status."""

    def prepare(pending):
        return pending._replace(picture=classify.prepare(pending.picture))

    status, show, explain = 0, printer(options), bool(options.explain or options.features)
    for batch in Ahead(reader.pool, prepare, encoded, options.batch_size).batches(options.batch_size):
        pictures = [each.picture for each in batch]
        answers = classify.answers(pictures, options.top, options.threshold, explain)
        for pending, answer in zip(batch, answers):
            if isinstance(answer, BadPicture):
                status = 1
                show(pending.path, None, None, str(answer))
                continue
            if answer.remark:
                say("warning: %s: %s" % (pending.path, answer.remark))
            show(pending.path, answer.label, answer.predictions, None)
            draw(pending, answer, reader.model, options)
            if options.features:
                features.append((pending.path, answer.features))
    return status


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    number = commandline.number
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder, or - for names on stdin")
    parser.add_argument("--model", default=MODEL, help="model folder, or one checkpoint in it")
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
    parser.add_argument(
        "--explain", metavar="DIR", help="write each picture there, with what spoke for its label in orange"
    )
    parser.add_argument(
        "--features",
        metavar="FILE.npz",
        help="write what the network goes by, for search: names, features (float32 [n, channels])",
    )
    imagefile.add_formats_option(parser, "pictures go before it: predict.py photo.tif --formats TIFF")
    sandbox.add_option(parser)
    add_mirror_option(parser)
    parser.add_argument("--batch_size", type=number(int, 1), default=32, help="pictures computed at a time")
    options = parser.parse_args(arguments)
    if options.features and not options.features.endswith(".npz"):
        parser.error("argument --features: %s: must end with .npz" % options.features)
    if (
        options.save
        and options.explain
        and os.path.realpath(options.save) == os.path.realpath(options.explain)
    ):
        parser.error("argument --explain: must be another folder than that of --save")
    for folder, name in ((options.save, "save"), (options.explain, "explain")):
        for image in options.images if folder else ():
            if os.path.isdir(image) and atomic.is_within(folder, image):
                message = "argument --%s: %s lies in %s, whose pictures are read; choose a folder outside"
                parser.error(message % (name, folder, image))
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


def encode_file(path, reader, options):
    """A Pending, made small or refused. Needs no TensorFlow; `reader`: a Reader."""
    try:
        data = imagefile.read_file(path)
        picture = reader.encode(data)
        if not options.save and not options.explain:
            return Pending(path, picture)
        view = reader.small(data, SAVED_SIDE)[0]
        sizes = [Image.open(io.BytesIO(jpeg)).size for jpeg in (view, picture.content)]
        seen = preprocessing.seen(*sizes, reader.model.image_size, reader.model.fit)
        return Pending(path, picture, view, seen)
    except BadPicture as error:
        return Pending(path, error)


def warn_of_unknown(classes, options):
    """Say what the answer below --threshold is where it cannot be UNKNOWN."""
    unknown = classifier.answer_below_threshold(classes)
    if options.threshold and unknown != UNKNOWN:
        say("warning: there is a class %s; below --threshold the answer is %s" % (UNKNOWN, unknown))


def in_words(label: str, predictions: list) -> str:
    """cat 98.2%, dog 1.0%; or, where the label is another, unknown (cat 45.0%, dog 31.0%)."""
    names = ", ".join("%s %.1f%%" % (each["label"], 100 * each["probability"]) for each in predictions)
    return names if label == predictions[0]["label"] else "%s (%s)" % (label, names)


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
        print(terminal.printable("%s: %s" % (path, in_words(label, predictions))), flush=True)

    if options.csv:
        table.writerow(["file", "label", "probability", "error"])
    return print_json if options.json else print_row if options.csv else print_line


def draw(picture, answer, model, options):
    """Write what --save and --explain ask for; `model`: the modelfolder.Model that answered."""
    if not picture.view:
        return
    text = in_words(answer.label, answer.predictions[:1])
    image = Image.open(io.BytesIO(picture.view))
    if options.save:
        save(options.save, picture.path, drawing.caption(image, text))
    if options.explain:
        image = drawing.overlay(image, spread(answer.map, model), picture.seen)
        save(options.explain, picture.path, drawing.caption(image, text))


def save(folder, path, image):
    """Write a picture's image whole as <its name>.jpg; none that exists is replaced, or that others begin."""
    name = os.fsdecode(os.fsencode(os.path.splitext(os.path.basename(path))[0])[:LONGEST_NAME])
    with atomic.unique_partial(folder) as partial, atomic.naming(os.path.join(folder, name + ".jpg")):
        with open(partial, "wb") as file:
            file.write(imagefile.to_jpeg(image))
        atomic.flush(partial)
        for number in itertools.count(1):
            path = os.path.join(folder, "%s%s.jpg" % (name, "" if number == 1 else "-%d" % number))
            if os.path.lexists(path):  # soon seen, where there are many of a name
                continue
            with contextlib.suppress(FileExistsError):
                take_name(partial, path)
                return


def take_name(partial, path):
    """Give a file another name. Raises FileExistsError where that is taken, at once with others too."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        open(path, "xb").close()
        os.replace(partial, path)
    else:
        os.remove(partial)


@contextlib.contextmanager
def writing_features(path, checkpoint):
    """A list for (name, float32 [channels]), written for numpy.load when all went well; to None it is not.

    Raises:
        UserError: nothing was appended, or there is something that cannot be replaced.
    """
    rows = []
    if not path:
        yield rows
        return
    with atomic.replacing_file(path) as partial:
        yield rows
        if not rows:
            raise UserError("%s: not written, as no picture could be used" % path)
        names, features = zip(*rows)
        content = io.BytesIO()  # a zip file that cannot be written to its end would be one traceback more
        np.savez(content, names=names, features=features, checkpoint=checkpoint)
        with open(partial, "wb") as file:
            file.write(content.getbuffer())


if __name__ == "__main__":
    lifetime.run(main)
