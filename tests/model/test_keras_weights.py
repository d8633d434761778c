"""train.py --model FILE.h5 and --model imagenet: Keras's weights give Keras's features."""

import functools
import hashlib
import http.server
import os
import shutil
import threading

import h5py
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import refuses, run

from suite.model import keras_weights, modelfolder, warmstart
from suite.model.network import build_logits, load_weights
from suite.process.errors import UsageError, UserError
from suite.training import config
from suite.training.options import parse_options

SIZE = 65  # odd, so that Keras's padding of the first pool is on both sides, as 'SAME' is


def draw_weights(path, bare):
    """Write ResNet50V2 of random weights with a classifier to a file, and to another the weights without it.

    Returns:
        The pooled features that Keras finds with them, and the images.
    """
    images = np.random.RandomState(1).uniform(-1, 1, [2, SIZE, SIZE, 3]).astype("f")
    with tf.Graph().as_default(), tf.Session().as_default():
        model = tf.keras.applications.ResNet50V2(weights=None, input_shape=(SIZE, SIZE, 3), classes=3)
        rng = np.random.RandomState(0)
        values = []
        for variable in model.weights:
            shape, name = variable.shape.as_list(), variable.name
            if name.endswith("kernel:0"):
                value = rng.normal(0, np.sqrt(1 / np.prod(shape[:-1])), shape)
            elif "variance" in name or "gamma" in name:
                value = rng.uniform(0.5, 1.5, shape)
            else:
                value = rng.normal(0, 0.1, shape)
            # Keras pads the pool after it with 0, TF-Slim with nothing: above 0 they are the same.
            values.append(value + 5 if name.startswith("conv1_conv/bias") else value)
        model.set_weights(values)
        model.save(path)
        features = tf.keras.Model(model.input, model.get_layer("post_relu").output)
        features.save_weights(bare)
        return features.predict(images).mean((1, 2)), images


def features_of(folder, images):
    """The same of our network."""
    model = modelfolder.load_model(folder)
    with tf.Graph().as_default(), tf.Session() as session:
        build_logits(tf.constant(images), model.network, model.classes, False)
        load_weights(session, model.checkpoint)
        return session.run("resnet/features:0").reshape(len(images), -1)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [101, 152])
def test_deeper_ones_have_kerass_names_and_shapes(layers):
    with tf.Graph().as_default(), tf.Session().as_default():
        build = getattr(tf.keras.applications, "ResNet%dV2" % layers)
        theirs = build(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)).weights
    expected = {keras_weights.our_name(v.name.partition(":")[0]): v.shape.as_list() for v in theirs}
    with tf.Graph().as_default():
        build_logits(tf.zeros([1, SIZE, SIZE, 3]), warmstart.slims_network(layers), ["a"], False)
        ours = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    assert {ours.pop("logits/" + part) is None for part in ("kernel", "bias")} == {False}
    assert ours == expected
    third = [
        name for name in expected if "group_3/" in name and name.endswith("preactivation/batch_norm/gamma")
    ]
    assert keras_weights.LAYERS[len(third)] == layers


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """See draw_weights: the two files, and what it returns."""
    folder = tmp_path_factory.mktemp("keras")
    path, bare = str(folder / "model.h5"), str(folder / "notop.h5")
    return (path, bare, *draw_weights(path, bare))


@pytest.fixture
def file(drawn):
    """Keras's file for ResNet50V2 with a classifier, whole, of random weights."""
    return drawn[0]


@pytest.mark.slow
@pytest.mark.versions
def test_the_features_are_kerass(workspace, tmp_path, drawn):
    path, bare, expected, images = drawn
    output = str(tmp_path / "model")
    _, err = run("train.py", "--data", workspace.records, "--output", output, "--model", path, "--step", 0)
    assert "layer_50, projection, preactivation" in err and "start fresh: logits/kernel, logits/bias\n" in err
    assert "left out: " in err and "/kernel" in err.split("left out: ")[1]  # the classifier
    assert modelfolder.load_model(output).normalize == "minus1_1"
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(features_of(output, images), expected, rtol=1e-5, atol=tolerance)

    whole, without = (warmstart.open_weights(each, None) for each in (path, bare))
    assert len(without.names) > 200 and without.names.keys() <= whole.names.keys()
    for name in without.names:
        there, here = (each.reader.get_tensor(each.names[name]) for each in (whole, without))
        np.testing.assert_array_equal(here, there)


@pytest.mark.slow
def test_arrays_of_other_names_go_by_their_order(tmp_path, file):
    """As where a layer's arrays were called otherwise."""
    path = shutil.copy(file, str(tmp_path / "renamed.h5"))
    with h5py.File(path, "r+") as renamed:
        for group in renamed["model_weights"].values():
            names = [as_text(name) for name in group.attrs.get("weight_names", ())]
            others = ["x%d:0" % i for i in range(len(names))]
            for name, other in zip(names, others):
                group.move(name, other)
            if names:
                group.attrs["weight_names"] = [other.encode() for other in others]
    before, after = (warmstart.open_weights(each, None) for each in (file, path))
    for name in ("conv_1/bias", "resnet/group_4/bottleneck_3/conv_2/batch_norm/moving_variance"):
        there, here = (each.reader.get_tensor(each.names[name]) for each in (before, after))
        np.testing.assert_array_equal(here, there)


def as_text(name):
    return name.decode() if isinstance(name, bytes) else name


@pytest.mark.slow
def test_what_is_no_such_file(workspace, tmp_path, file):
    same = ["--data", workspace.records, "--output", tmp_path / "model", "--step", 0, "--model"]
    text, short, other, half = (
        str(tmp_path / name) for name in ("text.h5", "short.h5", "other.h5", "half.h5")
    )
    with open(text, "w") as written:
        written.write("no weights")
    refuses("train.py", *same, text, says="text.h5: no weights of Keras's in HDF5", status=1)
    shutil.copy(file, short)
    os.truncate(short, 1_000_000)
    refuses("train.py", *same, short, says="short.h5: no weights of Keras's in HDF5", status=1)
    with h5py.File(other, "w") as written:
        written["kernel"] = 1
    refuses("train.py", *same, other, says="other.h5: not the weights of ResNet50V2", status=1)
    shutil.copy(file, half)
    with h5py.File(half, "r+") as written:
        del written["model_weights"]["conv3_block1_1_bn"]
    says = "half.h5: does not fit: it has no resnet/group_2/bottleneck_1/conv_1/batch_norm"
    assert says in run("train.py", *same, half, status=1)[1].splitlines()[-1]
    named = shutil.copy(file, str(tmp_path / (keras_weights.FILE % 50)))
    refuses("train.py", *same, named, says="its MD5 is not fac2f116257151a9d068a22e544a4917", status=1)
    refuses("train.py", *same, "imagenot", says="no such model folder", status=1)


@pytest.mark.parametrize(
    "option, there",
    [
        ("--mini", "no"),
        ("--shortcut zero_pad", "projection"),
        ("--stem small", "article"),
        ("--normalize per_image", "minus1_1"),
        ("--zero_init_residual yes", "no"),
    ],
)
def test_options_that_contradict_it_are_refused_before_it_is_fetched(monkeypatch, option, there):
    monkeypatch.setattr(keras_weights, "imagenet", lambda layers: pytest.fail("fetched"))
    for depth in ("50", "101"):
        options = parse_options(["--model", "imagenet", "--layers", depth, *option.split()])
        says = "%s.*: imagenet is of a network with %s; leave it out" % (option.split()[0], there)
        with pytest.raises(UsageError, match=says):
            config.open_weights(options)


@pytest.mark.slow
def test_a_file_of_another_depth(workspace, tmp_path, file):
    arguments = ["--data", workspace.records, "--output", tmp_path / "model", "--model", file]
    says = "is of a network with 50; leave it out"
    refuses("train.py", *arguments, "--layers", 101, says=says, status=2)
    assert not os.path.exists(str(tmp_path / "model"))


@pytest.mark.slow
def test_imagenet_is_that_file_fetched_once(tmp_path, monkeypatch, file):
    with open(file, "rb") as opened:
        content = opened.read()
    served = tmp_path / "served"
    served.mkdir()
    (served / (keras_weights.FILE % 50)).write_bytes(content)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setitem(keras_weights.MD5, 50, hashlib.md5(content).hexdigest())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        addresses = "http://127.0.0.1:9/", "http://127.0.0.1:%d/" % server.server_address[1]
        monkeypatch.setattr(keras_weights, "ADDRESSES", addresses)
        weights = warmstart.open_weights("imagenet", None)
        with pytest.raises(UserError, match="101v2.*cannot be downloaded.*404.*--model FILE.h5"):
            warmstart.open_weights("imagenet", 101)
        server.shutdown()
    assert weights.network["layers"] == 50
    assert weights.checkpoint == str(tmp_path / "keras" / "models" / (keras_weights.FILE % 50))
    assert warmstart.open_weights("imagenet", 50).checkpoint == weights.checkpoint  # with no server
