"""How to train: named recipes as tables of settings, and what the settings mean in TensorFlow.

Each setting is also an option of train.py and overrides the recipe. benchmarks/accuracy.md has what
each recipe reaches, and what each setting of the modern one adds.
"""

from __future__ import annotations

import math

from suite.files.schemas import FINE_TUNING
from suite.process.tf_versions import tf

RECIPES = {
    # The article's network, with the optimizer that suits it best; the article itself names none.
    "article": {
        "zero_init_residual": False,
        "dropout": 0,
        "optimizer": "adam",
        "schedule": "exponential",
        "freeze": 0,
        "warmup": 0,
        "weight_decay": 1e-4,
        "label_smoothing": 0,
        "mixup": 0,
        "clip_norm": 0,
        "ema": 0,
        "augment": "flip",
        "class_weight": "none",
    },
    "modern": {
        "zero_init_residual": True,
        "dropout": 0,
        "optimizer": "momentum",
        "schedule": "cosine",
        "freeze": 0,
        "warmup": 0.05,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "mixup": 0,
        "clip_norm": 0,
        "ema": 0,
        "augment": "flip",
        "class_weight": "none",
    },
}
# From the weights of a --model, whose blocks end without a batch norm.
RECIPES[FINE_TUNING] = dict(RECIPES["modern"], zero_init_residual=False, freeze=0.2)

# Of the settings, those that are off where they are 0 or "none".
SWITCHES = ("label_smoothing", "mixup", "clip_norm", "ema")

LEARNING_RATES = {"adam": 0.001, "momentum": 0.05}  # of 32 pictures per step
FINE_TUNING_SLOWER = 5  # times, than that
MOMENTUM = 0.9

RECALIBRATED = 10000  # after trainings of up to so many steps, batch norm's statistics are made anew

EXPONENTIAL_END = 0.05  # the share of --lr that the exponential schedule ends at
STEPS_AT = (0.5, 0.75)  # where in the training the rate falls to a tenth, as in He et al. 2015


FEWEST, ENOUGH_EPOCHS = 100, 60  # steps that a small data set takes at least, and passes that teach it
# Of finetune: passes, the fewest and the most steps, and passes that there are even where that is more.
FINE_TUNING_STEPS = (ENOUGH_EPOCHS, FEWEST, 2000, 5)


def enough_steps(pictures: int, batch_size: int) -> int:
    """Steps that a small data set needs, to the ten."""
    return max(FEWEST, 10 * math.ceil(ENOUGH_EPOCHS * pictures / batch_size / 10))


def default_steps(recipe: str, pictures: int, batch_size: int) -> int:
    """How many steps it trains where no number is given: the article's, or by the pictures, see the help."""
    if recipe != FINE_TUNING:
        return 2000
    _, _, most, passes = FINE_TUNING_STEPS
    return max(min(enough_steps(pictures, batch_size), most), math.ceil(passes * pictures / batch_size))


def apply_recipe(options):
    """Fill in, in place, what was not given (None), from the recipe or from the number of steps.

    Args:
        options: the argparse.Namespace of options.parse_options, `recipe` and `step` being known.
    """
    for name, value in RECIPES[options.recipe].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.lr is None:
        options.lr = LEARNING_RATES[options.optimizer]
        options.lr /= FINE_TUNING_SLOWER if options.recipe == FINE_TUNING else 1
        if options.optimizer == "momentum":  # in proportion to the batch (Goyal et al. 2017)
            options.lr *= options.batch_size / 32
    for name in ("warmup", "freeze"):
        value = getattr(options, name)
        setattr(options, name, round(value * options.step if value < 1 else value))
    if options.bn_momentum is None:
        options.bn_momentum = bn_momentum(options.step)
    if options.bn_batches is None:
        few = options.step <= RECALIBRATED
        options.bn_batches = min(100, max(10, options.step // 20)) if few else 0


def bn_momentum(steps: int) -> float:
    """The moving statistics span a fiftieth of the training: 0.9 for 500 steps, 0.995 for 10,000.

    Never below 0.9 or above 0.997.
    """
    return min(0.997, 1 - 1 / max(10, steps / 50))


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
    share = tf.distributions.Beta(alpha, alpha).sample()
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
