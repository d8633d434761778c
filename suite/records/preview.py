"""A sheet of the pictures as the network will see them: FlowIO.py --preview."""

import collections
import random

import numpy as np
from PIL import Image

from suite.files import atomic
from suite.pictures import drawing
from suite.process import device
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records.preprocessing import decode_view, finish_view, preprocess_for_evaluation

MOST_CLASSES = 40
# Of each class; None: where the user's folders give no split.
PER_SPLIT = {None: 8, "train": 4, "val": 2, "test": 2}
# Of the first picture, by augmentation; every other one mirrored, as by chance none might be.
PER_AUGMENTATION = {"flip": 2, "standard": 4}
TITLES = {"flip": "flip, 2nd mirrored", "standard": "standard, 2nd and 4th mirrored"}


def sample(sources, seed):
    """Some files of each class that is shown, chosen by chance: PER_SPLIT of the SourceFiles."""
    taken, chosen = collections.Counter(), []
    for source in random.Random(seed).sample(sources, len(sources)):
        taken[source.given, source.label] += 1
        if source.label < MOST_CLASSES and taken[source.given, source.label] <= PER_SPLIT[source.given]:
            chosen.append(source)
    return sorted(chosen)


def draw(path, classes, jpegs, image_size, fit):
    """Draw pictures as the network will see them, a row for each class.

    Args:
        path: of the PNG file.
        classes: names, in index order.
        jpegs: {(split or None, label): [what imagefile.encode returned]}.
        image_size: pixels that the network will see.
        fit: one of schemas.FITS.
    """
    splits = [split for split in PER_SPLIT if any(split == each for each, _ in jpegs)]
    columns = [(split or "pictures", PER_SPLIT[split]) for split in splits]
    columns += [("--augment %s" % TITLES[name], n) for name, n in PER_AUGMENTATION.items()]
    rows = []
    with tf.Graph().as_default(), tf.Session(config=device.session_config()) as session:
        jpeg, seed = tf.placeholder(tf.string, []), tf.placeholder(tf.int64, [2])
        mirrored = tf.placeholder(tf.bool, [])
        views = {"none": preprocess_for_evaluation(jpeg, image_size, "minus1_1", fit)}
        for augment in PER_AUGMENTATION:
            seen = dict(decode_view(jpeg, image_size, augment, seed, fit), mirrored=mirrored)
            views[augment] = finish_view(seen, "minus1_1")

        def view(augment, data, seeds=(0, 0)):
            values = session.run(views[augment], {jpeg: data, seed: seeds, mirrored: seeds[1] % 2})
            return Image.fromarray(((values + 1) * 127.5).round().astype(np.uint8))

        for label, name in enumerate(classes[:MOST_CLASSES]):
            found = [jpegs.get((split, label), []) for split in splits]
            groups = [[view("none", data) for data in group] for group in found]
            first = sum(found, [])[:1]
            for augment, n in PER_AUGMENTATION.items():
                groups.append([view(augment, data, (label, i)) for data in first for i in range(n)])
            rows.append(("%d %s" % (label, name), groups))
    with atomic.replacing_file(path) as partial:
        drawing.contact_sheet(columns, rows).save(partial, "PNG")
    say("drew %s, %d of %d classes" % (path, len(rows), len(classes)))
