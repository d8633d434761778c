"""End the scripts at random moments, and look at what is left of their output.

    python tests/faults/kills.py [--only FlowIO train evaluate export] [--kills 200] [--signals 50]

Each script is run over and over on the same output, with two inputs in turn; SIGKILL, SIGTERM or Ctrl-C comes
at a moment drawn evenly from the time that a whole run takes. Prints a row of a table for each, and what went
wrong. Every run is a process forked from one that has imported TensorFlow already, so that the moments fall
into the work and not into the import.
"""

import argparse
import csv
import json
import math
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.dirname(TESTS), TESTS]

import helpers
from tensorflow.core.protobuf import saved_model_pb2

import evaluate
import export
import FlowIO
import resnet
import train
from suite.files import atomic
from suite.model import modelfolder
from suite.process import errors, lifetime
from suite.process.tf_versions import tf
from suite.training import checkpoints, validation

validation.ENOUGH = 1  # so that each checkpoint gets a temperature
# One bottleneck in each group: the same files as a larger network's, in less time.
resnet.ResNet_mini_demo = {"layer_50": [{"depth": 64 * 2**i, "num_class": 1} for i in range(4)]}
STATUS = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}


class Wrong(Exception):
    """What is left is neither the old output nor the new."""


# --- processes ----------------------------------------


def fork(function, log):
    """Start function() in a process of its own, with `log` for all that it prints; its process ID."""
    started, starting = os.pipe()
    pid = os.fork()
    if pid:
        os.close(starting)
        os.read(started, 1)
        os.close(started)
        return pid
    status = 1
    try:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        lifetime.stop_at_once()
        os.write(starting, b"!")
        function()
        status = 0
    except SystemExit as error:
        status = error.code
    except errors.Stopped as stopped:
        status = stopped.exit_status
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def script(main, arguments):
    """A function that runs a script's main as its file does."""

    def run():
        sys.argv = [main.__module__ + ".py", *map(str, arguments)]
        lifetime.run(main)

    return run


def wait(pid):
    """The exit status, negative for a signal that killed it."""
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def run_whole(function, log):
    """Let it end; the seconds that took."""
    began = time.monotonic()
    status = wait(fork(function, log))
    if status:
        raise Wrong("exit status %d: %s" % (status, read(log).decode()[-2000:]))
    return time.monotonic() - began


def interrupt(function, log, number, seconds):
    """Start it and send a signal after so many seconds; the exit status."""
    pid = fork(function, log)
    time.sleep(seconds)
    os.kill(pid, number) if number != signal.SIGINT else os.killpg(pid, number)
    status = wait(pid)
    said = read(log).decode()
    if status not in (0, STATUS[number]):
        raise Wrong("exit status %d: %s" % (status, said[-2000:]))
    if "Traceback" in said:
        raise Wrong(said[-2000:])
    return status


# --- the scripts: two runs that take turns, and what may be left ----------------------------------------


class FlowIOCase:
    """Records of one data set or of the other."""

    def __init__(self, folder, base):
        self.output = os.path.join(folder, "records")
        self.runs, self.whole = [], []
        for seed in (0, 1):
            dataset = os.path.join(folder, "dataset-%d" % seed)
            helpers.draw_dataset(dataset, 20, seed=seed)
            arguments = ["--dataset", dataset, "--output", self.output, "--image_size", "32"]
            self.runs.append(script(FlowIO.main, arguments))
            self.seconds = run_whole(self.runs[-1], os.path.join(folder, "log"))
            self.whole.append(helpers.folder_bytes(self.output))

    def check(self):
        atomic.settle(self.output)  # as every script does that reads or writes records
        if helpers.folder_bytes(self.output) not in self.whole:
            raise Wrong("a mixture in %s" % self.output)


class EvaluateCase:
    """The evaluation of one split or of the other."""

    def __init__(self, folder, base):
        self.output = os.path.join(base.model, "evaluation")
        self.runs, self.whole = [], []
        for split in ("val", "test"):
            arguments = ["--model", base.model, "--data", base.records, "--split", split]
            self.runs.append(script(evaluate.main, arguments))
            self.seconds = run_whole(self.runs[-1], os.path.join(folder, "log"))
            self.whole.append(self.timeless())

    def timeless(self):
        """The files without the times that were measured."""
        files = helpers.folder_bytes(self.output)
        evaluation = json.loads(files["evaluation.json"].decode())
        evaluation.pop("latency")
        page = re.sub(rb'"latency": \{.*?\}|[0-9.]+ ms', b"", files["report.html"])
        return dict(files, **{"evaluation.json": evaluation, "report.html": page})

    def check(self):
        atomic.settle(self.output)
        if self.timeless() not in self.whole:
            raise Wrong("a mixture in %s" % self.output)


class ExportCase:
    """The SavedModel of one checkpoint or of the other."""

    def __init__(self, folder, base):
        self.output = os.path.join(folder, "exported")
        self.runs, self.whole = [], []
        for checkpoint in ("model.ckpt-2", "model.ckpt-4"):
            arguments = ["--model", os.path.join(base.model, checkpoint), "--output", self.output]
            self.runs.append(script(export.main, arguments))
            self.seconds = run_whole(self.runs[-1], os.path.join(folder, "log"))
            self.whole.append(self.weights())

    def weights(self):
        """The constants of the network in the SavedModel, which must hold all of its files."""
        if not {"saved_model.pb"} <= set(os.listdir(self.output)) <= {"saved_model.pb", "variables"}:
            raise Wrong("%s in %s" % (os.listdir(self.output), self.output))
        saved = saved_model_pb2.SavedModel.FromString(read(os.path.join(self.output, "saved_model.pb")))
        nodes = saved.meta_graphs[0].graph_def.node
        return {node.name: node.attr["value"].tensor.tensor_content for node in nodes if node.op == "Const"}

    def check(self):
        atomic.settle(self.output)
        if self.weights() not in self.whole:
            raise Wrong("a mixture in %s" % self.output)


class TrainCase:
    """One training that is resumed after each interruption."""

    FEW, STEPS = 12, 4000  # steps of the run that is timed, and of the one that is interrupted

    def __init__(self, folder, base):
        self.output = os.path.join(folder, "model")
        arguments = ["--mini", "--data", base.records, "--output", self.output, "--save_num", "3"]
        arguments += ["--log_num", "1", "--batch_size", "4", "--bn_batches", "0", "--recipe", "modern"]
        few = script(train.main, arguments + ["--step", str(self.FEW)])
        self.seconds = run_whole(few, os.path.join(folder, "log"))
        self.runs = [script(train.main, arguments + ["--step", str(self.STEPS)])] * 2
        self.reached = self.FEW

    def check(self):
        latest = modelfolder.latest_checkpoint(self.output)
        step = modelfolder.checkpoint_step(latest)
        if step < self.reached:
            raise Wrong("fell back from step %d to %d" % (self.reached, step))
        if not checkpoints.is_finite(latest) or tf.train.load_variable(latest, "global_step") != step:
            raise Wrong("%s is damaged" % latest)
        slots = [name for name, _ in tf.train.list_variables(latest) if "Momentum" in name]
        if not slots:
            raise Wrong("%s has no slots of the optimizer" % latest)
        self.check_best(self.check_log(), step)

    def check_log(self):
        """No step twice, each at its learning rate; {step: accuracy} of the validations."""
        with open(os.path.join(self.output, "log.csv"), newline="") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
        for name in ("loss", "val_loss"):
            steps = [int(row["step"]) for row in rows if row[name]]
            if steps != sorted(set(steps)):
                raise Wrong("log.csv: %s of a step twice: %s" % (name, steps[-20:]))
        for row in rows:
            if row["learning_rate"] and int(row["step"]) > self.FEW:
                done = int(row["step"]) - 1
                due = 0.05 * 4 / 32 * min(1, (done + 1) / (0.05 * self.STEPS))
                due *= (1 + math.cos(math.pi * done / self.STEPS)) / 2
                if abs(due - float(row["learning_rate"])) > 1e-4 * due:
                    raise Wrong("a learning rate of %g is due: %s" % (due, row))
        return {int(row["step"]): float(row["val_accuracy"]) for row in rows if row["val_accuracy"]}

    def check_best(self, validated, latest):
        best = checkpoints.read_best(self.output)
        model = modelfolder.load_model(self.output)
        kept = model.checkpoint
        if model.temperature == 1:
            raise Wrong("%s has no temperature, or another checkpoint's" % kept)
        if modelfolder.checkpoint_step(kept) != best["step"] or not checkpoints.is_finite(kept):
            raise Wrong("best/ holds %s, best.json says %s" % (kept, best))
        # The latest one may have been logged and not kept yet; the run that resumes does that.
        known = [accuracy for step, accuracy in validated.items() if step < latest]
        if known and best["highest"]["accuracy"] < max(known) - 1e-6:
            raise Wrong("best.json says %s, log.csv %s" % (best, max(known)))


CASES = {"FlowIO": FlowIOCase, "train": TrainCase, "evaluate": EvaluateCase, "export": ExportCase}


class Base:
    """Records and a model that the cases share."""

    def __init__(self, folder):
        self.records, self.model = os.path.join(folder, "base-records"), os.path.join(folder, "base-model")
        dataset = os.path.join(folder, "base-dataset")
        helpers.draw_dataset(dataset, 20)
        log = os.path.join(folder, "log")
        arguments = ["--dataset", dataset, "--output", self.records, "--image_size", "32"]
        run_whole(script(FlowIO.main, arguments), log)
        arguments = ["--mini", "--data", self.records, "--output", self.model, "--step", "4"]
        run_whole(script(train.main, arguments + ["--save_num", "2", "--batch_size", "8"]), log)


# --- the sweep ----------------------------------------


def sweep(name, case, number, count, rng, log):
    """Interrupt it `count` times and check what is left each time; print a row of the table."""
    whole, finished, wrong = 0, 0, []
    for i in range(count):
        try:
            finished += not interrupt(case.runs[i % 2], log, number, rng.uniform(0, case.seconds))
            run_whole(case.check, log + ".check")  # in a process of its own, so that ours stays fit to fork
            case.reached = modelfolder.latest_step(case.output)
            whole += 1
        except Wrong as error:
            wrong.append(str(error))
            print("%s %d: %s" % (name, i, error), file=sys.stderr)
    row = (name, signal.Signals(number).name, count, finished, whole, count - whole)
    print("| %s | %s | %d | %d | %d | %d |" % row, flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--signals", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf.logging.set_verbosity(tf.logging.FATAL)
    print("| script | signal | sent | had ended before | whole afterwards | not |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        base = Base(folder)
        for name in options.only:
            rng = random.Random("%s %d" % (name, options.seed))
            place = os.path.join(folder, name)
            os.makedirs(place)
            log = os.path.join(place, "log")
            case = CASES[name](place, base)
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
                count = options.kills if number == signal.SIGKILL else options.signals
                wrong += sweep(name, case, number, count, rng, log)
            if name == "train":
                print("train went on from step %d to %d" % (case.FEW, case.reached), file=sys.stderr)
                wrong += ["it never went on"] * (case.reached == case.FEW)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
