"""How to train: named recipes as tables of settings. What they mean in TensorFlow is in optimization.py.

Each setting is also an option of train.py and overrides the recipe. benchmarks/accuracy.md has what
each recipe reaches, and what each setting of the modern one adds.
"""

from __future__ import annotations

import argparse
import math

from suite.files.schemas import FINE_TUNING

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

STEPS, BATCH_SIZE = 2000, 32  # the article's

OF_THE_PICTURES = ("augment", "class_weight")  # the settings that follow from them, whatever the network

# Of the settings, those that are off where they are 0 or "none".
SWITCHES = ("label_smoothing", "mixup", "clip_norm", "ema")

LEARNING_RATES = {"adam": 0.001, "momentum": 0.05}  # of BATCH_SIZE pictures per step
FINE_TUNING_SLOWER = 5  # finetune divides LEARNING_RATES by this

RECALIBRATED = 10000  # after trainings of up to so many steps, batch norm's statistics are made anew

FEWEST, ENOUGH_EPOCHS = 100, 60  # steps that a small data set takes at least, and passes that teach it
# finetune trains as many steps as that, up to MOST_TUNING_STEPS, but so many passes in any case.
MOST_TUNING_STEPS, LEAST_TUNING_EPOCHS = 2000, 5


def enough_steps(pictures: int, batch_size: int) -> int:
    """Steps that a small data set needs, to the ten."""
    return max(FEWEST, 10 * math.ceil(ENOUGH_EPOCHS * pictures / batch_size / 10))


def default_steps(recipe: str, pictures: int, batch_size: int) -> int:
    """How many steps it trains where no number is given: the article's, or by the pictures, see the help."""
    if recipe != FINE_TUNING:
        return STEPS
    enough = min(enough_steps(pictures, batch_size), MOST_TUNING_STEPS)
    return max(enough, math.ceil(LEAST_TUNING_EPOCHS * pictures / batch_size))


def default_save_num(step: int, patience: int = 0) -> int:
    """Steps between two checkpoints of a training of so many; often enough for --patience to end it."""
    return min(500, max(1, step // (4 * max(1, patience))))


def apply_recipe(options):
    """Fill in, in place, what was not given (None), from the recipe, the steps, the optimizer or the batch.

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
            options.lr *= options.batch_size / BATCH_SIZE
    for name in ("warmup", "freeze"):
        value = getattr(options, name)
        setattr(options, name, round(value * options.step if value < 1 else value))
    if options.bn_momentum is None:
        options.bn_momentum = bn_momentum(options.step)


def usual_settings(recipe, step, batch_size, optimizer=None, freeze=None):
    """{setting: value} that train.py takes where none is given; an optimizer or freeze changes others."""
    names = [*RECIPES[recipe], "lr", "bn_momentum"]
    taken = argparse.Namespace(**dict.fromkeys(names))
    taken.recipe, taken.step, taken.batch_size, taken.optimizer = recipe, step, batch_size, optimizer
    apply_recipe(taken)
    settings = {name: getattr(taken, name) for name in names}
    return {**settings, "bn_batches": bn_batches(step, settings["freeze"] if freeze is None else freeze)}


def of_the_pictures(options):
    """{setting: value} of OF_THE_PICTURES that are not the recipe's; options: model.json's."""
    usual = RECIPES[options["recipe"]]
    return {name: options[name] for name in OF_THE_PICTURES if options[name] != usual[name]}


def keep_settings(options, before):
    """On a resume, fill in, in place, what is not given now (None) but was when the training began.

    A setting counts as given then if it is another than the recipe made of the steps and the batch of then.
    What follows from the steps or the batch follows from the new ones.

    Args:
        before: the options of model.json, of the same recipe.
    """
    for name in ("batch_size", "optimizer", "patience"):
        if getattr(options, name) is None:
            setattr(options, name, before.get(name))
    of_then = (before["step"], before["batch_size"], options.optimizer, before.get("freeze", 0))
    usual = usual_settings(options.recipe, *of_then)
    usual["save_num"] = default_save_num(before["step"], before.get("patience", 0))
    for name, value in usual.items():
        if getattr(options, name) is None and before.get(name) not in (None, value):
            setattr(options, name, before[name])


def bn_batches(steps: int, freeze: int) -> int:
    """How many batches the statistics of batch norm are made anew from.

    0 after a long training, and where the classifier alone is trained: the statistics that are there stay.
    """
    if steps > RECALIBRATED or 0 < steps <= freeze:
        return 0
    return min(100, max(10, steps // 20))


def bn_momentum(steps: int) -> float:
    """The moving statistics span a fiftieth of the training: 0.9 for 500 steps, 0.995 for 10,000.

    Never below 0.9 or above 0.997.
    """
    return min(0.997, 1 - 1 / max(10, steps / 50))
