"""What came of a training: whether it is done, what is said at its end, and what of a failure."""

import os
import re

from suite.files import atomic
from suite.files.schemas import RECORDS
from suite.model import modelfolder
from suite.process import commandline
from suite.process.terminal import counted, say
from suite.process.tf_versions import tf
from suite.training import checkpoints, memory
from suite.training.existing import other_output
from suite.training.options import same_command, shown

# The allocator's words, and XLA's.
OUT_OF_MEMORY = re.compile("OOM when allocating|Out of memory while trying to allocate")
# Options that do not change the training, or that check_existing compares.
ASIDE = ("data", "output", "model", "device", "tf32", "xla", "verbose", "workers")


def is_done(options, records, existing):
    """Whether nothing is left to do; if so, that is said, and which of the given options change nothing.

    Args:
        records: see reading.Records.
        existing: the content of model.json.
    """
    step, best = modelfolder.latest_step(options.output), checkpoints.read_best(options.output)
    validates = records.count("val") > 0
    pictures = checkpoints.validated_on(records, vars(options))
    is_of_these = best and best["pictures"] == pictures  # not of others, or labelled otherwise
    over = is_of_these and checkpoints.is_over(best, vars(options))
    if step < options.step and not over:
        return False
    # A run that was killed after the last step left what follows it.
    validated = not validates or is_of_these and checkpoints.is_validated(step, best)
    stays = best and not validates and best["accuracy"] is not None  # see validation.open_validator
    recalibrated = not options.bn_batches or stays or best and best["recalibrated"]
    if step <= options.step and not (validated and recalibrated):
        return False
    how, more = ("stopped early", "--patience") if step < options.step else ("is", "--step")
    before = existing["options"]
    idle = [
        "--%s %s" % (name, shown(value))
        for name, value in vars(options).items()
        if name not in ASIDE and commandline.is_given(name) and before.get(name) != value
    ]
    nothing = " and nothing is done with %s" % ", ".join(idle) if idle else ""
    say("%s %s at step %d already%s; a larger %s trains on" % (options.output, how, step, nothing, more))
    return True


def conclude(options):
    """Say what came out, and what to do with it; options: model.json's."""
    output = options["output"]
    best = checkpoints.read_best(output)
    if checkpoints.is_over(best, options):
        turns = counted(options["patience"], "checkpoint")
        say("stopped early: %s in turn validated no better than those before" % turns)
    if best and best["accuracy"] is not None:
        say("best: step %d, validation accuracy %.4f" % (best["step"], best["accuracy"]))
    next_one = "" if options["folds"] else next_command(output, options["data"])
    say("trained to step %d%s" % (modelfolder.latest_step(output), next_one))


def next_command(output, data):
    """What to do with what was trained, for the end of a message."""
    elsewhere = {} if data == RECORDS else {"data": data}
    return "; next: " + commandline.command("evaluate.py", model=output, **elsewhere)


def stopped(options):
    """What to say where a signal has ended the training; options: model.json's."""
    if not modelfolder.latest_checkpoint(options["output"]):
        return "nothing was trained yet; %s begins anew" % same_command(options)
    values = modelfolder.latest_step(options["output"]), same_command(options)
    return "saved at step %d; %s goes on from there" % values


def explain(error, config, progress, first_step, devices=1):
    """What to say of an exception that ended the training; None where that says enough itself.

    Args:
        progress: the hooks.ProgressHook that saw the last step.
        first_step: that the run began at; None on all machines but the first, which leave the model folder
            alone.
        devices: that share each batch.
    """
    options = config["options"]
    if isinstance(error, tf.train.NanLossDuringTrainingError):
        return spoilt(progress, options, first_step)
    if OUT_OF_MEMORY.search(str(error)):
        return memory.out_of_memory(config, devices)
    if "Restoring from checkpoint failed" in str(error):
        message = "%s: its checkpoints are not of the network in its model.json; bring that back, or %s"
        return message % (options["output"], other_output(options["output"]))
    if not atomic.is_full_disk(error):
        return None
    if first_step is not None:
        checkpoints.tidy(options["output"])
    values = options["output"], same_command(options), modelfolder.latest_step(options["output"])
    return "%s: no space left to save there; with more of it %s goes on from step %d" % values


def spoilt(progress, options, first_step):
    """What to say where the loss is not a finite number any more.

    Of the checkpoints since `first_step` only good ones stay, so not that of the step before.
    """
    if first_step is not None:
        checkpoints.drop_spoilt(options["output"], max(first_step, progress.step - 2))
    good = modelfolder.latest_checkpoint(options["output"])
    best = modelfolder.latest_checkpoint(os.path.join(options["output"], modelfolder.BEST))
    if good:
        rest = "%s with an --lr below %g goes on from %s" % (same_command(options), options["lr"], good)
    elif best:
        rest = "the best of before is in %s, but nothing to go on from; choose another --output" % best
    else:
        rest = "the same command with an --lr below %g starts anew; there is no good checkpoint yet"
        rest %= options["lr"]
    message = "the loss is not a finite number any more at step %d, with a learning rate of %.3g; %s"
    return message % (progress.step, progress.rate, rest)
