"""What happens around the steps: progress, the end that was asked for, checkpoints and their validation.

TensorFlow's class is needed to say what these are, so importing this file imports it.
"""

import errno
import math
import os
import re
import time

from suite.model import modelfolder
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.training.monitor import progress_line
from suite.training.step import PICTURES, SHOWN

STEADY = 2  # steps timed after the first before the time left is said
MOST_PASSED_OVER = 200  # batches in a row; halving a loss scale of 2**127 to 1 takes fewer


class ProgressHook(tf.train.SessionRunHook):  # type: ignore  # which TensorFlow has at run time
    """Shows how far the training is, logs it, and ends it when asked to.

    Raises tf.train.NanLossDuringTrainingError; `step` and `rate` then say where that was.

    Args:
        options: {"step", "log_num", "batch_size"}.
        bar: see terminal.progress_bar; where there is none, a line every --log_num steps.
        log: a monitor.Log.
        stop_signals: a list, not empty as soon as the training is to end; the last step is saved.
        time_left: a time_left.TimeLeft, which is told how long the steps take.
    """

    def __init__(self, options, bar, log, stop_signals, time_left):
        self.steps, self.log_num, self.batch_size = (options[n] for n in ("step", "log_num", "batch_size"))
        self.bar, self.log, self.stop_signals, self.time_left = bar, log, stop_signals, time_left
        self.is_timed = False  # whether it was said how long it will take

    def after_create_session(self, session, coord):
        self.step = int(session.run(tf.train.get_global_step()))
        self.busy = self.timed = 0  # seconds and steps since the last row of the log
        self.speed = None
        self.taken = 0  # steps
        self.seen = []  # loss and accuracy of each step since then
        self.passed_over = 0  # batches in turn, by a loss scale
        self.line = ""
        say("taking the first step, the slowest")

    def before_run(self, context):
        self.began = time.perf_counter()
        # The same at each step: for every other set of fetches TensorFlow prepares the graph anew,
        # which takes seconds. Four numbers cost nothing.
        return tf.train.SessionRunArgs(SHOWN)

    def after_run(self, context, values):
        measured = dict(values.results)
        before, self.step = self.step, int(measured.pop("step"))
        self.rate = measured["learning_rate"]
        if not math.isfinite(measured["loss"]):
            raise tf.train.NanLossDuringTrainingError
        if self.taken:  # not the first step, which allocates memory and chooses kernels
            self.busy += time.perf_counter() - self.began
            self.timed += 1
            self.speed = self.batch_size * self.timed / self.busy
            self.time_left.add_step(self.busy / self.timed)
        else:
            self.time_left.add_first_step()
        self.taken += 1
        self.passed_over = 0 if self.step > before else self.passed_over + 1
        if self.passed_over == MOST_PASSED_OVER:
            raise UserError(
                "the gradient was not finite in %d batches in turn, whatever the loss scale; take a lower "
                "--lr, or train without --mixed_precision to another --output" % MOST_PASSED_OVER
            )
        if self.step > before:
            self.show(measured)
        if self.stop_signals:
            context.request_stop()

    def show(self, measured):
        """Of the steps since the last row: the means of loss and accuracy, and the speed."""
        self.seen.append((measured["loss"], measured["accuracy"]))
        measured["loss"], measured["accuracy"] = (sum(each) / len(each) for each in zip(*self.seen))
        if self.speed:
            measured["images_per_second"] = self.speed
        left = self.time_left.seconds(self.step) if self.speed else None
        place = self.step, self.steps, self.step / self.log.epoch_steps
        line = progress_line(*place, **measured, left=left)
        self.line = progress_line(*place, **measured)
        self.bar.set_description_str(line, refresh=False)
        self.bar.update(self.step - self.bar.n)
        if self.taken > STEADY and not self.is_timed:
            self.is_timed = True
            self.time_left.say_measured(self.step)
        if self.step % self.log_num == 0 or self.step == self.steps:
            if self.bar.disable:
                say(line)
            self.log.add(self.step, **measured)
            self.busy = self.timed = 0
            self.seen = []

    def end(self, session):
        if self.line:
            self.bar.set_description_str(self.line)  # without a time that is left


class FreshAdamHook(tf.train.SessionRunHook):  # type: ignore
    """Lets Adam begin anew at the first step after `freeze`.

    Adam divides its means by 1 - beta**t. While weights are frozen t goes on and their means stay 0, so that
    their first steps would be several times too far.
    """

    def __init__(self, freeze):
        self.freeze = freeze

    def begin(self):
        state = re.compile(r"(/Adam(_1)?|^beta[12]_power)(/replica_\d+)?$")
        self.reset = tf.variables_initializer([v for v in tf.global_variables() if state.search(v.op.name)])

    def after_create_session(self, session, coord):
        if session.run(tf.train.get_global_step()) == self.freeze:
            session.run(self.reset)


class SavingHook(tf.train.SessionRunHook):  # type: ignore
    """Saves at each multiple of `every` steps and at the end, and has each checkpoint validated.

    tf.train.CheckpointSaverHook saves so too, but also before the first step, and each time with the whole
    graph, which takes seconds and nobody reads. TensorBoard gets the graph with the first checkpoint.

    Args:
        folder: for the checkpoints and TensorBoard's files.
        validator: a validation.Validator, which may end the training; or None.
        time_left: a time_left.TimeLeft, which is told how long that takes.
    """

    def __init__(self, folder, every, validator, time_left):
        self.folder, self.every, self.validator, self.time_left = folder, every, validator, time_left

    def after_create_session(self, session, coord):
        self.step = self.saved_at = int(session.run(tf.train.get_global_step()))
        self.has_graph = False

    def before_run(self, context):
        return tf.train.SessionRunArgs(SHOWN["step"])

    def after_run(self, context, values):
        self.step = int(values.results)
        if self.step % self.every == 0 and self.step > self.saved_at and self.save(context.session):
            context.request_stop()

    def end(self, session):
        if self.step > self.saved_at:
            self.save(session)

    def save(self, session):
        """Returns whether the training is over."""
        began = time.perf_counter()
        curves = tf.summary.FileWriterCache.get(self.folder)
        curves.add_summary(session.run(PICTURES), self.step)  # of another batch
        if not self.has_graph:
            curves.add_graph(session.graph)
            self.has_graph = True
        (saver,) = session.graph.get_collection(tf.GraphKeys.SAVERS)
        path = os.path.join(modelfolder.literal(self.folder), "model.ckpt")
        try:
            saved = saver.save(session, path, self.step, write_meta_graph=False)
        except ValueError as error:  # TensorFlow's for a folder that has gone
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.folder) from error
        checkpoint = os.path.join(self.folder, os.path.basename(saved))
        self.saved_at = self.step
        is_over = self.validator.validate(checkpoint) if self.validator else False
        self.time_left.add_checkpoint(self.step, time.perf_counter() - began)
        return is_over
