"""What the settings of a recipe mean in TensorFlow."""

from __future__ import annotations

from suite.process.tf_versions import tf

MOMENTUM = 0.9
EXPONENTIAL_END = 0.05  # the share of --lr that the exponential schedule ends at
STEPS_AT = (0.5, 0.75)  # where in the training the rate falls to a tenth, as in He et al. 2015


def learning_rate(options, step):
    """The rate at a step, a scalar float32 tensor.

    Args:
        options: {"lr", "schedule", "warmup" and "step" (both in steps)}.
        step: scalar integer tensor, from 0.
    """
    lr, steps = options["lr"], options["step"]
    if options["schedule"] == "cosine":
        rate = tf.train.cosine_decay(lr, step, steps)
    elif options["schedule"] == "exponential":
        rate = tf.train.exponential_decay(lr, step, steps, EXPONENTIAL_END)
    elif options["schedule"] == "steps":
        boundaries = [int(share * steps) for share in STEPS_AT]
        rate = tf.train.piecewise_constant(step, boundaries, [lr, lr / 10, lr / 100])
    else:
        rate = tf.constant(lr)
    if options["warmup"]:
        rate *= tf.minimum(1.0, tf.cast(step + 1, tf.float32) / options["warmup"])
    return rate


def optimizer(options, rate):
    """A tf.train.Optimizer: Adam (Kingma and Ba 2014), or Nesterov's momentum.

    Args:
        options: {"optimizer", "mixed_precision"}.
        rate: scalar float32 tensor.
    """
    if options["optimizer"] == "adam":
        chosen = tf.train.AdamOptimizer(rate)
    else:
        chosen = tf.train.MomentumOptimizer(rate, MOMENTUM, use_nesterov=True)
    if options["mixed_precision"]:
        chosen = tf.train.experimental.enable_mixed_precision_graph_rewrite(chosen)
    return chosen


def mixup(images, targets, alpha):
    """Zhang et al. 2017: blend the batch, and its targets, with itself in reverse order.

    Args:
        images: float32 [batch, size, size, 3].
        targets: float32 [batch, classes].
        alpha: above 0; the share of each is drawn from Beta(alpha, alpha), one for the batch.
    Returns:
        Images and targets of the same shapes.
    """
    # By logarithms, as of a small alpha float32 has no number for either: a variable of Gamma(alpha) is one
    # of Gamma(alpha + 1) times a uniform one to the power of 1 / alpha.
    gammas = tf.log(tf.random_gamma([2], alpha + 1)) + tf.log(tf.random_uniform([2], 1e-30)) / alpha
    share = tf.sigmoid(gammas[0] - gammas[1])
    return [share * x + (1 - share) * tf.reverse(x, [0]) for x in (images, targets)]


def class_weights(counts: list[int]) -> list[float]:
    """Weights that make each class count alike, on average 1: n / (classes * n of the class).

    Args:
        counts: pictures of each class; a class without any gets 0.
    """
    return [sum(counts) / (len(counts) * n) if n else 0.0 for n in counts]


def weight_penalty(variables):
    """Half the sum of squares of all weights but biases and batch norms' scales and offsets: a scalar."""
    # Not v.op.name: on the second GPU that ends with "replica_1".
    return tf.add_n([tf.nn.l2_loss(v) for v in variables if v.name.endswith(("kernel:0", "weight:0"))])
