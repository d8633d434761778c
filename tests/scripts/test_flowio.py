"""FlowIO.py as a user runs it: any folder of pictures to records."""

import csv
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest
import tensorflow.compat.v1 as tf
from helpers import (
    ROOT,
    draw_dataset,
    draw_demo,
    file_bytes,
    folder_bytes,
    gradient,
    pixels,
    plain,
    refuses,
    run,
)
from PIL import Image

import FlowIO
from suite.files import atomic
from suite.files.schemas import SPLITS
from suite.pictures import imagefile
from suite.pictures.folders import SourceFile
from suite.records import reading
from suite.records.splits import EncodedPicture

# --- the script ----------------------------------------


def examples(folder):
    for name in sorted(os.listdir(folder)):
        if name.endswith(".tfrecord"):
            for record in tf.python_io.tf_record_iterator(os.path.join(folder, name)):
                yield name.split("-")[0], tf.train.Example.FromString(record).features.feature


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
    assert "5 files could not be used" in err and "left out as exact copies: 1 picture\n" in err
    assert "warning: fewer than 80 pictures in 3 of 3 classes, in 2 only 4" in err
    assert err.splitlines()[-1] == "next: python train.py --data %s" % output
    description = json.loads((output / "dataset.json").read_text(encoding="utf-8"))
    assert description["classes"] == ["2", "10", "猫"]
    numbers = tuple(description["counts"][split]["猫"] for split in SPLITS)
    assert "\n猫    %7d %7d %7d\n" % numbers in out  # the sign takes two columns
    assert description["skipped"] == 5 and description["copies"] == 1 and description["image_size"] == 48
    assert sum(sum(each.values()) for each in description["counts"].values()) == 12
    with open(str(output / "skipped.csv"), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    reasons = {row["filename"]: row["reason"] for row in rows}
    conflict = "the same picture is in classes 2 and 10"
    assert reasons == {
        "2/broken.jpg": "not a picture in JPEG, PNG, BMP or GIF format",
        "10/empty.png": "empty file",
        "10/dangling.jpg": "cannot be read: No such file or directory, where the link leads",
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
    for split in SPLITS:
        for label in description["classes"]:
            here = [each for each in seen if each[:2] == (split, label)]
            assert len(here) == description["counts"][split][label]


@pytest.mark.slow
def test_same_pictures_same_bytes_whatever_the_workers(tmp_path):
    draw_dataset(tmp_path / "dataset", 20)
    for workers in (1, 4):
        arguments = ["--dataset", tmp_path / "dataset", "--output", tmp_path / str(workers)]
        run("FlowIO.py", *arguments, "--image_size", 32, "--workers", workers)
    assert folder_bytes(str(tmp_path / "1")) == folder_bytes(str(tmp_path / "4"))
    assert len(folder_bytes(str(tmp_path / "1"))) == 7


def test_the_users_split_folders(tmp_path):
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        draw_dataset(tmp_path / "dataset" / split, count, ["kiwi", "apple"], seed=count)
    run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32)
    counts = reading.load_records(str(tmp_path / "out")).counts
    assert counts == {
        "train": {"apple": 6, "kiwi": 6},
        "val": {"apple": 3, "kiwi": 3},
        "test": {"apple": 2, "kiwi": 2},
    }


def test_empty_splits_are_said(tmp_path):
    draw_dataset(tmp_path / "dataset" / "Training", 3, ["apple", "kiwi"])
    (tmp_path / "dataset" / "testing").mkdir()
    draw_demo.picture("kiwi", 40, random.Random(1)).save(str(tmp_path / "dataset" / "testing" / "1.png"))
    same = ["--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32]
    _, err = run("FlowIO.py", *same)
    assert "warning: the val split is empty; without it train.py cannot tell the best checkpoint" in err
    assert "warning: the test split is empty; without it evaluate.py has nothing to measure" in err
    assert "1 file in %s beside the class folders, in no class" % (tmp_path / "dataset" / "testing") in err


def test_the_users_split_may_lack_a_class(tmp_path):
    draw_dataset(tmp_path / "dataset" / "train", 3, ["kiwi", "apple"])
    draw_dataset(tmp_path / "dataset" / "test", 2, ["kiwi", "banana"], seed=1)
    _, err = run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", tmp_path / "out")
    assert "warning: the train split has no picture of banana" in err
    counts = reading.load_records(str(tmp_path / "out")).counts
    assert counts["test"] == {"apple": 0, "banana": 2, "kiwi": 2} and counts["train"]["banana"] == 0


@pytest.mark.parametrize("ratio", ["--train_ratio", "--val_ratio"])
def test_ratios_are_refused_for_what_is_split_already(tmp_path, ratio):
    draw_dataset(tmp_path / "train", 3, ["apple", "kiwi"])
    draw_dataset(tmp_path / "test", 1, ["apple", "kiwi"])
    says = "%s: %s is split already, into train and test; leave it out" % (ratio, tmp_path)
    refuses("FlowIO.py", "--dataset", tmp_path, "--output", "nowhere", ratio, 0.2, says=says, status=2)


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
    before = folder_bytes(str(output))

    (dataset / "empty").mkdir()
    refuses("FlowIO.py", *arguments, says="class empty has no usable picture", status=1)
    (dataset / "empty" / "bad.jpg").write_bytes(b"bad")
    refuses("FlowIO.py", *arguments, says="no usable picture (1 file, the first: not a", status=1)
    refuses("FlowIO.py", "--image_size", "big", says="--image_size", status=2)
    refuses("FlowIO.py", "--train_ratio", 0.9, "--val_ratio", 0.2, says="--train_ratio", status=2)
    refuses("FlowIO.py", "--no_such_option", says="--no_such_option", status=2)
    refuses("FlowIO.py", "--preview", "", says="argument --preview: is empty", status=2)
    refuses("FlowIO.py", "--output", "gs://bucket/out", says="must be a local path", status=2)
    assert folder_bytes(str(output)) == before

    shutil.rmtree(str(dataset / "empty"))
    (output / "thesis.txt").write_text("years of work")
    refuses("FlowIO.py", *arguments, says="thesis.txt", status=1)
    assert (output / "thesis.txt").read_text() == "years of work"
    file = output / "thesis.txt"
    refuses("FlowIO.py", "--dataset", dataset, "--output", file, says="thesis.txt: is a file", status=1)
    refuses(
        "FlowIO.py",
        "--dataset",
        dataset,
        "--output",
        file / "out",
        says="out%s: Not a dir" % atomic.PARTIAL,
        status=1,
    )
    assert file.read_text() == "years of work"
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "out"]


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_conversion_leaves_the_old_records(tmp_path, number, status):
    dataset, output = tmp_path / "dataset", tmp_path / "out"
    draw_dataset(dataset, 3)
    command = [sys.executable, os.path.join(ROOT, "FlowIO.py"), "--dataset", dataset, "--output", output]
    command = [str(part) for part in command] + ["--workers", "1"]
    subprocess.run(command, check=True, capture_output=True)
    before = folder_bytes(str(output))
    data = file_bytes(gradient((2000, 1500)), "PNG", compress_level=1)
    for i in range(40):
        (dataset / "kiwi" / ("large %d.png" % i)).write_bytes(data)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not os.path.exists(str(output) + atomic.PARTIAL):
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == status and b"Traceback" not in err
    assert folder_bytes(str(output)) == before
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "out"]


def test_the_working_directory_as_output(tmp_path):
    """A shell that stands there goes on to."""
    draw_dataset(tmp_path / "dataset", 3, ["apple", "kiwi"])
    (tmp_path / "out").mkdir()
    inode = os.stat(str(tmp_path / "out")).st_ino
    for size in (32, 40):
        same = ["--dataset", "../dataset", "--output", ".", "--image_size", size]
        run("FlowIO.py", *same, cwd=str(tmp_path / "out"))
        assert reading.load_records(str(tmp_path / "out")).image_size == size
        assert os.stat(str(tmp_path / "out")).st_ino == inode
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "out"]
    assert not [name for name in os.listdir(str(tmp_path / "out")) if not FlowIO.OWN_FILES.fullmatch(name)]


@pytest.mark.slow
def test_an_output_in_the_data_set_is_refused(tmp_path):
    """Also by links: of the output, of the data set, and of a class that is elsewhere."""
    dataset, elsewhere = tmp_path / "dataset", tmp_path / "elsewhere"
    draw_dataset(dataset, 3, ["apple", "kiwi"])
    draw_dataset(elsewhere / "deep" / "er", 3, ["banana"], seed=1)
    os.symlink(str(dataset), str(tmp_path / "link"))
    os.symlink(str(elsewhere / "deep"), str(dataset / "banana"))
    os.symlink(str(dataset / "new"), str(tmp_path / "out"))

    def refused(output, *more, given=dataset):
        same = ["--dataset", given, "--output", output, "--follow_links", "--image_size", 32]
        refuses("FlowIO.py", *same, *more, says="--output %s: lies in" % output, status=2)

    refused(dataset)
    refused(dataset / "records")
    refused(dataset / "kiwi" / "more" / "records")
    refused(dataset / "records", given=tmp_path / "link")
    refused(tmp_path / "link" / "records")
    refused(tmp_path / "out")
    refused(elsewhere / "deep" / "records")
    refused(elsewhere / "deep" / "er" / "banana" / "records")
    photo = dataset / "kiwi" / "0.png"
    refuses("FlowIO.py", "--dataset", dataset, "--follow_links", "--preview", photo, says="lies in", status=2)
    says = "which is not ours; choose another --output"
    refuses("FlowIO.py", "--dataset", dataset, "--output", tmp_path, "--follow_links", says=says, status=1)
    assert sorted(os.listdir(str(dataset))) == ["apple", "banana", "kiwi"]
    assert sorted(os.listdir(str(tmp_path))) == ["dataset", "elsewhere", "link", "out"]
    for output in (elsewhere / "records", tmp_path / "dataset2"):  # beside it, and named alike
        run("FlowIO.py", "--dataset", dataset, "--output", output, "--follow_links", "--image_size", 32)


def test_near_duplicates_are_listed(tmp_path):
    folder = tmp_path / "dataset"
    for split, seed in (("train", 0), ("test", 1)):
        draw_dataset(folder / split, 3, ["apple", "kiwi"], seed)
    image = draw_demo.picture("kiwi", 300, random.Random(2))
    image.save(str(folder / "train" / "kiwi" / "once.png"))
    image.resize((200, 200), Image.BICUBIC).save(str(folder / "test" / "kiwi" / "again.jpg"), quality=60)
    _, err = run("FlowIO.py", "--dataset", folder, "--output", tmp_path / "out", "--image_size", 64)
    assert (
        "warning: near-copies of pictures in an earlier split: 1, the first: test/kiwi/again.jpg like train"
        in err
    )
    with open(str(tmp_path / "out" / "near_duplicates.csv"), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["filename"], row["looks_like"]) for row in rows] == [
        ("test/kiwi/again.jpg", "train/kiwi/once.png")
    ]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["near_duplicates"] == 1


def test_unequal_classes_are_warned_of(capsys):
    counts = {
        "train": {"cat": 900, "dog": 70},
        "val": {"cat": 100, "dog": 10},
        "test": {"cat": 100, "dog": 20},
    }
    FlowIO.warn_of_sizes(["cat", "dog"], counts)
    assert "cat has 11 times as many pictures as dog" in capsys.readouterr().err
    counts["test"]["dog"] = 30  # a tenth
    FlowIO.warn_of_sizes(["cat", "dog"], counts)
    assert capsys.readouterr().err == ""


def test_the_small_size_is_named_without_a_gpu(tmp_path, monkeypatch, capsys):
    draw_dataset(tmp_path / "dataset", 8, ["apple", "kiwi"])
    for size, has_nvidia, said in ((96, False, 1), (96, True, 0), (64, False, 0)):
        monkeypatch.setattr(FlowIO.device, "has_nvidia", lambda found=has_nvidia: found)
        arguments = ["--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", size]
        monkeypatch.setattr(sys, "argv", ["FlowIO.py", *map(str, arguments), "--workers", "1"])
        FlowIO.main()
        assert capsys.readouterr().err.count("--image_size 64 and train.py --mini, minutes") == said


def test_pictures_that_show_hardly_anything_are_counted_and_listed(tmp_path):
    draw_dataset(tmp_path / "dataset", 3)
    for number in range(2):
        icon = Image.new("RGBA", (48, 48), (255, 255, 255, 100 + number))
        icon.save(str(tmp_path / "dataset" / "kiwi" / ("white %d.png" % number)))
    output = tmp_path / "records"
    _, err = run("FlowIO.py", "--dataset", tmp_path / "dataset", "--output", output, "--image_size", 32)
    remark = imagefile.HARDLY_ANY_CONTRAST
    assert "warning: 2 pictures, the first: kiwi/white 0.png: %s; all in %s" % (remark, output) in err
    with open(str(output / "remarks.csv"), encoding="utf-8-sig", newline="") as file:
        rows = [(row["filename"], row["remark"]) for row in csv.DictReader(file)]
    assert rows == [("kiwi/white %d.png" % number, remark) for number in range(2)]


def test_the_next_command_is_complete_with_the_default_folders(workspace):
    assert workspace.flowio[1].splitlines()[-1] == "next: python train.py"


@pytest.mark.parametrize(
    "wide, fit, warned", [(5, "crop", True), (4, "crop", False), (20, "pad", False), (20, "squash", False)]
)
def test_a_crop_that_drops_much_of_many_is_warned_of(capsys, wide, fit, warned):
    """Of what is wider than a camera's 3:2, in more than a fifth of the pictures."""
    pictures = [
        EncodedPicture(
            SourceFile(None, 0, "%d.jpg" % i), b"", None, 0, 0, 0, 256, 512 if i < wide else 384, ""
        )
        for i in reversed(range(20))
    ]
    FlowIO.warn_of_crop(pictures, FlowIO.parse_options(["--fit", fit]))
    said = "the centre square leaves out more than 50% of 5 of 20 pictures, the first: 0.jpg; --fit pad takes"
    assert (said in capsys.readouterr().err) == warned


@pytest.mark.slow
def test_keep_size_and_formats(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "dataset" / label).mkdir(parents=True)
        image = gradient((300, 200)) if label == "a" else gradient((310, 200)).rotate(180)
        image.save(str(tmp_path / "dataset" / label / "large.jpg"), quality=95)
        image.transpose(Image.FLIP_LEFT_RIGHT).save(str(tmp_path / "dataset" / label / "tagged.tiff"))
    arguments = ["--dataset", tmp_path / "dataset", "--output", tmp_path / "out", "--image_size", 32]
    _, err = run("FlowIO.py", *arguments, status=1)
    assert "--formats TIFF opens it" in err
    refuses("FlowIO.py", "--formats", "PNG", says="--formats: 'PNG' is neither WEBP nor TIFF", status=2)
    run("FlowIO.py", *arguments, "--keep_size", "--formats", "TIFF", "WEBP")
    records = reading.load_records(str(tmp_path / "out"))
    assert records.keep_size
    encoded = {}
    for _, feature in examples(str(tmp_path / "out")):
        name = feature["image/filename"].bytes_list.value[0].decode()
        encoded[name] = feature["image/encoded"].bytes_list.value[0]
    assert encoded["a/large.jpg"] == (tmp_path / "dataset" / "a" / "large.jpg").read_bytes()
    assert pixels(encoded["b/tagged.tiff"]).shape == (200, 310, 3)


@pytest.mark.slow
def test_links_are_followed_only_when_asked(tmp_path):
    draw_dataset(tmp_path / "dataset", 2, ["apple", "kiwi"])
    draw_dataset(tmp_path / "elsewhere", 3, ["apple", "kiwi"], seed=1)
    dataset, arguments = tmp_path / "dataset", ["--dataset", tmp_path / "dataset", "--image_size", 32]
    os.symlink("../kiwi", str(dataset / "kiwi" / "circle"))
    os.symlink(str(tmp_path / "elsewhere" / "kiwi"), str(dataset / "kiwi" / "folder"))
    os.symlink(str(tmp_path / "elsewhere" / "apple" / "0.png"), str(dataset / "apple" / "file.png"))
    run("FlowIO.py", *arguments, "--output", tmp_path / "out", status=1)
    with open(str(tmp_path / "out" / "skipped.csv"), encoding="utf-8-sig", newline="") as file:
        assert {row["filename"]: row["reason"] for row in csv.DictReader(file)} == {
            "apple/file.png": "a link out of the data set; --follow_links takes it",
            "kiwi/folder": "a link out of the data set; --follow_links takes it",
            "kiwi/circle": "cannot be read: a folder, not entered",
        }
    run("FlowIO.py", *arguments, "--output", tmp_path / "out", "--follow_links")
    counts = reading.load_records(str(tmp_path / "out")).counts
    assert sum(split["apple"] for split in counts.values()) == 2 + 1
    assert sum(split["kiwi"] for split in counts.values()) == 2 + 3
    os.symlink(str(dataset), str(tmp_path / "link"))  # the data set itself may be one
    run("FlowIO.py", "--dataset", tmp_path / "link", *arguments[2:], "--output", tmp_path / "out", status=1)
    os.symlink(str(tmp_path / "elsewhere" / "apple"), str(dataset / "pear"))
    says = "pear is a link; --follow_links"
    refuses("FlowIO.py", *arguments, "--output", tmp_path / "out", says=says, status=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="drops root's rights, which pass over permissions")
def test_forbidden_files_and_folders_are_reported(request):
    """In a folder that others may enter: pytest's are for their user alone, and it sees to that."""
    place = tempfile.mkdtemp()
    request.addfinalizer(lambda: shutil.rmtree(place))
    os.chmod(place, 0o755)
    dataset = pathlib.Path(place) / "dataset"
    draw_dataset(dataset, 2, ["apple", "kiwi"])
    os.makedirs(str(dataset / "kiwi" / "secret"))
    for path in (dataset / "kiwi" / "secret", dataset / "apple" / "1.png"):
        os.chmod(str(path), 0)
    os.seteuid(65534)
    try:
        found = imagefile.list_files(str(dataset / "kiwi"))
        reasons = {}
        for path in [*found, str(dataset / "apple" / "1.png")]:
            try:
                imagefile.read_file(path)
            except imagefile.BadPicture as error:
                reasons[os.path.basename(path)] = str(error)
    finally:
        os.seteuid(0)
    assert reasons == {
        "secret": "cannot be read: Permission denied",
        "1.png": "cannot be read: Permission denied",
    }
