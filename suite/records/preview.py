"""A sheet of the pictures as the network will see them: FlowIO.py --preview."""

import collections

import numpy as np
from PIL import Image

from suite.files import atomic
from suite.files.schemas import SPLITS
from suite.pictures import drawing
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records.preprocessing import preprocess_for_evaluation, preprocess_for_training

MOST_CLASSES = 40
PER_SPLIT = {"train": 4, "val": 2, "test": 2}
# Of the first picture of train, by augmentation; every other one mirrored, as by chance none might be.
PER_AUGMENTATION = {"flip": 2, "standard": 4}
TITLES = {"flip": "flip, 2nd mirrored", "standard": "standard, 2nd and 4th mirrored"}


def take_samples(splits, jpeg):
    """The first pictures of each class that is shown.

    Args:
        splits: {split: [EncodedPicture]}, see splits.EncodedPicture.
        jpeg: a function that gives the JPEG bytes of an EncodedPicture.
    Returns:
        {split: {label: [JPEG bytes]}}.
    """
    samples = {split: collections.defaultdict(list) for split in SPLITS}
    for split in SPLITS:
        for picture in splits[split]:
            taken, label = samples[split], picture.source.label
            if label < MOST_CLASSES and len(taken[label]) < PER_SPLIT[split]:
                taken[label].append(jpeg(picture))
    return samples


def draw(path, classes, samples, image_size):
    """Draw the pictures as the network will see them, a row for each class.

    Args:
        path: of the PNG file.
        classes: names, in index order.
        samples: from `take_samples`.
        image_size: pixels that the network will see.
    """
    columns = list(PER_SPLIT.items())
    columns += [("--augment %s" % TITLES[name], n) for name, n in PER_AUGMENTATION.items()]
    rows = []
    with tf.Graph().as_default(), tf.Session() as session:
        jpeg, seed = tf.placeholder(tf.string, []), tf.placeholder(tf.int64, [2])
        mirrored = tf.placeholder(tf.bool, [])
        views = {"none": preprocess_for_evaluation(jpeg, image_size, "minus1_1")}
        for augment in PER_AUGMENTATION:
            views[augment] = preprocess_for_training(jpeg, image_size, "minus1_1", augment, seed, mirrored)

        def view(augment, data, seeds=(0, 0)):
            values = session.run(views[augment], {jpeg: data, seed: seeds, mirrored: seeds[1] % 2})
            return Image.fromarray(((values + 1) * 127.5).round().astype(np.uint8))

        for label, name in enumerate(classes[:MOST_CLASSES]):
            groups = [[view("none", data) for data in samples[split][label]] for split in SPLITS]
            for augment, n in PER_AUGMENTATION.items():
                first = samples["train"][label][:1]
                groups.append([view(augment, data, (label, i)) for data in first for i in range(n)])
            rows.append(("%d %s" % (label, name), groups))
    with atomic.replacing_file(path) as partial:
        drawing.contact_sheet(columns, rows).save(partial, "PNG")
    say("drew %s, %d of %d classes" % (path, len(rows), len(classes)))
