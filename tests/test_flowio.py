"""FlowIO.py: any picture to records, and records to the tensors that the network sees."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import LABELS, ROOT, draw_dataset, refuses, run
from PIL import Image, ImageCms

import FlowIO

RED, WHITE = (220, 30, 40), (255, 255, 255)


def file_bytes(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels(jpeg):
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG" and image.mode == "RGB"
    return np.asarray(image).astype(int)


def plain(mode="RGB", colour=RED, size=(40, 30)):
    image = Image.new("RGB", size, colour)
    return image.quantize(4) if mode == "P" else image.convert(mode)


def gradient(size=(60, 40)):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - x], 2).astype(np.uint8))


# --- encode ----------------------------------------


@pytest.mark.parametrize(
    "mode, format",
    [
        ("RGB", "JPEG"),
        ("RGB", "PNG"),
        ("RGB", "BMP"),
        ("P", "GIF"),
        ("P", "PNG"),
        ("CMYK", "JPEG"),
        ("RGBA", "PNG"),
    ],
)
def test_a_red_picture_stays_red(mode, format):
    assert np.abs(pixels(FlowIO.encode(file_bytes(plain(mode), format), 224)) - RED).max() <= 6


@pytest.mark.parametrize("mode, format", [("L", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("LA", "PNG")])
def test_a_grey_picture_becomes_RGB(mode, format):
    result = pixels(FlowIO.encode(file_bytes(plain(mode, WHITE), format), 224))
    assert result.shape == (30, 40, 3) and result.min() >= 254


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    image = plain("RGBA", (0, 0, 0))
    image.putalpha(0)
    assert pixels(FlowIO.encode(file_bytes(image.convert(mode), "PNG"), 224)).min() >= 254


def test_a_transparent_palette_entry_is_laid_on_white():
    data = file_bytes(plain("P", (0, 0, 0)), "PNG", transparency=plain("P", (0, 0, 0)).getpixel((0, 0)))
    assert pixels(FlowIO.encode(data, 224)).min() >= 254


def test_16_bits_are_scaled_not_clipped():
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    result = pixels(FlowIO.encode(file_bytes(Image.fromarray(values), "PNG"), 224))
    assert np.abs(result - (values / 257.0)[..., None]).max() <= 4


def test_exif_orientation_is_applied():
    image = gradient()
    upright = np.asarray(image).astype(int)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    result = pixels(FlowIO.encode(file_bytes(image, "JPEG", exif=exif, quality=95), 224))
    assert result.shape == (60, 40, 3)
    assert np.abs(result - np.rot90(upright, -1)).mean() < 5


def swapped_profile():
    """An ICC profile like sRGB but with red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    name = "sRGB".encode("utf-16-be")
    assert name in profile
    return bytes(profile.replace(name, "test".encode("utf-16-be")))


@pytest.mark.parametrize("mode, format", [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG")])
def test_colour_profiles_are_applied(mode, format):
    data = file_bytes(plain(mode), format, icc_profile=swapped_profile())
    assert np.abs(pixels(FlowIO.encode(data, 224)) - RED[::-1]).max() <= 8
    data = file_bytes(plain(mode), format, icc_profile=b"no profile")
    assert np.abs(pixels(FlowIO.encode(data, 224)) - RED).max() <= 6


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(file_bytes(plain(), "PNG"))
    assert np.abs(pixels(FlowIO.encode(FlowIO.read_file(str(path)), 224)) - RED).max() <= 6


def test_a_small_jpeg_is_passed_on_byte_for_byte():
    data = file_bytes(gradient(), "JPEG")
    assert FlowIO.encode(data, 224) == data


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_large_picture_is_reduced_and_keeps_its_shape(format):
    result = pixels(FlowIO.encode(file_bytes(gradient((1200, 800)), format), 64))
    assert result.shape == (73, 110, 3)  # 64 * 256 / 224 = 73.1, and 3 : 2
    expected = np.asarray(gradient((110, 73))).astype(int)
    assert np.abs(result - expected).max() <= 8


def damaged():
    whole = file_bytes(gradient((300, 200)), "JPEG")
    return {
        "empty": (b"", "empty file"),
        "text": (b"this is no picture", "not a picture in JPEG, PNG, BMP, GIF format"),
        "truncated": (whole[: len(whole) // 2], "damaged: .*truncated"),
        "webp": (b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 40, "not a picture"),
        "png cut": (file_bytes(gradient(), "PNG")[:100], "damaged"),
    }


@pytest.mark.parametrize("name", damaged())
def test_damaged_files_are_refused_with_a_reason(name):
    data, reason = damaged()[name]
    with pytest.raises(FlowIO.BadPicture, match=reason):
        FlowIO.encode(data, 224)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    header = bytearray(file_bytes(plain(), "BMP"))
    header[18:26] = np.array([20000, 20000], "<i4").tobytes()  # width and height
    with pytest.raises(FlowIO.BadPicture, match="20000 x 20000 pixels are too many"):
        FlowIO.encode(bytes(header), 224)


def test_what_encode_accepts_tensorflow_decodes():
    """Pillow forgives more than TensorFlow; none of that may get into the records."""
    whole = file_bytes(gradient((70, 50)), "JPEG")
    accepted = 0
    with tf.Graph().as_default(), tf.Session() as session:
        source = tf.placeholder(tf.string, [])
        image = FlowIO.decode(source, 32, "per_image")
        for cut in list(range(1, 40)) + [len(whole) // 2]:
            try:
                jpeg = FlowIO.encode(whole[:-cut], 224)
            except FlowIO.BadPicture:
                continue
            accepted += 1
            assert session.run(image, {source: jpeg}).shape == (32, 32, 3)
        rng = np.random.RandomState(0)
        for _ in range(300):
            mutated = bytearray(whole)
            for place in rng.randint(2, len(whole), 3):
                mutated[place] = rng.randint(256)
            try:
                jpeg = FlowIO.encode(bytes(mutated), 224)
            except FlowIO.BadPicture:
                continue
            accepted += 1
            session.run(image, {source: jpeg})
    assert accepted > 20


# --- decode ----------------------------------------


def decode(jpeg, *arguments, function=FlowIO.decode):
    with tf.Graph().as_default(), tf.Session() as session:
        return session.run(function(tf.constant(jpeg), *arguments))


def test_decode_takes_the_centre_unscaled():
    jpeg = FlowIO.encode(file_bytes(gradient((200, 120)), "PNG"), 64)
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


@pytest.mark.parametrize("augment", ["none", "flip", "standard"])
def test_augmentation_varies_only_when_asked(augment):
    jpeg = file_bytes(gradient((37, 37)), "JPEG", quality=95)
    with tf.Graph().as_default(), tf.Session() as session:
        view = FlowIO.decode_augmented(tf.constant(jpeg), 32, "minus1_1", augment)
        views = np.stack([session.run(view) for _ in range(20)])
    assert views.shape == (20, 32, 32, 3) and views.min() >= -1 and views.max() <= 1
    assert len({each.tobytes() for each in views}) == 1 if augment == "none" else len(views) > 5
    if augment != "none":
        red = views[..., 0]  # grows from left to right, and the other way when mirrored
        mirrored = (red[:, :, 0] > red[:, :, -1]).all(1).sum()
        assert 3 <= mirrored <= 17


# --- splits ----------------------------------------


def pictures(labels, given=None, start=0):
    result = []
    for i, label in enumerate(labels, start):
        digest = b"picture %d" % i
        place = FlowIO.position(digest, seed=0)
        source = FlowIO.Source(given, label, "%d.jpg" % i)
        result.append(FlowIO.Picture(source, digest, place, 0, 0, 0, 0))
    return result


def split_of(splits):
    return {picture.source.filename: split for split in FlowIO.SPLITS for picture in splits[split]}


def test_a_split_follows_the_ratios():
    splits = FlowIO.assign_splits(pictures([0] * 2000 + [1] * 2000), 0.7, 0.2)
    sizes = [len(splits[split]) for split in FlowIO.SPLITS]
    assert sum(sizes) == 4000
    np.testing.assert_allclose(np.array(sizes) / 4000, [0.7, 0.2, 0.1], atol=0.03)


def test_a_picture_keeps_its_split_when_more_are_added():
    before = split_of(FlowIO.assign_splits(pictures([0] * 300), 0.8, 0.1))
    after = split_of(FlowIO.assign_splits(pictures([0] * 600), 0.8, 0.1))
    assert all(after[name] == split for name, split in before.items())


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_small_classes_are_in_train_and_test(count):
    for start in range(0, 1000, count):
        splits = FlowIO.assign_splits(pictures([0] * count, start=start), 0.8, 0.1)
        assert splits["train"] and splits["test"]


def test_no_test_split_when_none_is_asked_for():
    splits = FlowIO.assign_splits(pictures([0] * 50), 0.8, 0.2)
    assert not splits["test"] and len(splits["train"]) + len(splits["val"]) == 50


def test_the_users_own_split_is_kept():
    splits = FlowIO.assign_splits(pictures([0, 1], "val") + pictures([0, 1], "train", 2), 0.8, 0.1)
    assert [len(splits[split]) for split in FlowIO.SPLITS] == [2, 2, 0]


def test_the_seed_changes_the_split():
    places = [[FlowIO.position(b"%d" % i, seed) for i in range(50)] for seed in (0, 0, 1)]
    assert places[0] == places[1] != places[2]


def test_natural_order():
    names = ["11", "2", "10", "0", "1", "b", "A", "猫"]
    assert sorted(names, key=FlowIO.natural) == ["0", "1", "2", "10", "11", "A", "b", "猫"]


# --- the script ----------------------------------------


def examples(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(".tfrecord"):
            for record in tf.python_io.tf_record_iterator(os.path.join(folder, name)):
                yield name.split("-")[0], tf.train.Example.FromString(record).features.feature


def contents(folder):
    return {path: open(os.path.join(folder, path), "rb").read() for path in sorted(os.listdir(folder))}


def test_a_folder_of_odd_things(tmp_path):
    dataset, output = tmp_path / "dataset", tmp_path / "records"
    draw_dataset(dataset, 4, ["banana"])
    os.rename(str(dataset / "banana"), str(dataset / "猫"))
    for label in ("10", "2"):
        (dataset / label / "deeper").mkdir(parents=True)
        for number, format in enumerate(["JPEG", "PNG", "BMP", "GIF"]):
            colour = (int(label) * 20, 60 * number, 90)
            data = file_bytes(plain(colour=colour), format)
            (dataset / label / "deeper" / ("odd, name %d.jpg" % number)).write_bytes(data)
    (dataset / "2" / ".DS_Store").write_bytes(b"x")
    (dataset / "2" / "Thumbs.db").write_bytes(b"x")
    (dataset / ".hidden").mkdir()
    (dataset / "notes.txt").write_text("not a class")
    (dataset / "2" / "broken.jpg").write_bytes(b"x")
    (dataset / "10" / "empty.png").write_bytes(b"")
    shutil.copy(str(dataset / "2" / "deeper" / "odd, name 0.jpg"), str(dataset / "2" / "a copy.jpg"))
    for label in ("2", "10"):
        (dataset / label / "which one.png").write_bytes(file_bytes(plain(), "PNG"))
    os.symlink("nowhere", str(dataset / "10" / "dangling.jpg"))

    out, err = run("FlowIO.py", "--dataset", dataset, "--output", output, "--image_size", 48, status=1)
    assert "5 files could not be used" in err and "1 exact copies" in err
    assert "warning: 3 of 3 classes have fewer than 80 pictures, 2 only 4" in err
    description = json.loads((output / "dataset.json").read_text(encoding="utf-8"))
    assert description["classes"] == ["2", "10", "猫"]
    assert description["skipped"] == 5 and description["copies"] == 1 and description["image_size"] == 48
    assert sum(sum(each.values()) for each in description["counts"].values()) == 12
    with open(str(output / "skipped.csv"), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    reasons = {row["filename"]: row["reason"] for row in rows}
    conflict = "the same picture is in classes 2 and 10"
    assert reasons == {
        "2/broken.jpg": "not a picture in JPEG, PNG, BMP, GIF format",
        "10/empty.png": "empty file",
        "10/dangling.jpg": "cannot be read: No such file or directory",
        "2/which one.png": conflict,
        "10/which one.png": conflict,
    }

    seen = []
    for split, feature in examples(str(output)):
        name = feature["image/filename"].bytes_list.value[0].decode()
        text = feature["image/class/text"].bytes_list.value[0].decode()
        label = feature["image/class/label"].int64_list.value[0]
        assert description["classes"][label] == text == name.split("/")[0]
        height, width, _ = pixels(feature["image/encoded"].bytes_list.value[0]).shape
        assert feature["image/height"].int64_list.value[0] == height
        assert feature["image/width"].int64_list.value[0] == width
        assert feature["image/format"].bytes_list.value[0] == b"JPEG"
        seen.append((split, text, name))
    assert len(seen) == len(set(seen)) == 12
    for split in FlowIO.SPLITS:
        for label in description["classes"]:
            here = [each for each in seen if each[:2] == (split, label)]
            assert len(here) == description["counts"][split][label]


def test_same_pictures_same_bytes_whatever_the_workers(tmp_path):
    draw_dataset(tmp_path / "dataset", 20)
    for workers in (1, 4):
        arguments = ["--dataset", tmp_path / "dataset", "--output", tmp_path / str(workers)]
        run("FlowIO.py", *arguments, "--image_size", 32, "--workers", workers)
    assert contents(str(tmp_path / "1")) == contents(str(tmp_path / "4"))
    assert len(contents(str(tmp_path / "1"))) == 5


def test_the_users_split_folders(tmp_path):
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        draw_dataset(tmp_path / "dataset" / split, count, ["kiwi", "apple"], seed=count)
    run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32)
    counts = FlowIO.load_records(str(tmp_path / "out")).counts
    assert counts == {
        "train": {"apple": 6, "kiwi": 6},
        "val": {"apple": 3, "kiwi": 3},
        "test": {"apple": 2, "kiwi": 2},
    }


def test_bad_input_is_one_line_and_loses_nothing(tmp_path):
    dataset, output = tmp_path / "dataset", tmp_path / "out"
    arguments = ["--dataset", dataset, "--output", output]
    refuses("FlowIO.py", *arguments, says="no such folder", status=1)
    dataset.mkdir()
    refuses("FlowIO.py", *arguments, says="no class folders", status=1)
    draw_dataset(dataset, 3, ["kiwi"])
    refuses("FlowIO.py", *arguments, says="only one class, kiwi", status=1)
    draw_dataset(dataset, 3, ["apple"])
    run("FlowIO.py", *arguments, "--image_size", 32)
    before = contents(str(output))

    (dataset / "empty").mkdir()
    refuses("FlowIO.py", *arguments, says="class empty has no usable picture", status=1)
    (dataset / "empty" / "bad.jpg").write_bytes(b"bad")
    refuses("FlowIO.py", *arguments, says="no usable picture (1 files, the first: not a", status=1)
    refuses("FlowIO.py", "--image_size", "big", says="--image_size", status=2)
    refuses("FlowIO.py", "--train_ratio", 0.9, "--val_ratio", 0.2, says="--train_ratio", status=2)
    refuses("FlowIO.py", "--no_such_option", says="--no_such_option", status=2)
    assert contents(str(output)) == before

    shutil.rmtree(str(dataset / "empty"))
    (output / "thesis.txt").write_text("years of work")
    refuses("FlowIO.py", *arguments, says="thesis.txt", status=1)
    assert (output / "thesis.txt").read_text() == "years of work"
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "out"]


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_conversion_leaves_the_old_records(tmp_path, number, status):
    dataset, output = tmp_path / "dataset", tmp_path / "out"
    draw_dataset(dataset, 3)
    command = [sys.executable, os.path.join(ROOT, "FlowIO.py"), "--dataset", dataset, "--output", output]
    command = [str(part) for part in command] + ["--workers", "1"]
    subprocess.run(command, check=True, capture_output=True)
    before = contents(str(output))
    for i in range(40):
        gradient((2000, 1500)).save(str(dataset / "kiwi" / ("large %d.png" % i)), compress_level=1)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not os.path.exists(str(output) + ".partial"):
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == status and b"Traceback" not in err
    assert contents(str(output)) == before
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "out"]


def test_records_that_cannot_be_read(tmp_path):
    draw_dataset(tmp_path / "dataset", 4)
    run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32)
    description = json.loads((tmp_path / "out" / "dataset.json").read_text())
    for content, says in [
        ("{", "damaged"),
        (json.dumps(dict(description, format_version=99)), "format version 99"),
    ]:
        (tmp_path / "out" / "dataset.json").write_text(content)
        with pytest.raises(FlowIO.UserError, match=says):
            FlowIO.load_records(str(tmp_path / "out"))
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(description))
    # Killed between the two renames: the old records come back.
    os.rename(str(tmp_path / "out"), str(tmp_path / "out.previous"))
    assert FlowIO.load_records(str(tmp_path / "out")).classes == LABELS
    os.remove(str(tmp_path / "out" / "train-00000-of-00001.tfrecord"))
    with pytest.raises(FlowIO.UserError, match="train-00000-of-00001.tfrecord is missing"):
        FlowIO.load_records(str(tmp_path / "out"))
    with pytest.raises(FlowIO.UserError, match="no records there"):
        FlowIO.load_records(str(tmp_path))
