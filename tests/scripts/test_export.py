"""export.py: the same probabilities elsewhere, or nothing written."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import LABELS, ROOT, draw_dataset, file_bytes, finding, gradient, refuses, run
from PIL import Image

import export
import predict
from suite.model import formats, modelfolder
from suite.model.network import restore_session
from suite.pictures import imagefile
from suite.process import errors, tf_versions
from suite.records import preprocessing


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Paths of pictures of the size that the network sees, and their pixels, float32 [n, 32, 32, 3]."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_dataset(folder, 4, seed=7)
    paths = imagefile.list_files(str(folder))
    for path in paths:
        Image.open(path).resize((32, 32)).save(path)
    return paths, np.array([np.asarray(Image.open(path)) for path in paths], np.float32)


@pytest.fixture(scope="module")
def expected(workspace, pictures):
    """The checkpoint's probabilities, by the network as it is trained."""
    model = modelfolder.load_model(workspace.model)
    with tf.Graph().as_default():
        images = tf.placeholder(tf.float32, [None, 32, 32, 3])
        session, probabilities = restore_session(model, preprocessing.normalize(images, model.normalize))
        with session:
            return session.run(probabilities, {images: pictures[1]})


def test_labels_of_others_stay(tmp_path):
    output = str(tmp_path / "model.pb")
    export.check_labels(output, LABELS)
    (tmp_path / "labels.txt").write_text("precious\n")
    with pytest.raises(errors.UserError, match="labels.txt: is there already, and no export's"):
        export.check_labels(output, LABELS)
    (tmp_path / "model.pb").write_text("")  # of an export of before
    export.check_labels(output, LABELS)
    (tmp_path / "model.onnx").write_text("")  # of the same, which needs its labels
    with pytest.raises(errors.UserError, match="labels.txt: is of another model, that of model.onnx"):
        export.check_labels(output, LABELS)
    export.check_labels(output, ["precious"])
    with pytest.raises(errors.UserError, match="that of model.onnx"):
        export.check_labels(str(tmp_path / "model.tflite"), LABELS)


def test_exports_are_compared_without_tf32():
    """By which a GPU differs from a CPU by more than an export may."""
    assert export.parse_options(["--device", "gpu:0"]).tf32 == "no"
    assert predict.parse_options(["a.jpg", "--device", "gpu:0"]).tf32 == "yes"


@pytest.mark.slow
@pytest.mark.versions
@pytest.mark.parametrize(
    "format, suffix, load",
    [
        ("frozen_graph", ".pb", formats.run_frozen_graph),
        ("tflite", ".tflite", formats.run_tflite),
        ("onnx", ".onnx", formats.run_onnx),
    ],
)
def test_a_format_gives_the_checkpoints_probabilities(
    workspace, pictures, expected, tmp_path, format, suffix, load
):
    out, err = run("export.py", "--model", workspace.model, "--format", format, "--output", tmp_path)
    assert out == "%s\n" % (tmp_path / ("model" + suffix)) and "the same answer on 15 of 15" in err
    said = [line for line in err.splitlines() if not line.startswith(("device:", "warning:"))]
    assert said[:2] == ["preparing the model", "writing and running it as %s" % format]
    assert len(said) == 4 and said[2].startswith("largest difference")  # and nothing of TensorFlow's own
    assert (tmp_path / "labels.txt").read_text().splitlines() == LABELS
    assert sorted(os.listdir(str(tmp_path))) == ["labels.txt", "model" + suffix]
    path = str(tmp_path / ("model" + suffix))
    np.testing.assert_allclose(load(path, pictures[1]), expected, atol=export.TOLERANCE)


@pytest.mark.slow
@pytest.mark.versions
def test_saved_model_takes_files_and_pixels(workspace, pictures, expected, tmp_path):
    folder = str(tmp_path / "served" / "1")
    _, err = run("export.py", "--model", workspace.model, "--output", folder)
    assert (
        "predict.py's probabilities of whole files" in err and err.count("the same answer on 15 of 15") == 2
    )
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, [tf.saved_model.tag_constants.SERVING], folder)
        signatures = loaded.signature_def
        assert set(signatures) == {"serving_default", "pixels"}

        def serve(name, key, value):
            signature = signatures[name]
            fetches = {key: tensor.name for key, tensor in signature.outputs.items()}
            return session.run(fetches, {signature.inputs[key].name: value})

        answer = serve("pixels", "images", pictures[1])
        np.testing.assert_allclose(answer["probabilities"], expected, atol=export.TOLERANCE)
        assert answer["label"][0].decode() == LABELS[expected[0].argmax()]
        assert [name.decode() for name in answer["classes"][1]] == LABELS
        files = [imagefile.read_file(path) for path in pictures[0]]  # PNG
        answer = serve("serving_default", "image_bytes", files)
        as_predicted = export.predict(files, modelfolder.load_model(workspace.model))[1]
        np.testing.assert_allclose(answer["probabilities"], as_predicted, atol=export.TOLERANCE)

        # A file that cannot be used is answered emptily, and those beside it as ever.
        bad = [
            b"",
            b"no picture",
            files[0][:-20],
            file_bytes(gradient(), "GIF"),
            file_bytes(gradient(), "BMP"),
        ]
        truncated = file_bytes(gradient(), "JPEG")[:-200]  # is small, and passed on to the second decoder
        mixed = serve("serving_default", "image_bytes", [*bad, files[0], truncated, files[1]])
        assert [bool(label) for label in mixed["label"]] == [False] * 5 + [True, False, True]
        np.testing.assert_allclose(mixed["probabilities"][[5, 7]], as_predicted[:2], atol=export.TOLERANCE)
        assert not mixed["probabilities"][[0, 1, 2, 3, 4, 6]].any()
        assert mixed["classes"].shape == (8, 3)

        nothing = [
            serve("serving_default", "image_bytes", np.array([], object)),
            serve("pixels", "images", np.zeros([0, 32, 32, 3])),
        ]
        for answer in nothing:
            assert answer["probabilities"].shape == answer["classes"].shape == (0, 3)
            assert answer["label"].shape == (0,)


@pytest.mark.slow
def test_quantised_weights_take_a_quarter(workspace, pictures, expected, tmp_path):
    sizes = []
    for options in ([], ["--quantize"]):
        path = tmp_path / ("model%d.tflite" % len(options))
        run("export.py", "--model", workspace.model, "--format", "tflite", "--output", path, *options)
        sizes.append(os.path.getsize(str(path)))
    assert sizes[1] < 0.3 * sizes[0]
    found = formats.run_tflite(str(path), pictures[1])
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.8


def test_whole_files_of_all_sizes_are_compared():
    seen = {(image.format, image.mode, image.width) for image in map(open_bytes, export.sample_files(32))}
    kinds = (("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "RGBA"))
    assert seen == {(*kind, width) for kind in kinds for width in (16, 32, 35, 64, 192)}


def open_bytes(data):
    return Image.open(io.BytesIO(data))


def test_a_wrong_export_is_not_left(tmp_path):
    with pytest.raises(errors.UserError, match="differs from the checkpoint"):
        export.compare(np.array([[0.5, 0.5]]), np.array([[0.6, 0.4]]))
    with pytest.raises(errors.UserError, match="differs from the checkpoint"):
        export.compare(np.array([[np.nan, 0.5]]), np.array([[0.5, 0.5]]))
    with pytest.raises(errors.UserError, match="differs from predict.py's"):
        export.compare(np.array([[0.5, 0.5]]), np.array([[0.6, 0.4]]), 0.02, "predict.py's")
    export.compare(np.array([[0.5, 0.5]]), np.array([[0.6, 0.4]]), np.inf)
    export.compare(np.array([[0.50005, 0.49995]]), np.array([[0.5, 0.5]]))


@pytest.mark.slow
def test_a_failed_export_leaves_the_old_one(workspace, tmp_path):
    path = tmp_path / "model.pb"
    path.write_bytes(b"old")
    program = (
        "import export; from suite.process import lifetime; export.TOLERANCE = -1; lifetime.run(export.main)"
    )
    command = [sys.executable, "-c", program, "--model", workspace.model, "--format", "frozen_graph"]
    done = subprocess.run([*command, "--output", str(path)], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 1 and "nothing was written" in done.stderr
    assert path.read_bytes() == b"old" and os.listdir(str(tmp_path)) == ["model.pb"]


@pytest.mark.slow
def test_export_refuses_what_does_not_fit(workspace, tmp_path):
    refuses("export.py", "--quantize", says="--format tflite", status=2)
    refuses("export.py", "--format", "coreml", says="--format", status=2)
    refuses("export.py", "--model", tmp_path, says="not a model folder", status=1)
    (tmp_path / "thesis.txt").write_text("years of work")
    refuses("export.py", "--model", workspace.model, "--output", tmp_path, says="thesis.txt", status=1)
    (tmp_path / "tf2onnx.py").write_text("raise ImportError('no', name='tf2onnx')")
    command = [
        sys.executable,
        os.path.join(ROOT, "export.py"),
        "--model",
        workspace.model,
        "--format",
        "onnx",
    ]
    environment = finding(str(tmp_path))
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert "needs tf2onnx; pip install -r %s" % tf_versions.requirements("export") in done.stderr
    assert io.StringIO(done.stderr).readlines()[0].startswith("export.py: error:")
