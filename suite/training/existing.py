"""What --output holds already: whether this training goes on with it, sets it aside or leaves it alone."""

import os
import shlex

from suite.files import atomic, classnames, jsonfile
from suite.files.litter import visible
from suite.model import modelfolder
from suite.model.network import complete
from suite.process.errors import UsageError, UserError
from suite.process.terminal import say
from suite.records import folds
from suite.training.options import shown


def read_existing(options):
    """The content of model.json where --output holds a model already, else None.

    Raises:
        UserError: there are checkpoints, or something else, and no model.json; or the best one alone.
        UsageError: it was begun with other weights, and has no checkpoint yet.
    """
    output = options.output
    path = os.path.join(output, "model.json")
    names = held(output)
    if names and not os.path.exists(path):
        raise UserError(
            "%s: holds %s and no model.json; choose another --output, such as %s"
            % (output, names[0], unused(output))
        )
    if modelfolder.latest_checkpoint(output):
        return jsonfile.read(path)
    best = modelfolder.latest_checkpoint(os.path.join(output, modelfolder.BEST))
    if best:
        raise UserError(
            "%s: holds the best of a training and no checkpoint to go on from; %s; --model %s starts from it"
            % (output, other_output(output), shlex.quote(best))
        )
    has_begun = os.path.exists(path) and modelfolder.read_log(output)
    begun_with = has_begun and jsonfile.read(path)["options"].get("model")
    if begun_with and not same_weights(options.model, begun_with):
        raise UsageError(
            "%s: was begun with --model %s and has no checkpoint yet; give that again, or take %s"
            % (output, shlex.quote(begun_with), other_output(output))
        )
    return None


def held(output):
    """The names of what --output holds, but for what a kill left of a file that was being written."""
    return [name for name in sorted(visible(atomic.contents(output))) if not name.endswith(atomic.PARTIAL)]


def find_folds(options, records, replaced):
    """The plan of --folds, see folds.make: the one in --output, or a new one.

    Args:
        replaced: whether what --output holds is to be set aside.
    Raises:
        UsageError: --output holds another number of folds.
        UserError: --output holds something else; or see folds.read and folds.make.
    """
    output = options.output
    names = [] if replaced else held(output)
    if not names:
        return folds.make(records, options.folds, options.seed)
    if not modelfolder.holds_folds(output):
        raise UserError(
            "%s: holds %s and no folds.json; choose another --output, such as %s"
            % (output, names[0], unused(output))
        )
    plan = folds.read(output, records)
    if plan["folds"] != options.folds:
        values = options.folds, output, plan["folds"], other_output(output)
        raise UsageError("--folds %d: %s holds %d; give that, or %s" % values)
    return plan


def check_reached(options, outputs):
    """Raises UsageError where one of the models of --folds has more steps than there are to be."""
    for output in outputs:
        step = modelfolder.latest_step(output)
        if step > options.step:
            message = "--step %d: %s is at step %d already; give that or more, or %s"
            raise UsageError(message % (options.step, output, step, other_output(os.path.dirname(output))))


def same_weights(model, begun_with):
    """Whether --model names what a training was begun with; that may have moved since, with its folder."""
    if not model or not begun_with:
        return model == begun_with
    same = os.path.realpath(model) == os.path.realpath(begun_with)
    return same or not os.path.exists(begun_with) and os.path.basename(model) == os.path.basename(begun_with)


def unused(output):
    """For a message: a name that another model could have."""
    return shlex.quote(modelfolder.unused(output))


def other_output(output):
    """For a message: how to train another model than the one that is there."""
    return "--output %s, or --fresh, which sets the old model aside" % unused(output)


def begins_anew(options, machines):
    """Whether --fresh is to set a model aside.

    Raises:
        UsageError: there are several machines, or the training starts from what would be set aside.
    """
    output = options.output
    if options.fresh and len(machines.addresses) > 1:
        raise UsageError("--fresh: works on one machine; move %s away by yourself" % output)
    is_there = modelfolder.holds_folds(output) or os.path.exists(os.path.join(output, "model.json"))
    replaced = options.fresh and is_there
    if replaced and options.model and atomic.is_within(options.model, output):
        raise UsageError("--fresh: would set aside %s, which --model names; choose another --output" % output)
    return replaced


def refuse_folds(options, replaced):
    """Raises UserError where --output is, or lies in, a folder of --folds, and this is another training."""
    output, whole = options.output, os.path.dirname(os.path.abspath(options.output))
    if modelfolder.holds_folds(whole):
        raise UserError(
            "%s: lies among the models of train.py --folds, each of which must not see some pictures; choose "
            "another --output, such as %s" % (output, unused(whole))
        )
    if modelfolder.holds_folds(output) and not options.folds and not replaced:
        raise UserError(
            "%s: holds the models of --folds; give that again, or %s" % (output, other_output(output))
        )


def set_aside(output):
    """Move a model folder, whole, to a name of its own, which is said.

    Raises:
        UserError: it cannot be moved, or another process uses it.
    """
    output = os.path.realpath(output)  # a link stays one
    if atomic.cannot_be_renamed(output):
        raise UserError("--fresh: %s is mounted, or somebody stands in it; choose another --output" % output)
    aside = modelfolder.unused(output)
    atomic.lock(output, alone=True)
    try:
        os.rename(output, aside)
    except OSError as error:
        raise UserError(
            "--fresh: %s cannot be moved: %s; choose another --output" % (output, error.strerror)
        ) from error
    say("the old model is in %s now" % aside)


def fixed_settings(config):
    """Of the content of model.json what stays over resumes, by option."""
    options = config["options"]
    return dict(
        complete(config["network"]),
        normalize=config["normalize"],
        optimizer=options.get("optimizer", "adam"),  # because of what it keeps for each weight
        ema=options.get("ema", 0),
        mixed_precision=options.get("mixed_precision", False),  # likewise, for its loss scale
    )


def announce_fresh(config):
    """Say how the model that --fresh begins differs from the one that it sets aside."""
    try:
        before = fixed_settings(jsonfile.read(os.path.join(config["options"]["output"], "model.json")))
    except (UserError, FileNotFoundError):  # damaged, which may be why it goes; or one of the two has folds
        return
    changes = [
        "--%s %s, now %s" % (name, shown(before[name]), shown(value))
        for name, value in fixed_settings(config).items()
        if before[name] != value
    ]
    if changes:
        say("the old model had %s" % "; ".join(changes))


def check_existing(existing, config):
    """Compare the model in --output with the one that is asked for.

    Raises:
        UsageError, UserError: it was begun with other weights, is another network, or has other classes.
    """
    output, model = config["options"]["output"], config["options"]["model"]
    begun_with = existing["options"].get("model")
    if model and not same_weights(model, begun_with):
        raise UsageError(
            "--model %s: %s holds a model that was not begun with it; leave out --model to go on with that, "
            "or take --output %s" % (model, output, unused(output))
        )
    there, asked = fixed_settings(existing), fixed_settings(config)
    for name in asked:
        if there[name] != asked[name]:
            is_switch = isinstance(asked[name], bool) and name != "zero_init_residual"
            cure = "use that" if not is_switch else "leave it out" if asked[name] else "give it"
            values = name, shown(asked[name]), output, shown(there[name]), cure, other_output(output)
            raise UsageError("--%s %s: %s was trained with %s; %s, or %s" % values)
    older = {"fit": "crop", "keep_size": False}  # which had no choice
    before, now = (
        {**older, **each, "classes": [classnames.canonical(name) for name in each["classes"]]}
        for each in (existing, config)
    )
    if before["classes"] != now["classes"] and sorted(before["classes"]) == sorted(now["classes"]):
        raise UserError(
            "%s was trained on the same classes in another order; --output %s --model %s takes its weights "
            "by name" % (output, unused(output), shlex.quote(output))
        )
    for name in ("classes", "image_size", "fit", "keep_size"):
        if before[name] != now[name]:
            raise UserError(
                "%s was trained on records of other %s (%s, now %s); %s"
                % (output, name, summary(before[name]), summary(now[name]), other_output(output))
            )


def summary(value):
    """A value for a message; of a long list only the start."""
    if isinstance(value, list):
        return "%d: %s" % (len(value), ", ".join(value[:5]) + (", ..." if len(value) > 5 else ""))
    return str(value)
