"""predict.py and inference_graph.py: the same answers, sooner."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import LABELS, ROOT, draw_dataset, draw_demo, file_bytes, gradient, refuses, run
from PIL import Image

import predict
from suite.model import inference_graph, modelfolder
from suite.model.network import build_logits, restore_session
from suite.pictures import drawing, imagefile
from suite.process import errors

# --- answers ----------------------------------------


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
    model = modelfolder.load(workspace.model)
    decode, _ = predict.build(model, inference_graph.read_cache(model))
    whole, cut = file_bytes(gradient(), "JPEG"), b"\xff\xd8\xff\xe0 and no more"
    assert decode(predict.Picture("a.jpg", whole, None, None)).data.shape == (32, 32, 3)
    refused = decode(predict.Picture("b.jpg", cut, None, None))
    assert refused.error.startswith("damaged: ") and "\n" not in refused.error and refused.path == "b.jpg"


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
    label, predictions = predict.best(probabilities, ["a", "b", "c"], 2, 0.7)
    assert label == "unknown" and [each["label"] for each in predictions] == ["b", "a"]
    assert predict.best(probabilities, ["a", "b", "c"], 2, 0.5)[0] == "b"


@pytest.mark.slow
def test_the_threshold_on_the_command_line(workspace, tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(str(tmp_path / "noise.png"))
    arguments = [tmp_path / "noise.png", "--model", workspace.model, "--threshold", 1]
    out, _ = run("predict.py", *arguments)
    assert "noise.png: unknown (" in out
    out, _ = run("predict.py", *arguments, "--json")
    assert json.loads(out)["label"] == "unknown"
    out, _ = run("predict.py", *arguments, "--csv")
    assert next(csv.DictReader(out.splitlines()))["label"] == "unknown"


def test_saved_pictures_carry_their_label(workspace, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        draw_demo.picture("kiwi", 400, random.Random(1)).save(str(tmp_path / folder / "same.png"))
    out, _ = run("predict.py", tmp_path, "--model", workspace.model, "--save", tmp_path / "saved")
    assert len(out.splitlines()) == 2
    assert sorted(os.listdir(str(tmp_path / "saved"))) == ["same-2.jpg", "same.jpg"]
    with Image.open(str(tmp_path / "saved" / "same.jpg")) as image:
        assert image.width == 400 and image.height > 400
        strip = np.asarray(image.convert("L").crop((0, 404, 400, image.height)))
    assert strip.min() < 30 and strip.max() > 220  # white letters on black


@pytest.mark.parametrize("text", ["kiwi 98.0%", "猫 \U0001f600 \ud800", "x" * 300, ""])
def test_any_text_can_be_drawn(text):
    image = drawing.caption(Image.new("RGB", (60, 40), "white"), text)
    assert image.width >= drawing.text_width(text, 16) and image.height > 40
    assert np.asarray(image.crop((0, 40, *image.size))).max() > 200 or not text


def test_prediction_refuses_what_does_not_fit(workspace, tmp_path):
    refuses("predict.py", says="IMAGE", status=2)
    refuses("predict.py", "a.jpg", "--top", 0, says="--top", status=2)
    refuses("predict.py", "a.jpg", "--threshold", 1.5, says="--threshold", status=2)
    refuses("predict.py", "a.jpg", "--json", "--csv", says="--csv", status=2)
    refuses("predict.py", tmp_path, "--model", workspace.model, says="no files in this folder", status=1)
    _, err = run("predict.py", "-", "--model", workspace.model, stdin="\n", status=1)
    assert "no file names on standard input" in err
    file = os.path.join(workspace.model, "model.json")
    refuses(
        "predict.py", "a.jpg", "--model", workspace.model, "--save", file, says="is a file, not", status=1
    )
    refuses("predict.py", "a.jpg", "--model", tmp_path / "none", says="no such model", status=1)


def test_mirror_is_the_mean_with_the_mirror_image(workspace):
    model, pictures = modelfolder.load(workspace.model), IMAGES[:, :32, :32]
    _, classify = predict.build(model, inference_graph.read_cache(model))
    _, classify_mirrored = predict.build(model, inference_graph.read_cache(model), mirror=True)
    turned = np.array([np.fliplr(picture) for picture in pictures])
    expected = (classify(list(pictures)) + classify(list(turned))) / 2
    assert np.abs(expected - classify(list(pictures))).max() > 1e-4
    np.testing.assert_allclose(classify_mirrored(list(pictures)), expected, atol=1e-6)
    with tf.Graph().as_default():
        session, probabilities = restore_session(model, tf.constant(pictures), mirror=True)
        with session:
            np.testing.assert_allclose(session.run(probabilities), expected, atol=1e-5)


# --- the graph ----------------------------------------


def make_model(folder, **switches):
    """A model folder whose weights are all random, those of the batch norms too."""
    network = {"layers": 50, "mini": True, "shortcut": "zero_pad", "preactivation": False, **switches}
    classes = ["a", "b", "c"]
    rng = np.random.RandomState(0)
    with tf.Graph().as_default(), tf.Session() as session:
        build_logits(tf.placeholder(tf.float32, [None, 64, 64, 3]), network, classes, is_train=False)
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            name, shape = variable.op.name, variable.shape.as_list()
            if name.endswith(("variance", "gamma")):
                variable.load(rng.uniform(0.5, 1.5, shape), session)
            elif name.endswith(("mean", "beta", "bias")):
                variable.load(rng.normal(0, 0.3, shape), session)
        checkpoint = tf.train.Saver().save(session, str(folder / "model.ckpt"), global_step=1)
    return modelfolder.Model(str(folder), checkpoint, network, classes, 64, "per_image", False)


def probabilities_of(graph_def, images):
    with tf.Graph().as_default(), tf.Session() as session:
        outputs = tf.import_graph_def(graph_def, return_elements=["images:0", "probabilities:0"])
        return session.run(outputs[1], {outputs[0]: images})


def unfolded(model, images):
    with tf.Graph().as_default():
        inputs = tf.placeholder(tf.float32, [None, 64, 64, 3])
        session, probabilities = restore_session(model, inputs)
        with session:
            return session.run(probabilities, {inputs: images})


IMAGES = np.random.RandomState(1).normal(0, 1, [4, 64, 64, 3]).astype(np.float32)


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"mini": False},
        {"shortcut": "projection"},
        {"shortcut": "projection_all"},
        {"preactivation": True},
        {"preactivation": True, "shortcut": "projection", "mini": False},
        {"zero_init_residual": True},
        {"dropout": 0.5},
    ],
    ids=str,
)
@pytest.mark.slow
def test_folding_changes_no_answer(tmp_path, network):
    model = make_model(tmp_path, **network)
    graph_def = inference_graph.frozen_graph(model, "NHWC")
    operations = [node.op for node in graph_def.node]
    norms = 1 if not network.get("preactivation") else 1 + 16  # before a convolution they cannot be folded
    assert operations.count("FusedBatchNormV3") == norms
    expected = unfolded(model, IMAGES)
    np.testing.assert_allclose(probabilities_of(graph_def, IMAGES), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_cache_gives_the_same_answers_and_is_never_stale(tmp_path):
    model = make_model(tmp_path)
    assert inference_graph.read_cache(model) is None
    fresh = probabilities_of(inference_graph.load_graph(model, None), IMAGES)
    cached = inference_graph.read_cache(model)
    found = probabilities_of(inference_graph.load_graph(model, cached), IMAGES)
    np.testing.assert_allclose(found, fresh, rtol=1e-5)

    path = inference_graph.cache_path(model)
    with open(path, "rb") as file:
        content = file.read()
    for place in (10, 40, 60, 1000, len(content) - 5):  # digest, key, header, weights, graph
        with open(path, "wb") as file:
            file.write(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert inference_graph.read_cache(model) is None
    for length in (0, 20, len(content) // 2):
        with open(path, "wb") as file:
            file.write(content[:length])
        assert inference_graph.read_cache(model) is None
    with open(path, "wb") as file:
        file.write(content)
    assert inference_graph.read_cache(model) is not None
    assert inference_graph.read_cache(model._replace(image_size=32)) is None
    make_model(tmp_path, shortcut="projection")  # another training of the same name
    assert inference_graph.read_cache(model) is None


def test_a_cache_with_operations_of_a_stranger_is_refused(tmp_path):
    """It is whole and has the right key, as anyone could write it, and would read a file."""
    model = make_model(tmp_path)
    with tf.Graph().as_default() as graph:
        images = tf.placeholder(tf.float32, [None, 32, 32, 3], "images")
        with tf.control_dependencies([tf.io.read_file("/etc/hostname")]):
            tf.reduce_mean(images, [1, 2], name="probabilities")
    inference_graph.write_cache(model, graph.as_graph_def())
    cached = inference_graph.read_cache(model)
    with pytest.raises(
        errors.UserError, match=r"inference.cache: holds what no network of ours does \(ReadFile\)"
    ):
        inference_graph.load_graph(model, cached)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path, monkeypatch):
    model = make_model(tmp_path)
    monkeypatch.setattr(inference_graph, "cache_path", lambda model: str(tmp_path / "none" / "cache"))
    assert probabilities_of(inference_graph.load_graph(model, None), IMAGES).shape == (4, 3)


def test_the_latest_checkpoint_is_the_one_that_tensorflow_finds(tmp_path):
    assert modelfolder.latest_checkpoint(str(tmp_path)) is None
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("v", [])
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver()
        for name in ("plain", 'q"uote', "猫"):
            folder = str(tmp_path / name)
            os.makedirs(folder)
            checkpoint = saver.save(session, os.path.join(folder, "model.ckpt"), global_step=1)
            assert modelfolder.latest_checkpoint(folder) == tf.train.latest_checkpoint(folder) == checkpoint
    (tmp_path / "plain" / "checkpoint").write_text("model_checkpoint_path: broken")
    assert modelfolder.latest_checkpoint(str(tmp_path / "plain")) == str(tmp_path / "plain" / "model.ckpt-1")


@pytest.mark.slow
def test_pictures_of_kept_size_are_predicted_at_that_size(tmp_path):
    model = make_model(tmp_path)
    path = str(tmp_path / "large.jpg")
    gradient((400, 300)).save(path, quality=95)
    options = predict.parse_options([path])
    kept = predict.encode(path, model._replace(keep_size=True), options)
    assert kept.data == imagefile.read_file(path)
    assert Image.open(path).size != imagefile.prepare(kept.data, model.image_size)[0].size


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
        ("JPEG", {"exif": exif, "icc_profile": imagefile.ImageCms.ImageCmsProfile(imagefile.SRGB).tobytes()}),
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
