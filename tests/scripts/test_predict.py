"""predict.py as a user runs it: answers to any file."""

import csv
import functools
import io
import json
import os
import random
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import (
    LABELS,
    ROOT,
    draw_dataset,
    draw_demo,
    file_bytes,
    gradient,
    make_model,
    pictures_of,
    refuses,
    run,
)
from PIL import Image, ImageCms

import predict
from suite.files import jsonfile
from suite.model import classifier, modelfolder
from suite.model.network import restore_session
from suite.model.reader import Encoded, Reader
from suite.pictures import conversion, drawing, imagefile
from suite.pictures.imagefile import BadPicture
from suite.process.errors import UserError

# --- names on standard input ----------------------------------------


@pytest.mark.parametrize(
    "blocks, names",
    [
        ([b"a.jpg\nb c.jpg"], ["a.jpg", "b c.jpg"]),
        ([b"a.jpg\r\n\r\nb .jpg \r\n"], ["a.jpg", "b .jpg "]),
        ([b"\xef\xbb\xbfa.jpg\n"], ["a.jpg"]),
        ([b"\xef\xbb\xbf", b"a.jpg\n"], ["a.jpg"]),
        ([b"a\nb.jpg\0c.jpg\0"], ["a\nb.jpg", "c.jpg"]),
        ([b"a.jpg\0b", b".jpg"], ["a.jpg", "b.jpg"]),
        ([b"a.j", b"pg\0b.jpg\0"], ["a.jpg", "b.jpg"]),
        ([b"a.j", b"pg\n\xe7", b"\x8c\xab.jpg\n"], ["a.jpg", "\u732b.jpg"]),
        ([b"\xff.jpg\n"], ["\udcff.jpg"]),
        ([b"P1\nBMW.jpg\nnew_ftype.jpg\n"], ["P1", "BMW.jpg", "new_ftype.jpg"]),
        ([b"new_ftype.jpg\n"], ["new_ftype.jpg"]),
    ],
)
def test_file_names_are_split_as_they_come(blocks, names):
    assert list(predict.split_names(iter(blocks))) == names


@pytest.mark.parametrize(
    "block, says",
    [
        (b"", "no file names"),
        (b"\r\n\n", "no file names"),
        ("a.jpg\n".encode("utf-16"), "UTF-16"),
        *((file_bytes(gradient(), format), "bytes of a picture") for format in ("JPEG", "PNG", "GIF", "BMP")),
    ],
)
def test_what_is_no_list_of_names_is_one_line(block, says):
    with pytest.raises(UserError, match=says):
        list(predict.split_names(iter([block] if block else [])))


def test_a_program_may_keep_it_running(workspace, tmp_path):
    """Each name is answered before the next is written."""
    draw_dataset(tmp_path, 2)
    command = [sys.executable, os.path.join(ROOT, "predict.py"), "-", "--model", workspace.model, "--json"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        for name in (tmp_path / "kiwi" / "0.png", tmp_path / "no\0ne.png", tmp_path / "kiwi" / "1.png"):
            process.stdin.write(os.fsencode(name) + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            assert answer["image"] == str(name)
            assert ("error" in answer) == ("\0" in str(name))
        process.stdin.close()
        assert process.wait() == 1


# --- answers ----------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-8"])
@pytest.mark.parametrize("name", ["\u00e9\U0001f600.jpg", "\u732b.jpg", os.fsdecode(b"\xff.jpg")])
def test_json_is_valid_on_any_output(monkeypatch, encoding, name):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding, errors="backslashreplace"))
    show = predict.printer(predict.parse_options([name, "--json"]))
    show(name, "cat", [{"label": "cat", "probability": 1}], None)
    assert json.loads(file.getvalue().decode(encoding))["image"] == name


def test_prediction_of_new_pictures(workspace, tmp_path):
    draw_dataset(tmp_path, 2, seed=99)
    out, _ = run("predict.py", tmp_path, "--model", workspace.model, "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert len(answers) == 6
    right = 0
    for answer in answers:
        assert list(answer) == ["image", "predictions"]
        predictions = answer["predictions"]
        assert len(predictions) == 3 and {each["label"] for each in predictions} == set(LABELS)
        probabilities = [each["probability"] for each in predictions]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        right += answer["image"].split(os.sep)[-2] == predictions[0]["label"]
    assert right >= 5


def test_prediction_agrees_with_evaluation(workspace):
    _, rows = workspace.results()
    files = "\n".join(os.path.join("data", "dataset", row["filename"]) for row in rows)
    out, _ = run("predict.py", "-", "--json", "--top", 1, cwd=workspace.folder, stdin=files)
    assert len(out.splitlines()) == len(rows)
    for line, row in zip(out.splitlines(), rows):
        answer = json.loads(line)
        assert answer["image"].endswith(row["filename"])
        assert answer["predictions"][0]["label"] == row["predicted"]
        assert answer["predictions"][0]["probability"] == pytest.approx(float(row["probability"]), abs=1e-4)


def test_a_jpeg_that_only_tensorflow_refuses(workspace):
    whole, cut = file_bytes(gradient(), "JPEG"), b"\xff\xd8\xff\xe0 and no more"
    with predict.Classifier(workspace.model) as classify:
        assert classify.prepare(Encoded(whole, "")).pixels.shape == (32, 32, 3)
        refused = classify.prepare(Encoded(cut, ""))
    assert (
        isinstance(refused, BadPicture) and str(refused).startswith("damaged: ") and "\n" not in str(refused)
    )


@pytest.mark.slow
def test_a_bad_file_among_many(workspace, tmp_path):
    good = str(tmp_path / "good.png")
    gradient((50, 40)).save(good)
    bad, missing = str(tmp_path / "bad.jpg"), str(tmp_path / "missing.jpg")
    with open(bad, "wb") as file:
        file.write(b"no picture")
    arguments = [bad, good, missing, good, "--model", workspace.model]
    out, _ = run("predict.py", *arguments, "--json", "--batch_size", 2, status=1)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["image"] for answer in answers] == [bad, good, missing, good]
    assert ["error" in answer for answer in answers] == [True, False, True, False]
    out, err = run("predict.py", *arguments, status=1)
    assert len(out.splitlines()) == 2 and "bad.jpg: not a picture" in err and "No such file" in err
    out, _ = run("predict.py", *arguments, "--csv", status=1)
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["file"] for row in rows] == [bad, good, missing, good]
    assert [bool(row["error"]) for row in rows] == [True, False, True, False]
    assert rows[1]["label"] in LABELS and 0 < float(rows[1]["probability"]) <= 1


def test_below_the_threshold_the_answer_is_unknown():
    probabilities = np.array([0.3, 0.6, 0.1], np.float32)
    label, predictions = classifier.best(probabilities, ["a", "b", "c"], 2, 0.7)
    assert label == "unknown" and [each["label"] for each in predictions] == ["b", "a"]
    assert classifier.best(probabilities, ["a", "b", "c"], 2, 0.5)[0] == "b"


def test_a_class_called_unknown_is_not_the_answer_below_the_threshold(capsys):
    classes = ["unknown", "cat", "(unknown)"]
    answer = classifier.answer_below_threshold(classes)
    assert answer not in classes and classifier.answer_below_threshold(["cat"]) == "unknown"
    probabilities = np.array([0.6, 0.3, 0.1], np.float32)
    assert classifier.best(probabilities, classes, 1, 0.5, answer)[0] == "unknown"
    assert classifier.best(probabilities, classes, 1, 0.7, answer)[0] == answer
    show = predict.printer(predict.parse_options(["any.jpg"]))
    for threshold, shown in ((0.5, "a.jpg: unknown 60.0%"), (0.7, "a.jpg: %s (unknown 60.0%%)" % answer)):
        show("a.jpg", *classifier.best(probabilities, classes, 1, threshold, answer), None)
        assert capsys.readouterr().out == shown + "\n"


@pytest.mark.slow
def test_the_threshold_on_the_command_line(workspace, copy, tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(str(tmp_path / "noise.png"))
    arguments = [tmp_path / "noise.png", "--model", workspace.model, "--threshold", 1]
    out, _ = run("predict.py", *arguments)
    assert "noise.png: unknown (" in out
    out, _ = run("predict.py", *arguments, "--json")
    assert json.loads(out)["label"] == "unknown"
    out, _ = run("predict.py", *arguments, "--csv")
    assert next(csv.DictReader(out.splitlines()))["label"] == "unknown"
    path = os.path.join(copy, "model.json")
    jsonfile.write(path, dict(jsonfile.read(path), classes=["unknown", *LABELS[1:]]))
    out, _ = run("predict.py", *arguments, "--model", copy)
    assert "noise.png: (unknown) (" in out


def test_saved_pictures_carry_their_label(workspace, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        draw_demo.picture("kiwi", 400, random.Random(1)).save(str(tmp_path / "in" / folder / "same.png"))
    out, _ = run("predict.py", tmp_path / "in", "--model", workspace.model, "--save", tmp_path / "saved")
    assert len(out.splitlines()) == 2
    assert sorted(os.listdir(str(tmp_path / "saved"))) == ["same-2.jpg", "same.jpg"]
    with Image.open(str(tmp_path / "saved" / "same.jpg")) as image:
        assert image.width == 400 and image.height > 400
        strip = np.asarray(image.convert("L").crop((0, 404, 400, image.height)))
    assert strip.min() < 30 and strip.max() > 220  # white letters on black


def test_explained_pictures_and_features(workspace, tmp_path):
    """Of this model the maps are too coarse, which it says; what cannot be used is left out."""
    image = draw_demo.picture("kiwi", 400, random.Random(1))
    for name in ("one.png", "two.jpg"):
        image.save(str(tmp_path / name))
    (tmp_path / "three.jpg").write_bytes(b"none")
    folder, file = tmp_path / "explained", tmp_path / "new" / "features.npz"
    paths = [str(tmp_path / name) for name in ("one.png", "two.jpg", "three.jpg")]
    more = ["--model", workspace.model, "--mirror", "--explain", folder, "--features", file]
    out, err = run("predict.py", *paths, *more, status=1)
    assert "sees 32 pixels, too few to say where; from --image_size 101 on it can" in err
    assert sorted(os.listdir(str(folder))) == ["one.jpg", "two.jpg"] and len(out.splitlines()) == 2
    with Image.open(str(folder / "one.jpg")) as image:
        assert image.width == 400 and image.height > 400
    with np.load(str(file)) as found:
        assert list(found["names"]) == paths[:2] and str(found["checkpoint"]).startswith(workspace.model)
        features = found["features"]
    assert features.shape == (2, 1024) and features.dtype == np.float32
    with predict.Classifier(workspace.model) as classify:
        pixels = classify.prepare(paths[0]).pixels
        expected = classify.explained([pixels, pixels[:, ::-1]])[1].mean(0)
    np.testing.assert_allclose(features[0], expected, rtol=1e-4, atol=1e-5)

    before = file.read_bytes()
    out, err = run("predict.py", paths[2], "--model", workspace.model, "--features", file, status=1)
    assert "%s: not written, as no picture could be used" % file in err and file.read_bytes() == before


def test_what_is_written_is_no_picture_and_no_device(tmp_path, capsys):
    """A FILE that was forgotten before the pictures, the folder of --save, and one among the pictures."""
    folder, link = str(tmp_path), str(tmp_path.parent / (tmp_path.name + "-link"))
    os.symlink(folder, link)
    for arguments, says in (
        (["--features", "apple.jpg", "kiwi.jpg"], "--features: apple.jpg: must end with .npz"),
        (["kiwi.jpg", "--save", "here", "--explain", "./here/"], "another folder than that of --save"),
        (["kiwi.jpg", folder, "--save", folder + "/a/b"], "/a/b lies in %s, whose pictures" % folder),
        ([folder, "--explain", link], "--explain: %s lies in %s, whose" % (link, folder)),
    ):
        with pytest.raises(SystemExit) as refused:
            predict.parse_options(arguments)
        assert refused.value.code == 2 and says in capsys.readouterr().err
    os.mkfifo(str(tmp_path / "pipe.npz"))
    pipe = predict.writing_features(str(tmp_path / "pipe.npz"), "model")
    with pytest.raises(
        UserError, match="pipe.npz: is a device or a pipe, where a file is to be written"
    ), pipe:
        pass


def test_a_name_as_long_as_a_name_may_be_is_saved(tmp_path):
    for _ in range(2):
        predict.save(str(tmp_path), "猫" * 83 + "xx.png", Image.new("RGB", (8, 8)))
    names = sorted(os.listdir(str(tmp_path)))
    assert len(names) == 2 and all(name.startswith("猫" * 73) for name in names)


def test_two_at_once_save_pictures_of_the_same_name(tmp_path):
    images = [Image.new("L", (8, 8), 25 * i) for i in range(10)]
    save = functools.partial(predict.save, str(tmp_path), "a.b.png")
    threads = [threading.Thread(target=save, args=[each]) for each in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {"a.b.jpg", *("a.b-%d.jpg" % number for number in range(2, 11))}
    assert set(os.listdir(str(tmp_path))) == names
    found = {Image.open(str(tmp_path / name)).convert("L").getpixel((4, 4)) for name in names}
    assert len(found) == 10


def test_a_map_is_drawn_where_it_is_positive():
    grey = Image.new("RGB", (80, 40), (90, 90, 90))
    drawn = drawing.overlay(grey, np.array([[2.0, -1], [-9, -1]]), (20, 0, 60, 40))
    redder = np.asarray(drawn).astype(int)[:, :, 0] - np.asarray(drawn)[:, :, 2]
    assert redder[5:10, 25:30].min() > 100 and not redder[:, :20].any() and not redder[:, 61:].any()
    assert not redder[31:39, 51:59].any()
    assert not np.asarray(drawing.opacity(np.array([[-1.0, 0]]))).any()  # nothing spoke for it


@pytest.mark.parametrize("text", ["kiwi 98.0%", "猫 \U0001f600 \ud800", "x" * 300, ""])
def test_any_text_can_be_drawn(text):
    image = drawing.caption(Image.new("RGB", (60, 40), "white"), text)
    assert image.width >= drawing.text_width(text, 16) and image.height > 40
    assert np.asarray(image.crop((0, 40, *image.size))).max() > 200 or not text


@pytest.mark.slow
def test_standard_output_may_be_closed(workspace, tmp_path):
    """As a service's may be."""
    command = [sys.executable, os.path.join(ROOT, "predict.py"), *pictures_of(workspace, 1)]
    command += ["--model", workspace.model, "--save", str(tmp_path / "saved")]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, encoding="utf-8")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert len(os.listdir(str(tmp_path / "saved"))) == 1


def test_prediction_refuses_what_does_not_fit(workspace, tmp_path):
    refuses("predict.py", says="IMAGE", status=2)
    refuses("predict.py", "a.jpg", "--top", 0, says="--top", status=2)
    refuses("predict.py", "a.jpg", "--threshold", 1.5, says="--threshold", status=2)
    refuses("predict.py", "a.jpg", "--json", "--csv", says="--csv", status=2)
    refuses("predict.py", tmp_path, "--model", workspace.model, says="no files in this folder", status=1)
    _, err = run("predict.py", "-", "--model", workspace.model, stdin="\n", status=1)
    assert "no file names on standard input" in err
    closed = [sys.executable, os.path.join(ROOT, "predict.py"), "-"]
    done = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *closed], capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and done.stderr.startswith("predict.py: error: -: standard input is closed")
    assert done.stderr.count("\n") == 1
    file = os.path.join(workspace.model, "model.json")
    refuses(
        "predict.py", "a.jpg", "--model", workspace.model, "--save", file, says="is a file, not", status=1
    )
    refuses("predict.py", "a.jpg", "--model", tmp_path / "none", says="no such model", status=1)


def test_mirror_is_the_mean_with_the_mirror_image(workspace):
    model = modelfolder.load_model(workspace.model)
    pictures = np.random.RandomState(1).normal(0, 1, [4, 32, 32, 3]).astype(np.float32)
    turned = np.array([np.fliplr(picture) for picture in pictures])
    with predict.Classifier(workspace.model) as classify:
        there, mirrored = (classify.probabilities(list(each)) for each in (pictures, turned))
    expected = (there + mirrored) / 2
    assert np.abs(expected - there).max() > 1e-4
    with predict.Classifier(workspace.model, mirror=True) as classify:
        np.testing.assert_allclose(classify.probabilities(list(pictures)), expected, atol=1e-6)
    with tf.Graph().as_default():
        session, probabilities = restore_session(model, tf.constant(pictures), mirror=True)
        with session:
            np.testing.assert_allclose(session.run(probabilities), expected, atol=1e-5)


@pytest.mark.slow
def test_pictures_of_kept_size_are_predicted_at_that_size(tmp_path):
    model = make_model(tmp_path)
    path = str(tmp_path / "large.jpg")
    gradient((400, 300)).save(path, quality=95)
    kept = Reader(model._replace(keep_size=True), "NHWC").encode(path).content
    assert kept == imagefile.read_file(path)
    assert Image.open(path).size != imagefile.load_and_encode(kept, model.image_size)[0].size


def test_pictures_may_stand_before_and_after_options(capsys):
    options = predict.parse_options(["a.jpg", "--top", "1", "b.jpg", "--json", "-"])
    assert (options.images, options.top, options.json) == (["a.jpg", "b.jpg", "-"], 1, True)
    options = predict.parse_options(["a.jpg", "--json", "b.jpg", "--", "-c.jpg", "--top"])
    assert options.images == ["a.jpg", "b.jpg", "-c.jpg", "--top"]
    with pytest.raises(SystemExit):
        predict.parse_options(["a.jpg", "--top", "1", "b.jpg", "--jsn"])
    assert "error: unrecognized arguments: --jsn; did you mean --json?" in capsys.readouterr().err


def test_a_picture_after_formats_is_told_where_to_go():
    says = "'a.tif' is neither WEBP nor TIFF; pictures go before it: predict.py photo.tif --formats TIFF"
    refuses("predict.py", "--formats", "TIFF", "a.tif", says=says, status=2)
    options = predict.parse_options(["a.tif", "--formats", "TIFF", "WEBP"])
    assert (options.images, options.formats) == (["a.tif"], ["TIFF", "WEBP"])


@pytest.mark.slow
def test_formats_are_opened_when_asked_for(workspace, tmp_path):
    gradient().save(str(tmp_path / "picture.tiff"))
    arguments = [tmp_path / "picture.tiff", "--model", workspace.model]
    _, err = run("predict.py", *arguments, status=1)
    assert "--formats TIFF opens it" in err
    out, _ = run("predict.py", *arguments, "--formats", "TIFF")
    assert "picture.tiff: " in out


def test_no_thread_imports_while_tensorflow_is_imported(workspace, tmp_path):
    """They could wait for each other for ever, and did now and then under Python 3.11."""
    several = {"save_all": True, "append_images": [gradient((40, 30))]}
    exif = Image.Exif()
    exif[0x0112] = 6
    for format, options in (
        ("JPEG", {}),
        ("JPEG", {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(conversion.SRGB).tobytes()}),
        ("MPO", several),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", several),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
    ):
        data = file_bytes(gradient(), format, **options)
        name = str(tmp_path / ("%s%d" % (format, len(options))))
        for suffix, content in ((".whole", data), (".cut", data[: len(data) // 2]), (".not", data[:9])):
            with open(name + suffix, "wb") as file:
                file.write(content)
    program = """if True:
        import importlib.abc, sys, threading
        class Watch(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if threading.current_thread() is not threading.main_thread():
                    print("imported:", name)
        sys.meta_path.insert(0, Watch())
        import predict
        predict.main()
    """
    arguments = [str(tmp_path), "--model", workspace.model, "--csv", "--formats", "WEBP", "TIFF"]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, encoding="utf-8")
    assert done.stdout.count("\n") == 25 and "imported:" not in done.stdout, done.stdout


@pytest.mark.slow
def test_a_model_folder_can_be_copied(workspace, tmp_path):
    shutil.copytree(workspace.model, str(tmp_path / "copy"))
    draw_demo.picture("kiwi", 40, random.Random(1)).save(str(tmp_path / "kiwi.png"))
    first, _ = run("predict.py", tmp_path / "kiwi.png", "--model", tmp_path / "copy")
    again, err = run("predict.py", tmp_path / "kiwi.png", "--model", tmp_path / "copy")
    assert first == again and "preparing" not in err
