"""How long a training takes: an estimate at once, then what was measured, with all that is not a step."""

import copy
import math
import os
import time

from suite.files.schemas import RECORDS, SMALL_IMAGE
from suite.model.network import build_logits
from suite.model.recipes import enough_steps, of_the_pictures
from suite.process import commandline, device
from suite.process.errors import UserError
from suite.process.terminal import say, say_once
from suite.process.tf_versions import tf
from suite.training import memory
from suite.training.monitor import duration

# A training step takes about so many times as long as a forward pass, and so does building its graph; for the
# former compare the rates of training and of inference in benchmarks/README.md.
STEP = 4
LONG = 1800  # seconds; for a training on a CPU that takes longer `advise` names another
MOST = 2000  # the largest --step that it names
TIMED = 0.3  # seconds that the forward pass is timed for, at least
# Pixels of a batch that it is timed with, at most: a GPU would only wait for so few as are enough for a CPU.
PIXELS, GPU_PIXELS = 32 * SMALL_IMAGE**2, 256 * 224**2


class TimeLeft:
    """The seconds that a training still takes: steps, graphs, checkpoints, validation, batch norm at the end.

    What is not measured yet follows from what is, see STEP. The steps of --freeze, `classifier_only`, count
    as forward passes.

    Args:
        config: the content of model.json.
        records: see reading.load_records.
        first_step: that the run begins at.
        more: other trainings that follow, as long as this one from its beginning.
        devices: that share each batch.
    """

    def __init__(self, config, records, first_step, more=0, devices=1):
        self.config, options, self.devices = config, config["options"], devices
        self.more, self.of = more, " for %d trainings" % (1 + more) if more else ""
        self.first_step, self.last_step, self.batch_size = first_step, options["step"], options["batch_size"]
        self.at_once = min(self.batch_size, memory.AT_ONCE)  # pictures, where nothing is trained
        self.frozen = min(options["freeze"], self.last_step)
        self.pictures, self.validated = records.count("train"), records.count("val")
        self.saved = {*range(0, self.last_step, options["save_num"]), self.frozen, self.last_step}
        self.unsaved = {step for step in self.saved if step > first_step}
        self.validates_first = self.validated > 0  # the graph for it is not built yet
        self.step_seconds, self.build_seconds = {}, {}  # by classifier_only
        self.save_seconds = None

    def to_come(self):
        """What is to come: steps, of --freeze's their share; graphs for them; batches of validation."""
        steps = self.last_step - self.first_step
        frozen = max(0, self.frozen - self.first_step)
        graphs = 1 if 0 < steps == frozen or not frozen else 2
        validations = len(self.unsaved) * math.ceil(self.validated / self.at_once)
        return steps - frozen + frozen / STEP, graphs, validations

    def estimate(self):
        """What `all_seconds` says, from the speed of the forward pass; that takes a second or two."""
        build, forward = time_forward_pass(self.config)
        self.build_seconds[False] = STEP * build
        self.step_seconds[False] = STEP * forward * self.batch_size / self.devices
        return self.all_seconds(self.first_step)

    def say_estimate(self):
        """Say about how long it will take, on a CPU; a GPU has taken the first steps as soon."""
        if not device.gpus():
            seconds = self.estimate()
            values = duration(seconds), self.of
            say("time: about %s%s, an estimate until three steps are taken" % values)
            self.advise(seconds)

    def print_estimate(self):
        """Print the estimate, on any device. Raises UserError where a GPU's memory does not suffice."""
        try:
            seconds = self.estimate()
        except tf.errors.ResourceExhaustedError as error:
            raise UserError(memory.out_of_memory(self.config, self.devices)) from error
        print("time: about %s to train on this machine%s, an estimate" % (duration(seconds), self.of))
        self.advise(seconds)

    def say_measured(self, step):
        """Say how long the rest takes, once some steps are measured."""
        seconds = self.all_seconds(step)
        values = duration(seconds), self.of, self.step_seconds[self.classifier_only]
        say("time: %s left%s, %.2g s for a step" % values)
        self.advise(seconds)

    def advise(self, seconds):
        """Name the commands that take minutes, once, where it takes long without a GPU."""
        options, size = self.config["options"], self.config["image_size"]
        is_quick = options["mini"] and options["stem"] == "article"
        is_short = size <= SMALL_IMAGE and (is_quick or options["model"])
        if seconds < LONG or device.gpus() or is_short:
            return
        step = min(enough_steps(self.pictures, self.batch_size), MOST, self.last_step)
        output = options["output"].rstrip("/")
        how = {"model": options["model"]} if options["model"] else {"mini": True, "step": step}
        if options["data"] != RECORDS:
            how["data"] = options["data"]
        how.update(of_the_pictures(options))
        if options.get("folds"):
            how["folds"], output = options["folds"], os.path.dirname(output)
        short_way = commandline.command("train.py", **how, output=output + "_small")
        if size > SMALL_IMAGE:  # the records do not say of what folder they are, nor with what options
            short_way = "the same FlowIO.py command with --image_size %d; %s" % (SMALL_IMAGE, short_way)
        say_once("without a GPU in minutes: " + short_way)

    def begin_phase(self, classifier_only):
        """A phase begins, of the whole network or of `classifier_only`: its graph is built next."""
        self.classifier_only, self.began, self.steady = classifier_only, time.perf_counter(), False

    def add_first_step(self):
        """The first step of the phase is done."""
        self.build_seconds[self.classifier_only] = time.perf_counter() - self.began

    def add_step(self, seconds):
        """A later step of the phase takes so long."""
        if not self.steady:
            self.build_seconds[self.classifier_only] -= min(seconds, self.build_seconds[self.classifier_only])
        self.step_seconds[self.classifier_only], self.steady = seconds, True

    def add_checkpoint(self, step, seconds):
        """The checkpoint of a step was written and validated in so long."""
        if self.validates_first:
            seconds = max(
                seconds - known(self.build_seconds, False) / STEP, self.forward_seconds(self.validated)
            )
        self.validates_first, self.save_seconds = False, seconds
        self.unsaved.discard(step)

    def all_seconds(self, step):
        """What is left after a step, the trainings that follow included."""
        whole = copy.copy(self)
        whole.first_step, whole.unsaved = 0, self.saved - {0}
        return self.seconds(step) + self.more * whole.seconds(0)

    def seconds(self, step):
        """What is left of this training after a step."""
        frozen = max(0, self.frozen - step)
        phases = [(frozen, True), (self.last_step - step - frozen, False)]
        phases = [(steps, classifier_only) for steps, classifier_only in phases if steps > 0]
        left = sum(steps * known(self.step_seconds, each) for steps, each in phases)
        unbuilt = phases if step == self.first_step else phases[1:]
        left += sum(known(self.build_seconds, each) for _, each in unbuilt)

        build = known(self.build_seconds, False) / STEP
        save = self.save_seconds
        if save is None:
            save = self.forward_seconds(self.validated)
        left += len(self.unsaved) * save + self.validates_first * build
        batches = self.config["options"]["bn_batches"]
        if batches:
            left += build + self.forward_seconds(batches * self.at_once) + (save if self.validated else 0)
        return left

    def forward_seconds(self, pictures):
        """What the forward pass of so many takes."""
        return known(self.step_seconds, False) / STEP * pictures / self.batch_size


def known(seconds, classifier_only):
    """Of a dict by classifier_only; what it lacks follows from the other one."""
    if classifier_only in seconds or not seconds:
        return seconds.get(classifier_only, 0)
    return seconds[False] / STEP if classifier_only else seconds[True] * STEP


def time_forward_pass(config):
    """Build the forward pass of ResNet-50 and run it; a deeper network takes longer by its convolutions.

    Returns:
        The seconds until it had run once, and those that it then took for each picture.
    """
    network = dict(config["network"], layers=50)
    times = (config["network"]["layers"] - 2) / (50 - 2)  # the first and the last layer are in no block
    size = config["image_size"]
    pixels = GPU_PIXELS if device.gpus() else PIXELS
    batch_size = max(2, min(config["options"]["batch_size"], pixels // size**2))
    began = time.perf_counter()
    with tf.Graph().as_default():
        images = tf.placeholder_with_default(
            tf.zeros([batch_size, size, size, 3]), [batch_size, size, size, 3]
        )
        logits = build_logits(images, network, config["classes"], False).op
        with tf.Session(config=device.session_config(config["options"]["workers"])) as session:
            session.run(tf.global_variables_initializer())
            session.run(logits)
            built, runs = time.perf_counter(), 0
            while not runs or time.perf_counter() - built < TIMED:
                session.run(logits)
                runs += 1
            ended = time.perf_counter()
    return times * (built - began), times * (ended - built) / runs / batch_size
