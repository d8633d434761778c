"""Batch norm evaluates as it trained."""

import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import LABELS, config_for

from suite.model import modelfolder
from suite.model.network import build_logits, load_weights
from suite.records import reading
from suite.training import batch_norm, monitor, validation


def accuracy(workspace, checkpoint, is_train):
    """On the training split, by the batch's or the moving statistics."""
    records = reading.load_records(workspace.records)
    model = modelfolder.load_model(checkpoint)
    with tf.Graph().as_default(), tf.Session() as session:
        batch = tf.data.make_one_shot_iterator(
            reading.read_for_evaluation(records, "train", 32, model.normalize)
        ).get_next()
        logits = build_logits(batch["image"], model.network, model.classes, is_train)
        right = tf.equal(tf.argmax(logits, 1), batch["label"])
        load_weights(session, model.checkpoint)
        answers = [session.run(right) for _ in range(records.count("train") // 32)]
    return np.concatenate(answers).mean()


def test_batch_norm_evaluates_as_it_trained(workspace):
    checkpoint = os.path.join(workspace.model, "model.ckpt-100")
    training, evaluating = (accuracy(workspace, checkpoint, is_train) for is_train in (True, False))
    assert training > 0.85
    assert abs(training - evaluating) < 0.1


def test_training_moves_the_moving_statistics(workspace):
    checkpoint = os.path.join(workspace.model, "model.ckpt-100")
    names = [name for name, _ in tf.train.list_variables(checkpoint) if name.endswith("moving_variance")]
    assert len(names) == 1 + 4 * 2
    for name in names:
        assert not np.allclose(tf.train.load_variable(checkpoint, name), 1)


@pytest.mark.slow
def test_new_statistics_close_the_gap(workspace, copy):
    """A moving average that has hardly moved evaluates like a coin; statistics made anew do not."""
    config, records = config_for(workspace, "--output", copy, "--bn_batches", 8)
    checkpoint = os.path.join(copy, "model.ckpt-100")
    spoilt = os.path.join(copy, "spoilt.ckpt-100")
    with tf.Graph().as_default(), tf.Session() as session:
        build_logits(tf.zeros([1, 32, 32, 3]), config["network"], LABELS, False)
        load_weights(session, checkpoint)
        for variable in tf.global_variables():  # as they would be with a momentum near 1
            if variable.op.name.endswith("moving_mean"):
                session.run(variable.assign(tf.zeros_like(variable)))
            if variable.op.name.endswith("moving_variance"):
                session.run(variable.assign(tf.ones_like(variable)))
        tf.train.Saver().save(session, spoilt, write_state=False)
    renewed = os.path.join(copy, "renewed.ckpt-100")
    batch_norm.write_recalibrated(config, records, spoilt, 8, renewed)
    validator = validation.Validator(config, records, monitor.Log(None, 0, 1), [])
    before, after = validator.measure(spoilt)[0], validator.measure(renewed)[0]
    training = accuracy(workspace, spoilt, True)
    assert training > 0.85 and before < training - 0.2 and abs(after - training) < 0.1
