"""Train the article's ResNet on the records that FlowIO.py made.

    python train.py [--data data/tfrecords] [--output models/resnet] [--layers 50] [--step 2000]

Writes a model folder: a checkpoint every --save_num steps, each validated, the best of them in best/,
model.json, log.csv, and curves for TensorBoard. Running the same command again resumes; Ctrl-C saves and
stops. settings.py has the options, recipes.py what a recipe is.
"""

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import os
import shutil

from suite.files import atomic, jsonfile
from suite.model import modelfolder, warmstart
from suite.model.network import build_logits
from suite.process import device, errors, lifetime, terminal
from suite.process.errors import UserError
from suite.process.terminal import say
from suite.process.tf_versions import tf
from suite.records import reading
from suite.training import checkpoints, distribution, memory, monitor, recipes, settings, validation

PICTURES_SHOWN = 8  # augmented ones in TensorBoard


def main():
    """Train, resume, or say what would be trained."""
    options = settings.parse_options()
    machines = distribution.read_environment()
    atomic.hold(options.data)
    records = reading.load_records(options.data)
    if not records.count("train"):
        raise UserError("%s: no training pictures; make other records with FlowIO.py" % options.data)
    device.start(options)
    existing = settings.read_existing(options.output)
    source = warmstart.open_source(options.model) if options.model and not existing else None
    settings.complete(options, records, existing, source)
    description = settings.describe(options, records)
    if existing:
        settings.check_existing(existing, description)
    strategy = distribution.choose_strategy(machines, options)
    announce(description, records, existing)
    if options.dry_run:
        memory.report(description, records, training_step)
        return
    if existing and is_done(options, records.count("val")):
        return

    if machines.index == 0:
        prepare(description, source)
    elif source:
        distribution.wait_for_start(options.output)
    if options.step:
        with reading.naming_damage(records):
            fit(description, records, machines, strategy)
    if machines.index == 0:
        conclude(options)
    if len(machines.addresses) > 1:
        distribution.leave()


def announce(description, records, existing):
    """Say what will be trained, on what, for how long and how; `existing`: the model.json that it resumes."""
    network, options = description["network"], description["options"]
    pictures = records.count("train")
    switches = [name for name in ("preactivation", "zero_init_residual", "dropout") if network[name]]
    parts = ["layer_%d%s" % (network["layers"], " mini" if network["mini"] else ""), network["shortcut"]]
    say("network: %s" % ", ".join(parts + switches))
    say(
        "pictures: %d to train and %d to validate on, %d classes, %d pixels"
        % (pictures, records.count("val"), len(records.classes), records.image_size)
    )
    epochs = options["step"] * options["batch_size"] / pictures
    say("steps: %d of %d pictures, %.1f epochs" % (options["step"], options["batch_size"], epochs))
    names = ("optimizer", "lr", "schedule", "warmup", *recipes.SWITCHES)
    say("recipe: %s" % ", ".join("%s %s" % (name, options[name]) for name in names if options[name]))
    if existing:
        other = options["model"] not in (None, existing["options"].get("model"))
        ignored = "; --model is for new trainings and changes nothing" if other else ""
        say("resuming at step %d%s" % (modelfolder.latest_step(options["output"]), ignored))


def is_done(options, validates):
    """Whether nothing is left to do, which is said; `validates`: whether there are pictures for that."""
    step, best = modelfolder.latest_step(options.output), checkpoints.read_best(options.output)
    over = checkpoints.is_over(best, options.patience)
    if step < options.step and not over:
        return False
    # A run that was killed after the last step left what follows it.
    validated = not validates or checkpoints.is_validated(step, best)
    recalibrated = not options.bn_batches or bool(best) and best["recalibrated"]
    if step <= options.step and not (validated and recalibrated):
        return False
    how, more = ("stopped early", "--patience") if step < options.step else ("is", "--step")
    say("%s %s at step %d already; a larger %s trains on" % (options.output, how, step, more))
    return True


def conclude(options):
    """Say what came out, and what to do with it."""
    best = checkpoints.read_best(options.output)
    if checkpoints.is_over(best, options.patience):
        turns = terminal.counted(options.patience, "checkpoint")
        say("stopped early: %s in turn validated no better than step %d" % (turns, best["step"]))
    if best and best["accuracy"] is not None:
        say("best: step %d, validation accuracy %.4f" % (best["step"], best["accuracy"]))
    say(
        "trained to step %d; next: python evaluate.py --model %s"
        % (modelfolder.latest_step(options.output), options.output)
    )


def prepare(description, source):
    """Lock, tidy and describe the model folder, and write the weights of `source`, if there is one.

    Raises:
        UserError: another process uses it, its latest checkpoint is damaged, or the weights do not fit.
    """
    output = description["options"]["output"]
    os.makedirs(output, exist_ok=True)
    atomic.hold(output, alone=True)
    checkpoints.tidy(output)
    jsonfile.write(os.path.join(output, "model.json"), description)
    if source:
        write_start(source, description)


def write_start(source, description):
    """Write model.ckpt-0 with the weights of another checkpoint, as if we had stopped there."""
    size, options = description["image_size"], description["options"]
    with tf.Graph().as_default():
        tf.set_random_seed(options["seed"])
        tf.train.create_global_step()
        features = {"image": tf.zeros([2, size, size, 3]), "label": tf.zeros([2], tf.int64)}
        training_step(features, description)
        warmstart.write(source, description["classes"], os.path.join(options["output"], "model.ckpt"))


def fit(description, records, machines, strategy):
    """Train to the last step, validate each checkpoint where there is a val split, and keep the best.

    Args:
        machines: a distribution.Cluster.
        strategy: how the devices share the work, a tf.distribute.Strategy; or None.
    Raises:
        errors.Stopped: by SIGINT or SIGTERM; the state is saved.
        UserError: see `failure`.
    """
    options, is_first = description["options"], machines.index == 0
    started_at = modelfolder.latest_step(options["output"])
    stop_signals = monitor.catch_stop_signals()
    epoch_steps = records.count("train") / options["batch_size"]
    is_validated = checkpoints.is_validated(started_at, checkpoints.read_best(options["output"]))
    log = monitor.Log(options["output"] if is_first else None, started_at, epoch_steps, is_validated)
    validator = start_validation(description, records, log, stop_signals) if is_first else None
    if validator and started_at and not is_validated:  # it was killed after it had saved that checkpoint
        validator.validate(modelfolder.latest_checkpoint(options["output"]))
    progress = monitor.progress_hook(options, log, stop_signals)
    replicas = strategy.num_replicas_in_sync if strategy else 1

    def train_input():
        return reading.read_for_training(
            records,
            "train",
            options["batch_size"] // replicas,
            description["normalize"],
            options["augment"],
            options["seed"] + started_at,  # a resumed run sees the pictures in another order
            machines.index,
            len(machines.addresses),
        )

    try:
        with distribution.watching(machines, options), lifetime.temporary_folder() as spare:
            # Reading batch norm's statistics takes all machines, so all save; that of the first one counts.
            folder = options["output"] if is_first else spare
            for frozen, last_step in ((True, options["freeze"]), (False, options["step"])):
                if modelfolder.latest_step(options["output"]) < last_step and not stop_signals:
                    estimator = tf.estimator.Estimator(
                        model_fn(description, frozen, folder, validator.validate if validator else None),
                        options["output"],
                        run_config(options, strategy),
                    )
                    distribution.train(estimator, train_input, last_step, progress)
    except (tf.train.NanLossDuringTrainingError, tf.errors.OpError, OSError) as error:
        message = failure(error, description, progress, started_at if is_first else None)
        if not message:
            raise
        raise UserError(message) from error
    if stop_signals:
        raise errors.Stopped(stop_signals[0])
    lifetime.stop_at_once()
    if is_first:
        validation.recalibrate(description, records, modelfolder.latest_step(options["output"]), validator)


def start_validation(description, records, log, stop_signals):
    """The Validation of the checkpoints to come, or None where there are no pictures for it."""
    output = description["options"]["output"]
    if not records.count("val"):
        say("no validation pictures: the latest checkpoint counts as the best")
        shutil.rmtree(os.path.join(output, checkpoints.BEST), ignore_errors=True)
        return None
    return validation.Validation(description, records, log, stop_signals)


def failure(error, description, progress, started_at):
    """What to say of the exception that ended the training; None where that says enough itself.

    Args:
        progress: the hook that saw the last step.
        started_at: the step; None on all machines but the first, which leave the model folder alone.
    """
    options = description["options"]
    if isinstance(error, tf.train.NanLossDuringTrainingError):
        return spoilt(progress, options, started_at)
    if "OOM when allocating" in str(error):
        return memory.out_of_memory(description, training_step)
    if not atomic.is_full_disk(error):
        return None
    if started_at is not None:
        checkpoints.tidy(options["output"])
    message = "%s: no space left to save there; with more of it the same command goes on from step %d"
    return message % (options["output"], modelfolder.latest_step(options["output"]))


def spoilt(progress, options, started_at):
    """What to say where the loss is not a finite number any more.

    Of the checkpoints since `started_at` only good ones stay, so not that of the step before.
    """
    if started_at is not None:
        checkpoints.drop_spoilt(options["output"], max(started_at, progress.step - 2))
    good = modelfolder.latest_checkpoint(options["output"])
    rest = "the same command with an --lr below %g %s" % (
        options["lr"],
        "goes on from %s" % good if good else "starts anew; there is no good checkpoint yet",
    )
    message = "the loss is not a finite number any more at step %d, with a learning rate of %.3g; %s"
    return message % (progress.step, progress.rate, rest)


def model_fn(description, *arguments):
    """training_step as tf.estimator calls it; a closure, because its `params` would be copied."""

    def call(features):
        step = training_step(features, description, *arguments)
        if not device.gpus() and not tf.distribute.has_strategy():
            memory.check(description["options"]["batch_size"], step.train_op)
        return step

    return call


def run_config(options, strategy):
    """How tf.estimator runs; checkpoints.py saves, and monitor.py logs."""
    config = device.session_config(options["workers"])
    if options["xla"]:
        config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
    return tf.estimator.RunConfig(
        tf_random_seed=options["seed"],
        save_checkpoints_steps=None,
        save_checkpoints_secs=None,
        save_summary_steps=0,
        log_step_count_steps=None,
        keep_checkpoint_max=options["keep"],
        session_config=config,
        train_distribute=strategy,
    )


def scaffold():
    """What starts the session, without asking twice whether each variable has a value: that takes seconds.

    All of them come from their initializers or all from a checkpoint.
    """
    nothing = tf.constant([], tf.string)
    return tf.train.Scaffold(ready_op=nothing, ready_for_local_init_op=nothing)


def training_step(features, description, frozen=False, folder=None, validate=None):
    """What tf.estimator runs at each step: the loss, the optimizer, and what is saved and shown of them.

    Args:
        features: {"image": float32 [batch, size, size, 3], "label": int64 [batch]}.
        description: the content of model.json.
        frozen: train the classifier only; the rest of the network stays as it is.
        folder: for the checkpoints; by default the model folder.
        validate: see checkpoints.saving_hook.
    """
    options, network, classes = (description[name] for name in ("options", "network", "classes"))
    images, targets = features["image"], tf.one_hot(features["label"], len(classes))
    if options["mixup"]:
        images, targets = recipes.mix(images, targets, options["mixup"])
    layout = "NHWC" if options["mixed_precision"] else None  # what float16 is fastest in
    logits = build_logits(images, network, classes, not frozen, layout, bn_momentum=options["bn_momentum"])
    weights = 1.0
    if options["class_weight"] == "balanced":
        counts = description["dataset"]["counts"]["train"]
        weights = tf.linalg.matvec(targets, recipes.class_weights([counts[name] for name in classes]))
    cross_entropy = tf.losses.softmax_cross_entropy(
        targets, logits, weights, label_smoothing=options["label_smoothing"]
    )
    variables = [v for v in tf.trainable_variables() if not frozen or v.name.startswith("logits/")]
    loss = cross_entropy + options["weight_decay"] * recipes.weight_penalty(variables)

    step = tf.train.get_global_step()
    rate = recipes.learning_rate(options, step)
    optimizer = recipes.optimizer(options, rate)
    gradients, variables = zip(*optimizer.compute_gradients(loss, variables))
    if options["clip_norm"]:
        gradients, _ = tf.clip_by_global_norm(gradients, options["clip_norm"])
    # Frozen weights get zeros, which change nothing, so that they have slots when they thaw.
    still = [(tf.zeros_like(v), v) for v in tf.trainable_variables() if v not in variables]
    train_op = optimizer.apply_gradients(list(zip(gradients, variables)) + still, step)
    if options["ema"]:
        averages = tf.train.ExponentialMovingAverage(options["ema"], step)
        with tf.control_dependencies([train_op]):
            train_op = averages.apply(tf.trainable_variables())
    # Without these the moving statistics of batch norm stay as they began, and a network that
    # trains well evaluates like a coin.
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)

    right = tf.equal(tf.argmax(targets, 1), tf.argmax(logits, 1))
    accuracy = tf.reduce_mean(tf.cast(right, tf.float32))
    for name, value in (("accuracy", accuracy), ("cross_entropy", cross_entropy), ("learning_rate", rate)):
        tf.identity(value, "shown_" + name)  # for monitor.py
    pictures = tf.summary.image("pictures", images, PICTURES_SHOWN, collections=[])
    saving = checkpoints.saving_hook(folder or options["output"], options["save_num"], pictures, validate)
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.TRAIN,
        loss=loss,
        train_op=tf.group(train_op, *updates),
        training_hooks=[saving],
        scaffold=None if tf.distribute.has_strategy() else scaffold(),
    )


if __name__ == "__main__":
    lifetime.run(main)
