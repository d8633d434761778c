"""From TFRecords to batches for the network: one function reads for training, another for evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from typing import Iterator

import numpy as np

from suite.files import atomic, jsonfile
from suite.files.schemas import SPLITS
from suite.process import commandline
from suite.process.errors import UserError
from suite.process.tf_versions import tf
from suite.records.preprocessing import decode_view, finish_view, preprocess_for_evaluation

PICTURES_PER_SHARD = 1024
READ_AHEAD = 64  # records, and of large ones fewer
CACHE_BYTES = 1 << 30  # of a training split that are kept in memory: all, or what is shuffled at a time


@dataclasses.dataclass(frozen=True)
class Records:
    """What dataset.json says."""

    folder: str
    classes: list[str]  # in index order
    image_size: int  # pixels that the network will see
    keep_size: bool  # whether the pictures were kept as large as they were
    counts: dict[str, dict[str, int]]  # pictures, by split and class
    shards: dict[str, int]  # bytes of each file
    digest: str | None  # of all pictures and their labels; None where an older version wrote them
    fingerprints: dict = dataclasses.field(default_factory=dict)  # by split; see fingerprints.from_json
    alias: str = ""  # what it is called, where the folder's own name says nothing
    fit: str = "crop"  # one of schemas.FITS: how the pictures became squares
    # Of a split that is some of the pictures of others: {split: {file: bool [pictures in it]}}.
    chosen: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.alias or self.folder

    def count(self, split: str) -> int:
        """The number of pictures in a split."""
        return sum(self.counts[split].values())

    def identity(self, split: str) -> str | None:
        """A name for the pictures of a split and their labels; None where it is not known.

        It is another one also where other splits of these records changed.
        """
        known = self.fingerprints.get(split)
        if not known or not self.digest:
            return self.digest
        return hashlib.sha256((known["pictures"] + self.digest).encode("ascii")).hexdigest()

    def shard_names(self, split: str) -> list[str]:
        """The names of a split's files, in order."""
        return list(self.chosen.get(split) or shard_names(split, self.count(split)))

    def shard_paths(self, split: str) -> list[str]:
        """Where a split's files lie, in order."""
        return [os.path.join(self.folder, name) for name in self.shard_names(split)]


def shard_names(split: str, pictures: int) -> list[str]:
    """The names of the files that this number of pictures of a split is spread over."""
    shards = -(-pictures // PICTURES_PER_SHARD)
    return ["%s-%05d-of-%05d.tfrecord" % (split, shard, shards) for shard in range(shards)]


def holds_records(folder: str) -> bool:
    """Whether FlowIO.py wrote a folder."""
    return os.path.exists(os.path.join(folder, "dataset.json"))


def load_records(folder: str) -> Records:
    """What dataset.json says about a folder of records, on any of TensorFlow's file systems.

    Raises:
        UserError: there are no records, not all of them, or they have another format version.
    """
    folder = folder.rstrip("/") or "/"
    atomic.settle(folder)
    path = os.path.join(folder, "dataset.json")
    if not tf.gfile.Exists(path):
        problem = "no records there (no dataset.json); make them with FlowIO.py"
        if "://" in folder:
            raise UserError("%s: %s" % (folder, problem))
        raise UserError(commandline.missing(folder, problem, holds_records))
    content = jsonfile.read(path)
    records = Records(
        folder,
        content["classes"],
        content["image_size"],
        content["options"].get("keep_size", False),
        content["counts"],
        content.get("shards", {}),
        content.get("digest"),
        content.get("fingerprints", {}),
        fit=content.get("fit", "crop"),
    )
    for split in SPLITS:
        for name, path in zip(records.shard_names(split), records.shard_paths(split)):
            if not tf.gfile.Exists(path):
                raise UserError("%s is missing from %s; run FlowIO.py again" % (name, folder))
            length = tf.gfile.Stat(path).length
            if length != records.shards.get(name, length):
                raise UserError(
                    "%s: damaged, %d bytes where FlowIO.py wrote %d; run it again"
                    % (path, length, records.shards[name])
                )
    return records


# --- batches ----------------------------------------


def read_for_training(
    records, split, batch_size, augment, seed=None, index=0, num_shards=1, normalize_as=None
):
    """Endless batches of pictures in a random order, each seen anew, all batches full.

    Args:
        records: from `load_records`.
        split: "train", "val" or "test".
        augment: see preprocessing.decode_view.
        seed: of the order and the augmentation; the same seed gives the same batches.
        index, num_shards: where n machines share the work, only each n-th picture, from this one on.
        normalize_as: see preprocessing.normalize; None: preprocessing.finish_views is to do the rest.
    Returns:
        A tf.data.Dataset of {"image": float32 [batch, size, size, 3], normalised, "label": int64 [batch],
        "filename": string [batch], relative to the data set's folder}; without `normalize_as` the image is
        uint8, and what else decode_view returns is there.
    Raises:
        UserError: a file that is to be cached is damaged.
    """
    stored = sum(records.shards.get(name, 0) for name in records.shard_names(split))  # 0 of old records
    shuffled = max(1, min(4 * PICTURES_PER_SHARD, CACHE_BYTES * records.count(split) // max(1, stored)))
    files = list_files(records, split).shuffle(len(records.shard_names(split)), seed=seed)
    # Not with num_parallel_calls: after a damaged record TensorFlow 1.15 crashes where that is taken down.
    examples = files.interleave(tf.autograph.experimental.do_not_convert(read_file), cycle_length=4)
    examples = examples.shard(num_shards, index)
    examples = examples.prefetch(-(-shuffled * READ_AHEAD // (4 * PICTURES_PER_SHARD)))
    if 0 < stored < CACHE_BYTES:
        check_records(records, split)  # a cache before a shuffle would wait for ever on a damaged one
        examples = examples.cache()
    examples = examples.shuffle(shuffled, seed=seed).repeat()
    # A seed goes with each picture, so that the threads may take them in any order.
    seeds = tf.data.experimental.RandomDataset(seed).batch(2)

    def view(jpeg, seed):
        seen = decode_view(jpeg, records.image_size, augment, seed, records.fit, records.keep_size)
        return seen if normalize_as is None else {"image": finish_view(seen, normalize_as)}

    pictures = decode_in_parallel(tf.data.Dataset.zip((examples, seeds)), view)
    return pictures.batch(batch_size, drop_remainder=True).prefetch(2)


def read_for_evaluation(records, split, batch_size, normalize_as):
    """Each picture of a split once, in the records' order, the last batch being smaller.

    Args: as `read_for_training`.
        normalize_as: see preprocessing.normalize.
    Returns:
        A tf.data.Dataset of {"image": float32 [batch, size, size, 3], normalised, "label", "filename"}.
    """

    def view(jpeg):
        return {"image": preprocess_for_evaluation(jpeg, records.image_size, normalize_as, records.fit)}

    examples = list_files(records, split).flat_map(tf.autograph.experimental.do_not_convert(read_file))
    return decode_in_parallel(examples, view).batch(batch_size).prefetch(2)


def list_files(records, split):
    """A tf.data.Dataset of what `read_file` takes, for each file of a split."""
    paths, chosen = records.shard_paths(split), records.chosen.get(split)
    if not chosen:
        return tf.data.Dataset.from_tensor_slices(paths)
    rows = np.zeros([len(paths), max(map(len, chosen.values()))], bool)
    for row, each in zip(rows, chosen.values()):
        row[: len(each)] = each
    return tf.data.Dataset.from_tensor_slices((paths, rows))


def read_file(path, chosen=None):
    """A tf.data.Dataset of a file's serialized tf.Examples, or of those for which a bool [pictures] holds."""
    examples = tf.data.TFRecordDataset(path)
    if chosen is None:
        return examples
    numbered = tf.data.Dataset.zip((examples, tf.data.Dataset.from_tensor_slices(chosen)))
    return numbered.filter(lambda example, is_chosen: is_chosen).map(lambda example, is_chosen: example)


def decode_in_parallel(examples, view):
    """A Dataset of {"label", "filename"} and what `view` gives, one picture each.

    Args:
        examples: a Dataset of serialized tf.Example, or of these and more.
        view: a function from JPEG bytes, and what more there is, to a dict of tensors.
    """

    @tf.autograph.experimental.do_not_convert  # which would take a second and find nothing to do
    def parse(example, *more):
        fields = tf.parse_single_example(
            example,
            {
                "image/encoded": tf.FixedLenFeature([], tf.string),
                "image/class/label": tf.FixedLenFeature([], tf.int64),
                "image/filename": tf.FixedLenFeature([], tf.string),
            },
        )
        return dict(
            view(fields["image/encoded"], *more),
            label=fields["image/class/label"],
            filename=fields["image/filename"],
        )

    return examples.map(parse, num_parallel_calls=tf.data.experimental.AUTOTUNE)


def read(records, split, batch_size, normalize_as, augment=None, seed=None, part=(0, 1)):
    """Batches as the network sees them, for whoever imports FlowIO.

    As `read_for_training` where `augment` is given, else as `read_for_evaluation`, and of the latter's form.
    """
    if not augment:
        return read_for_evaluation(records, split, batch_size, normalize_as)
    return read_for_training(records, split, batch_size, augment, seed, *part, normalize_as)


# --- damage ----------------------------------------


@contextlib.contextmanager
def naming_damage(records: Records) -> Iterator[None]:
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
    for path in records.shard_paths(split):
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
        for path in records.shard_paths(split):
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
