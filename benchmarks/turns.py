"""Contenders that are timed in turns: each is a process that waits until it may take some steps.

The machine's speed drifts and differs from one minute to the next; what runs in turns drifts alike.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time


def serve(facts, step, measure=dict):
    """Be a contender: say `facts`, then for each number read take as many steps and say their seconds.

    At the end it says the dict that `measure()` returns.
    """
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        print(json.dumps(seconds), flush=True)
    print(json.dumps(measure()), flush=True)


class Ended(SystemExit):
    """A contender's process has ended; `said` is what it wrote on standard error."""

    def __init__(self, name, said):
        super().__init__("%s ended: %s" % (name, said[-2000:]))
        self.said = said


class Contender:
    """A process that calls `serve`; `facts` is what it said, `first` the seconds of its first step."""

    def __init__(self, name, command, env=None):
        self.name, self.rounds = name, []
        # Not a pipe: one that nobody reads fills, and stops the process.
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
            env=env,
        )

    def wait(self):
        """Until it is ready; it takes its first step, which allocates memory, chooses kernels or compiles."""
        self.facts = self._read()
        self.take(1)
        (self.first,) = self.rounds.pop()

    def pace(self, seconds):
        """Take two steps, and find how many take so long: `steps`."""
        self.take(2)
        self.steps = max(1, round(seconds / min(self.rounds.pop())))

    def take(self, steps):
        """Take so many steps; adds their seconds, a list, to `rounds`."""
        self.process.stdin.write("%d\n" % steps)
        self.process.stdin.flush()
        self.rounds.append(self._read())

    def close(self):
        """End it; what it says at the end is added to `facts`."""
        self.process.stdin.close()
        self.facts.update(self._read())
        self.process.wait()

    def _read(self):
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except ValueError:  # a library says something
                pass
        self.said.seek(0)
        raise Ended(self.name, self.said.read())


def take_turns(commands, seconds, rounds):
    """Run the contenders in turns.

    Args:
        commands: {name: command}.
        seconds: that a turn should take.
    Returns:
        The Contenders, ended.
    """
    contenders = [Contender(*item) for item in commands.items()]
    for contender in contenders:
        contender.wait()
    for contender in contenders:
        contender.pace(seconds)
    for _ in range(rounds):
        for contender in contenders:
            contender.take(contender.steps)
    for contender in contenders:
        contender.close()
    return contenders


def summary(values):
    """(mean, standard error of the mean, jitter: 1.4826 times the median absolute deviation)."""
    middle = statistics.median(values)
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.mean(values), error, 1.4826 * statistics.median(abs(v - middle) for v in values)
