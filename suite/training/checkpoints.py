"""The checkpoints that train.py writes: one every --save_num steps, and the best of them in best/."""

import glob
import hashlib
import math
import os
import re
import shutil

import numpy as np

from suite.files import atomic, jsonfile
from suite.model import modelfolder
from suite.model.modelfolder import BEST
from suite.process import tf_versions
from suite.process.errors import UserError
from suite.process.tf_versions import tf

# --- after a kill, a full disk, or a loss that is no number ----------------------------------------

OURS = r"(model|recalibrated)\.ckpt-\d+"
UNFINISHED = re.compile(  # TensorFlow 2.15 writes to model.ckpt-5_temp, 1.15 to a name with more behind that
    OURS + r"(_temp(_[0-9a-f]+)?|\..*tempstate\d+)|checkpoint\.tmp[0-9a-f]+|"
    r"((model|best)\.json|log\.csv|" + OURS + r"\..+)\.replacing\.partial"
)


def tidy(folder):
    """Remove what was not written to its end, and let `checkpoint` name a checkpoint that is there.

    Raises:
        UserError: the latest checkpoint is damaged.
    """
    for place in (folder, os.path.join(folder, BEST)):
        whole = modelfolder.checkpoints(place)
        for name in atomic.contents(place):
            cut = re.match(OURS + r"(?=\.data-)", name)
            if UNFINISHED.fullmatch(name) or cut and os.path.join(place, cut.group()) not in whole:
                atomic.remove(os.path.join(place, name))
    whole = modelfolder.checkpoints(folder)
    latest = modelfolder.latest_checkpoint(folder)
    if not latest:
        return
    try:
        is_finite(latest)  # reads all of it
    except tf_versions.checkpoint_errors() as error:
        raise UserError(
            "%s: damaged (%s); move its files away, and the same command goes on from the one before it, if "
            "there is one" % (latest, tf_versions.reason(error))
        ) from error
    if tf.train.latest_checkpoint(modelfolder.literal(folder)) != modelfolder.literal(latest):
        point_to(folder, whole[: whole.index(latest) + 1])


def drop_spoilt(folder, step):
    """Remove the checkpoints beyond a step, and the last ones while they hold values that are not finite.

    Where none is left, the best is the one to go on from; unless batch norm's statistics were made anew,
    which is without what the optimizer keeps. If it is not finite either, it goes, too.
    """
    whole = modelfolder.checkpoints(folder)
    while whole and (modelfolder.checkpoint_step(whole[-1]) > step or not is_finite(whole[-1])):
        for path in glob.glob(glob.escape(whole.pop()) + ".*"):
            os.remove(path)
    if whole:
        point_to(folder, whole)
        return
    atomic.remove(os.path.join(folder, "checkpoint"))
    best = modelfolder.latest_checkpoint(os.path.join(folder, BEST))
    if best and not is_finite(best):
        atomic.empty(os.path.join(folder, BEST))
    elif best and os.path.basename(best).startswith("model."):
        copy_files(best, folder)
        point_to(folder, modelfolder.checkpoints(folder))


def copy_files(checkpoint, folder):
    """Copy a checkpoint's files to a folder, the index last: without it there is no checkpoint."""
    for path in sorted(glob.glob(glob.escape(checkpoint) + ".*"), key=lambda path: path.endswith(".index")):
        with atomic.replacing_file(os.path.join(folder, os.path.basename(path))) as partial:
            shutil.copyfile(path, partial)


def point_to(folder, checkpoints):
    """Let the folder's `checkpoint` file name these, the last one as the latest, wherever the folder lies."""
    names = [os.path.basename(each) for each in checkpoints]
    tf.train.update_checkpoint_state(os.path.abspath(folder), names[-1], names)


def is_finite(checkpoint):
    """Whether all its values are, the optimizer's too. Reads them until one is not.

    Raises:
        tf_versions.checkpoint_errors(): it is damaged.
    """
    reader = tf.train.load_checkpoint(modelfolder.literal(checkpoint))
    values = (reader.get_tensor(name) for name in reader.get_variable_to_shape_map())
    return all(np.isfinite(value).all() for value in values)


def write_temperature(checkpoint, temperature):
    """Write it beside the checkpoint, for modelfolder; remove those whose checkpoints are gone."""
    suffix = modelfolder.TEMPERATURE
    content = {"temperature": temperature, "index": modelfolder.index_digest(checkpoint)}
    jsonfile.write(checkpoint + suffix, content)
    for path in glob.glob(os.path.join(glob.escape(os.path.dirname(checkpoint)), "*" + suffix)):
        if not os.path.exists(path[: -len(suffix)] + ".index"):
            os.remove(path)


# --- the best ----------------------------------------

FEW = 200  # validation pictures; see `is_no_worse`
EXPLODED = 10  # a loss from which on the weights have diverged


def read_best(output):
    """{"step", "accuracy", "loss", "since", "counted_from", "highest", "recalibrated", "pictures"}, or None.

    The step, the accuracy (0 to 1) and the loss are of the checkpoint in best/, the latter two None where
    there was no validation. "highest" has those of the one that validated best, and "since" the steps
    validated after it, none of them better; --patience counts those after "counted_from", where the
    validation's pictures last changed. "recalibrated" says whether batch_norm.recalibrate has been there;
    "pictures": see `validated_on`.

    Raises:
        UserError: see jsonfile.read.
    """
    path = best_path(output)
    if not os.path.exists(path):
        return None
    best = jsonfile.read(path)
    highest = {name: best.get(name) for name in ("accuracy", "loss")}
    usual = {"since": [], "counted_from": 0, "highest": highest, "recalibrated": False, "pictures": None}
    return {**usual, **best}


def validated_on(records, options):
    """What "pictures" of best.json is for these: what the figures of a validation are of, as SHA-256.

    With --class_weight balanced each class counts alike there, too, so that is another figure.
    """
    pictures = records.identity("val")
    if options["class_weight"] != "balanced" or not pictures:
        return pictures
    return hashlib.sha256(b"balanced " + pictures.encode()).hexdigest()


def best_path(output):
    """Where best.json lies, which `read_best` reads."""
    return os.path.join(output, BEST, "best.json")


def is_validated(step, best):
    """Whether the checkpoint of this step is known to be the best or no better; `best`: see `read_best`."""
    return bool(best) and best["accuracy"] is not None and step in (best["step"], *best["since"])


def is_over(best, options):
    """Whether --patience ends the training; 0 never does, and steps of --freeze do not count.

    They do where none come after them: then the classifier is all that is trained.

    Args:
        best: see `read_best`.
        options: {"patience", "freeze", "step"}.
    """
    frozen = options["freeze"] if options["freeze"] < options["step"] else 0
    waited = [step for step in best["since"] if step > max(frozen, best["counted_from"])] if best else []
    return 0 < options["patience"] <= len(waited)


def is_better(other, accuracy, loss):
    """Whether a checkpoint is better than another one, {"accuracy", "loss"}; the loss decides ties."""
    if not math.isfinite(loss):
        return False
    return not other or other["accuracy"] is None or (accuracy, -loss) > (other["accuracy"], -other["loss"])


def is_no_worse(best, accuracy, loss, pictures):
    """Whether a later checkpoint takes the place of one that validated better, as that may be chance.

    Of few pictures the most accurate of many checkpoints is mostly the luckiest, and later ones are better on
    others (benchmarks/accuracy.md). So there the last counts that is at most two standard errors worse.

    Args:
        best: see `read_best`.
        pictures: how many validate.
    """
    highest = best["highest"]["accuracy"]
    error = math.sqrt(highest * (1 - highest) / pictures)
    return pictures < FEW and loss < EXPLODED and accuracy >= highest - 2 * error


def keep_best(output, checkpoint, best):
    """Let best/ hold this checkpoint alone; `best`: what `read_best` is to tell of it.

    New files are there before the pointer `checkpoint` names them, and old ones go after that, so
    that best/ is whole at any moment.
    """
    folder = os.path.join(output, BEST)
    os.makedirs(folder, exist_ok=True)
    parent, prefix = os.path.split(checkpoint)
    if parent != folder:
        copy_files(checkpoint, folder)
    point_to(folder, [prefix])
    jsonfile.write(best_path(output), best)
    for name in os.listdir(folder):
        if ".ckpt-" in name and not name.startswith(prefix + "."):
            os.remove(os.path.join(folder, name))
