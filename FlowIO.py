"""Turn folders of pictures into TFRecords.

    python FlowIO.py [--dataset data/dataset] [--output data/tfrecords] [--image_size 224]
                     [--fit {crop,pad,squash}]

In: DATASET/<class name>/**/<picture>, or DATASET/train|val|test/<class name>/**/<picture> where you
have split already. Out: train-, val- and test- TFRecords, dataset.json, skipped.csv, remarks.csv and
near_duplicates.csv. `from FlowIO import load_records, read` reads them.
"""

from __future__ import annotations

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import collections
import os
import re

from suite.files import atomic
from suite.files.schemas import FITS, LARGEST_IMAGE, RECORDS, SMALL_IMAGE, SPLITS
from suite.pictures import folders, imagefile, sandbox
from suite.process import cluster, commandline, device, lifetime, terminal, tf_versions
from suite.process.errors import UsageError
from suite.process.terminal import counted, say, some
from suite.records import preview, writing
from suite.records.preprocessing import dropped_share
from suite.records.reading import Records, load_records, read  # noqa: F401  (for whoever imports FlowIO)
from suite.records.splits import assign_splits, drop_copies, find_near_duplicates
from suite.records.spool import Spool

FEW = 80  # pictures of a class that the article asks for at least
IMBALANCE = 10  # times as many pictures in one class as in another is worth a warning
# A crop that drops more than this share of more than that share of the pictures is worth one, too. Of photos
# of 4:3 and 3:2, which all cameras make, it drops 0.43 and 0.49.
MUCH, MANY = 0.5, 0.2
OWN_FILES = re.compile(
    r"(train|val|test)-\d{5}-of-\d{5}\.tfrecord|dataset\.json|(skipped|remarks|near_duplicates)\.csv"
)


def main():
    """Convert, or with --preview draw. Returns the exit status: 1 if files were skipped."""
    options = parse_options()
    unused = "; no GPU is of use here" if options.device.startswith("gpu") else ""
    at_work = "the workers of " + options.cluster if options.cluster else counted(options.workers, "worker")
    say("device: CPU, %s%s" % (at_work, unused))
    folders.refuse_inside(options.output, options.dataset)
    classes, sources = folders.list_sources(options.dataset, options.layout, options.follow_links)
    folders.refuse_inside(options.output, options.dataset, sources)
    if options.preview:
        folders.refuse_inside(options.preview, options.dataset, sources, "preview")
    refuse_ratios(sources, options)
    if options.preview:
        return draw_preview(classes, sources, options)
    with atomic.replacing(options.output, OWN_FILES) as folder, Spool(folder) as spool:
        pictures, skipped = writing.encode_all(sources, spool, options)
        pictures, copies, conflicts = drop_copies(pictures, classes)
        skipped += conflicts
        writing.check_classes(classes, pictures, skipped, options.dataset)
        splits = assign_splits(pictures, options.train_ratio, options.val_ratio)
        alike = find_near_duplicates(splits)
        tf_versions.as_version_1()
        writing.write_shards(folder, splits, classes, spool)
        writing.write_skipped(folder, skipped)
        remarked = writing.write_remarks(folder, pictures)
        writing.write_near_duplicates(folder, alike)
        writing.write_dataset_json(folder, classes, splits, skipped, copies, alike, options)
    counts = writing.count_pictures(splits, classes)
    print_counts(classes, counts, options.output)
    warn_of_remarks(remarked, options.output)
    warn_of_splits(classes, counts)
    warn_of_sizes(classes, counts)
    warn_of_copies(copies, alike, options.output)
    writing.say_skipped(skipped, options.output)
    warn_of_crop(pictures, options)
    if options.image_size > SMALL_IMAGE and not device.has_nvidia():
        say(
            "without a GPU, %d pixels take hours to train on; --image_size %d and train.py --mini, minutes"
            % (options.image_size, SMALL_IMAGE)
        )
    if any(counts["train"].values()):
        elsewhere = {} if options.output == RECORDS else {"data": options.output}
        say("next: " + commandline.command("train.py", **elsewhere))
    return 1 if skipped else 0


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    number = commandline.number
    parser.add_argument("--dataset", default="data/dataset", help="folder with one folder per class")
    parser.add_argument("--output", default=RECORDS, help="folder to write to")
    parser.add_argument(
        "--preview",
        metavar="FILE.png",
        help="convert nothing: draw a sheet of some pictures as the network will see them",
    )

    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--image_size",
        type=number(int, 32, LARGEST_IMAGE),
        default=224,
        help="pixels that the network will see",
    )
    group.add_argument(
        "--fit",
        choices=FITS,
        default="crop",
        help="what the network will see: the centre square; the whole picture, on a grey square; the whole "
        "picture, squashed into a square",
    )
    group.add_argument(
        "--keep_size",
        action="store_true",
        help="do not reduce large pictures to a little more than --image_size: larger records, slower "
        "training",
    )
    writing.add_source_options(group)
    cluster.add_option(group)

    group = parser.add_argument_group("splits")
    group.add_argument("--train_ratio", type=number(float, 0, 1), default=0.8, help="share to train on")
    group.add_argument(
        "--val_ratio",
        type=number(float, 0, 1),
        default=0.1,
        help="share to validate on while training; the rest is for the final test",
    )
    group.add_argument("--seed", type=commandline.seed, default=0, help="another seed, another split")
    options = parser.parse_args(arguments)
    if options.train_ratio + options.val_ratio > 1 or options.train_ratio == 0:
        parser.error("--train_ratio must be above 0 and, with --val_ratio, at most 1")
    sandbox.check_option(options, parser)
    cluster.check_option(options, parser)
    if options.preview and not options.preview.lower().endswith(".png"):
        parser.error("--preview %s: the name must end with .png" % options.preview)
    if options.preview and not os.path.isdir(os.path.dirname(options.preview) or "."):
        parser.error("--preview %s: no such folder" % options.preview)
    return options


def refuse_ratios(sources, options):
    """Raises UsageError where ratios are given for a data set that is split already."""
    there = sorted({source.given for source in sources if source.given}, key=SPLITS.index)
    for name in ("train_ratio", "val_ratio"):
        if there and commandline.is_given(name):
            values = name, options.dataset, " and ".join(there)
            raise UsageError("--%s: %s is split already, into %s; leave it out" % values)


def draw_preview(classes, sources, options):
    """--preview: some pictures of each class as the network would see them. Returns the exit status."""
    jpegs = collections.defaultdict(list)
    with Spool() as spool:
        pictures, skipped = writing.encode_all(preview.sample(sources, options.seed), spool, options)
        for picture in pictures:
            jpegs[picture.source.given, picture.source.label].append(spool.read(picture))
    preview.draw(options.preview, classes, jpegs, options.image_size, options.fit)
    warn_of_crop(pictures, options)
    if skipped:
        source, reason = skipped[0]
        values = len(skipped), len(skipped) + len(pictures), source.filename, reason
        say("%d of %d files could not be used, the first: %s (%s)" % values)
    say("nothing was converted; the same command without --preview does that")
    return 1 if skipped else 0


def print_counts(classes, counts, output):
    """The table that the user sees: pictures by class and split."""
    rows = [("class", *SPLITS)]
    rows += [(name, *(counts[split][name] for split in SPLITS)) for name in classes]
    rows += [("total", *(sum(counts[split].values()) for split in SPLITS))]
    terminal.print_table(rows, (7, 7, 7))
    print("records of %d classes in %s" % (len(classes), output))


def warn_of_remarks(remarked, output):
    """Say what was noted of pictures that were taken all the same."""
    for remark in imagefile.REMARKS:
        noted = [picture.source.filename for picture in remarked if picture.remark == remark]
        if noted:
            pictures = "%s, the first: %s" % (counted(len(noted), "picture"), noted[0])
            say("warning: %s: %s; all in %s" % (pictures, remark, os.path.join(output, "remarks.csv")))


def warn_of_splits(classes, counts):
    """Say which splits, or classes of a split, have too few pictures for what they are for."""
    uses = {"val": "train.py cannot tell the best checkpoint", "test": "evaluate.py has nothing to measure"}
    for split, use in uses.items():
        if not any(counts[split].values()):
            say("warning: the %s split is empty; without it %s" % (split, use))
    untrained = [name for name in classes if not counts["train"][name]]
    if untrained:
        say("warning: the train split has no picture of %s" % some(untrained))
    for split in SPLITS[1:]:
        scarce = [name for name in classes if counts[split][name] < 2]
        if scarce and any(counts[split].values()):
            say(
                "warning: at most one picture to %s, too few to measure by, in %d of %d classes: %s"
                % ({"val": "validate on", "test": "test on"}[split], len(scarce), len(classes), some(scarce))
            )


def warn_of_sizes(classes, counts):
    """Say which classes have few pictures, or many times as many as others."""
    sizes = {name: sum(counts[split][name] for split in SPLITS) for name in classes}
    smallest, largest = min(classes, key=sizes.get), max(classes, key=sizes.get)
    if sizes[smallest] < FEW:
        few = sum(size < FEW for size in sizes.values())
        say(
            "warning: fewer than %d pictures in %d of %d classes, in %s only %d"
            % (FEW, few, len(classes), smallest, sizes[smallest])
        )
    if sizes[largest] > IMBALANCE * sizes[smallest]:
        say(
            "warning: %s has %.0f times as many pictures as %s; it will be favoured"
            % (largest, sizes[largest] / sizes[smallest], smallest)
        )


def warn_of_copies(copies, alike, output):
    """Say how many exact copies were left out, and which near-copies were not."""
    if copies:
        say("left out as exact copies: %s" % counted(copies, "picture"))
    if alike:
        one, other, _ = alike[0]
        say(
            "warning: near-copies of pictures in an earlier split: %d, the first: %s like %s; all in %s"
            % (
                len(alike),
                one.source.filename,
                other.source.filename,
                os.path.join(output, "near_duplicates.csv"),
            )
        )


def warn_of_crop(pictures, options):
    """Say where the centre square leaves out much of many of the EncodedPictures."""
    if options.fit != "crop":
        return
    size = options.image_size
    cut = [each for each in pictures if dropped_share(each.width, each.height, size) > MUCH]
    if len(cut) > MANY * len(pictures):
        say(
            "warning: the centre square leaves out more than %.0f%% of %d of %d pictures, the first: %s; "
            "--fit pad takes the whole of each, and --preview FILE.png shows what is seen"
            % (100 * MUCH, len(cut), len(pictures), min(cut).source.filename)
        )


if __name__ == "__main__":
    lifetime.run(main)
