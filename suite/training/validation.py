"""Validation while train.py trains: each checkpoint is measured, and the best is kept in best/."""

import math
import os
import shlex
import time

import numpy as np

from suite.evaluation import metrics
from suite.files import atomic, jsonfile
from suite.model import modelfolder
from suite.model.network import build_logits, load_weights
from suite.pictures import drawing
from suite.process import device
from suite.process.terminal import counted, say
from suite.process.tf_versions import tf
from suite.records.reading import read_for_evaluation
from suite.training.checkpoints import (
    best_path,
    is_better,
    is_no_worse,
    is_over,
    is_validated,
    keep_best,
    read_best,
    validated_on,
    write_temperature,
)
from suite.training.memory import AT_ONCE

ENOUGH = 100  # validation pictures to fit a temperature to
FITTED = 10000  # are enough, in random order: the logits of all could fill the memory
SILENT = 3  # seconds; a validation is announced if the last one took longer


def open_validator(config, records, log, stop_signals, xla):
    """The Validator of the checkpoints to come, or None where there are no pictures for it; see there."""
    if 0 < records.count("val") < ENOUGH:
        say("fewer than %d validation pictures: probabilities will not be calibrated" % ENOUGH)
    if records.count("val"):
        return Validator(config, records, log, stop_signals, xla)
    output, best = config["options"]["output"], read_best(config["options"]["output"])
    if best and best["accuracy"] is not None:  # of a run on other records
        last = os.path.join(output, "model.ckpt-%d" % config["options"]["step"])
        say(
            "no validation pictures: best/ keeps step %d, the best of those that were validated; "
            "--model %s will name the last" % (best["step"], shlex.quote(last))
        )
    else:
        say("no validation pictures: the latest checkpoint counts as the best")
        atomic.empty(os.path.join(output, modelfolder.BEST))
    return None


class Validator:
    """Validates checkpoints. The graph is built for the first, and stays with its session for the others.

    Args:
        config: the content of model.json.
        records: see reading.load_records; with pictures to validate on.
        log: a monitor.Log.
        stop_signals: a list, not empty as soon as nobody waits for a validation any more.
        xla: whether XLA compiles the graph.
    """

    def __init__(self, config, records, log, stop_signals, xla=False):
        self.config, self.records = config, records
        self.options, self.classes = config["options"], config["classes"]
        self.output = self.options["output"]
        self.pictures = validated_on(records, self.options)
        self.log, self.stop_signals, self.xla = log, stop_signals, xla
        self.batch_size = min(self.options["batch_size"], AT_ONCE)
        self.session = None
        self.seconds = math.inf  # that the last validation took

    def build(self):
        """Make the graph, its session, and the folder of curves for TensorBoard."""
        with tf.Graph().as_default():
            normalize, network = self.config["normalize"], self.config["network"]
            dataset = read_for_evaluation(self.records, "val", self.batch_size, normalize)
            iterator = tf.data.make_initializable_iterator(dataset)
            batch = iterator.get_next()
            logits = build_logits(batch["image"], network, self.classes, False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch["label"], logits=logits)
            self.rewind = iterator.initializer
            self.fetches = batch["label"], logits, losses
            self.session = tf.Session(config=device.session_config(self.options["workers"], self.xla))
        self.curves = tf.summary.FileWriter(os.path.join(self.output, modelfolder.VALIDATION))

    def validate(self, checkpoint):
        """Measure a checkpoint, log it, and keep it if it is the best.

        Returns:
            True when --patience is over.
        Raises:
            UserError: see network.load_weights.
        """
        if self.stop_signals:
            return False
        step, best = modelfolder.checkpoint_step(checkpoint), read_best(self.output)
        accuracy, loss = self.measure(checkpoint)
        self.log.add(step, val_loss=loss, val_accuracy=accuracy)
        if is_better(best and best["highest"], accuracy, loss):
            how = " by its loss" if best and best["highest"]["accuracy"] == accuracy else ""
            say("step %d: validation accuracy %.4f, the best%s" % (step, accuracy, how))
            best = {"step": step, "accuracy": accuracy, "loss": loss, "since": [], "pictures": self.pictures}
            keep_best(self.output, checkpoint, dict(best, highest={"accuracy": accuracy, "loss": loss}))
            return False
        if not best:  # no loss was finite yet
            say("step %d: validation accuracy %.4f" % (step, accuracy))
            return False
        best["since"] = [at for at in best["since"] if at < step] + [step]  # none that is trained again
        if is_no_worse(best, accuracy, loss, self.records.count("val")):
            highest = best["highest"]["accuracy"]
            why = "too close to %.4f to tell apart" % highest if accuracy < highest else "as good as before"
            say("step %d: validation accuracy %.4f, kept: %s" % (step, accuracy, why))
            keep_best(
                self.output,
                checkpoint,
                dict(best, step=step, accuracy=accuracy, loss=loss, recalibrated=False),
            )
        else:
            say("step %d: validation accuracy %.4f" % (step, accuracy))
            jsonfile.write(best_path(self.output), best)
        return is_over(best, self.options)

    def catch_up(self, latest):
        """Validate the latest checkpoint before training goes on; the best, too, if that was on others.

        Raises:
            UserError: see network.load_weights.
        """
        best = read_best(self.output)
        if best and best["accuracy"] is not None and best["pictures"] != self.pictures:
            before = best["accuracy"]
            checkpoint = modelfolder.latest_checkpoint(os.path.join(self.output, modelfolder.BEST))
            best["accuracy"], best["loss"] = self.measure(checkpoint)
            highest = {name: best[name] for name in ("accuracy", "loss")}
            now = modelfolder.checkpoint_step(latest)
            best.update(since=[], counted_from=now, highest=highest, pictures=self.pictures)
            jsonfile.write(best_path(self.output), best)
            change = best["step"], before, best["accuracy"]
            say("the best so far, step %d: validation accuracy %.4f, on the pictures of now %.4f" % change)
        if not is_validated(modelfolder.checkpoint_step(latest), best):
            self.validate(latest)

    def measure(self, checkpoint):
        """The accuracy, 0 to 1, and the mean cross entropy of a checkpoint; TensorBoard gets them too.

        With --class_weight balanced each class counts alike, as it does in training: the accuracy is the mean
        recall then, else the best checkpoint would be one that favours the frequent classes.
        Of ENOUGH pictures the temperature is written beside the checkpoint.
        """
        step = modelfolder.checkpoint_step(checkpoint)
        if self.seconds > SILENT:
            say("step %d: validating on %s" % (step, counted(self.records.count("val"), "picture")))
        began = time.perf_counter()
        if not self.session:
            self.build()
        batches, kept = [], []
        with self.session.graph.as_default():
            load_weights(self.session, checkpoint)
            self.session.run(self.rewind)
            for _ in range(math.ceil(self.records.count("val") / self.batch_size)):
                labels, logits, losses = self.session.run(self.fetches)
                batches.append((labels, logits.argmax(1), losses))
                if len(kept) * self.batch_size < FITTED:
                    kept.append(logits)
        labels, predicted, losses = (np.concatenate(column) for column in zip(*batches))
        weights = 1 / np.bincount(labels)[labels] if self.options["class_weight"] == "balanced" else None
        accuracy = float(np.average(labels == predicted, weights=weights))
        loss = float(np.average(losses, weights=weights))
        matrix = drawing.draw_confusion_matrix(
            metrics.confusion_matrix(labels, predicted, self.classes), self.classes
        )
        values = [
            tf.Summary.Value(tag="accuracy", simple_value=accuracy),
            tf.Summary.Value(tag="loss", simple_value=loss),
            tf.Summary.Value(tag="confusion_matrix", image=tf.Summary.Image(encoded_image_string=matrix)),
        ]
        self.curves.add_summary(tf.Summary(value=values), step)
        self.curves.flush()
        if len(labels) >= ENOUGH and np.isfinite(loss):
            logits = np.concatenate(kept)
            write_temperature(checkpoint, metrics.fit_temperature(labels[: len(logits)], logits))
        self.seconds = time.perf_counter() - began
        return accuracy, loss
