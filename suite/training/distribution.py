"""Training on several GPUs or machines: who takes part, and what happens when one of them dies.

On several machines train.py runs once on each, with the same options and a TF_CONFIG in the environment
that says who is who, as TensorFlow's own documentation has it; see EXAMPLE.
"""

import collections
import contextlib
import json
import os
import socket
import sys
import threading
import time

from suite.model import modelfolder
from suite.process import device, lifetime
from suite.process.errors import UsageError
from suite.process.terminal import say
from suite.process.tf_versions import tf

EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
JOBS = ("chief", "worker")  # in this order

PING_EVERY = 3  # seconds
PINGS = 5  # that fail one after the other, and the machine counts as dead
TIMEOUT = 5  # seconds for each

# addresses: list of "host:port"; index: this machine's; the first one saves, validates and logs.
Machines = collections.namedtuple("Machines", "addresses index")

ALONE = Machines(["localhost:0"], 0)


def read_environment():
    """The Machines that TF_CONFIG describes, ALONE if there is none.

    Raises:
        UsageError: TF_CONFIG is not what it must be.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return ALONE
    try:
        given = json.loads(text)
        jobs, task = given.get("cluster", {}), given.get("task", {})
        if not jobs:
            return alone()
        places = {(job, i): address for job in JOBS for i, address in enumerate(jobs.get(job, []))}
        unknown = [job for job in jobs if job not in JOBS]
        if unknown:
            raise UsageError(
                "TF_CONFIG: job %r is neither chief nor worker; an example: %s" % (unknown[0], EXAMPLE)
            )
        for address in places.values():
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit():
                raise UsageError("TF_CONFIG: %r is not host:port" % address)
        me = task.get("type"), task.get("index")
        belongs = me in places
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError("TF_CONFIG: cannot be understood; an example: %s" % EXAMPLE) from error
    if not belongs:
        raise UsageError("TF_CONFIG: task %s %s is not in its cluster; an example: %s" % (me + (EXAMPLE,)))
    if len(places) == 1:
        return alone()
    return Machines(list(places.values()), list(places).index(me))


def alone():
    """ALONE, for a TF_CONFIG of one machine; it goes, as tf.estimator refuses a cluster of one."""
    del os.environ["TF_CONFIG"]
    return ALONE


def check_options(machines, options):
    """Raises UsageError where options, as they are on the command line, do not go with several machines."""
    if len(machines.addresses) == 1:
        return
    asked = {
        "--patience": options.patience,
        "--batch_size auto": options.batch_size == "auto",
        "--folds": options.folds,
    }
    for name, value in asked.items():
        if value:
            message = "%s: works on one machine only, and TF_CONFIG names %d"
            raise UsageError(message % (name, len(machines.addresses)))


def choose_strategy(machines, options):
    """How tf.estimator distributes the training, or None for one device.

    Raises:
        UsageError: the options do not go with several devices.
    """
    if len(machines.addresses) > 1:
        strategy = tf.distribute.experimental.MultiWorkerMirroredStrategy()
    elif len(device.gpus()) > 1:
        strategy = tf.distribute.MirroredStrategy()
    else:
        return None
    if options.batch_size % strategy.num_replicas_in_sync:
        raise UsageError(
            "--batch_size %d: must be a multiple of the %d devices"
            % (options.batch_size, strategy.num_replicas_in_sync)
        )
    if options.ema:  # TensorFlow 1.15 makes no averages of mirrored variables
        raise UsageError("--ema: works on one device only; leave it out, or choose one by --device gpu:0")
    return strategy


def run_estimator(estimator, input_fn, last_step, hooks):
    """estimator.train, or on several machines tf.estimator.train_and_evaluate, which trains alike."""
    if estimator.config.cluster_spec:
        specs = tf.estimator.TrainSpec(input_fn, last_step, hooks), tf.estimator.EvalSpec(input_fn)
        tf.estimator.train_and_evaluate(estimator, *specs)
    else:
        estimator.train(input_fn, hooks, max_steps=last_step)


def wait_for_start(output):
    """Wait until the first machine has written a checkpoint to start from."""
    if not modelfolder.latest_checkpoint(output):
        say("waiting for the first machine to write what all start from to %s" % output)
    while not modelfolder.latest_checkpoint(output):
        time.sleep(1)


def leave():
    """End the process without Python's clean-up, in which TensorFlow's server would fail with a traceback."""
    sys.stdout.flush()
    tf.summary.FileWriterCache.clear()  # which writes what they hold
    os._exit(0)


# --- machines that die ----------------------------------------


@contextlib.contextmanager
def watching(machines, options):
    """End this process, within a minute, if another machine's does not answer any more.

    What is left would wait for the other's gradients for ever. Nothing is lost but the steps since the
    last checkpoint.
    """
    done = threading.Event()
    for index, address in enumerate(machines.addresses):
        if index != machines.index:
            threading.Thread(target=watch, args=(index, address, options, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def watch(index, address, options, done):
    """Ping one machine until `done` is set. Before it has answered for the first time it may be starting."""
    failed, known = 0, False
    while not done.wait(PING_EVERY):
        if answers(address):
            failed, known = 0, True
        else:
            failed += 1
        if failed == PINGS and not known:
            say("waiting for machine %d (%s)" % (index, address))
        if failed == PINGS and known:
            step = modelfolder.latest_step(options["output"])
            if step >= options["step"]:  # it has ended as it should
                return
            say(
                "train.py: error: machine %d (%s) does not answer any more; stopped. The same command on "
                "each machine goes on from step %d" % (index, address, step)
            )
            lifetime.tidy_up()
            os._exit(1)  # the main thread waits inside TensorFlow and cannot be interrupted


def answers(address):
    """Whether something listens at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), TIMEOUT).close()
        return True
    except OSError:
        return False
