"""The options of train.py. What they are when they are not given is said by recipes.py and config.py."""

import argparse

from suite.files.schemas import (
    AUGMENTATIONS,
    LARGEST_DROPOUT,
    LAYERS,
    MODEL,
    NORMALIZATIONS,
    RECORDS,
    SHORTCUTS,
    SMALL_IMAGE,
    STEMS,
)
from suite.model import recipes
from suite.process import commandline


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's.

    What was not given and has no fixed default is None; see config.complete_options.
    """
    parser = commandline.ArgumentParser("Train the article's ResNet on the records that FlowIO.py made.")
    parser.add_argument("--data", default=RECORDS, help="folder that FlowIO.py wrote")
    parser.add_argument("--output", default=MODEL, help="model folder to write, or to resume")
    parser.add_argument("--image_size", type=no_image_size, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "--fresh", action="store_true", help="begin anew: a model in --output is set aside, whole, beside it"
    )
    parser.add_argument("--dry_run", action="store_true", help="say what would be trained, and stop")
    add_network(parser.add_argument_group("network"))
    add_training(parser.add_argument_group("training"))
    add_fine_tuning(parser.add_argument_group("fine-tuning"))
    add_recipe(parser.add_argument_group("recipe, and what overrides it"))
    add_hardware(parser.add_argument_group("hardware"))
    options = parser.parse_args(arguments)
    for name in ("lr", "epochs"):
        if getattr(options, name) == 0:
            parser.error("argument --%s: must be above 0" % name)
    if options.step == 0 and not options.model:
        parser.error("argument --step: 0 only writes the weights of a --model; name one")
    if options.folds and options.step == 0:
        parser.error("argument --folds: nothing is trained with --step 0; name more steps")
    if options.folds and options.patience:
        parser.error(
            "argument --folds: not with --patience, as what a fold stops by would be what it is measured by"
        )
    return options


def add_network(group):
    """The options that describe the network and its input; None where config.py decides."""
    group.add_argument("--layers", type=int, choices=LAYERS, help="depth (default: 50)")
    group.add_argument(
        "--mini", action="store_const", const=True, help="half the channels, for small pictures"
    )
    group.add_argument(
        "--shortcut",
        choices=SHORTCUTS,
        help="options A, B and C of He et al. 2015; the article takes A (default: zero_pad)",
    )
    group.add_argument("--preactivation", action="store_const", const=True, help="as in He et al. 2016")
    group.add_argument(
        "--stem",
        choices=STEMS,
        help="what it begins with: a 7x7 convolution and a pool, which quarter width and height; or small, "
        "for pictures of up to %d pixels: a 3x3 convolution that keeps them, and with it some 15 times as "
        "much to compute (default: article)" % SMALL_IMAGE,
    )
    group.add_argument(
        "--normalize",
        choices=NORMALIZATIONS,
        help="scale each picture to mean 0 and deviation 1, or 0..255 to -1..1 (default: per_image, "
        "with --preactivation minus1_1)",
    )


def add_training(group):
    """How long it trains, on how many pictures at a time, and what it keeps."""
    number = commandline.number
    length = group.add_mutually_exclusive_group()
    length.add_argument(
        "--step",
        type=number(int, 0),
        help="steps in all, counted over resumes (default: 2000; of finetune, %d passes over the pictures, "
        "but %d to %d steps, and %d passes in any case)"
        % (recipes.ENOUGH_EPOCHS, recipes.FEWEST, recipes.MOST_TUNING_STEPS, recipes.LEAST_TUNING_EPOCHS),
    )
    length.add_argument("--epochs", type=number(float, 0), help="the same in passes over the pictures")
    group.add_argument(
        "--batch_size",
        type=lambda text: text if text == "auto" else number(int, 2)(text),
        help="pictures per step, on all GPUs (default: %d); auto: as many as make it faster, found by trying"
        % recipes.BATCH_SIZE,
    )
    group.add_argument(
        "--save_num",
        type=number(int, 1),
        help="steps between checkpoints (default: 500, or a quarter of the steps where that is less, or of "
        "--patience so many for each quarter)",
    )
    group.add_argument(
        "--keep", type=number(int, 1, 999999), default=5, help="checkpoints kept, besides the best"
    )
    group.add_argument(
        "--patience",
        type=number(int, 0),
        help="stop when so many checkpoints in turn validate no better than the best, not counting those of "
        "--freeze (default: 0, never)",
    )
    group.add_argument(
        "--folds",
        type=number(int, 2, 100),
        metavar="N",
        help="train N models in OUTPUT/fold_1 ..., each without one part of the pictures to train and "
        "validate on; evaluate.py pools their answers to these parts, and lists labels that may be wrong",
    )
    group.add_argument("--log_num", type=number(int, 1), default=10, help="steps between log lines")
    group.add_argument("--seed", type=commandline.seed, default=0, help="of weights, order and augmentation")


def add_fine_tuning(group):
    """The weights that it starts from."""
    group.add_argument(
        "--model",
        help="start from these weights: imagenet, which is downloaded once; a model folder or checkpoint of "
        "ours, with any classes; TF-Slim's or Keras's file (.h5) of ResNet-50, 101 or 152 v2; with --step 0 "
        "they are only written as a model folder",
    )


def add_recipe(group):
    """--recipe, and the options that override it; None where the recipe decides."""
    group.add_argument(
        "--recipe",
        choices=tuple(recipes.RECIPES),
        help="table of settings (default: article, with --model finetune; a resume keeps its own)",
    )

    def add(name, help, **options):
        tables = recipes.RECIPES.items()
        values = ["%s %s" % (recipe, shown(table[name])) for recipe, table in tables if name in table]
        group.add_argument(
            "--" + name, help=help + (" (%s)" % ", ".join(values) if values else ""), **options
        )

    add_optimization(add)
    add_network_and_pictures(add)


def add_optimization(add):
    """How the weights move, and what holds them back.

    Args:
        add: as ArgumentParser.add_argument, for the name without dashes; its help gets the recipes' values.
    """
    number = commandline.number
    add("optimizer", "momentum is Nesterov's", choices=tuple(recipes.LEARNING_RATES))
    rates = ", ".join("%s %g" % pair for pair in recipes.LEARNING_RATES.items())
    add(
        "lr",
        "the highest learning rate (%s; momentum's for %d pictures per step, in proportion; of finetune a "
        "fifth)" % (rates, recipes.BATCH_SIZE),
        type=number(float, 0),
    )
    add(
        "schedule",
        "how the learning rate falls",
        choices=("constant", "exponential", "cosine", "steps"),
    )
    add(
        "freeze",
        "steps at first that train the classifier only; below 1 a share of all",
        type=number(float, 0),
    )
    add("warmup", "steps in which it rises from 0; below 1 a share of all", type=number(float, 0))
    add("weight_decay", "L2 penalty on weights, not on biases or batch norm", type=number(float, 0))
    add("label_smoothing", "share of each label that all classes get", type=number(float, 0, 1))
    add("mixup", "alpha of the blending of pictures; 0: none", type=number(float, 0))
    add("clip_norm", "largest norm of the gradient; 0: any", type=number(float, 0))
    add("ema", "decay of averaged weights, which evaluate; 0: none", type=number(float, 0, 1))


def add_network_and_pictures(add):
    """What the network and its pictures are while it trains; `add`: see `add_optimization`."""
    number = commandline.number
    add(
        "dropout",
        "share of the features dropped before the classifier cnn_to_fc; 0: the 1x1 convolution",
        type=number(float, 0, LARGEST_DROPOUT),
    )
    add(
        "zero_init_residual",
        "batch norm also after the third convolution of a block, its scale starting at 0",
        type=yes_or_no,
        nargs="?",
        const=True,
        metavar="yes|no",
    )
    add(
        "augment",
        "flip: mirrored, and cut out elsewhere where they are larger than the network's view; standard: "
        "also resized and with other colours; none for pictures whose mirror image means something else",
        choices=AUGMENTATIONS,
    )
    add(
        "class_weight",
        "balanced: pictures of rare classes weigh more, so that all classes count alike, in validation too",
        choices=("none", "balanced"),
    )
    add(
        "bn_momentum",
        "share of batch norm's moving averages that stays at each step (by the number of steps)",
        type=number(float, 0, 1),
    )
    add(
        "bn_batches",
        "batches over which batch norm's statistics are made anew after training; 0: the moving averages "
        "stay (default: a twentieth of the steps, 10 to 100, and 0 beyond %d steps)" % recipes.RECALIBRATED,
        type=number(int, 0),
    )


def add_hardware(group):
    """What it computes with, besides --device."""
    group.add_argument("--mixed_precision", action="store_true", help="float16 where it is safe, on GPUs")
    group.add_argument(
        "--xla",
        nargs="?",
        choices=("auto", "yes", "no"),
        const="yes",
        default="auto",
        help="let XLA compile the network, on GPUs; auto: where that is expected to save time",
    )
    group.add_argument(
        "--workers",
        type=commandline.number(int, 0),
        default=0,
        help="CPU threads, 0: all cores; with 1 the same --seed gives the same weights, bit for bit",
    )


def no_image_size(text):
    """An argparse type that takes nothing."""
    raise argparse.ArgumentTypeError(
        "the records have it; FlowIO.py --image_size %s makes others, of that size" % text
    )


def yes_or_no(text):
    """An argparse type: a bool."""
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError("%r is neither yes nor no" % text)
    return text == "yes"


def shown(value):
    """A setting as the user would give it: yes and no for a bool."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def same_command(options):
    """For a message: how to go on; options: model.json's."""
    return "the same command" + (" without --fresh" if options["fresh"] else "")
