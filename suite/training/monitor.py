"""What train.py says while it trains: a line for a step, and log.csv."""

import csv
import os

from suite.files import atomic
from suite.model import modelfolder
from suite.process.tf_versions import tf


class Log:
    """log.csv in the model folder: a row for each --log_num steps, and one for each validation.

    The rows of steps are curves in TensorBoard, too. It is there to be looked at; no decision depends on it.
    What this run writes again is dropped: rows of steps after `first_step`, and its validation, unless
    `is_validated`.

    Args:
        folder: the model folder; None for a log that is not kept, as on all machines but the first.
        epoch_steps: float, steps in which each picture is seen once.
        is_validated: whether the checkpoint of `first_step` has been.
    """

    def __init__(self, folder, first_step, epoch_steps, is_validated=False):
        self.folder, self.epoch_steps = folder, epoch_steps
        if not folder:
            return
        self.path = path = os.path.join(folder, modelfolder.LOG)
        stay = first_step if is_validated else first_step - 1  # validations
        rows = modelfolder.read_log(folder)
        rows = [row for row in rows if int(row["step"]) <= (stay if row["val_accuracy"] else first_step)]
        with atomic.replacing_file(path) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, modelfolder.LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def add(self, step, **values):
        """Write a row; `values`: numbers by the names of LOG_COLUMNS."""
        if not self.folder:
            return
        row = {name: "%.6g" % value for name, value in values.items()}
        row.update(step=step, epoch="%.4f" % (step / self.epoch_steps))
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, modelfolder.LOG_COLUMNS).writerow(row)
        if "val_accuracy" not in row:
            points = [tf.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            tf.summary.FileWriterCache.get(self.folder).add_summary(tf.Summary(value=points), step)


def progress_line(step, steps, epoch, loss, accuracy, learning_rate, images_per_second=None, left=None):
    """What is said of a step: at most 79 characters, which a terminal of 80 shows, of up to 999,999 steps.

    Args:
        loss, accuracy: means over the steps since the line before.
        images_per_second, left: the speed, and the seconds until all is done; None at the first step.
    """
    rate = ("%.1e" if 0 < learning_rate < 0.001 else "%.2g") % learning_rate
    figures = step, steps, tenths(epoch), loss, 100 * accuracy, rate.replace("e-0", "e-")
    line = "step %d/%d epoch %s loss %.3f acc %.0f%% lr %s" % figures
    return line if left is None else line + " %s img/s eta %s" % (tenths(images_per_second), duration(left))


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
