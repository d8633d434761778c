"""What train.py is made of: recipes, fine-tuning, batch norm, the log, several machines."""

import csv
import json
import os
import pty
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from conftest import LABELS, ROOT, draw_dataset, refuses, run
from sklearn.utils.class_weight import compute_class_weight

import cluster
import estimate
import FlowIO
import monitor
import recipes
import resnet
import runtime
import settings
import train
import validation
import warmstart


@pytest.fixture
def graph():
    with tf.Graph().as_default() as graph:
        yield graph


@pytest.fixture
def copy(workspace, tmp_path):
    """A copy of the trained model's folder."""
    folder = str(tmp_path / "model")
    shutil.copytree(workspace.model, folder)
    return folder


def described(workspace, *arguments):
    """What model.json would hold for these options."""
    records = FlowIO.load_records(workspace.records)
    options = settings.parse_options(["--mini", "--data", workspace.records, *map(str, arguments)])
    settings.complete(options, records, None, None)
    return settings.describe(options, records), records


# --- recipes ----------------------------------------


@pytest.mark.parametrize(
    "schedule, expected",  # at steps 0, 100, 500, 750 and 1000 of 1000
    [
        ("constant", (1, 1, 1, 1, 1)),
        ("exponential", (1, 0.05**0.1, 0.05**0.5, 0.05**0.75, 0.05)),
        ("cosine", (1, (1 + np.cos(0.1 * np.pi)) / 2, 0.5, (1 + np.cos(0.75 * np.pi)) / 2, 0)),
        ("steps", (1, 1, 1, 0.1, 0.01)),
    ],
)
@pytest.mark.parametrize("warmup", [0, 200])
def test_schedules(graph, schedule, expected, warmup):
    options = {"lr": 2.0, "schedule": schedule, "warmup": warmup, "step": 1000}
    step = tf.placeholder(tf.int64, [])
    rate = recipes.learning_rate(options, step)
    with tf.Session() as session:
        found = [session.run(rate, {step: at}) for at in (0, 100, 500, 750, 1000)]
    rising = [1 / 200, 101 / 200, 1, 1, 1] if warmup else [1] * 5
    np.testing.assert_allclose(found, 2 * np.array(expected) * rising, rtol=1e-5, atol=1e-7)


def test_a_recipe_fills_in_what_is_not_given(workspace):
    description, _ = described(workspace, "--recipe", "modern", "--label_smoothing", "0", "--step", "1000")
    options = description["options"]
    modern = recipes.RECIPES["modern"]
    assert options["optimizer"] == modern["optimizer"] and options["label_smoothing"] == 0
    assert options["warmup"] == 50 and options["bn_momentum"] == pytest.approx(0.95)
    assert description["network"]["zero_init_residual"] is True
    description, _ = described(
        workspace, "--recipe", "modern", "--zero_init_residual", "no", "--batch_size", 64
    )
    assert description["network"]["zero_init_residual"] is False
    assert description["options"]["lr"] == pytest.approx(2 * recipes.LEARNING_RATES["momentum"])
    assert described(workspace)[0]["options"]["lr"] == recipes.LEARNING_RATES["adam"]


def test_class_weights_against_scikit_learn():
    labels = [0] * 10 + [1] * 3 + [2] * 7
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(recipes.class_weights([10, 3, 7]), expected)


def test_mixup_blends_pictures_and_targets_alike(graph):
    targets = tf.one_hot([0, 1, 2, 2], 3)
    images = tf.reshape(tf.range(4.0), [4, 1, 1, 1]) * tf.ones([4, 2, 2, 3])
    mixed = recipes.mix(images, targets, 0.5)
    shares = []
    with tf.Session() as session:
        for _ in range(200):
            pictures, labels = session.run(mixed)
            share = labels[0, 0]
            shares.append(share)
            np.testing.assert_allclose(
                labels, share * np.eye(3)[[0, 1, 2, 2]] + (1 - share) * np.eye(3)[[2, 2, 1, 0]]
            )
            expected = share * np.arange(4) + (1 - share) * np.arange(4)[::-1]
            np.testing.assert_allclose(pictures[:, 1, 1, 2], expected, rtol=1e-5, atol=1e-5)
    assert 0 <= min(shares) < 0.2 and 0.8 < max(shares) <= 1  # Beta(0.5, 0.5) loves the ends
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_weight_decay_spares_biases_and_batch_norm(graph):
    with tf.variable_scope("net"):
        resnet.conv2d_same(tf.zeros([1, 4, 4, 3]), 4, 3, 1, True)
        resnet.cnn_to_fc(tf.zeros([1, 2]), 5)
    penalty = recipes.weight_penalty(tf.trainable_variables())
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run([v.assign(tf.ones_like(v)) for v in tf.trainable_variables()])
        assert session.run(penalty) == (3 * 3 * 3 * 4 + 2 * 5) / 2


def one_step(description, monkeypatch, logits, labels):
    """Train a network that is one vector of logits; its values afterwards, and the loss before."""
    monkeypatch.setattr(
        runtime,
        "logits",
        lambda images, *_, **__: tf.tile(
            tf.get_variable("logits/kernel", initializer=tf.constant([logits])), [tf.shape(images)[0], 1]
        ),
    )
    features = {"image": tf.zeros([len(labels), 4, 4, 3]), "label": tf.constant(labels, tf.int64)}
    tf.train.create_global_step()
    spec = train.training_step(features, description)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        loss = session.run(spec.loss)
        session.run(spec.train_op)
        return {v.op.name: session.run(v) for v in tf.global_variables()}, loss


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_a_step_by_hand(graph, workspace, monkeypatch):
    """Label smoothing, class weights, weight decay, clipping, Nesterov's momentum and averages, in numpy."""
    description, _ = described(
        workspace,
        *("--optimizer", "momentum", "--lr", 0.5, "--schedule", "constant", "--label_smoothing", 0.3),
        *("--weight_decay", 0.1, "--clip_norm", 0.05, "--ema", 0.9, "--class_weight", "balanced"),
    )
    counts = {"banana": 10, "grapes": 20, "kiwi": 30}
    description["dataset"] = {"counts": {"train": counts}}
    start, labels = np.array([0.5, -0.2, 0.1]), [0, 0, 2, 1]
    found, found_loss = one_step(description, monkeypatch, start.astype("f").tolist(), labels)

    targets = 0.7 * np.eye(3)[labels] + 0.1
    weights = np.array([60 / 30, 60 / 60, 60 / 90])[labels]
    logs = np.log(softmax(start))
    loss = np.mean(weights * -(targets * logs).sum(1)) + 0.1 * (start**2).sum() / 2
    assert found_loss == pytest.approx(loss, rel=1e-5)
    gradient = np.mean(weights[:, None] * (softmax(start) - targets), 0) + 0.1 * start
    gradient *= 0.05 / np.linalg.norm(gradient)
    end = start - 0.5 * (gradient + 0.9 * gradient)
    np.testing.assert_allclose(found["logits/kernel"][0], end, rtol=1e-4)
    decay = 2 / 11  # (1 + step) / (10 + step), as long as that is below 0.9
    average = decay * start + (1 - decay) * end
    np.testing.assert_allclose(found["logits/kernel" + runtime.AVERAGED][0], average, rtol=1e-4)


# --- the two forms of a convolution ----------------------------------------


@pytest.mark.parametrize("stride, size", [(1, 5), (2, 5), (2, 6), (1, 1)])
def test_a_small_convolution_and_its_gradient_are_those_of_conv2d(graph, monkeypatch, stride, size):
    values = np.random.RandomState(0).randn(2, size, size, 3).astype("f")
    results = []
    for small in (0, resnet.SMALL):
        monkeypatch.setattr(resnet, "SMALL", small)
        images = tf.constant(values)
        with tf.variable_scope("net", reuse=tf.AUTO_REUSE):
            data = resnet.conv2d_same(images, 4, 3, stride, True, tf.nn.tanh, None)
        results.append([data, *tf.gradients(data, [images, tf.trainable_variables()[0]])])
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        plain, product = session.run(results)
    for one, other in zip(plain, product):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert {"Conv2D", "MatMul"} <= {operation.type for operation in graph.get_operations()}


def test_zero_init_residual_begins_as_the_shortcut(graph):
    values = np.random.RandomState(0).rand(2, 7, 7, 16).astype("f")
    data = resnet.bottleneck(tf.constant(values), 16, 1, True, zero_init_residual=True)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        np.testing.assert_array_equal(session.run(data), values)


# --- batch norm ----------------------------------------


def test_new_statistics_close_the_gap(workspace, copy):
    """A moving average that has hardly moved evaluates like a coin; statistics made anew do not."""
    description, records = described(workspace, "--output", copy, "--bn_batches", 8)
    checkpoint = os.path.join(copy, "model.ckpt-100")
    spoilt = os.path.join(copy, "spoilt.ckpt-100")
    with tf.Graph().as_default(), tf.Session() as session:
        runtime.logits(tf.zeros([1, 32, 32, 3]), description["network"], LABELS, False)
        runtime.load_weights(session, checkpoint)
        for variable in tf.global_variables():  # as they would be with a momentum near 1
            if variable.op.name.endswith("moving_mean"):
                session.run(variable.assign(tf.zeros_like(variable)))
            if variable.op.name.endswith("moving_variance"):
                session.run(variable.assign(tf.ones_like(variable)))
        tf.train.Saver().save(session, spoilt, write_state=False)
    renewed = os.path.join(copy, "renewed.ckpt-100")
    validation.write_recalibrated(description, records, spoilt, 8, renewed)
    listener = validation.Validation(description, records, monitor.Log(None, 0, 1), [])
    before, after = listener.measure(spoilt, 1)[0], listener.measure(renewed, 2)[0]
    training = batch_accuracy(workspace, description, spoilt)
    assert training > 0.85 and before < training - 0.2 and abs(after - training) < 0.1


def batch_accuracy(workspace, description, checkpoint):
    """Of a checkpoint on training pictures, normalised by each batch's own statistics."""
    records = FlowIO.load_records(workspace.records)
    with tf.Graph().as_default(), tf.Session() as session:
        batch = tf.data.make_one_shot_iterator(FlowIO.read(records, "train", 32, "per_image")).get_next()
        logits = runtime.logits(batch["image"], description["network"], LABELS, True)
        runtime.load_weights(session, checkpoint)
        right = tf.equal(tf.argmax(logits, 1), batch["label"])
        return np.concatenate([session.run(right) for _ in range(2)]).mean()


# --- fine-tuning ----------------------------------------


def test_other_classes_keep_all_but_the_classifier(workspace, tmp_path):
    draw_dataset(tmp_path / "dataset", 12, ["apple", "watermelon"])
    records, output = str(tmp_path / "records"), str(tmp_path / "model")
    run(
        "FlowIO.py",
        "--dataset",
        tmp_path / "dataset",
        "--output",
        records,
        "--image_size",
        32,
        "--train_ratio",
        0.6,
        "--val_ratio",
        0.3,
    )
    same = ["--data", records, "--output", output, "--model", workspace.model, "--optimizer", "momentum"]
    _, err = run("train.py", *same, "--step", 0)
    assert "start fresh: logits/kernel, logits/bias" in err and "network: layer_50 mini" in err
    old, new = runtime.load_model(workspace.model).checkpoint, os.path.join(output, "model.ckpt-0")
    name = "resnet/group_4/bottleneck_3/conv_2/kernel"
    np.testing.assert_array_equal(tf.train.load_variable(old, name), tf.train.load_variable(new, name))
    assert tf.train.load_variable(new, "logits/bias").shape == (2,)

    run("train.py", *same, "--step", 2, "--freeze", 2, "--save_num", 1)
    frozen = os.path.join(output, "model.ckpt-2")
    assert changed(new, frozen) == {"logits/kernel", "logits/bias"}
    run("train.py", *same, "--step", 3, "--freeze", 2)
    assert len(changed(frozen, os.path.join(output, "model.ckpt-3"))) > 100


def changed(one, other):
    """The names of the weights and statistics that differ between two checkpoints."""
    names = [
        name for name, _ in tf.train.list_variables(one) if "Adam" not in name and "Momentum" not in name
    ]
    load = tf.train.load_variable
    return {n for n in names if n != "global_step" and not np.array_equal(load(one, n), load(other, n))}


def test_the_same_classes_in_another_order_keep_the_classifier(workspace, tmp_path, graph):
    source = warmstart.open_source(workspace.model)
    old = tf.train.load_variable(source.checkpoint, "logits/bias")
    tf.get_variable("logits/bias", [3])
    tf.train.create_global_step()
    warmstart.write(source, LABELS[::-1], str(tmp_path / "model.ckpt"))
    np.testing.assert_array_equal(
        tf.train.load_variable(str(tmp_path / "model.ckpt-0"), "logits/bias"), old[::-1]
    )


@pytest.mark.parametrize("layers, version", [(50, tf.train.SaverDef.V1), (101, tf.train.SaverDef.V2)])
def test_TF_Slims_checkpoints(workspace, tmp_path, layers, version):
    """Restored by name they give TF-Slim's logits."""
    from tensorflow.contrib import slim
    from tensorflow.contrib.slim.nets import resnet_v2

    images = np.random.RandomState(0).uniform(-1, 1, [2, 32, 32, 3]).astype("f")
    path = str(tmp_path / "resnet_v2.ckpt")
    with tf.Graph().as_default(), slim.arg_scope(resnet_v2.resnet_arg_scope()):
        tf.set_random_seed(0)
        logits, _ = getattr(resnet_v2, "resnet_v2_%d" % layers)(images, 3, is_training=False)
        with tf.Session() as session:
            session.run(tf.global_variables_initializer())
            expected = session.run(logits).reshape(2, 3)
            tf.train.Saver(write_version=version).save(session, path, write_meta_graph=False)
    output = str(tmp_path / "model")
    _, err = run("train.py", "--data", workspace.records, "--output", output, "--model", path, "--step", 0)
    assert "layer_%d, projection, preactivation" % layers in err
    assert "start fresh" not in err and "left out" not in err
    model = runtime.load_model(output)
    assert model.normalize == "minus1_1"
    with tf.Graph().as_default(), tf.Session() as session:
        logits = runtime.logits(tf.constant(images), model.network, model.classes, False)
        runtime.load_weights(session, model.checkpoint)
        found = session.run(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_what_cannot_be_fine_tuned(workspace, tmp_path):
    same = ["--data", workspace.records, "--output", tmp_path / "model"]
    refuses("train.py", *same, "--model", tmp_path / "none", says="no such model", status=1)
    (tmp_path / "text").write_text("no checkpoint")
    refuses("train.py", *same, "--model", tmp_path / "text", says="not a checkpoint", status=1)
    refuses("train.py", *same, "--step", 0, says="argument --step: 0 only writes", status=2)
    refuses("train.py", *same, "--freeze", 5, says="argument --freeze: needs", status=2)


# --- the log, stopping early ----------------------------------------


def read_log(folder):
    with open(os.path.join(folder, "log.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_log_csv(workspace):
    rows = read_log(workspace.model)
    assert [int(row["step"]) for row in rows if row["loss"]] == list(range(10, 101, 10))
    assert [int(row["step"]) for row in rows if row["val_accuracy"]] == [50, 100]
    assert float(rows[-1]["epoch"]) == pytest.approx(100 * 32 / 96, rel=0.1)
    assert float(rows[0]["learning_rate"]) < 0.001


def test_the_log_drops_what_is_trained_again(tmp_path):
    path = str(tmp_path / "log.csv")
    log = monitor.Log(path, 0, 10)
    for step in (10, 20, 30):
        log.add(step, loss=1, accuracy=0.5, learning_rate=0.1)
    log.add(20, val_loss=1, val_accuracy=0.5)
    with open(path, "a") as file:
        file.write("40,4.0,0.")  # a killed process
    assert monitor.Log(path, 20, 10).validated() == [20]
    assert [row["step"] for row in read_log(str(tmp_path))] == ["10", "20", "20"]


def test_patience_ends_the_training(workspace, copy):
    """A rate of zero changes nothing, so no later checkpoint can be better than the best."""
    with open(os.path.join(copy, "best", "best.json")) as file:
        best = json.load(file)
    best.update(accuracy=1.0, loss=0.0)
    with open(os.path.join(copy, "best", "best.json"), "w") as file:
        json.dump(best, file)
    same = ["--data", workspace.records, "--output", copy, "--lr", 0, "--save_num", 2, "--log_num", 1]
    _, err = run("train.py", *same, "--step", 120, "--patience", 3, "--keep", 2, "--bn_batches", 0)
    waited = [
        int(row["step"]) for row in read_log(copy) if row["val_accuracy"] and int(row["step"]) > best["step"]
    ]
    assert len(waited) == 3 and "stopped early" in err
    kept = sorted(name for name in os.listdir(copy) if name.endswith(".index"))
    assert len(kept) == 2


def test_tensorboard(workspace):
    def tags(folder):
        path = next(name for name in sorted(os.listdir(folder)) if "tfevents" in name)
        events = tf.train.summary_iterator(os.path.join(folder, path))
        return {value.tag for event in events for value in event.summary.value}

    found = tags(workspace.model)
    assert {"loss", "accuracy", "cross_entropy", "learning_rate", "pictures/image/0"} <= found
    assert {"accuracy", "loss", "confusion_matrix"} <= tags(os.path.join(workspace.model, "eval"))


def test_the_live_line_of_a_terminal(workspace, copy):
    parent, child = pty.openpty()
    command = [sys.executable, os.path.join(ROOT, "train.py"), "--data", workspace.records, "--output", copy]
    process = subprocess.Popen([*command, "--step", "103"], stderr=child, stdin=child)
    os.close(child)
    shown = b""
    try:
        while True:
            shown += os.read(parent, 1000)
    except OSError:  # the other end is closed
        pass
    os.close(parent)
    assert process.wait() == 0
    assert b"\r\x1b[Kstep 101/103" in shown and b"lr " in shown


def test_a_loss_that_is_no_number(workspace, copy):
    same = ["--data", workspace.records, "--output", copy, "--lr", 1e30]
    _, err = run("train.py", *same, "--step", 150, status=1)
    assert "not a number any more, after step 10" in err and "model.ckpt-100" in err


# --- before training ----------------------------------------


def test_dry_run_counts(workspace, tmp_path):
    output = tmp_path / "model"
    out, _ = run("train.py", "--data", workspace.records, "--output", output, "--mini", "--dry_run")
    assert not output.exists()

    # Multiply-adds by hand: 16, 7, 4, 2 and 1 pixels a side after the stem and in the groups. The stem, then
    # per group the first bottleneck, the equal ones between and the last with its stride, then the head.
    def block(side, out_side, before, depth):
        inner = depth // 4
        return side**2 * before * inner + out_side**2 * (9 * inner**2 + inner * depth)

    expected = 16**2 * 49 * 3 * 64 + 1024 * 3
    before = 64
    for side, out_side, depth, count in ((7, 4, 128, 3), (4, 2, 256, 4), (2, 1, 512, 6), (1, 1, 1024, 3)):
        for i in range(count):
            expected += block(side, out_side if i == count - 1 else side, before, depth)
            before = depth
    assert f"multiply-adds: {expected:,} per picture" in out
    description, _ = described(workspace)
    with tf.Graph().as_default():
        runtime.logits(tf.zeros([1, 32, 32, 3]), description["network"], LABELS, False)
        parameters = sum(v.shape.num_elements() for v in tf.trainable_variables())
    assert f"parameters: {parameters:,}" in out and "memory: about 0." in out
    assert "banana: " in out and "records: 3 files" in out


def test_multiply_adds_of_the_paper(graph):
    """He et al. 2015 have 3.8e9 for 50 layers; the article strides one block later and never projects."""
    network = {"layers": 50, "mini": False, "shortcut": "zero_pad", "preactivation": False}
    runtime.logits(tf.zeros([1, 224, 224, 3]), network, range(1000), False)
    assert 3e9 < estimate.multiply_adds(graph) < 3.9e9


def test_peak_memory_by_hand(graph):
    """While the product is computed, it and its two factors; the sum then takes one's place."""
    a = tf.random.uniform([10, 100])
    b = tf.matmul(a, tf.ones([100, 100]))
    fetch = tf.reduce_sum(b + a).op
    assert estimate.peak_bytes(fetch) == 4000 + 100 * 100 * 4 + 4000


# --- the same again, and in parallel ----------------------------------------


def test_one_worker_gives_the_same_weights_bit_for_bit(workspace, tmp_path):
    checkpoints = []
    for name in "ab":
        output = str(tmp_path / name)
        same = ["--mini", "--data", workspace.records, "--output", output, "--workers", 1, "--seed", 5]
        run("train.py", *same, "--step", 6, "--recipe", "modern", "--mixup", 0.2)
        checkpoints.append(os.path.join(output, "model.ckpt-6"))
    assert changed(*checkpoints) == set()


@pytest.mark.parametrize(
    "config, says",
    [
        ("{", "not what TensorFlow expects"),
        ('{"cluster": {"ps": ["a:1"]}}', "neither chief nor worker"),
        ('{"cluster": {"worker": ["a:1", "b"]}, "task": {"type": "worker", "index": 0}}', "not host:port"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
            "not in its cluster",
        ),
    ],
)
def test_a_wrong_TF_CONFIG(monkeypatch, config, says):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(runtime.UsageError, match=says):
        cluster.read_environment()


def test_TF_CONFIG(monkeypatch):
    task = {"type": "worker", "index": 0}
    jobs = {"chief": ["a:1"], "worker": ["b:2"]}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": jobs, "task": task}))
    assert cluster.read_environment() == cluster.Cluster(["a:1", "b:2"], 1)
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["b:2"]}, "task": task}))
    assert cluster.read_environment() == cluster.ALONE
    assert cluster.read_environment() == cluster.ALONE


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def start_workers():
    """A function that starts train.py on two machines, which are this one; what is left of them is killed."""
    started = []
    yield lambda *arguments: started.extend(start_both(*arguments)) or started[-2:]
    for process in started:
        process.kill()


def start_both(workspace, output, *arguments):
    addresses = ["127.0.0.1:%d" % port for port in free_ports(2)]
    processes = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, os.path.join(ROOT, "train.py"), "--mini", "--data", workspace.records]
        command += ["--output", output, "--log_num", "1", *map(str, arguments)]
        environment = dict(os.environ, TF_CONFIG=json.dumps(config))
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", env=environment))
    return processes


def test_two_workers_train_one_network(workspace, tmp_path, start_workers):
    output = str(tmp_path / "model")
    processes = start_workers(workspace, output, "--step", 4, "--save_num", 2)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "step 4: validation accuracy" in said[0] and "validation accuracy" not in said[1]
    assert runtime.load_model(output) and len(read_log(output)) == 6

    # One is killed: the other says so and stops, and the same command goes on.
    processes = start_workers(workspace, output, "--step", 9999, "--save_num", 2)
    for line in processes[0].stderr:
        if line.startswith("step 7/"):
            break
    processes[1].kill()
    rest = processes[0].communicate(timeout=120)[1]
    assert processes[0].returncode == 1 and "Traceback" not in rest, rest
    assert "machine 1 (127.0.0.1:" in rest and "goes on from step" in rest
    reached = runtime.checkpoint_step(runtime.latest_checkpoint(output))
    processes = start_workers(workspace, output, "--step", reached + 2, "--save_num", 2)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "resuming at step %d" % reached in said[0]
    assert runtime.latest_checkpoint(output).endswith("model.ckpt-%d" % (reached + 2))
