"""Validation while train.py trains: each checkpoint is measured, the best is kept in best/, and the
statistics of batch norm are made anew when all steps are done.
"""

import math
import os

import numpy as np

from suite.evaluation import metrics
from suite.model import modelfolder
from suite.model.network import build_logits, load_weights
from suite.pictures import drawing
from suite.process import device, terminal
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import reading
from suite.training.checkpoints import BEST, is_better, is_over, keep_best, read_best, write_best


class Validation:
    """Validates checkpoints. The graph is built for the first, and stays with its session for the others.

    Args:
        description: the content of model.json.
        records: see reading.load_records; with pictures to validate on.
        log: a monitor.Log.
        stop_signals: a list, not empty as soon as nobody waits for a validation any more.
    """

    def __init__(self, description, records, log, stop_signals):
        self.description, self.records = description, records
        self.options, self.classes = description["options"], description["classes"]
        self.output = self.options["output"]
        self.log, self.stop_signals = log, stop_signals
        self.session = None

    def build(self):
        """Make the graph, its session, and the folder of curves for TensorBoard."""
        with tf.Graph().as_default():
            normalize, network = self.description["normalize"], self.description["network"]
            dataset = reading.read_for_evaluation(self.records, "val", self.options["batch_size"], normalize)
            iterator = tf.data.make_initializable_iterator(dataset)
            batch = iterator.get_next()
            logits = build_logits(batch["image"], network, self.classes, False)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=batch["label"], logits=logits)
            self.rewind = iterator.initializer
            self.fetches = batch["label"], tf.argmax(logits, 1), losses
            self.session = tf.Session(config=device.session_config(self.options["workers"]))
        self.curves = tf.summary.FileWriter(os.path.join(self.output, "eval"))

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
        accuracy, loss = self.measure(checkpoint, step)
        self.log.add(step, val_loss=loss, val_accuracy=accuracy)
        if is_better(best, accuracy, loss):
            how = " by its loss" if best and best["accuracy"] == accuracy else ""
            say("step %d: validation accuracy %.4f, the best%s" % (step, accuracy, how))
            best = {"step": step, "accuracy": accuracy, "loss": loss, "since": []}
            keep_best(self.output, checkpoint, best)
            return False
        say("step %d: validation accuracy %.4f" % (step, accuracy))
        if not best:  # no loss was finite yet
            return False
        best["since"] = [at for at in best["since"] if at < step] + [step]  # none that is trained again
        write_best(self.output, best)
        return is_over(best, self.options["patience"])

    def measure(self, checkpoint, step):
        """The accuracy, 0 to 1, and the mean cross entropy of a checkpoint; TensorBoard gets them too."""
        if not self.session:
            self.build()
        count = math.ceil(self.records.count("val") / self.options["batch_size"])
        with self.session.graph.as_default():
            load_weights(self.session, checkpoint)
            self.session.run(self.rewind)
            batches = [self.session.run(self.fetches) for _ in range(count)]
        labels, predicted, losses = (np.concatenate(column) for column in zip(*batches))
        accuracy, loss = float((labels == predicted).mean()), float(losses.mean())
        matrix = drawing.confusion_matrix(
            metrics.confusion_matrix(labels, predicted, self.classes), self.classes
        )
        values = [
            tf.Summary.Value(tag="accuracy", simple_value=accuracy),
            tf.Summary.Value(tag="loss", simple_value=loss),
            tf.Summary.Value(tag="confusion_matrix", image=tf.Summary.Image(encoded_image_string=matrix)),
        ]
        self.curves.add_summary(tf.Summary(value=values), step)
        self.curves.flush()
        return accuracy, loss


# --- batch norm ----------------------------------------


def recalibrate(description, records, step, validator):
    """Let the best checkpoint evaluate with statistics of batch norm over many batches of its own.

    While training, the moving averages follow weights that change; He et al. 2015 computed the
    statistics anew after training, as this does. Without validation pictures the last checkpoint
    counts as the best; with them, the new statistics are kept if they validate no worse.
    """
    output, batches = description["options"]["output"], description["options"]["bn_batches"]
    best = read_best(output)
    step = best["step"] if best else step
    old = modelfolder.load(output).checkpoint
    new = os.path.join(output, BEST, "recalibrated.ckpt-%d" % step)
    if not batches or best and best["recalibrated"]:
        return
    over = terminal.counted(batches, "batch", "batches")
    os.makedirs(os.path.dirname(new), exist_ok=True)
    write_recalibrated(description, records, old, batches, new)
    if not best:
        keep_best(output, new, {"step": step, "accuracy": None, "loss": None, "recalibrated": True})
        say("batch norm: made anew over %s" % over)
        return
    accuracy, loss = validator.measure(new, step)
    change = "validation accuracy %.4f -> %.4f" % (best["accuracy"], accuracy)
    if accuracy == best["accuracy"]:  # then the loss decides
        change = "validation loss %.4f -> %.4f" % (best["loss"], loss)
    if is_better(best, accuracy, loss):
        keep_best(output, new, dict(best, accuracy=accuracy, loss=loss, recalibrated=True))
        say("batch norm: made anew over %s, %s" % (over, change))
    else:
        keep_best(output, old, dict(best, recalibrated=True))  # which removes the new one
        say("batch norm: left as it was; made anew, %s" % change)


def write_recalibrated(description, records, checkpoint, batches, target):
    """Write the checkpoint's weights with the mean of the batches' statistics as those of batch norm."""
    options = description["options"]
    with tf.Graph().as_default():
        momentum = tf.placeholder(tf.float32, [])
        dataset = reading.read_for_training(
            records, "train", options["batch_size"], description["normalize"], "none", options["seed"]
        )
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        network, classes = description["network"], description["classes"]
        build_logits(batch["image"], network, classes, True, bn_momentum=momentum)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.Session(config=device.session_config(options["workers"])) as session:
            load_weights(session, checkpoint)
            for number in range(batches):
                session.run(updates, {momentum: number / (number + 1)})  # so that all weigh the same
            saver = tf.train.Saver(tf.global_variables())
            saver.save(session, target, write_meta_graph=False, write_state=False)
