"""From records to the network's input: decoding, augmentation, order, and files that are damaged."""

import io
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import LABELS, draw_dataset, file_bytes, gradient, pixels, run
from PIL import Image, ImageDraw

from suite.files import atomic, schemas
from suite.pictures import imagefile
from suite.process import tf_versions
from suite.process.errors import UserError
from suite.records import preprocessing, reading

# --- decode ----------------------------------------


def decode(jpeg, *arguments, function=preprocessing.preprocess_for_evaluation):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(function(tf.constant(jpeg), *arguments))


def random_view(jpeg, image_size, normalize_as, *how):
    """As training on a CPU sees it."""
    return preprocessing.finish_view(preprocessing.decode_view(jpeg, image_size, *how), normalize_as)


def test_decode_takes_the_centre_unscaled():
    jpeg = imagefile.encode(file_bytes(gradient((200, 120)), "PNG"), 64)
    everything = pixels(jpeg)  # 73 x 122 pixels
    top, left = (73 - 64) // 2, (122 - 64) // 2
    expected = everything[top : top + 64, left : left + 64] / 127.5 - 1
    np.testing.assert_allclose(decode(jpeg, 64, "minus1_1"), expected, atol=1e-6)


def test_decode_takes_a_small_picture_whole():
    jpeg = file_bytes(gradient((20, 20)), "JPEG", quality=95)
    result = (decode(jpeg, 32, "minus1_1") + 1) * 127.5
    expected = np.asarray(Image.fromarray(pixels(jpeg).astype(np.uint8)).resize((32, 32), Image.BILINEAR))
    assert np.abs(result - expected).max() <= 1


def test_per_image_standardisation():
    jpeg = file_bytes(gradient((36, 36)), "JPEG", quality=95)
    raw = (decode(jpeg, 32, "minus1_1") + 1) * 127.5
    result = decode(jpeg, 32, "per_image")
    np.testing.assert_allclose(result, (raw - raw.mean()) / raw.std(), atol=1e-3)


@pytest.mark.parametrize("image_size", [32, 100])
def test_decode_of_a_kept_size_averages_what_it_reduces(image_size):
    rng = np.random.RandomState(0)
    noise = Image.fromarray(rng.randint(0, 256, (800, 900, 3)).astype(np.uint8))
    jpeg = imagefile.encode(file_bytes(noise, "PNG"), None)
    result = (decode(jpeg, image_size, "minus1_1") + 1) * 127.5
    everything = Image.fromarray(pixels(jpeg).astype(np.uint8))
    side = 700  # 800 * 224 / 256
    centre = everything.crop((100, 50, 100 + side, 50 + side))
    expected = np.asarray(centre.resize((image_size, image_size), Image.BOX)).astype(int)
    assert np.abs(result - expected).max() <= 3  # both round along the way


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("encoded_for, image_size", [(32, 32), (None, 32), (32, 48), (64, 32)])
def test_pad_and_squash_are_seen_to_the_rim(fit, encoded_for, image_size):
    """A white picture with a black rim: each edge of what is seen is dark, whatever size it was made for."""
    image = Image.new("RGB", (160, 160))
    image.paste("white", (8, 8, 152, 152))
    jpeg = imagefile.encode(file_bytes(image, "PNG"), encoded_for, fit=fit)
    seen = (decode(jpeg, image_size, "minus1_1", fit) + 1) * 127.5
    for edge in (seen[0], seen[-1], seen[:, 0], seen[:, -1]):
        assert edge.mean() < 60
    if encoded_for == image_size:
        np.testing.assert_allclose(seen, pixels(jpeg), atol=1e-3)
    everything = Image.fromarray(pixels(jpeg).astype(np.uint8))
    filter = Image.BOX if everything.width > image_size else Image.BILINEAR
    everything = everything.resize([image_size] * 2, filter)
    assert np.abs(seen - np.asarray(everything)).mean() < 6


def test_a_padded_picture_is_flipped_and_stays_where_it_is():
    jpeg = imagefile.encode(file_bytes(gradient((90, 40)), "PNG"), 32, fit="pad")
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int64, [2])
        view = random_view(jpeg, 32, "minus1_1", "flip", seed, "pad")
        views = {session.run(view, {seed: [0, i]}).tobytes() for i in range(20)}
    whole = decode(jpeg, 32, "minus1_1", "pad")
    assert views == {whole.tobytes(), whole[:, ::-1].tobytes()}


@pytest.mark.parametrize("width, height", [(341, 256), (256, 256), (70, 20), (500, 2000), (40, 37), (1, 9)])
@pytest.mark.parametrize("image_size", [32, 224])
def test_the_share_that_a_crop_drops(graph, width, height, image_size):
    with tf.Session() as session:
        side = session.run(preprocessing.crop_side(tf.constant([height, width]), image_size, "crop"))
    expected = 1 - side**2 / (width * height)
    assert preprocessing.dropped_share(width, height, image_size) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("fit", schemas.FITS)
@pytest.mark.parametrize("size", [(400, 240), (150, 300), (70, 50)])
def test_where_a_view_lies_on_the_picture(fit, size):
    """A dot on a photograph is found again in what the network sees of it."""
    width, height = size
    image = Image.new("RGB", size)
    dot = 0.62 * width, 0.45 * height
    radius = min(size) / 12
    box = [at + sign * radius for sign in (-1, 1) for at in dot]
    ImageDraw.Draw(image).ellipse(box, "white")
    jpeg = imagefile.encode(file_bytes(image, "PNG"), 64, fit=fit)
    with tf.Graph().as_default(), tf.Session() as session:
        view = session.run(preprocessing.centre(jpeg, 64, fit))[:, :, 0]
    view = np.where(view > 160, view, 0)  # without the grey that pads
    x, y = (((np.arange(64) + 0.5) / 64 * view.sum(axis)).sum() / view.sum() for axis in (0, 1))
    encoded = Image.open(io.BytesIO(jpeg)).size
    left, top, right, bottom = preprocessing.seen(size, encoded, 64, fit)
    assert left + x * (right - left) == pytest.approx(dot[0], abs=width / 64)
    assert top + y * (bottom - top) == pytest.approx(dot[1], abs=height / 64)


@pytest.mark.parametrize("augment", ["none", "flip", "standard"])
def test_augmentation_varies_only_when_asked(augment):
    jpeg = file_bytes(gradient((37, 37)), "JPEG", quality=95)
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int64, [2])
        view = random_view(tf.constant(jpeg), 32, "minus1_1", augment, seed)
        views = np.stack([session.run(view, {seed: [0, i]}) for i in range(20)])
        np.testing.assert_array_equal(session.run(view, {seed: [0, 7]}), views[7])
    assert views.shape == (20, 32, 32, 3) and views.min() >= -1 and views.max() <= 1
    different = len({each.tobytes() for each in views})
    assert different == 1 if augment == "none" else different > 5
    if augment != "none":
        red = views[..., 0]  # grows from left to right, and the other way when mirrored
        mirrored = (red[:, :, 0] > red[:, :, -1]).all(1).sum()
        assert 3 <= mirrored <= 17


@pytest.mark.parametrize("size", [(300, 20), (20, 300), (33, 33), (1, 1), (2, 90)])
@pytest.mark.parametrize("augment", ["flip", "standard"])
def test_augmentation_of_any_shape_stays_inside(size, augment):
    jpeg = file_bytes(gradient(size), "JPEG", quality=95)
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int64, [2])
        view = random_view(tf.constant(jpeg), 32, "per_image", augment, seed)
        for i in range(30):
            assert np.isfinite(session.run(view, {seed: [i, i]})).all()


def test_standard_augmentation_keeps_proportions():
    """Of a picture 10 times as wide as high, squares as wide as high come out as squares."""
    stripes = np.zeros((40, 400, 3), np.uint8)
    stripes[:, np.arange(400) // 40 % 2 == 1] = 255
    jpeg = imagefile.encode(file_bytes(Image.fromarray(stripes), "PNG"), None)
    with tf.Graph().as_default(), tf.Session() as session:
        seed = tf.placeholder(tf.int64, [2])
        view = random_view(tf.constant(jpeg), 40, "minus1_1", "standard", seed)
        for i in range(30):
            row = session.run(view, {seed: [0, i]}).mean((0, 2)) > 0
            # The window is at most 4/3 times as wide as high: two edges at most.
            assert np.count_nonzero(np.diff(row.astype(int))) <= 2


@pytest.mark.parametrize("side", [32, 36, 50, 90])
def test_the_training_feed_is_what_the_evaluation_sees(side):
    """Within half a grey level before normalisation, and to the bit where nothing is resized."""
    with tf.Graph().as_default(), tf.Session() as session:
        jpeg = tf.constant(file_bytes(gradient((side, side + 5)), "JPEG", quality=95))
        view = preprocessing.decode_view(jpeg, 32, "none", None)
        assert set(view) == {"image"} and view["image"].dtype == tf.uint8
        fed, seen = session.run([view["image"], preprocessing.centre(jpeg, 32, "crop")])
        assert np.abs(fed - seen).max() <= (0.5 if side > 36 else 0)
        for normalize_as in ("minus1_1", "per_image"):
            finished = preprocessing.finish_views({"image": fed[np.newaxis]}, normalize_as)
            expected = preprocessing.normalize(tf.constant(fed, tf.float32), normalize_as)
            finished, expected = session.run([finished[0], expected])
            np.testing.assert_allclose(finished, expected, atol=1e-5)


@pytest.mark.parametrize("augment", ["flip", "standard"])
def test_large_pictures_are_decoded_at_the_scale_that_is_enough(augment, monkeypatch):
    """The same view as of all pixels, to less than one of its pixels, 8 grey levels here."""
    smooth = gradient((5, 4)).resize((1300, 1100), Image.BICUBIC)
    with tf.Graph().as_default(), tf.Session() as session:
        jpeg = tf.constant(file_bytes(smooth, "JPEG", quality=95))
        seed = tf.placeholder(tf.int64, [2])
        coarse = preprocessing.decode_view(jpeg, 32, augment, seed)["image"]
        decode = preprocessing.decode_window
        monkeypatch.setattr(preprocessing, "decode_coarsely", lambda *window, image_size: decode(*window))
        whole = preprocessing.decode_view(jpeg, 32, augment, seed)["image"]
        for i in range(10):
            a, b = session.run([coarse, whole], {seed: [0, i]})
            assert np.abs(a.astype(int) - b).max() < 7
        for ratio in (1, 2, 4, 8):
            window = decode(jpeg, tf.constant([100, 201]), tf.constant([640, 808]), ratio)
            smaller = tf.image.decode_jpeg(jpeg, 3, ratio, dct_method="INTEGER_ACCURATE")
            window, smaller = session.run([window, smaller])
            y, x = 100 // ratio, 201 // ratio
            expected = smaller[y : y + 640 // ratio, x : x + 808 // ratio].astype(int)
            assert window.shape == expected.shape and np.abs(window - expected).max() <= 8


def test_each_picture_of_a_batch_gets_its_own_colours():
    """Against tf.image, which takes one number for all."""
    numbers = np.random.RandomState(0)
    pictures = numbers.randint(0, 256, [6, 8, 8, 3]).astype(np.uint8)
    pictures[0], pictures[1], pictures[2, ..., 1] = 0, 255, pictures[2, ..., 0]
    colours = np.stack(
        [numbers.uniform(-32, 32, 6), numbers.uniform(0.8, 1.25, 6), numbers.uniform(0.8, 1.25, 6)], 1
    )
    mirrored = [True, False] * 3
    views = {"image": pictures, "mirrored": mirrored, "colours": colours.astype(np.float32)}
    with tf.Graph().as_default(), tf.Session() as session:
        finished = session.run(
            preprocessing.finish_views({k: tf.constant(v) for k, v in views.items()}, "minus1_1")
        )
        for i, (picture, turned, (lighter, contrast, saturation), got) in enumerate(
            zip(pictures, mirrored, colours, finished)
        ):
            single = preprocessing.finish_view({k: tf.constant(v[i]) for k, v in views.items()}, "minus1_1")
            np.testing.assert_allclose(got, session.run(single), atol=1e-5)
            pixels = picture[:, ::-1] if turned else picture
            pixels = tf.image.adjust_contrast(pixels.astype(np.float32) + np.float32(lighter), contrast)
            pixels = tf.image.adjust_saturation(tf.clip_by_value(pixels, 0, 255) / 255, saturation)
            np.testing.assert_allclose((got + 1) / 2, session.run(pixels), atol=1e-5)


# --- records ----------------------------------------


def test_records_that_cannot_be_read(tmp_path):
    draw_dataset(tmp_path / "dataset", 4)
    run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32)
    description = json.loads((tmp_path / "out" / "dataset.json").read_text())
    for content, says in [
        ("{", "damaged"),
        (json.dumps(dict(description, format_version=99)), "format version 99"),
    ]:
        (tmp_path / "out" / "dataset.json").write_text(content)
        with pytest.raises(UserError, match=says):
            reading.load_records(str(tmp_path / "out"))
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(description))
    # Killed between the two renames: the old records come back.
    os.rename(str(tmp_path / "out"), str(tmp_path / "out") + atomic.PREVIOUS)
    assert reading.load_records(str(tmp_path / "out")).classes == LABELS
    os.remove(str(tmp_path / "out" / "train-00000-of-00001.tfrecord"))
    with pytest.raises(UserError, match="train-00000-of-00001.tfrecord is missing"):
        reading.load_records(str(tmp_path / "out"))
    with pytest.raises(UserError, match="no records there"):
        reading.load_records(str(tmp_path))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted")
    draw_dataset(folder / "dataset", 12, ["apple", "kiwi"])
    run("FlowIO.py", "--dataset", folder / "dataset", "--output", folder / "out", "--image_size", 32)
    return str(folder / "out")


@pytest.fixture
def records(converted, tmp_path):
    """Records in tmp_path / "out", of two classes of 12 pictures."""
    return reading.load_records(shutil.copytree(converted, str(tmp_path / "out")))


def first_batches(records, seed, augment="standard", count=5):
    with tf.Graph().as_default(), tf.Session() as session:
        dataset = reading.read_for_training(records, "train", 4, augment, seed)
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        return [session.run(batch) for _ in range(count)]


def test_the_same_seed_gives_the_same_batches(records):
    one, same, other = (first_batches(records, seed) for seed in (1, 1, 2))
    for a, b in zip(one, same):
        np.testing.assert_array_equal(a["image"], b["image"])
        assert list(a["filename"]) == list(b["filename"])
    assert [list(a["filename"]) for a in one] != [list(a["filename"]) for a in other]
    passes = [name for batch in one for name in batch["filename"]]
    pictures = records.count("train")
    assert len(set(passes[:pictures])) == pictures  # each once before any comes again


def test_of_large_pictures_fewer_are_shuffled(records, monkeypatch):
    """Those that CACHE_BYTES hold; where that is enough for all, the order is the same whatever they take."""
    count, path = records.count("train"), records.shard_paths("train")[0]
    examples = map(tf.train.Example.FromString, tf.python_io.tf_record_iterator(path))
    stored = [each.features.feature["image/filename"].bytes_list.value[0] for each in examples]

    def order(pictures):
        monkeypatch.setattr(reading, "CACHE_BYTES", pictures * os.path.getsize(path) // count + 1)
        return [
            stored.index(name) for batch in first_batches(records, 1, "none") for name in batch["filename"]
        ]

    few, all_of_them = order(4), order(count)
    assert sorted(few[:4]) != few[:4] and all(at < i + 4 for i, at in enumerate(few[:count]))
    assert all_of_them == order(9999) and max(all_of_them[:4]) >= 8


def test_records_are_read_through_tensorflows_file_systems(records, tmp_path):
    remote = reading.load_records("file://%s/" % (tmp_path / "out"))
    assert remote.classes == records.classes
    for a, b in zip(first_batches(records, 1), first_batches(remote, 1)):
        np.testing.assert_array_equal(a["image"], b["image"])


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_a_damaged_file_is_named(records, tmp_path, monkeypatch, cache):
    monkeypatch.setattr(reading, "CACHE_BYTES", cache)
    path = tmp_path / "out" / "train-00000-of-00001.tfrecord"
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + b"?" + whole[501:])
    for _ in range(1 if tf_versions.is_2() else 10):  # TensorFlow 1.15 crashed now and then
        damaged = pytest.raises(UserError, match="train-00000-of-00001.tfrecord: damaged")
        with damaged, reading.naming_damage(records):
            first_batches(records, 1)
    path.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="damaged, %d bytes where" % (len(whole) - 20)):
        reading.load_records(str(tmp_path / "out"))


def test_a_picture_that_tensorflow_cannot_decode_is_named(records, tmp_path):
    """FlowIO.py writes none; but to find one among 100,000 by hand would take a day."""
    path = str(tmp_path / "out" / "train-00000-of-00001.tfrecord")
    examples = [tf.train.Example.FromString(each) for each in tf.python_io.tf_record_iterator(path)]
    fields = examples[3].features.feature
    fields["image/encoded"].bytes_list.value[0] = fields["image/encoded"].bytes_list.value[0][:20]
    with tf.python_io.TFRecordWriter(path) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    filename = fields["image/filename"].bytes_list.value[0].decode()
    named = pytest.raises(UserError, match="%s: its picture %s cannot be decoded" % (path, filename))
    with named, reading.naming_damage(records):
        first_batches(records, 9)
