"""From picture files to TFRecords: encode each, then write the splits and what they are made of."""

import argparse
import contextlib
import functools
import hashlib
import heapq
import os
from concurrent.futures.process import BrokenProcessPool

from suite.files import atomic, csvfile, jsonfile
from suite.files.schemas import SPLITS
from suite.pictures import folders, imagefile, sandbox
from suite.pictures.imagefile import FORMATS, BadPicture
from suite.pictures.perceptual_hash import perceptual_hash
from suite.process import cluster, commandline, device, terminal, workers
from suite.process.errors import UserError
from suite.process.terminal import counted
from suite.process.tf_versions import tf
from suite.records import fingerprints
from suite.records.reading import shard_names
from suite.records.splits import EncodedPicture, position


def add_source_options(group):
    """What `folders.list_sources` and `encode_all` ask for."""
    group.add_argument(
        "--layout",
        choices=folders.LAYOUTS,
        default="auto",
        help="what the folders at the top are; auto: splits if all are named so, classes if none is",
    )
    imagefile.add_formats_option(group)
    sandbox.add_option(group)
    group.add_argument("--follow_links", action="store_true", help="also take what links lead to")
    group.add_argument(
        "--workers",
        type=commandline.number(int, 1, 256),
        default=device.cores(),
        help="pictures to read and decode at a time; from a slow share, 16 and more",
    )


def encode_all(sources, spool, options):
    """Encode every source into `spool`, a Spool, in order, whoever the workers are and how many.

    Returns:
        An EncodedPicture for each file that can be used, and (SourceFile, reason) for each that cannot.
    Raises:
        UserError: a worker process was killed; and see cluster.map_on_cluster.
    """
    dataset = os.path.abspath(options.dataset)  # workers elsewhere stand in other folders
    work = functools.partial(
        encode_source, options=argparse.Namespace(**dict(vars(options), dataset=dataset))
    )
    if options.cluster:
        paths = (os.path.join(dataset, source.filename) for source in sources)
        seen = next(filter(os.path.isfile, paths), dataset)
        results = cluster.map_on_cluster(work, sources, options.cluster, seen)
    else:
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
                digest, hashed, (width, height), jpeg, remark = result
                place = position(digest, options.seed)
                picture = EncodedPicture(
                    source, digest, hashed, place, spool.write(place, jpeg), len(jpeg), height, width, remark
                )
                converted.append(picture)
        spool.flush()
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
        ((digest, perceptual hash, (width, height), JPEG bytes, remark), None); or (None, why it
        cannot be used).
    """
    path = os.path.join(options.dataset, source.filename)
    try:
        is_link = os.path.islink(path)
        if is_link and not options.follow_links and not atomic.is_within(path, options.dataset):
            raise BadPicture("a link out of the data set; --follow_links takes it")
        data = imagefile.read_file(path)
        image_size = None if options.keep_size else options.image_size
        formats = (*FORMATS, *options.formats)
        if options.sandbox:
            hashed, size, jpeg, remark = sandbox.encode_and_hash(data, image_size, formats, options.fit)
        else:
            image, jpeg, remark = imagefile.load_and_encode(data, image_size, formats, options.fit)
            hashed, size = perceptual_hash(image), image.size
        if options.fit == "pad":
            size = max(size), max(size)
    except BadPicture as error:
        return None, str(error)
    digest = hashlib.sha256(data).digest()[:16]  # short, because all are kept in memory
    return (digest, hashed, size, jpeg, remark), None


def check_classes(classes, pictures, skipped, dataset):
    """Raises UserError where a class has no usable picture."""
    usable = {picture.source.label for picture in pictures}
    for label, name in enumerate(classes):
        if label not in usable:
            reasons = [reason for source, reason in skipped if source.label == label]
            why = "%s, the first: %s" % (counted(len(reasons), "file"), reasons[0])
            raise UserError("%s: class %s has no usable picture (%s)" % (dataset, name, why))


def write_shards(folder, splits, classes, spool):
    """Write records as tf.Example protocol buffers with TensorFlow's usual keys, all splits in one sweep.

    Args:
        splits: {split: [EncodedPicture]}, each in the order of their positions.
        spool: the Spool that `encode_all` filled; what is written goes from it.
    """
    placed = [in_shards(split, members) for split, members in splits.items()]
    writers = {}
    with contextlib.ExitStack() as stack:
        for picture, name, last in heapq.merge(*placed, key=lambda each: each[0].position):
            spool.free(picture.position)
            if name not in writers:
                writers[name] = stack.enter_context(tf.python_io.TFRecordWriter(os.path.join(folder, name)))
            writers[name].write(to_example(picture, classes, spool).SerializeToString(deterministic=True))
            if last:
                writers.pop(name).close()


def in_shards(split, members):
    """Each EncodedPicture of a split, the name of its file, and whether it is the last one there."""
    names = shard_names(split, len(members))
    for shard, name in enumerate(names):
        first, end = (len(members) * each // len(names) for each in (shard, shard + 1))
        for index in range(first, end):
            yield members[index], name, index == end - 1


def to_example(picture, classes, spool):
    """An EncodedPicture as a tf.train.Example."""
    features = {
        "image/encoded": spool.read(picture),
        "image/format": b"JPEG",
        "image/height": picture.height,
        "image/width": picture.width,
        "image/class/label": picture.source.label,
        "image/class/text": classes[picture.source.label].encode("utf-8"),
        "image/filename": os.fsencode(picture.source.filename),
    }
    features = {key: feature(value) for key, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=features))


def feature(value):
    """Bytes or an int as a tf.train.Feature."""
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def write_skipped(folder, skipped):
    """skipped.csv, from (SourceFile, reason) for each file."""
    rows = [(source.filename, reason) for source, reason in skipped]
    csvfile.write(os.path.join(folder, "skipped.csv"), ["filename", "reason"], rows)


def say_skipped(skipped, output):
    """Say how many files could not be used, and the first; `output`: where skipped.csv is by now."""
    if skipped:
        source, reason = skipped[0]
        values = counted(len(skipped), "file"), source.filename, reason, os.path.join(output, "skipped.csv")
        terminal.say("%s could not be used, the first: %s (%s); all in %s" % values)


def write_remarks(folder, pictures):
    """remarks.csv, a row for each EncodedPicture of which there is something to remark; returns these."""
    remarked = sorted(picture for picture in pictures if picture.remark)
    rows = [(picture.source.filename, picture.remark) for picture in remarked]
    csvfile.write(os.path.join(folder, "remarks.csv"), ["filename", "remark"], rows)
    return remarked


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


def fingerprint(pictures):
    """Which EncodedPictures these are, as fingerprints.from_json reads it."""
    return fingerprints.to_json(fingerprints.of(picture.digest for picture in pictures))


def write_dataset_json(folder, classes, splits, skipped, copies, alike, options):
    """dataset.json, from what went into the records; the digest is the SHA-256 of the files in their order.

    Args:
        splits: {split: [EncodedPicture]}.
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
        "fit": options.fit,
        "counts": count_pictures(splits, classes),
        "skipped": len(skipped),
        "copies": copies,
        "near_duplicates": len(alike),
        "shards": {name: os.path.getsize(os.path.join(folder, name)) for name in shards},
        "digest": digest.hexdigest(),
        "fingerprints": {split: fingerprint(splits[split]) for split in SPLITS},
        "seed": options.seed,
        "options": {
            "train_ratio": options.train_ratio,
            "val_ratio": options.val_ratio,
            "keep_size": options.keep_size,
            "formats": options.formats,
        },
    }
    jsonfile.write(os.path.join(folder, "dataset.json"), content)
