"""Turn folders of pictures into TFRecords, and TFRecords into batches for the network.

    python FlowIO.py [--dataset data/dataset] [--output data/tfrecords] [--image_size 224]

In: DATASET/<class name>/**/<picture>, or DATASET/train|val|test/<class name>/**/<picture> where you
have split already. Out: train-, val- and test- TFRecords, dataset.json, skipped.csv and
near_duplicates.csv.

There is one way from a picture to the network's input: imagefile.encode, then `decode`. Records hold what
the former gave; train.py, evaluate.py and predict.py all call the same two functions. Writing and reading
stand together, long as that makes the file, because each must match the other to the bit.
"""

from __future__ import annotations

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import contextlib
import functools
import hashlib
import os
import re
import tempfile
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

from suite.files import atomic, csvfile, jsonfile
from suite.files.schemas import SPLITS
from suite.pictures import folders, imagefile, sandbox
from suite.pictures.imagefile import FORMATS, BadPicture, read_file
from suite.pictures.perceptual_hash import perceptual_hash
from suite.process import commandline, lifetime, terminal, tf_versions, workers
from suite.process.errors import UserError
from suite.process.terminal import counted, say
from suite.process.tf_versions import tf
from suite.records import preview
from suite.records.preprocessing import decode, decode_augmented
from suite.records.splits import (
    EncodedPicture,
    assign_splits,
    drop_copies,
    find_near_duplicates,
    position,
)

PICTURES_PER_SHARD = 1024
CACHE_BYTES = 1 << 30  # a training split up to this size is read once and kept in memory
FEW = 80  # pictures of a class that the article asks for at least
IMBALANCE = 10  # times as many pictures in one class as in another is worth a warning
OWN_FILES = re.compile(
    r"(train|val|test)-\d{5}-of-\d{5}\.tfrecord|dataset\.json|skipped\.csv|near_duplicates\.csv"
)


# --- from TFRecords to batches ----------------------------------------


class Records(NamedTuple):
    """What dataset.json says."""

    folder: str
    classes: list[str]  # in index order
    image_size: int  # pixels that the network will see
    keep_size: bool  # whether the pictures were kept as large as they were
    counts: dict[str, dict[str, int]]  # pictures, by split and class
    shards: dict[str, int]  # bytes of each file
    digest: str | None  # of all pictures and their labels; None where an older version wrote them


def load_records(folder: str) -> Records:
    """What dataset.json says about a folder of records, on any of TensorFlow's file systems.

    Raises:
        UserError: there are no records, not all of them, or they have another format version.
    """
    folder = folder.rstrip("/") or "/"
    atomic.settle(folder)
    path = os.path.join(folder, "dataset.json")
    if not tf.gfile.Exists(path):
        raise UserError("%s: no records there (no dataset.json); make them with FlowIO.py" % folder)
    content = jsonfile.read(path)
    records = Records(
        folder,
        content["classes"],
        content["image_size"],
        content["options"].get("keep_size", False),
        content["counts"],
        content.get("shards", {}),
        content.get("digest"),
    )
    for split in SPLITS:
        for name in shard_names(split, count(records, split)):
            path = os.path.join(folder, name)
            if not tf.gfile.Exists(path):
                raise UserError("%s is missing from %s; run FlowIO.py again" % (name, folder))
            length = tf.gfile.Stat(path).length
            if length != records.shards.get(name, length):
                raise UserError(
                    "%s: damaged, %d bytes where FlowIO.py wrote %d; run it again"
                    % (path, length, records.shards[name])
                )
    return records


@contextlib.contextmanager
def naming_damage(records):
    """Where TensorFlow comes upon a damaged record, end with a UserError that names the file."""
    try:
        yield
    except tf.errors.DataLossError:
        for split in SPLITS:
            check_records(records, split)
        raise
    except tf.errors.InvalidArgumentError as error:
        if "Invalid JPEG data" in str(error):
            for split in SPLITS:
                check_pictures(records, split)
        raise


def check_records(records: Records, split: str) -> None:
    """Read a split's files and compare their checksums. Raises UserError, which names the damaged one."""
    for path in shard_paths(records, split):
        try:
            for _ in tf.python_io.tf_record_iterator(path):
                pass
        except tf.errors.DataLossError as error:
            raise UserError("%s: damaged (%s); run FlowIO.py again" % (path, error.message)) from error


def check_pictures(records: Records, split: str) -> None:
    """Decode a split's pictures. Raises UserError, which names the first that TensorFlow cannot decode."""
    with tf.Graph().as_default(), tf.Session() as session:
        jpeg = tf.placeholder(tf.string, [])
        decode_jpeg = session.make_callable(tf.image.decode_jpeg(jpeg), [jpeg])
        for path in shard_paths(records, split):
            for record in tf.python_io.tf_record_iterator(path):
                fields = tf.train.Example.FromString(record).features.feature
                try:
                    decode_jpeg(fields["image/encoded"].bytes_list.value[0])
                except tf.errors.InvalidArgumentError as error:
                    filename = os.fsdecode(fields["image/filename"].bytes_list.value[0])
                    raise UserError(
                        "%s: its picture %s cannot be decoded; take that out of the data set and run "
                        "FlowIO.py again" % (path, filename)
                    ) from error


def count(records: Records, split: str) -> int:
    """The number of pictures in a split."""
    return sum(records.counts[split].values())


def shard_names(split: str, pictures: int) -> list[str]:
    """The names of the files that this number of pictures of a split is spread over."""
    shards = -(-pictures // PICTURES_PER_SHARD)
    return ["%s-%05d-of-%05d.tfrecord" % (split, shard, shards) for shard in range(shards)]


def shard_paths(records: Records, split: str) -> list[str]:
    """Where a split's files lie, in order."""
    names = shard_names(split, count(records, split))
    return [os.path.join(records.folder, name) for name in names]


def read(records, split, batch_size, normalize_as, augment=None, seed=None, part=(0, 1)):
    """A tf.data.Dataset of batches {"image", "label", "filename"}.

    Args:
        records: from `load_records`.
        split: "train", "val" or "test".
        augment: None to see each picture once, in order, as `decode` gives it, the last batch being
            smaller; else see `decode_augmented`: endless, shuffled, all batches full.
        seed: of the shuffling and the augmentation; the same seed gives the same batches.
        part: (i, n): only each n-th picture, from the i-th on, where n machines share the work.
    Returns:
        image: float32 [batch, image_size, image_size, 3]; label: int64 [batch]; filename: string
        [batch], relative to the data set's folder.
    Raises:
        UserError: a file that is to be cached is damaged.
    """

    @tf.autograph.experimental.do_not_convert  # which would take a second and find nothing to do
    def parse(example, seed=None):
        fields = tf.parse_single_example(
            example,
            {
                "image/encoded": tf.FixedLenFeature([], tf.string),
                "image/class/label": tf.FixedLenFeature([], tf.int64),
                "image/filename": tf.FixedLenFeature([], tf.string),
            },
        )
        jpeg = fields["image/encoded"]
        if augment:
            image = decode_augmented(jpeg, records.image_size, normalize_as, augment, seed)
        else:
            image = decode(jpeg, records.image_size, normalize_as)
        return {
            "image": image,
            "label": fields["image/class/label"],
            "filename": fields["image/filename"],
        }

    names = shard_names(split, count(records, split))
    files = tf.data.Dataset.from_tensor_slices(shard_paths(records, split))
    if augment:
        files = files.shuffle(len(names), seed=seed)
        examples = files.interleave(
            tf.data.TFRecordDataset,
            cycle_length=4,
            num_parallel_calls=tf.data.experimental.AUTOTUNE,
        )
        examples = examples.shard(part[1], part[0])
        if sum(records.shards.get(name, CACHE_BYTES) for name in names) < CACHE_BYTES:
            check_records(records, split)  # a cache before a shuffle would wait for ever on a damaged one
            examples = examples.cache()
        examples = examples.shuffle(4 * PICTURES_PER_SHARD, seed=seed).repeat()
        # A seed goes with each picture, so that the threads may take them in any order.
        seeds = tf.data.experimental.RandomDataset(seed).batch(2)
        examples = tf.data.Dataset.zip((examples, seeds))
    else:
        examples = tf.data.TFRecordDataset(files)
    pictures = examples.map(parse, num_parallel_calls=tf.data.experimental.AUTOTUNE)
    return pictures.batch(batch_size, drop_remainder=bool(augment)).prefetch(2)


# --- converting a folder ----------------------------------------


def main():
    """Returns the exit status: 1 if files were skipped."""
    options = parse_options()
    unused = "; no GPU is of use here" if options.device.startswith("gpu") else ""
    say("device: CPU, %s%s" % (counted(options.workers, "worker"), unused))
    classes, sources = folders.list_sources(options.dataset, options.follow_links)
    with atomic.replacing(options.output, OWN_FILES) as folder, tempfile.TemporaryFile(dir=folder) as spool:
        pictures, skipped = encode_all(sources, spool, options)
        pictures, copies, conflicts = drop_copies(pictures, classes)
        skipped += conflicts
        check_classes(classes, pictures, skipped, options.dataset)
        splits = assign_splits(pictures, options.train_ratio, options.val_ratio)
        alike = find_near_duplicates(splits)
        tf_versions.load()
        for split in SPLITS:
            write_shards(folder, split, splits[split], classes, spool)
        write_skipped(folder, skipped)
        write_near_duplicates(folder, alike)
        counts = count_pictures(splits, classes)
        write_description(folder, classes, counts, skipped, copies, alike, options)
        jpeg = functools.partial(spooled, spool=spool)
        samples = preview.take_samples(splits, jpeg) if options.preview else None
    print_counts(classes, counts, options.output)
    warn(classes, counts, skipped, copies, alike, options.output)
    if options.preview:
        preview.write(options.preview, classes, samples, options.image_size)
    return 1 if skipped else 0


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    number = commandline.number
    parser.add_argument("--dataset", default="data/dataset", help="folder with one folder per class")
    parser.add_argument("--output", default="data/tfrecords", help="folder to write to")
    parser.add_argument(
        "--preview", metavar="FILE.png", help="also draw a sheet of pictures as the network will see them"
    )

    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--image_size",
        type=number(int, 32, 2048),
        default=224,
        help="pixels that the network will see",
    )
    group.add_argument(
        "--keep_size",
        action="store_true",
        help="do not reduce large pictures to a little more than --image_size: larger records, slower "
        "training",
    )
    imagefile.add_formats_option(group)
    sandbox.add_option(group)
    group.add_argument("--follow_links", action="store_true", help="also take what links lead to")

    group = parser.add_argument_group("splits")
    group.add_argument("--train_ratio", type=number(float, 0, 1), default=0.8, help="share to train on")
    group.add_argument(
        "--val_ratio",
        type=number(float, 0, 1),
        default=0.1,
        help="share to validate on while training; the rest is for the final test",
    )
    group.add_argument("--seed", type=int, default=0, help="another seed, another split")
    parser.add_argument(
        "--workers",
        type=number(int, 1, 256),
        default=os.cpu_count(),
        help="pictures to decode at a time",
    )
    options = parser.parse_args(arguments)
    if options.train_ratio + options.val_ratio > 1 or options.train_ratio == 0:
        parser.error("--train_ratio must be above 0 and, with --val_ratio, at most 1")
    sandbox.check(options, parser)
    if options.preview and not options.preview.lower().endswith(".png"):
        parser.error("--preview %s: the name must end with .png" % options.preview)
    if options.preview and not os.path.isdir(os.path.dirname(options.preview) or "."):
        parser.error("--preview %s: no such folder" % options.preview)
    if "://" in options.output:
        parser.error("--output %s: must be a local folder; copy it there when it is done" % options.output)
    return options


def encode_all(sources, spool, options):
    """Encode every source into the binary file `spool`, in order, whatever the number of workers.

    Returns:
        An EncodedPicture for each file that can be used, and (SourceFile, reason) for each that cannot.
    Raises:
        UserError: a worker process was killed.
    """
    work = functools.partial(encode_source, options=options)
    results = workers.map_in_processes(work, sources, options.workers)
    converted, skipped = [], []
    bar = terminal.progress_bar("convert", len(sources))
    try:
        with bar, contextlib.closing(results):
            for (result, reason), source in zip(results, sources):
                bar.update()
                if reason:
                    skipped.append((source, reason))
                    continue
                digest, look, (width, height), jpeg = result
                place = position(digest, options.seed)
                picture = EncodedPicture(source, digest, look, place, spool.tell(), len(jpeg), height, width)
                converted.append(picture)
                spool.write(jpeg)
    except BrokenProcessPool as error:
        source = sources[len(converted) + len(skipped)]
        raise UserError(
            "%s: a worker process was killed at this file or just after it; it is damaged in a way "
            "that Pillow does not survive, or the memory ran out (fewer --workers need less)"
            % os.path.join(options.dataset, source.filename)
        ) from error
    return converted, skipped


def encode_source(source, options):
    """Read and encode one SourceFile; runs in a worker process.

    Returns:
        ((digest, perceptual hash, (width, height), JPEG bytes), None); or (None, why it
        cannot be used).
    """
    path = os.path.join(options.dataset, source.filename)
    try:
        if not options.follow_links and os.path.islink(path) and folders.leaves(path, options.dataset):
            raise BadPicture("a link out of the data set; --follow_links takes it")
        data = read_file(path)
        image_size = None if options.keep_size else options.image_size
        formats = (*FORMATS, *options.formats)
        if options.sandbox:
            look, size, jpeg = sandbox.prepare(data, image_size, formats)
        else:
            image, jpeg = imagefile.prepare(data, image_size, formats)
            look, size = perceptual_hash(image), image.size
    except BadPicture as error:
        return None, str(error)
    digest = hashlib.sha256(data).digest()[:16]  # short, because all are kept in memory
    return (digest, look, size, jpeg), None


def check_classes(classes, pictures, skipped, dataset):
    """Raises UserError where a class has no usable picture."""
    usable = {picture.source.label for picture in pictures}
    for label, name in enumerate(classes):
        if label not in usable:
            reasons = [reason for source, reason in skipped if source.label == label]
            why = "%s, the first: %s" % (counted(len(reasons), "file"), reasons[0])
            raise UserError("%s: class %s has no usable picture (%s)" % (dataset, name, why))


def write_shards(folder, split, members, classes, spool):
    """Write a split's records as tf.Example protocol buffers with TensorFlow's usual keys.

    Args:
        members: the split's EncodedPictures, in order; they are dealt out to the files in turn.
        spool: what `encode_all` wrote.
    """
    names = shard_names(split, len(members))
    for shard, name in enumerate(names):
        with tf.python_io.TFRecordWriter(os.path.join(folder, name)) as writer:
            for picture in members[shard :: len(names)]:
                features = {
                    "image/encoded": spooled(picture, spool),
                    "image/format": b"JPEG",
                    "image/height": picture.height,
                    "image/width": picture.width,
                    "image/class/label": picture.source.label,
                    "image/class/text": classes[picture.source.label].encode("utf-8"),
                    "image/filename": os.fsencode(picture.source.filename),
                }
                features = {key: feature(value) for key, value in features.items()}
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString(deterministic=True))


def spooled(picture, spool):
    """The JPEG bytes of a Picture, from what `encode_all` wrote."""
    spool.seek(picture.offset)
    return spool.read(picture.length)


def feature(value):
    """Bytes or an int as a tf.train.Feature."""
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def write_skipped(folder, skipped):
    """skipped.csv, from (SourceFile, reason) for each file."""
    rows = [(source.filename, reason) for source, reason in skipped]
    csvfile.write(os.path.join(folder, "skipped.csv"), ["filename", "reason"], rows)


def write_near_duplicates(folder, alike):
    """near_duplicates.csv, from what splits.find_near_duplicates returned."""
    rows = [(one.source.filename, other.source.filename, bits) for one, other, bits in alike]
    columns = ["filename", "looks_like", "differing_bits"]
    csvfile.write(os.path.join(folder, "near_duplicates.csv"), columns, rows)


def count_pictures(splits, classes):
    """{split: {class: n}}, with the classes that have none."""
    counts = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for split in SPLITS:
        for picture in splits[split]:
            counts[split][classes[picture.source.label]] += 1
    return counts


def write_description(folder, classes, counts, skipped, copies, alike, options):
    """dataset.json, from what went into the records; the digest is the SHA-256 of the files in their order.

    Args:
        counts: {split: {class: n}}.
        skipped, alike: lists, of which only the lengths are written; copies: a number.
    """
    shards = sorted(name for name in os.listdir(folder) if name.endswith(".tfrecord"))
    digest = hashlib.sha256()
    for name in shards:
        with open(os.path.join(folder, name), "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    content = {
        "classes": classes,
        "image_size": options.image_size,
        "counts": counts,
        "skipped": len(skipped),
        "copies": copies,
        "near_duplicates": len(alike),
        "shards": {name: os.path.getsize(os.path.join(folder, name)) for name in shards},
        "digest": digest.hexdigest(),
        "seed": options.seed,
        "options": {
            "train_ratio": options.train_ratio,
            "val_ratio": options.val_ratio,
            "keep_size": options.keep_size,
            "formats": options.formats,
        },
    }
    jsonfile.write(os.path.join(folder, "dataset.json"), content)


def print_counts(classes, counts, output):
    """The table that the user sees: pictures by class and split."""
    rows = [("class", *SPLITS)]
    rows += [(name, *(counts[split][name] for split in SPLITS)) for name in classes]
    rows += [("total", *(sum(counts[split].values()) for split in SPLITS))]
    width = max(terminal.columns(terminal.printable(name)) for name, *_ in rows)
    for name, *numbers in rows:
        print(terminal.left(name, width) + " %7s %7s %7s" % tuple(numbers))
    print("records of %d classes in %s" % (len(classes), output))


def warn(classes, counts, skipped, copies, alike, output):
    """Say what the user may want to mend: small and large classes, copies, skipped files."""
    untrained = [name for name in classes if not counts["train"][name]]
    if untrained:
        say("warning: the train split has no picture of %s" % ", ".join(untrained))
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
    if skipped:
        say(
            "%s could not be used, the first: %s (%s); all in %s"
            % (
                counted(len(skipped), "file"),
                skipped[0][0].filename,
                skipped[0][1],
                os.path.join(output, "skipped.csv"),
            )
        )


if __name__ == "__main__":
    lifetime.run(main)
