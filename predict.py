"""Say what is on pictures.

    python predict.py IMAGE [IMAGE ...] [--model models/resnet] [--top 3] [--json]

IMAGE is a file, a folder, or - for file names on standard input. A picture that cannot be used is
reported, the others are answered, and the exit status is 1.
"""

import itertools
import json
import os
import sys
from multiprocessing.pool import ThreadPool

import FlowIO
import runtime
from runtime import UserError, say, tf


def main():
    options = parse_options()
    paths = list_images(options.images)
    runtime.start(options)
    model = runtime.load_model(options.model)
    top = min(options.top, len(model.classes))
    failed = False
    with tf.Graph().as_default(), ThreadPool() as pool:
        classify = build(model)
        pictures = pool.imap(lambda path: (path, *encode(path, model.image_size)), paths)
        for batch in batches(pictures, options.batch_size):
            answers = iter(classify([jpeg for _, jpeg, _ in batch if jpeg]))
            for path, _, error in batch:
                failed = failed or bool(error)
                show(path, error or best(next(answers), model.classes, top), options.json)
    return 1 if failed else 0


def parse_options(arguments=None):
    parser = runtime.ArgumentParser(__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder, or - for names on stdin")
    parser.add_argument("--model", default="models/resnet", help="model folder, or one checkpoint in it")
    parser.add_argument("--top", type=runtime.number(int, 1), default=3, help="classes to name")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument(
        "--batch_size", type=runtime.number(int, 1), default=32, help="pictures computed at a time"
    )
    return parser.parse_args(arguments)


def list_images(images):
    """The paths that the command line names, folders and standard input opened up."""
    paths = []
    for image in images:
        if image == "-":
            paths += [line.rstrip("\n") for line in sys.stdin if line.strip()]
        elif os.path.isdir(image):
            inside = FlowIO.list_files(image)
            if not inside:
                raise UserError("%s: no files in this folder" % image)
            paths += inside
        else:
            paths.append(image)
    return paths


def encode(path, image_size):
    """(JPEG bytes, None), or (None, the reason why the file cannot be used)."""
    try:
        return FlowIO.encode(FlowIO.read_file(path), image_size), None
    except FlowIO.BadPicture as error:
        return None, str(error)


def batches(items, size):
    """Lists of up to `size` items."""
    items = iter(items)
    return iter(lambda: list(itertools.islice(items, size)), [])


def build(model):
    """A function from a list of JPEG bytes to float32 probabilities [len(list), classes]."""
    jpegs = tf.placeholder(tf.string, [None])
    images = tf.map_fn(lambda jpeg: FlowIO.decode(jpeg, model.image_size, model.normalize), jpegs, tf.float32)
    session, probabilities = runtime.restore(model, images)
    return lambda batch: session.run(probabilities, {jpegs: batch}) if batch else []


def best(probabilities, classes, top):
    """[{"label", "probability"}], the most probable first."""
    order = (-probabilities).argsort(kind="stable")[:top]
    return [{"label": classes[i], "probability": float(probabilities[i])} for i in order]


def show(path, answer, as_json):
    """Print one result: `answer` is what `best` returned, or the reason why there is none."""
    if as_json:
        key = "error" if isinstance(answer, str) else "predictions"
        print(json.dumps({"image": path, key: answer}, ensure_ascii=False), flush=True)
    elif isinstance(answer, str):
        say("%s: %s" % (path, answer))
    else:
        names = ", ".join("%s %.1f%%" % (each["label"], 100 * each["probability"]) for each in answer)
        print("%s: %s" % (path, names), flush=True)


if __name__ == "__main__":
    runtime.run(main)
