"""spool.py and how writing.py empties it: every picture once, in order, the disk given back meanwhile."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from suite.files.schemas import SPLITS
from suite.pictures import folders
from suite.records import reading, splits, spool, writing


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(reading, "PICTURES_PER_SHARD", 7)


def fill(file, split, positions, length=40):
    """A split whose pictures lie at these positions, written in another order than theirs."""
    members = []
    for number, place in enumerate(positions):
        jpeg = os.urandom(length)
        source = folders.SourceFile(split, 0, "%s/%d" % (split, number))
        offset = file.write(place, jpeg)
        members.append(splits.EncodedPicture(source, jpeg, None, place, offset, length, 1, 1, ""))
    return sorted(members, key=lambda picture: picture.position)


def written(folder, name):
    """(file name, bytes) of each record of a shard."""
    for record in tf.python_io.tf_record_iterator(str(folder / name)):
        fields = tf.train.Example.FromString(record).features.feature
        yield tuple(fields[key].bytes_list.value[0] for key in ("image/filename", "image/encoded"))


@pytest.mark.parametrize("counts", [(0, 0, 0), (1, 0, 0), (7, 8, 1), (100, 13, 14)])
def test_each_split_has_its_pictures_in_the_order_of_positions(tmp_path, small_shards, counts):
    random = np.random.RandomState(0)
    with spool.Spool(str(tmp_path)) as file:
        # 1.0 is what the largest hash rounds to.
        members = {
            split: fill(file, split, [1.0, 0.0, *random.rand(max(0, count - 2))][:count])
            for split, count in zip(SPLITS, counts)
        }
        writing.write_shards(str(tmp_path), members, ["apple"], file)
    for split, pictures in members.items():
        shards = [list(written(tmp_path, name)) for name in reading.shard_names(split, len(pictures))]
        expected = [(os.fsencode(picture.source.filename), picture.digest) for picture in pictures]
        assert [each for shard in shards for each in shard] == expected
        assert len({*map(len, shards)}) <= 2 and all(0 < len(shard) <= 7 for shard in shards)
    assert len(os.listdir(str(tmp_path))) == sum(-(-count // 7) for count in counts)


def test_the_disk_is_given_back_while_records_are_written(tmp_path, monkeypatch):
    """At no time are there much more bytes than the pictures' own, whatever a split's positions."""
    held, length, read = [], 4000, spool.Spool.read

    def measured(file, picture):
        open_parts = [part for part in file.parts if not part.closed]
        held.append(length * len(held) + sum(os.fstat(part.fileno()).st_size for part in open_parts))
        return read(file, picture)

    monkeypatch.setattr(spool.Spool, "read", measured)
    with spool.Spool(str(tmp_path)) as file:
        members = {split: fill(file, split, np.random.rand(400), length) for split in SPLITS}
        file.flush()
        writing.write_shards(str(tmp_path), members, ["apple"], file)
    assert len(held) == 1200 and max(held) < 1200 * length * (1 + 3 / spool.PARTS)
