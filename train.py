"""Train the article's ResNet on the records that FlowIO.py made.

    python train.py [--data data/tfrecords] [--output models/resnet] [--layers 50] [--step 2000]

Writes a model folder: a checkpoint every --save_num steps, each validated, the best of them in
best/, model.json, and curves for TensorBoard. Running the same command again resumes; Ctrl-C saves
and stops.
"""

import math
import os
import platform
import shutil
import signal
import time

import FlowIO
import runtime
from runtime import UsageError, UserError, say, tf

DECAY = 0.05  # the learning rate falls exponentially to this share of --lr at the last step
KEEP = 5  # checkpoints


def main():
    options = parse_options()
    records = FlowIO.load_records(options.data)
    if not FlowIO.count(records, "train"):
        raise UserError("%s: no training pictures; make other records with FlowIO.py" % options.data)
    runtime.start(options)
    steps = total_steps(options, records)
    description = describe(options, records, steps)
    started_at = check_output(options.output, description)
    if started_at >= steps:
        say("%s is at step %d already; a larger --step trains on" % (options.output, started_at))
        return
    os.makedirs(options.output, exist_ok=True)
    runtime.write_json(os.path.join(options.output, "model.json"), description)
    announce(description, records, steps, started_at)
    with FlowIO.naming_damage(records):
        fit(description, records, steps, started_at)
    say("trained to step %d; next: python evaluate.py --model %s" % (steps, options.output))


def parse_options(arguments=None):
    parser = runtime.ArgumentParser(__doc__)
    number = runtime.number
    parser.add_argument("--data", default="data/tfrecords", help="folder that FlowIO.py wrote")
    parser.add_argument("--output", default="models/resnet", help="model folder to write, or to resume")

    group = parser.add_argument_group("network")
    group.add_argument("--layers", type=int, choices=(50, 101, 152), default=50, help="depth")
    group.add_argument("--mini", action="store_true", help="half the channels, for small pictures")
    group.add_argument(
        "--shortcut",
        choices=("zero_pad", "projection", "projection_all"),
        default="zero_pad",
        help="options A, B and C of He et al. 2015; the article takes A",
    )
    group.add_argument("--preactivation", action="store_true", help="as in He et al. 2016")
    group.add_argument(
        "--normalize",
        choices=("per_image", "minus1_1"),
        help="scale each picture to mean 0 and deviation 1, or 0..255 to -1..1 (default: per_image, "
        "with --preactivation minus1_1)",
    )

    group = parser.add_argument_group("training")
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--step", type=number(int, 1), default=2000, help="steps in all, counted over resumes"
    )
    length.add_argument("--epochs", type=number(float, 0), help="the same in passes over the pictures")
    group.add_argument("--batch_size", type=number(int, 2), default=32, help="pictures per step")
    group.add_argument("--lr", type=number(float, 0), default=0.001, help="learning rate at the start")
    group.add_argument(
        "--weight_decay",
        type=number(float, 0),
        default=1e-4,
        help="L2 penalty on convolution kernels",
    )
    group.add_argument(
        "--augment",
        choices=("none", "flip", "standard"),
        default="flip",
        help="flip: shifted and mirrored; standard: also resized and with other colours; none for "
        "pictures whose mirror image means something else",
    )
    group.add_argument("--save_num", type=number(int, 1), default=500, help="steps between checkpoints")
    group.add_argument("--log_num", type=number(int, 1), default=10, help="steps between log lines")
    group.add_argument("--seed", type=int, default=0, help="of weights, order and augmentation")
    options = parser.parse_args(arguments)
    if not options.normalize:
        options.normalize = "minus1_1" if options.preactivation else "per_image"
    return options


def total_steps(options, records):
    if options.epochs is None:
        return options.step
    return max(1, math.ceil(options.epochs * FlowIO.count(records, "train") / options.batch_size))


def describe(options, records, steps):
    """The content of model.json: everything that evaluate.py, predict.py and a resume need."""
    import numpy
    import PIL

    return {
        "format_version": runtime.MODEL_VERSION,
        "network": {
            "layers": options.layers,
            "mini": options.mini,
            "shortcut": options.shortcut,
            "preactivation": options.preactivation,
        },
        "classes": records.classes,
        "image_size": records.image_size,
        "keep_size": records.keep_size,
        "normalize": options.normalize,
        "options": dict(vars(options), step=steps),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
    }


def check_output(output, description):
    """The step that a model folder has reached: 0 where there is no model yet.

    Raises:
        UsageError, UserError: the folder holds another network than the one described.
    """
    checkpoint = runtime.latest_checkpoint(output)
    path = os.path.join(output, "model.json")
    if not checkpoint:
        return 0
    if not os.path.exists(path):
        raise UserError("%s: checkpoints without a model.json; choose another --output" % output)
    existing = runtime.read_json(path, runtime.MODEL_VERSION, "train.py")
    there = dict(existing["network"], normalize=existing["normalize"])
    asked = dict(description["network"], normalize=description["normalize"])
    for name in asked:
        if there[name] != asked[name]:
            raise UsageError(
                "--%s %s: %s was trained with %s; use that or another --output"
                % (name, asked[name], output, there[name])
            )
    for name in ("classes", "image_size"):
        if existing[name] != description[name]:
            raise UserError(
                "%s was trained on records of other %s (%s, now %s); choose another --output"
                % (output, name, show(existing[name]), show(description[name]))
            )
    return runtime.checkpoint_step(checkpoint)


def show(value):
    """A value for a message; of a long list only the start."""
    if isinstance(value, list):
        return "%d: %s" % (len(value), ", ".join(value[:5]) + (", ..." if len(value) > 5 else ""))
    return str(value)


def announce(description, records, steps, started_at):
    network, batch_size = description["network"], description["options"]["batch_size"]
    pictures = FlowIO.count(records, "train")
    say(
        "network: layer_%d%s, %s%s"
        % (
            network["layers"],
            " mini" if network["mini"] else "",
            network["shortcut"],
            ", preactivation" if network["preactivation"] else "",
        )
    )
    say(
        "pictures: %d to train and %d to validate on, %d classes, %d pixels"
        % (pictures, FlowIO.count(records, "val"), len(records.classes), records.image_size)
    )
    say("steps: %d of %d pictures, %.1f epochs" % (steps, batch_size, steps * batch_size / pictures))
    if started_at:
        say("resuming at step %d" % started_at)


def fit(description, records, steps, started_at):
    """Train from `started_at` to `steps`, and validate each checkpoint where there is a val split.

    Raises:
        runtime.Stopped: by SIGINT or SIGTERM; the state is saved.
        UserError: the loss is not a number any more.
    """
    options = description["options"]
    stop_signals = catch_stop_signals()

    def train_input():
        seed = options["seed"] + started_at  # a resumed run sees the pictures in another order
        return FlowIO.read(
            records,
            "train",
            options["batch_size"],
            options["normalize"],
            options["augment"],
            seed,
        )

    def val_input():
        if stop_signals:  # the state is saved by now, and nobody waits for a validation
            raise runtime.Stopped(stop_signals[0])
        return FlowIO.read(records, "val", options["batch_size"], options["normalize"])

    estimator = tf.estimator.Estimator(
        model_fn,
        options["output"],
        tf.estimator.RunConfig(
            tf_random_seed=options["seed"],
            save_checkpoints_steps=options["save_num"],
            save_summary_steps=options["log_num"],
            log_step_count_steps=options["log_num"],
            keep_checkpoint_max=KEEP,
            session_config=runtime.session_config(),
        ),
        description,
    )
    progress = progress_hook(options, steps, FlowIO.count(records, "train"), stop_signals)
    try:
        if FlowIO.count(records, "val"):
            tf.estimator.train_and_evaluate(
                estimator,
                tf.estimator.TrainSpec(train_input, max_steps=steps, hooks=[progress]),
                tf.estimator.EvalSpec(
                    val_input,
                    steps=None,
                    exporters=best_checkpoint(options["output"]),
                    start_delay_secs=0,
                    throttle_secs=0,
                ),
            )
        else:
            say("no validation pictures: the latest checkpoint counts as the best")
            estimator.train(train_input, max_steps=steps, hooks=[progress])
    except tf.train.NanLossDuringTrainingError as error:
        raise UserError(
            "the loss is not a number any more; run again with an --lr below %g and another --output"
            % options["lr"]
        ) from error
    if stop_signals:
        raise runtime.Stopped(stop_signals[0])


def model_fn(features, mode, params):
    """What tf.estimator trains: loss, metrics and the training step.

    Args:
        features: {"image": float32 [batch, size, size, 3], "label": int64 [batch]}.
        params: the content of model.json.
    """
    options, labels = params["options"], features["label"]
    is_train = mode == tf.estimator.ModeKeys.TRAIN
    logits = runtime.logits(features["image"], params["network"], params["classes"], is_train)
    cross_entropy = tf.losses.sparse_softmax_cross_entropy(labels, logits)
    kernels = [v for v in tf.trainable_variables() if v.op.name.endswith("kernel")]
    loss = cross_entropy + options["weight_decay"] * tf.add_n([tf.nn.l2_loss(v) for v in kernels])
    predicted = tf.argmax(logits, 1)
    if not is_train:
        metrics = {"accuracy": tf.metrics.accuracy(labels, predicted)}
        return tf.estimator.EstimatorSpec(mode, loss=loss, eval_metric_ops=metrics)

    step = tf.train.get_global_step()
    rate = tf.train.exponential_decay(options["lr"], step, options["step"], DECAY)
    minimize = tf.train.AdamOptimizer(rate).minimize(loss, step)
    # Without these the moving statistics of batch norm stay as they began, and a network that
    # trains well evaluates like a coin.
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    accuracy = tf.reduce_mean(tf.cast(tf.equal(labels, predicted), tf.float32))
    tf.summary.scalar("accuracy", accuracy)
    tf.summary.scalar("cross_entropy", cross_entropy)
    tf.identity(
        accuracy, "shown_accuracy"
    )  # for progress_hook; other names, or the curves would get a suffix
    tf.identity(cross_entropy, "shown_cross_entropy")
    tf.summary.scalar("learning_rate", rate)
    return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=tf.group(minimize, *updates))


def catch_stop_signals():
    """A list that the first SIGINT or SIGTERM is appended to; the second one stops at once."""
    received = []

    def handle(signal_number, frame):
        if received:
            raise runtime.Stopped(signal_number)
        received.append(signal_number)
        say("stopping after this step; a second signal stops at once, without saving")

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)
    return received


def progress_hook(options, steps, pictures, stop_signals):
    """A hook that prints a line every --log_num steps, and ends the training when asked to."""

    class Progress(tf.train.SessionRunHook):
        def begin(self):
            sizes = [v.shape.num_elements() for v in tf.trainable_variables()]
            say(f"parameters: {sum(sizes):,}")

        def after_create_session(self, session, coord):
            self.step = session.run(tf.train.get_global_step())
            self.busy = self.timed = 0  # seconds and steps since the last line
            self.warm = False

        def before_run(self, context):
            self.step += 1
            self.logs = self.step % options["log_num"] == 0 or self.step == steps
            self.began = time.time()
            # Fetching costs time, so only for the steps that are shown.
            fetches = ["shown_cross_entropy:0", "shown_accuracy:0"] if self.logs else []
            return tf.train.SessionRunArgs(fetches)

        def after_run(self, context, values):
            # Not of interest: the first step, which allocates memory and chooses kernels, and
            # those that saved and validated before this hook had its turn.
            if self.warm and self.step % options["save_num"]:
                self.busy += time.time() - self.began
                self.timed += 1
            self.warm = True
            if self.logs:
                self.line(*values.results)
            if stop_signals:
                context.request_stop()

        def line(self, loss, accuracy):
            speed = ""
            if self.timed:
                seconds = self.busy / self.timed
                left = round(seconds * (steps - self.step))
                speed = "  %.1f images/s  %d:%02d:%02d left" % (
                    options["batch_size"] / seconds,
                    left // 3600,
                    left // 60 % 60,
                    left % 60,
                )
            epoch = self.step * options["batch_size"] / pictures
            say(
                "step %d/%d  epoch %.1f  loss %.4f  accuracy %.3f%s"
                % (self.step, steps, epoch, loss, accuracy, speed)
            )
            self.busy = self.timed = 0

    return Progress()


def best_checkpoint(output):
    """An exporter that keeps the checkpoint with the highest validation accuracy in best/.

    Of two equal ones the one with the lower loss is better.
    New files are there before the pointer `checkpoint` names them, and old ones go after that, so
    that best/ is whole at any moment.
    """
    folder = os.path.join(output, "best")
    path = os.path.join(folder, "best.json")

    class BestCheckpoint(tf.estimator.Exporter):
        name = "best"

        def export(self, estimator, export_path, checkpoint_path, eval_result, is_the_final_export):
            accuracy, loss = float(eval_result["accuracy"]), float(eval_result["loss"])
            step = int(eval_result["global_step"])
            better = True
            if os.path.exists(path):
                best = runtime.read_json(path, runtime.MODEL_VERSION, "train.py")
                better = (accuracy, -loss) > (best["accuracy"], -best["loss"])
            say("step %d: validation accuracy %.4f%s" % (step, accuracy, ", the best" if better else ""))
            if not better:
                return
            os.makedirs(folder, exist_ok=True)
            parent, prefix = os.path.split(checkpoint_path)
            for name in os.listdir(parent):
                if name.startswith(prefix + "."):
                    shutil.copyfile(os.path.join(parent, name), os.path.join(folder, name))
            tf.train.update_checkpoint_state(folder, os.path.join(folder, prefix))
            content = {"step": step, "accuracy": accuracy, "loss": loss}
            runtime.write_json(path, dict(format_version=runtime.MODEL_VERSION, **content))
            for name in os.listdir(folder):
                if name.startswith("model.ckpt-") and not name.startswith(prefix + "."):
                    os.remove(os.path.join(folder, name))

    return BestCheckpoint()


if __name__ == "__main__":
    runtime.run(main)
