"""The graph that predicts: folded batch norms, its cache, and the checkpoint that it is made from."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import ROOT, make_model

from suite.files import jsonfile
from suite.model import inference_graph, modelfolder
from suite.model.maps import PLACES, POINTS, features_and_maps, finer_from, spread
from suite.model.network import build_logits, restore_session
from suite.process import errors, tf_versions


def outputs_of(graph_def, images, *names):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return session.run([name + ":0" for name in names], {"images:0": images})


def probabilities_of(graph_def, images):
    return outputs_of(graph_def, images, "probabilities")[0]


def unfolded(model, images, *names):
    with tf.Graph().as_default():
        inputs = tf.placeholder(tf.float32, [None, 64, 64, 3])
        session, probabilities = restore_session(model, inputs)
        with session:
            return session.run([probabilities, *names] if names else probabilities, {inputs: images})


IMAGES = np.random.RandomState(1).normal(0, 1, [4, 64, 64, 3]).astype(np.float32)


@pytest.mark.parametrize(
    "network",
    [
        {},
        {"shortcut": "projection"},
        {"shortcut": "projection_all"},
        {"preactivation": True},
        {"preactivation": True, "shortcut": "projection", "mini": False},
        {"zero_init_residual": True},
        {"stem": "small", "preactivation": True, "shortcut": "projection"},
    ],
    ids=str,
)
@pytest.mark.slow
def test_folding_changes_no_answer(tmp_path, whole_network, network):
    model = make_model(tmp_path, **network)
    graph_def = inference_graph.frozen_graph(model, "NHWC")
    operations = [node.op for node in graph_def.node]
    norms = 1 if not network.get("preactivation") else 1 + 16  # before a convolution they cannot be folded
    assert operations.count("FusedBatchNormV3") == norms
    expected = unfolded(model, IMAGES)
    np.testing.assert_allclose(probabilities_of(graph_def, IMAGES), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "network",
    [{}, {"dropout": 0.5}, {"preactivation": True, "shortcut": "projection"}, {"stem": "small"}],
    ids=str,
)
@pytest.mark.slow
@pytest.mark.versions
def test_the_mean_of_a_map_is_the_logit(tmp_path, network):
    """In what was frozen and came from the cache, of what was neither: folding changed nothing."""
    model = make_model(tmp_path, **network)
    inference_graph.load_graph(model, None)
    cached = inference_graph.read_cache(model)
    graph_def = inference_graph.load_graph(model, cached)
    *found, maps = outputs_of(graph_def, IMAGES, *inference_graph.OUTPUTS)
    probabilities, features, logits = unfolded(model, IMAGES, "resnet/features:0", "logits_out:0")
    side = 8 if network.get("stem") == "small" else 2
    assert maps.shape == (4, side, side, 3) and np.ptp(maps, (1, 2)).min() > 0.01
    for here, expected in zip([*found, maps.mean((1, 2))], [probabilities, features[:, 0, 0], logits]):
        np.testing.assert_allclose(here, expected, rtol=1e-5, atol=1e-5)


MINI = {"layers": 50, "mini": True, "shortcut": "zero_pad"}
KINDS = pytest.mark.parametrize(
    "preactivation, stem", [(False, "article"), (True, "article"), (False, "small")]
)


@pytest.mark.slow
@KINDS
def test_from_which_size_on_maps_are_fine_enough(preactivation, stem):
    network = dict(MINI, preactivation=preactivation, stem=stem)
    model = modelfolder.Model("", "", network, "ab", 8, "per_image", False)
    size = finer_from(model)
    for image_size, positions in ((size - 1, 3), (size, 4)):
        with tf.Graph().as_default() as graph:
            build_logits(tf.zeros([1, image_size, image_size, 3]), network, "ab", False, "NHWC")
            shape = graph.get_tensor_by_name("resnet/activations:0").shape
        assert shape[1:3] == [positions, positions]
        assert (finer_from(model._replace(image_size=image_size)) is None) == (positions == 4)


@pytest.mark.slow
@KINDS
def test_which_pixels_a_position_of_a_map_is_of(graph, preactivation, stem):
    """The middle of what a change of the picture changes it by, in a network of random weights."""
    network = dict(MINI, preactivation=preactivation, stem=stem)
    first, distance = PLACES[stem]
    size = 7 * distance
    images = tf.constant(np.random.RandomState(0).normal(0, 1, [1, size, size, 3]).astype(np.float32))
    build_logits(images, network, "ab", False, "NHWC")
    activations = graph.get_tensor_by_name("resnet/activations:0")
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        (change,) = session.run(tf.gradients(activations[0, 3, 2], images))
    change = np.square(change[0]).sum(2)
    middle = [(change.sum(axis) * np.arange(size)).sum() / change.sum() for axis in (1, 0)]
    assert middle == pytest.approx([first + 3 * distance, first + 2 * distance], abs=distance / 8)


@pytest.mark.parametrize("network, first, distance", [({}, 2, 32), ({"stem": "small"}, 0, 8)])
def test_a_map_is_spread_between_its_positions(network, first, distance):
    size = 7 * distance
    model = modelfolder.Model("", "", network, "ab", size, "per_image", False)
    down = np.repeat([[1.0], [2], [3], [4], [5], [6], [7]], 7, 1)
    found = spread(down, model)
    assert found.shape == (POINTS, POINTS) and np.ptp(found, 1).max() < 1e-9
    centres = (np.arange(POINTS) + 0.5) * size / POINTS
    np.testing.assert_allclose(found[:, 0], np.clip(1 + (centres - first) / distance, 1, 7))
    np.testing.assert_allclose(spread(down.T, model), found.T)


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_maps_and_features_in_both_layouts(graph, data_format):
    """Without a GPU convolutions of NCHW do not run, but what follows them does."""
    network = {"layers": 50, "mini": True, "shortcut": "zero_pad", "preactivation": False, "dropout": 0.5}
    logits = build_logits(tf.zeros([2, 96, 64, 3]), network, "abc", False, data_format)
    activations = np.random.RandomState(0).rand(2, 3, 2, 1024).astype(np.float32)
    fed = activations if data_format == "NHWC" else activations.transpose(0, 3, 1, 2)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        weights, expected = session.run(
            [tf.trainable_variables("logits/")[0], logits], {"resnet/activations:0": fed}
        )
        features, maps = session.run(features_and_maps(data_format), {"resnet/activations:0": fed})
    np.testing.assert_allclose(features, activations.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(maps, activations @ weights, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(maps.mean((1, 2)), expected, rtol=1e-5, atol=1e-5)


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
            for name in inference_graph.OUTPUTS:
                tf.reduce_mean(images, [1, 2], name=name)
    inference_graph.write_cache(model, graph.as_graph_def(), inference_graph.cache_key(model, "NHWC"))
    cached = inference_graph.read_cache(model)
    with pytest.raises(
        errors.UserError, match=r"inference-[12].15.cache: holds what no network of ours does \(ReadFile\)"
    ):
        inference_graph.load_graph(model, cached)


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path, monkeypatch):
    model = make_model(tmp_path)
    monkeypatch.setattr(inference_graph, "cache_path", lambda *_: str(tmp_path / "none" / "cache"))
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


def test_a_best_that_is_replaced_between_two_looks(tmp_path, monkeypatch):
    """Its files are looked for before the name of the latest is read, and are others then."""
    looks = []

    def look(folder):
        looks.append(folder)
        return [os.path.join(folder, "model.ckpt-%d" % (50 * min(len(looks), 2)))]

    monkeypatch.setattr(modelfolder, "checkpoints", look)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-100"\n')
    warned = []
    assert modelfolder.latest_checkpoint(str(tmp_path), warned.append) == str(tmp_path / "model.ckpt-100")
    assert len(looks) == 2 and not warned


def test_a_temperature_whose_checkpoint_goes(tmp_path):
    """As train.py replaces the best: whoever loads the weights says so."""
    path = str(tmp_path / "model.ckpt-1")
    jsonfile.write(path + modelfolder.TEMPERATURE, {"temperature": 2.0, "index": "0" * 64})
    assert modelfolder.read_temperature(path) == 1


def test_a_folder_that_was_moved_keeps_its_best(tmp_path, capsys):
    """TensorFlow notes absolute paths; the best is not the last one here."""
    folder = tmp_path / "here" / "best"
    folder.mkdir(parents=True)
    for name in ("model.ckpt-1", "model.ckpt-2"):
        for suffix in (".index", ".data-00000-of-00001"):
            (folder / (name + suffix)).write_bytes(b"")
    tf.train.update_checkpoint_state(str(folder), str(folder / "model.ckpt-1"))
    assert str(tmp_path) in (folder / "checkpoint").read_text()
    os.rename(str(tmp_path / "here"), str(tmp_path / "there"))
    moved = str(tmp_path / "there" / "best")
    assert modelfolder.latest_checkpoint(moved) == os.path.join(moved, "model.ckpt-1")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_checkpoint_that_is_replaced_meanwhile(tmp_path):
    model = make_model(tmp_path)
    for name in os.listdir(str(tmp_path)):
        os.remove(str(tmp_path / name))
    with pytest.raises(errors.UserError, match="it is gone, train.py may have replaced it meanwhile"):
        inference_graph.frozen_graph(model, "NHWC")


def test_a_checkpoint_that_is_replaced_while_its_graph_is_made_leaves_no_cache(tmp_path, monkeypatch):
    model = modelfolder.Model(str(tmp_path), str(tmp_path / "model.ckpt-1"), {}, ["a"], 8, "per_image", False)
    index = tmp_path / "model.ckpt-1.index"
    index.write_bytes(b"one")

    def slowly(*_):
        index.write_bytes(b"other")
        return tf.GraphDef()

    monkeypatch.setattr(inference_graph, "frozen_graph", slowly)
    inference_graph.load_graph(model, None, "NCHW")
    assert not list(tmp_path.glob("inference*"))
    inference_graph.load_graph(model, None, "NCHW")  # by now it is what it was before
    assert inference_graph.read_cache(model, "NCHW") is not None
    os.remove(str(index))
    assert inference_graph.read_cache(model, "NCHW") is None


def test_what_killed_processes_left_of_a_cache_goes(tmp_path):
    model = modelfolder.Model(str(tmp_path), str(tmp_path / "model.ckpt-1"), {}, ["a"], 8, "per_image", False)
    path = inference_graph.cache_path(model, "NCHW")
    names = [path + each for each in (".1.replacing.partial", ".2.replacing.partial", ".txt")]
    for name, hours in zip(names, (2, 0.5, 2)):
        with open(name, "wb"):
            os.utime(name, (time.time() - 3600 * hours,) * 2)
    inference_graph.write_cache(model, tf.GraphDef(), bytes(24), "NCHW")
    assert sorted(map(str, tmp_path.iterdir())) == sorted([path, *names[1:]])


# --- the cache among others ----------------------------------------


@pytest.mark.slow
def test_the_key_covers_each_file_whose_code_makes_the_graph(tmp_path):
    model, seen = make_model(tmp_path), set()
    sys.setprofile(lambda frame, event, _: seen.add(frame.f_code.co_filename))
    try:
        for data_format in ("NHWC", "NCHW"):
            inference_graph.load_graph(model, None, data_format)
    finally:
        sys.setprofile(None)
    ours = {os.path.relpath(path, ROOT) for path in seen if path.startswith(ROOT + os.sep)}
    making = {path for path in ours if not path.startswith((".venv", "tests", "suite/files"))}
    assert making == {
        *inference_graph.MADE_BY,
        "suite/process/lifetime.py",
    }  # which tidies a cache half written


@pytest.mark.slow
@pytest.mark.versions
def test_both_layouts_have_a_cache_each(tmp_path):
    """That for GPUs can be made and read without one, and holds its weights, the same ones, itself."""
    model, graphs = make_model(tmp_path), {}
    (tmp_path / "inference.cache").write_bytes(b"of an earlier version")
    for data_format in ("NHWC", "NCHW"):
        inference_graph.load_graph(model, None, data_format)
        cached = inference_graph.read_cache(model, data_format)
        graphs[data_format] = inference_graph.load_graph(model, cached, data_format)
    version = tf_versions.VERSION
    assert tf.__version__.startswith(version)
    expected = ["inference-%s%s.cache" % (version, each) for each in ("-nchw", "")]
    assert sorted(path.name for path in tmp_path.glob("inference*")) == expected
    os.rename(*(inference_graph.cache_path(model, each) for each in ("NCHW", "NHWC")))
    assert inference_graph.read_cache(model) is None
    operations = {name: [node.op for node in graph.node] for name, graph in graphs.items()}
    assert "ImmutableConst" not in operations["NCHW"] and operations["NHWC"].count("ImmutableConst") == 1
    *convolutions, _ = [node for node in graphs["NCHW"].node if node.op == "Conv2D"]  # and that of the maps
    assert {node.attr["data_format"].s for node in convolutions} == {b"NCHW"}
    fresh = {node.name: node for node in inference_graph.frozen_graph(model, "NHWC").node}
    for name in (node.input[1] for node in convolutions):
        (cached,) = [node for node in graphs["NCHW"].node if node.name == name]
        np.testing.assert_array_equal(inference_graph.value(cached), inference_graph.value(fresh[name]))


@pytest.mark.slow
def test_a_cache_that_is_replaced_meanwhile_is_not_mixed_with_the_new_one(tmp_path):
    """TensorFlow maps it at the first run, after it was checked: best/ may have been replaced by then."""
    model = make_model(tmp_path)
    inference_graph.load_graph(model, None)
    cached = inference_graph.read_cache(model)
    graph_def = inference_graph.load_graph(model, cached)
    expected = probabilities_of(graph_def, IMAGES)
    path = inference_graph.cache_path(model)
    size = os.path.getsize(path)
    os.remove(path)
    with open(path, "wb") as file:
        file.write(bytes(size))
    np.testing.assert_array_equal(probabilities_of(graph_def, IMAGES), expected)


@pytest.mark.slow
def test_several_processes_write_one_cache(tmp_path):
    model = make_model(tmp_path)
    config = {"classes": model.classes, "network": model.network, "image_size": 64, "options": {}}
    config["normalize"] = "per_image"
    jsonfile.write(str(tmp_path / "model.json"), config)
    code = "import sys; from predict import Classifier; Classifier(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for _ in range(2)]
    reads = []
    while any(each.poll() is None for each in processes):
        there = os.path.exists(inference_graph.cache_path(model))
        reads.append(inference_graph.read_cache(model) is not None or not there)
    assert all(reads) and [each.wait() for each in processes] == [0] * 2
    assert inference_graph.read_cache(model) is not None
    assert [path.name for path in tmp_path.glob("inference*")] == [
        os.path.basename(inference_graph.cache_path(model))
    ]
