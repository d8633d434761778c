"""What train.py says while it trains: a live line, plain lines, log.csv; and how it is stopped."""

import csv
import math
import os
import re
import signal
import time

from suite.files import atomic
from suite.process import lifetime, terminal
from suite.process.terminal import say
from suite.process.tf_versions import tf

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "accuracy",
    "learning_rate",
    "images_per_second",
    "val_loss",
    "val_accuracy",
)
# Of a batch, by name in the graph and in log.csv. The loss is the cross entropy, without the penalty on
# the weights, so that it can be compared with that of the validation.
SHOWN = {
    "shown_cross_entropy:0": "loss",
    "shown_accuracy:0": "accuracy",
    "shown_learning_rate:0": "learning_rate",
}
REFRESH = 0.5  # seconds between two states of the live line


class Log:
    """log.csv in the model folder: a row for each --log_num steps, and one for each validation.

    The former are curves in TensorBoard, too. It is there to be looked at; no decision depends on it. What a
    killed run left and what is done again now goes: rows of steps after `started_at`, and its validation.

    Args:
        folder: the model folder; None for a log that is not kept, as on all machines but the first.
        epoch_steps: float, steps in which each picture is seen once.
        is_validated: whether the checkpoint of `started_at` has been.
    """

    def __init__(self, folder, started_at, epoch_steps, is_validated=False):
        self.folder, self.epoch_steps, rows = folder, epoch_steps, []
        if not folder:
            return
        self.path = path = os.path.join(folder, "log.csv")
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace", newline="") as file:
                lines = (line.replace("\0", "") for line in file)  # which csv refuses
                rows = [row for row in csv.DictReader(lines, quoting=csv.QUOTE_NONE) if is_whole(row)]
            stay = started_at if is_validated else started_at - 1  # validations
            rows = [row for row in rows if int(row["step"]) <= (stay if row["val_accuracy"] else started_at)]
        with atomic.replacing_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, step, **values):
        """Write a row; `values`: numbers by the names of COLUMNS."""
        row = {name: "%.6g" % value for name, value in values.items()}
        row.update(step=step, epoch="%.4f" % (step / self.epoch_steps))
        if not self.folder:
            return
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        if "val_accuracy" not in row:
            points = [tf.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            tf.summary.FileWriterCache.get(self.folder).add_summary(tf.Summary(value=points), step)


def is_whole(row):
    """Whether a row of log.csv was written to its end."""
    return tuple(row) == COLUMNS and None not in row.values() and re.fullmatch("[0-9]{1,9}", row["step"])


def catch_stop_signals():
    """A list that the number of the first SIGINT or SIGTERM is appended to; the second ends all at once."""
    received = []

    def handle(signal_number, frame):
        received.append(signal_number)
        lifetime.stop_at_once()
        say("stopping after this step; a second signal stops at once, without saving")

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return received


def progress_hook(options, log, stop_signals):
    """A hook that shows how far the training is, and ends it when asked to.

    On a terminal there is one line that changes; elsewhere a plain one every --log_num steps.

    Args:
        options: {"step", "log_num", "batch_size"}.
        log: a Log.
        stop_signals: from `catch_stop_signals`.
    Returns:
        A tf.train.SessionRunHook. It raises tf.train.NanLossDuringTrainingError; its `step` and `rate` then
        say where that was.
    """
    steps, log_num = options["step"], options["log_num"]

    class Progress(tf.train.SessionRunHook):
        def after_create_session(self, session, coord):
            self.step = session.run(tf.train.get_global_step())
            self.busy = self.timed = 0  # seconds and steps since the last row of the log
            self.shown_at = 0
            self.speed = None
            self.warm = False

        def before_run(self, context):
            self.step += 1
            self.began = time.time()
            # The same at each step: for every other set of fetches TensorFlow prepares the graph anew,
            # which takes seconds. Three numbers cost nothing.
            return tf.train.SessionRunArgs(list(SHOWN))

        def after_run(self, context, values):
            loss, _, self.rate = values.results
            if not math.isfinite(loss):
                raise tf.train.NanLossDuringTrainingError
            if self.warm:  # not the first step, which allocates memory and chooses kernels
                self.busy += time.time() - self.began
                self.timed += 1
                self.speed = options["batch_size"] * self.timed / self.busy
            self.warm = True
            logs = self.step % log_num == 0 or self.step == steps
            if logs or terminal.is_terminal() and time.time() - self.shown_at > REFRESH:
                self.show(dict(zip(SHOWN.values(), values.results)), logs)
            if stop_signals:
                context.request_stop()

        def show(self, measured, logs):
            speed = {"images_per_second": self.speed} if self.speed else {}
            left = (steps - self.step) * options["batch_size"] / self.speed if self.speed else None
            line = progress_line(
                self.step, steps, self.step / log.epoch_steps, **measured, **speed, left=left
            )
            if terminal.is_terminal():
                terminal.say_live(line)
                self.shown_at = time.time()
            elif logs:
                say(line)
            if logs:
                log.add(self.step, **measured, **speed)
                self.busy = self.timed = 0

    return Progress()


def progress_line(step, steps, epoch, loss, accuracy, learning_rate, images_per_second=None, left=None):
    """What is said of a step: at most 79 characters, which a terminal of 80 shows, of up to 999,999 steps.

    Args:
        loss, accuracy: of its batch.
        images_per_second, left: the speed, and the seconds to the end; None at the first step.
    """
    line = "step %d/%d epoch %s loss %.3f acc %.0f%% lr %s" % (
        step,
        steps,
        tenths(epoch),
        loss,
        100 * accuracy,
        ("%.1e" % learning_rate).replace("e-0", "e-")
        if 0 < learning_rate < 0.001
        else "%.2g" % learning_rate,
    )
    return line + (
        " %s img/s eta %s" % (tenths(images_per_second), duration(left)) if left is not None else ""
    )


def tenths(value):
    """With one digit after the point where there are few before it."""
    return "%.1f" % value if value < 99.95 else "%.0f" % value


def duration(seconds):
    """One number and its unit, four characters at most: 42s, 1.7m, 42m, 1.7h, 42h, 42d."""
    seconds = round(seconds)
    for length, unit in ((1, "s"), (60, "m"), (3600, "h")):
        if seconds / length < 99.5:
            return "%.2g%s" % (seconds / length, unit)
    return "%.0fd" % (seconds / 86400)
