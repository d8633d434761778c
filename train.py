"""Train the article's ResNet on the records that FlowIO.py made.

    python train.py [--data data/tfrecords] [--output models/resnet] [--layers 50] [--step 2000]

Writes a model folder: a checkpoint every --save_num steps, each validated, the best of them in best/,
model.json, log.csv, and curves for TensorBoard. Running the same command again resumes; Ctrl-C saves and
stops. suite/training/ has the options, the step, and what is kept; suite/model/recipes.py the recipes.
"""

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import copy
import functools
import os
from typing import Any, NamedTuple

from suite.files import atomic, jsonfile
from suite.model import modelfolder, warmstart
from suite.process import device, lifetime, terminal
from suite.process.errors import Stopped, UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import folds
from suite.records.preprocessing import finish_views
from suite.records.reading import load_records, naming_damage, read_for_training
from suite.training import (
    batch_norm,
    batch_size,
    checkpoints,
    distribution,
    memory,
    monitor,
    outcome,
    validation,
    xla,
)
from suite.training.config import announce, complete_options, make_config, open_weights
from suite.training.existing import (
    announce_fresh,
    begins_anew,
    check_existing,
    check_reached,
    find_folds,
    read_existing,
    refuse_folds,
    set_aside,
)
from suite.training.options import parse_options
from suite.training.step import training_step
from suite.training.time_left import TimeLeft


def main():
    """Train, resume, or say what would be trained."""
    options = parse_options()
    machines = distribution.read_environment()
    distribution.check_options(machines, options)
    atomic.lock(options.data)
    records = load_records(options.data)
    if not records.count("train"):
        raise UserError("%s: no training pictures; make other records with FlowIO.py" % options.data)
    if records.count("train") < len(machines.addresses):
        raise UserError("%s: fewer training pictures than machines" % options.data)
    device.start(options)
    replaced = begins_anew(options, machines)
    refuse_folds(options, replaced)
    if options.folds:
        train_folds(options, records, machines, replaced)
        return
    job = prepare(options, records, machines, replaced)
    if job:
        if replaced:
            set_aside(options.output)
        carry_out(job, records, machines)


def train_folds(options, records, machines, replaced):
    """--folds: one training after the other, each on all pictures but those of one fold.

    Raises:
        UserError: see existing.find_folds; or as `prepare` and `carry_out`.
    """
    whole, plan = options.output, find_folds(options, records, replaced)
    outputs = [modelfolder.fold(whole, i + 1) for i in range(options.folds)]
    for i, output in enumerate(outputs):
        say("fold %d of %d" % (i + 1, len(outputs)))
        options = copy.copy(options)
        options.output = output
        part = folds.to_train(records, plan, i + 1)
        job = prepare(options, part, machines, replaced, outputs[i + 1 :])
        options.epochs = None  # the first fold's steps and batch hold for all, though folds differ a little
        if options.dry_run:
            return
        if i == 0:
            if replaced:
                set_aside(whole)
            atomic.lock_new(whole)
            jsonfile.write(folds.path(whole), plan)
            replaced = False
        if job:
            carry_out(job, part, machines)
    say("all %d folds are trained%s" % (len(outputs), outcome.next_command(whole, options.data)))


class Job(NamedTuple):
    """What `prepare` found to do."""

    config: dict  # the content of model.json
    weights: Any  # a warmstart.Weights to begin with; or None
    strategy: Any  # how the devices share the work, a tf.distribute.Strategy; or None
    time_left: TimeLeft


def prepare(options, records, machines, replaced, later=()):
    """Complete and check the options, and say what will be trained. Changes nothing but them.

    Args:
        replaced: whether a model in options.output is to be set aside.
        later: the model folders of trainings that follow, like this one.
    Returns:
        A Job; None where nothing is to be done, or that was all, with --dry_run.
    Raises:
        UserError: the options do not fit the model in options.output, or the weights.
    """
    existing = None if replaced else read_existing(options)
    weights = open_weights(options) if options.model and not existing else None
    if options.batch_size == "auto":
        options.batch_size = batch_size.choose(options, records, existing, weights)
    if len(machines.addresses) > 1:  # the one that validates would end alone
        options.patience = 0
    complete_options(options, records, existing, weights)
    if options.folds and not replaced:
        check_reached(options, (options.output, *later))
    config = make_config(options, records, existing, weights)
    if existing:
        check_existing(existing, config)
    strategy = distribution.choose_strategy(machines, options)
    announce(config, records, existing)
    if replaced:
        announce_fresh(config)
    more = sum(replaced or modelfolder.latest_step(folder) < options.step for folder in later)
    first_step = modelfolder.latest_step(options.output) if existing else 0
    devices = strategy.num_replicas_in_sync if strategy else 1
    time_left = TimeLeft(config, records, first_step, more, devices)
    if options.dry_run:
        print(*device.describe(), sep="\n")
        xla.print_state()
        memory.print_needs(config, records, devices)
        time_left.print_estimate()
        return None
    if existing and outcome.is_done(options, records, existing):
        return None
    return Job(config, weights, strategy, time_left)


def carry_out(job, records, machines):
    """Write the model folder, from what `prepare` returned.

    Raises:
        UserError, Stopped: see `start_model_folder`, `write_weights` and `train`.
    """
    config, weights, strategy, time_left = job
    options = config["options"]
    atomic.make_folder(options["output"])
    if machines.index == 0:
        start_model_folder(config)
    if weights and (strategy or not options["step"]):
        if machines.index == 0:
            write_weights(config, weights)
        else:
            distribution.wait_for_start(options["output"])
        weights = None  # they are there
    if options["step"]:
        with naming_damage(records):
            train(config, weights, records, machines, strategy, time_left)
    if machines.index == 0:
        outcome.conclude(options)
    if len(machines.addresses) > 1:
        distribution.leave()


def start_model_folder(config):
    """Lock, tidy and describe the model folder.

    Raises:
        UserError: another process uses it, or its latest checkpoint is damaged.
    """
    output = config["options"]["output"]
    atomic.lock_new(output)
    checkpoints.tidy(output)
    jsonfile.write(os.path.join(output, "model.json"), config)


def write_weights(config, weights):
    """Write the weights that the training starts from as a checkpoint, as if it had stopped at step 0.

    Raises:
        UserError: see warmstart.take_over.
    """
    options, size = config["options"], config["image_size"]
    with tf.Graph().as_default():
        tf.set_random_seed(options["seed"])
        tf.train.create_global_step()
        training_step({"image": tf.zeros([2, size, size, 3]), "label": tf.zeros([2], tf.int64)}, config)
        target = os.path.join(options["output"], "model.ckpt")
        warmstart.write_checkpoint(weights, config["classes"], target)
    if weights.temperature != 1 and sorted(weights.classes) == sorted(config["classes"]):
        checkpoints.write_temperature(target + "-0", weights.temperature)


def train(config, weights, records, machines, strategy, time_left):
    """Train to the last step, validate each checkpoint where there is a val split, and keep the best.

    Args:
        weights: a warmstart.Weights to begin with; or None.
        machines: a distribution.Machines.
        strategy: how the devices share the work, a tf.distribute.Strategy; or None.
        time_left: a TimeLeft, which learns how long the work takes.
    Raises:
        Stopped: by a stop signal; the state is saved.
        UserError: see outcome.explain.
    """
    from suite.training.hooks import FreshAdamHook, ProgressHook, SavingHook  # here: they bring TensorFlow

    options, is_first = config["options"], machines.index == 0
    output, first_step = options["output"], modelfolder.latest_step(options["output"])
    epoch_steps = records.count("train") / options["batch_size"]
    best = checkpoints.read_best(output)
    is_validated = checkpoints.is_validated(first_step, best)
    is_validated = is_validated and best["pictures"] == checkpoints.validated_on(records, options)

    if len(machines.addresses) > 1:  # one that saved alone would wait for the others, and these for it
        lifetime.stop_within_libraries()
        stop_signals = []
    else:
        stop_signals = lifetime.catch_stop_signals()
    log = monitor.Log(output if is_first else None, first_step, epoch_steps, is_validated)
    compiles, compiles_validation = xla.choose(config, strategy, *time_left.to_come())
    validator = None
    if is_first:
        validator = validation.open_validator(config, records, log, stop_signals, compiles_validation)
    if validator and first_step and not is_validated:  # killed before it was, or these are other pictures
        validator.catch_up(modelfolder.latest_checkpoint(output))

    def is_over():  # by --patience, in this run or in one that was killed before batch norm's turn
        return checkpoints.is_over(checkpoints.read_best(output), options)

    if not strategy and not is_over():
        time_left.say_estimate()

    batches = training_batches(config, records, machines, strategy)
    bar = terminal.progress_bar("starting", options["step"], first_step, "{desc} {bar}")
    progress = ProgressHook(options, bar, log, stop_signals, time_left)
    try:
        with distribution.watching(machines, options), bar, lifetime.temporary_folder() as spare:
            # Reading batch norm's statistics takes all machines, so all save; the first one's files are kept.
            saving = SavingHook(output if is_first else spare, options["save_num"], validator, time_left)
            for begin, last_step, classifier_only in phases(options, first_step):
                if modelfolder.latest_step(output) < last_step and not stop_signals and not is_over():
                    say("building the graph")
                    time_left.begin_phase(classifier_only)
                    estimator = make_estimator(config, weights, strategy, compiles, classifier_only)
                    # Each phase and each resumed run sees the pictures in another order.
                    reordered = functools.partial(batches, seed=options["seed"] + begin)
                    hooks = [progress, saving]
                    if options["freeze"] and not classifier_only:
                        hooks.append(FreshAdamHook(options["freeze"]))
                    distribution.run_estimator(estimator, reordered, last_step, hooks)
    except (tf.train.NanLossDuringTrainingError, tf.errors.OpError, OSError) as error:
        begun = first_step if is_first else None
        message = outcome.explain(error, config, progress, begun, time_left.devices)
        if not message:
            raise
        raise UserError(message) from error
    if stop_signals:
        raise Stopped(stop_signals[0], outcome.stopped(options))
    lifetime.stop_at_once()
    if is_first:
        batch_norm.recalibrate(config, records, validator)


def phases(options, first_step):
    """(first step, last step, whether the classifier alone is trained) of --freeze, and of what follows."""
    frozen = min(options["freeze"], options["step"])
    return (first_step, frozen, True), (max(first_step, frozen), options["step"], False)


def training_batches(config, records, machines, strategy):
    """A function of `seed`: reading.read_for_training, for this machine's share of the pictures."""
    options, replicas = config["options"], strategy.num_replicas_in_sync if strategy else 1
    return functools.partial(
        read_for_training,
        records,
        "train",
        batch_size=options["batch_size"] // replicas,
        augment=options["augment"],
        index=machines.index,
        num_shards=len(machines.addresses),
        normalize_as=None if device.gpus() else config["normalize"],  # on a GPU `model_fn` does the rest
    )


def make_estimator(config, weights, strategy, compiles, classifier_only):
    """A tf.estimator.Estimator of the whole network, or of the classifier alone."""
    options = config["options"]
    return tf.estimator.Estimator(
        functools.partial(model_fn, weights=weights),
        modelfolder.literal(options["output"]),
        run_config(options, strategy, compiles),
        {"config": config, "classifier_only": classifier_only},
    )


def model_fn(features, params, weights):
    """The training step, as tf.estimator asks for it.

    Args:
        features: a batch of reading.read_for_training.
        weights: see `train`.
    """
    config = params["config"]
    if device.gpus():
        features = dict(features, image=finish_views(features, config["normalize"]))
    spec = training_step(features, config, params["classifier_only"])
    if not tf.distribute.has_strategy():
        spec = spec._replace(scaffold=scaffold(config, weights))
    if not device.gpus() and not tf.distribute.has_strategy():
        memory.check_batch(config["options"]["batch_size"], spec.train_op)
    return spec


def scaffold(config, weights):
    """What starts the session, without asking twice whether each variable has a value: that takes seconds.

    All of them come from their initializers and the weights, or all from a checkpoint.
    """
    nothing = tf.constant([], tf.string)
    init_fn = weights and (lambda _, session: warmstart.take_over(session, weights, config["classes"]))
    return tf.train.Scaffold(ready_op=nothing, ready_for_local_init_op=nothing, init_fn=init_fn)


def run_config(options, strategy, compiles):
    """How tf.estimator runs, with XLA or without; the hooks save and log."""
    return tf.estimator.RunConfig(
        tf_random_seed=options["seed"],
        save_checkpoints_steps=None,
        save_checkpoints_secs=None,
        save_summary_steps=0,
        log_step_count_steps=None,
        keep_checkpoint_max=options["keep"],
        session_config=device.session_config(
            options["workers"], compiles, mixed_precision=options["mixed_precision"]
        ),
        train_distribute=strategy,
    )


if __name__ == "__main__":
    lifetime.run(main)
