"""Batch norm's statistics made anew when all steps are done."""

import os

from suite.model import modelfolder
from suite.model.network import build_logits, load_weights
from suite.process import device
from suite.process.terminal import counted, say
from suite.process.tf_versions import tf
from suite.records.reading import read_for_training
from suite.training.checkpoints import is_better, keep_best, read_best
from suite.training.memory import AT_ONCE


def recalibrate(config, records, validator):
    """Let the best checkpoint evaluate with statistics of batch norm over many batches of its own.

    While training, the moving averages follow weights that change; He et al. 2015 computed the
    statistics anew after training, as this does. Without validation pictures the last checkpoint
    counts as the best, unless one was validated on other records, which stays as it is; with them, the new
    statistics are kept if they validate no worse.
    """
    output, batches = config["options"]["output"], config["options"]["bn_batches"]
    best = read_best(output)
    step = best["step"] if best else modelfolder.latest_step(output)
    old = modelfolder.load_model(output).checkpoint
    new = os.path.join(output, modelfolder.BEST, "recalibrated.ckpt-%d" % step)
    if not batches or best and (best["recalibrated"] or not validator):
        return
    over = counted(batches, "batch", "batches")
    say("batch norm: making its statistics anew over %s" % over)
    os.makedirs(os.path.dirname(new), exist_ok=True)
    write_recalibrated(config, records, old, batches, new)
    if not best:
        keep_best(output, new, {"step": step, "accuracy": None, "loss": None, "recalibrated": True})
        say("batch norm: made anew over %s" % over)
        return
    accuracy, loss = validator.measure(new)
    change = "validation accuracy %.4f -> %.4f" % (best["accuracy"], accuracy)
    if accuracy == best["accuracy"]:  # then the loss decides
        change = "validation loss %.4f -> %.4f" % (best["loss"], loss)
    if is_better(best, accuracy, loss):
        if is_better(best["highest"], accuracy, loss):
            best["highest"] = {"accuracy": accuracy, "loss": loss}
        keep_best(output, new, dict(best, accuracy=accuracy, loss=loss, recalibrated=True))
        say("batch norm: made anew over %s, %s" % (over, change))
    else:
        keep_best(output, old, dict(best, recalibrated=True))  # which removes the new one
        say("batch norm: left as it was; made anew, %s" % change)


def write_recalibrated(config, records, checkpoint, batches, target):
    """Write the checkpoint's weights with the mean of the batches' statistics as those of batch norm."""
    options = config["options"]
    with tf.Graph().as_default():
        momentum = tf.placeholder(tf.float32, [])
        how = min(options["batch_size"], AT_ONCE), "none", options["seed"]
        dataset = read_for_training(records, "train", *how, normalize_as=config["normalize"])
        batch = tf.data.make_one_shot_iterator(dataset).get_next()
        build_logits(batch["image"], config["network"], config["classes"], True, bn_momentum=momentum)
        updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
        with tf.Session(config=device.session_config(options["workers"])) as session:
            load_weights(session, checkpoint)
            for number in range(batches):
                session.run(updates, {momentum: number / (number + 1)})  # so that all weigh the same
            saver = tf.train.Saver(tf.global_variables())
            saver.save(session, target, write_meta_graph=False, write_state=False)
