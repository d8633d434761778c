"""What model.json holds of a training: its config, from options, records and what was there before."""

import math
import os
import platform

import numpy
import PIL

from suite.files.schemas import FINE_TUNING, IMAGENET, SMALL_IMAGE
from suite.model import modelfolder, recipes, warmstart
from suite.model.network import NETWORK, complete
from suite.process import commandline, device
from suite.process.errors import UsageError
from suite.process.terminal import say, say_once
from suite.process.tf_versions import tf
from suite.records import fingerprints
from suite.training.options import shown

MANY_EPOCHS = 200  # passes over the pictures that are worth a remark


def complete_options(options, records, existing, weights):
    """Fill in, in place, what was not given.

    Args:
        options: from options.parse_options.
        records: see reading.Records.
        existing: the content of model.json in --output, or None.
        weights: a warmstart.Weights, or None.
    """
    if existing and not options.model:
        options.model = existing["options"].get("model")  # with which the same command may come again
    elif options.model and options.model.lower() != IMAGENET:
        options.model = os.path.abspath(options.model)  # it may come from another folder
    if not options.model and (options.freeze or options.recipe == FINE_TUNING):
        name = "freeze" if options.freeze else "recipe finetune"
        raise UsageError("--%s: needs the weights of a --model" % name)
    if weights:
        warn_of_other_pictures(options, records, weights)
        warn_of_leak(fingerprints.from_json((weights.fingerprints or {}).get("train")), records)
    if weights and options.folds:
        refuse_seen(options, records, weights)
    complete_network(options, existing, weights)
    if not options.recipe:
        options.recipe = choose_recipe(options, existing, weights)
    if options.patience and not records.count("val"):
        message = "--patience %d: %s has no pictures to validate on, by which to stop; leave it out"
        raise UsageError(message % (options.patience, records.name))
    before = existing["options"] if existing else {}
    if "step" in before and options.recipe == before.get("recipe"):
        recipes.keep_settings(options, before)
    if weights:
        keep_settings_of_pictures(options, weights)
    options.batch_size = options.batch_size or recipes.BATCH_SIZE
    options.patience = options.patience or 0
    pictures = records.count("train")
    if options.epochs is not None:
        options.step = max(1, math.ceil(options.epochs * pictures / options.batch_size))
    elif options.step is None:
        options.step = recipes.default_steps(options.recipe, pictures, options.batch_size)
    if options.save_num is None:
        options.save_num = recipes.default_save_num(options.step, options.patience)
    if options.patience and options.step and options.step // options.save_num <= options.patience:
        message = "warning: --patience %d: will not end %d steps with --save_num %d; a smaller one lets it"
        say_once(message % (options.patience, options.step, options.save_num))
    freeze = options.freeze
    recipes.apply_recipe(options)
    if existing and modelfolder.latest_step(options.output):  # what has thawed does not freeze again
        begun_with = before.get("freeze", 0)
        if freeze is not None and options.freeze != begun_with:
            say("--freeze stays %d, with which it was begun" % begun_with)
        options.freeze = begun_with
    if options.bn_batches is None:
        options.bn_batches = recipes.bn_batches(options.step, options.freeze)
    if options.mixed_precision and not device.gpus():
        say_once("warning: --mixed_precision: without a GPU all is computed in float32")
    # Older trainings, which are resumed as they were begun, average the weights alone.
    options.ema_statistics = before.get("ema_statistics", False) if existing else True


def keep_settings_of_pictures(options, weights):
    """Take, in place, what was given for the pictures that the weights are from, as no mirrored digits."""
    for name in recipes.OF_THE_PICTURES:
        value = weights.settings.get(name)
        if getattr(options, name) is None and value not in (None, recipes.RECIPES[options.recipe][name]):
            setattr(options, name, value)
            say_once("--%s %s, as %s was trained with it" % (name, value, options.model))


def complete_network(options, existing, weights):
    """Fill in, in place, what describes the network and was not given; see `complete_options`."""
    known = complete(existing["network"]) if existing else complete(weights.network) if weights else {}
    for name, value in NETWORK.items():
        if getattr(options, name) is None:
            setattr(options, name, known.get(name, value))
    if not options.normalize and known:
        options.normalize = existing["normalize"] if existing else weights.normalize
    if not options.normalize:
        options.normalize = "minus1_1" if options.preactivation else "per_image"


def choose_recipe(options, existing, weights):
    """The recipe where none is given; a resume and --step 0 keep that of the model that they start from."""
    if existing:
        return existing["options"].get("recipe", "article")
    if not weights:
        return "article"
    return weights.recipe if options.step == 0 and weights.recipe else FINE_TUNING


def open_weights(options):
    """The warmstart.Weights that --model names, of a network that the other options allow.

    Raises:
        UsageError: they ask for another; before anything is downloaded.
        UserError: see warmstart.open_weights.
    """
    if warmstart.is_imagenet(options.model):
        refuse_other(options, warmstart.slims_network(options.layers or 50), "minus1_1", IMAGENET)
    weights = warmstart.open_weights(options.model, options.layers)
    refuse_other(options, weights.network, weights.normalize, weights.checkpoint)
    return weights


def refuse_other(options, network, normalize, name):
    """Raises UsageError where options ask for another network than the weights called `name` are of."""
    for option, value in dict(complete(network), normalize=normalize).items():
        asked = getattr(options, option)
        if option == "dropout":  # is the classifier's, which may be another
            continue
        if asked not in (None, value):
            values = option, shown(asked), name, shown(value)
            raise UsageError("--%s %s: %s is of a network with %s; leave it out" % values)


def warn_of_other_pictures(options, records, weights):
    """Say where the weights saw pictures of another size or fit."""
    seen, here = (weights.image_size, weights.fit), (records.image_size, records.fit)
    if weights.image_size and seen != here:
        say_once(
            "warning: %s saw %d pixels (--fit %s), the records have %d (%s); FlowIO.py --image_size %d "
            "--fit %s makes such as it knows" % (options.model, *seen, *here, *seen)
        )


def refuse_seen(options, records, weights):
    """Raises UsageError where the weights know pictures of --folds: no answer would be out of fold."""
    here = fingerprints.from_json(records.fingerprints.get("train"))
    known = [fingerprints.from_json(each) for each in (weights.fingerprints or {}).values()]
    seen = sum(fingerprints.count_shared(each, here)[0] for each in known) if here else 0
    if seen:
        raise UsageError(
            "--model %s: was trained or validated on %d of the pictures, so that no fold would be new to it; "
            "take --model %s, or leave it out" % (options.model, seen, IMAGENET)
        )


def make_config(options, records, existing=None, weights=None):
    """The content of model.json: everything that evaluate.py, predict.py and a resume need.

    Args: as `complete_options`.
    """
    return {
        "network": {name: getattr(options, name) for name in NETWORK},
        "classes": records.classes,
        "image_size": records.image_size,
        "keep_size": records.keep_size,
        "fit": records.fit,
        "normalize": options.normalize,
        "options": vars(options),
        "dataset": {
            "digest": records.digest,
            "counts": records.counts,
            "fingerprints": add_fingerprints(records, existing, weights, options.step > 0),
        },
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "numpy": numpy.__version__,
            "pillow": PIL.__version__,
        },
    }


def add_fingerprints(records, existing, weights, is_trained):
    """The fingerprints of what is trained and validated on, with what the weights have seen before."""
    known = weights and weights.fingerprints
    if existing:
        known = existing.get("dataset", {}).get("fingerprints", {})
    added = {}
    for split in ("train", "val"):
        pictures = fingerprints.of([])
        if is_trained:
            pictures = fingerprints.from_json(records.fingerprints.get(split))
        if known is not None:
            pictures = fingerprints.union(pictures, fingerprints.from_json(known.get(split)))
        if pictures:
            added[split] = fingerprints.to_json(pictures)
    return added


def announce(config, records, existing):
    """Say what will be trained, on what, for how long and how; `existing`: the model.json that it resumes."""
    network, options = config["network"], config["options"]
    pictures = records.count("train")
    switches = [name for name in ("preactivation", "zero_init_residual", "dropout") if network[name]]
    parts = ["layer_%d%s" % (network["layers"], " mini" if network["mini"] else ""), network["shortcut"]]
    parts += ["stem %s" % network["stem"]] * (network["stem"] != NETWORK["stem"])
    say("network: %s" % ", ".join(parts + switches))
    say(
        "pictures: %d to train and %d to validate on, %d classes, %d pixels"
        % (pictures, records.count("val"), len(records.classes), records.image_size)
    )
    if network["stem"] == "small" and records.image_size > SMALL_IMAGE:
        say_once(
            "warning: --stem small is for pictures of up to %d pixels (FlowIO.py --image_size %d); for "
            "larger ones --stem article is right, with a fifteenth of the multiply-adds"
            % (SMALL_IMAGE, SMALL_IMAGE)
        )
    epochs = options["step"] * options["batch_size"] / pictures
    say("steps: %d of %d pictures, %.1f epochs" % (options["step"], options["batch_size"], epochs))
    if epochs > MANY_EPOCHS and not commandline.is_given("epochs"):
        enough = recipes.enough_steps(pictures, options["batch_size"])
        say("warning: each picture will be seen %.0f times; --step %d may be enough" % (epochs, enough))
    names = ("optimizer", "lr", "schedule", "freeze", "warmup", *recipes.SWITCHES)
    values = {name: options[name] for name in names if options[name]}
    values.update(recipes.of_the_pictures(options))
    numbers = (int, float)
    settings = ", ".join("%s %s" % (n, "%g" % v if isinstance(v, numbers) else v) for n, v in values.items())
    say("recipe: %s: %s" % (options["recipe"], settings))
    if existing:
        say("resuming at step %d" % modelfolder.latest_step(options["output"]))
        announce_change(existing.get("dataset", {}), records)


def announce_change(before, records):
    """Say how the pictures differ from those that a resumed training has seen.

    Args:
        before: model.json's "dataset".
    """
    if before.get("digest") == records.digest:
        return
    seen = [fingerprints.from_json(before.get("fingerprints", {}).get(split)) for split in ("train", "val")]
    now = [fingerprints.from_json(records.fingerprints.get(split)) for split in ("train", "val")]
    if None in seen + now:
        say("the records are others than before; by how much is not known, as an older version wrote them")
        return
    trained, validated = (fingerprints.count_shared(*pair)[0] for pair in zip(seen, now))
    say(
        "the records are others than before: of %d pictures to train on %d were trained on so far, of %d to "
        "validate on %d were validated on"
        % (records.count("train"), trained, records.count("val"), validated)
    )
    warn_of_leak(seen[0], records)


def warn_of_leak(trained, records):
    """Say how many pictures of val are among those that were trained on, a Fingerprint; None: not known."""
    validated = fingerprints.from_json(records.fingerprints.get("val"))
    if trained and validated:
        leaked, _ = fingerprints.count_shared(trained, validated)
        if leaked:
            say_once(
                "warning: %d of the pictures to validate on were trained on; that flatters the validation"
                % leaked
            )
