"""Pictures/s of training and of inference, against other suites and against what the processor can do.

    make benchmark                      # or, with environments of your own:
    python benchmarks/throughput.py [--pytorch PYTHON] [--intel PYTHON] [--tf2 PYTHON] [--cases REGEX]

Prints a table for each case and writes throughput.json, from which plot.py draws. All contenders of a case
stand ready and take their steps in turns; see tensorflow_steps.py and pytorch_steps.py for what they are.

- pictures/s: mean over all steps, +/- its standard error, and the jitter (1.4826 times the median absolute
  deviation of the steps).
- ratio: of `ours` to this one, the median over the rounds.
- efficiency: pictures/s x multiply-adds x 2 (x 3 for training: forward, and twice that backward) over the
  operations/s of a large matrix product in the same rounds.
"""

import argparse
import json
import os
import platform
import re
import statistics
import sys

from turns import summary, take_turns

HERE = os.path.dirname(os.path.abspath(__file__))

# Work, layers, width, side of the pictures, pictures per step, and who takes part besides PyTorch,
# Intel's build and TensorFlow 2.15, which do where their Python is named.
CASES = [
    ("train", 50, "full", 224, 8, ("ours", "ours_plain", "slim", "keras")),
    ("train", 101, "full", 224, 8, ("ours", "slim")),
    ("train", 152, "full", 224, 8, ("ours", "slim")),
    ("train", 50, "full", 64, 32, ("ours", "ours_plain", "slim", "keras")),
    ("train", 50, "full", 32, 32, ("ours", "ours_plain", "slim", "keras")),
    ("train", 50, "mini", 64, 32, ("ours", "ours_plain", "author")),
    ("train", 50, "mini", 32, 32, ("ours", "ours_plain", "author")),
    ("infer", 50, "full", 224, 8, ("ours", "slim", "keras")),
    ("infer", 152, "full", 224, 8, ("ours", "slim", "keras")),
    ("infer", 50, "full", 64, 32, ("ours", "slim", "keras")),
    ("infer", 50, "mini", 32, 32, ("ours",)),
]
PRODUCT = "matrix product"


def main():
    options = parse_options()
    results = []
    for case in CASES:
        name = "%s %d %s, %d px, batch %d" % case[:5]
        if re.search(options.cases, name):
            contenders = take_turns(commands(case, options), options.seconds, options.rounds)
            rows = evaluate(case, {each.name: each for each in contenders})
            show(name, rows)
            results.append({"case": name, "rows": rows})
            write(os.path.join(options.output, "throughput.json"), results)


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pytorch", metavar="PYTHON", help="a Python with PyTorch")
    parser.add_argument("--intel", metavar="PYTHON", help="a Python 3.7 with intel-tensorflow 1.15")
    parser.add_argument("--tf2", metavar="PYTHON", help="a Python 3.11 with TensorFlow 2.15")
    parser.add_argument("--cases", default="", metavar="REGEX", help="only cases whose name it finds")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a turn takes, about")
    parser.add_argument("--output", default=HERE, help="folder for throughput.json")
    return parser.parse_args()


def commands(case, options):
    work, layers, width, size, batch, names = case
    what = [str(each) for each in (work, layers, width, size, batch)]
    script = os.path.join(HERE, "tensorflow_steps.py")
    found = {name: [sys.executable, script, name, *what] for name in names}
    if options.intel:
        found["ours, intel-tensorflow"] = [options.intel, script, "ours", *what]
    if options.tf2:
        found["ours, tensorflow 2.15"] = [options.tf2, script, "ours", *what]
    if options.pytorch and width == "full":
        found["PyTorch"] = [options.pytorch, os.path.join(HERE, "pytorch_steps.py"), *what[:2], *what[3:]]
    found[PRODUCT] = [sys.executable, script, "product", *what]
    return found


def evaluate(case, contenders):
    """A row for each contender: name, its figures as the module's docstring has them."""
    work, _, _, _, batch, _ = case
    product = contenders.pop(PRODUCT)
    seconds = statistics.median(time for turn in product.rounds for time in turn)
    ceiling = 2 * product.facts["multiply_adds"] / seconds
    rows = []
    for name, contender in contenders.items():
        rate, error, jitter = summary([batch / time for turn in contender.rounds for time in turn])
        pairs = zip(contenders["ours"].rounds, contender.rounds)
        operations = contender.facts["multiply_adds"] * 2 * (3 if work == "train" else 1)
        rows.append(
            {
                "name": name,
                "rate": rate,
                "error": error,
                "jitter": jitter,
                "ratio": statistics.median(statistics.mean(b) / statistics.mean(a) for a, b in pairs),
                "multiply_adds": contender.facts["multiply_adds"],
                "efficiency": rate * operations / ceiling,
                "ceiling": ceiling,
            }
        )
    return rows


def show(name, rows):
    print("\n%s; the matrix product: %.0f GFLOP/s" % (name, rows[0]["ceiling"] / 1e9))
    print("| | pictures/s | +/- | jitter | ours / this | multiply-adds | efficiency |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(
            "| {name} | {rate:.2f} | {error:.2f} | {jitter:.2f} | {ratio:.2f} | {multiply_adds:,} | "
            "{efficiency:.2f} |".format(**row),
            flush=True,
        )


def write(path, results):
    machine = {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}
    with open(path, "w") as file:
        json.dump({"machine": machine, "results": results}, file, indent=1)


def processor():
    """The processor's name, and the widest vectors that it has."""
    with open("/proc/cpuinfo") as file:
        lines = file.read()
    name = re.search(r"model name\s*: (.*)", lines)
    vectors = [each for each in ("avx", "avx2", "avx512f") if re.search(r"\b%s\b" % each, lines)]
    return "%s, %s" % (name.group(1) if name else platform.machine(), vectors[-1] if vectors else "no AVX")


if __name__ == "__main__":
    main()
