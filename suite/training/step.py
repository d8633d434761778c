"""One step of a training: the loss, the optimizer, and what is shown of them."""

from suite.model.network import STATISTICS, build_logits
from suite.process.tf_versions import tf
from suite.training import optimization

PICTURES_SHOWN = 8  # augmented ones in TensorBoard

# {name in log.csv: name in the graph}, of a batch; the loss is the cross entropy, without the weight penalty.
SHOWN = {name: "shown_%s:0" % name for name in ("step", "loss", "accuracy", "learning_rate")}
PICTURES = "shown_pictures:0"  # a summary of those that it trains on; empty on machines but the first


def training_step(features, config, classifier_only=False):
    """The tf.estimator.EstimatorSpec of a training.

    Args:
        features: {"image": float32 [batch, size, size, 3], "label": int64 [batch]}.
        config: the content of model.json.
        classifier_only: the rest of the network stays as it is.
    """
    options, network, classes = (config[name] for name in ("options", "network", "classes"))
    images, targets = features["image"], tf.one_hot(features["label"], len(classes))
    if options["mixup"]:
        images, targets = optimization.mixup(images, targets, options["mixup"])
    data_format = "NHWC" if options["mixed_precision"] else None  # what float16 is fastest in
    logits = build_logits(
        images, network, classes, not classifier_only, data_format, bn_momentum=options["bn_momentum"]
    )
    right, importance = tf.argmax(targets, 1), 1.0  # the latter of each picture
    if options["class_weight"] == "balanced":
        counts = config["dataset"]["counts"]["train"]
        targets *= optimization.class_weights([counts[name] for name in classes])
        importance = tf.reduce_sum(targets, 1)
        targets /= importance[:, tf.newaxis]  # of a blend each class counts by its own weight
    cross_entropy = tf.losses.softmax_cross_entropy(
        targets, logits, importance, label_smoothing=options["label_smoothing"]
    )
    trained = [v for v in tf.trainable_variables() if not classifier_only or v.name.startswith("logits/")]
    loss = cross_entropy + options["weight_decay"] * optimization.weight_penalty(trained)

    step = tf.train.get_global_step()
    rate = optimization.learning_rate(options, step)
    train_op = minimize(loss, trained, optimization.optimizer(options, rate), options["clip_norm"], step)
    # Without these the moving statistics of batch norm stay as they began, and a network that
    # trains well evaluates like a coin.
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)
    with tf.control_dependencies([train_op]):
        reached = step.read_value()  # which is no further where a loss scale passes over the batch
    if options["ema"]:
        averaged = tf.trainable_variables()
        if options["ema_statistics"]:
            averaged += [v for v in tf.global_variables() if v.op.name.endswith(STATISTICS)]
        with tf.control_dependencies([train_op, *updates]):
            train_op = tf.train.ExponentialMovingAverage(options["ema"], step).apply(averaged)

    correct = tf.equal(right, tf.argmax(logits, 1))
    accuracy = tf.reduce_mean(tf.cast(correct, tf.float32))
    for name, value in zip(SHOWN, (reached, cross_entropy, accuracy, rate)):
        tf.identity(value, "shown_" + name)
    tf.identity(tf.summary.image("pictures", images, PICTURES_SHOWN, collections=[]), "shown_pictures")
    return tf.estimator.EstimatorSpec(
        tf.estimator.ModeKeys.TRAIN,
        loss=loss,
        train_op=tf.group(train_op, *updates),
    )


def minimize(loss, variables, optimizer, clip_norm, step):
    """An operation that moves the variables, and counts the step.

    Args:
        clip_norm: the largest norm of the gradient; 0: any.
    """
    gradients, variables = zip(*optimizer.compute_gradients(loss, variables))
    if clip_norm:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:  # the norm of the whole batch's gradient counts, of which each device has a part
            gradients = tf.distribute.get_replica_context().merge_call(sum_up, [gradients])
            gradients = [gradient / replicas for gradient in gradients]
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm / replicas)
    # Frozen weights get zeros, which change nothing, so that they have slots when they thaw.
    still = [(tf.zeros_like(v), v) for v in tf.trainable_variables() if v not in variables]
    return optimizer.apply_gradients(list(zip(gradients, variables)) + still, step)


def sum_up(strategy, gradients):
    """The sums over all devices, for each of them; see tf.distribute.ReplicaContext.merge_call."""
    pairs = [(gradient, gradient) for gradient in gradients]
    return strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
