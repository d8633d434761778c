"""What gpu.py measured, as tables, goals and a plot. Needs no GPU, nor TensorFlow.

python benchmarks/gpu_report.py gpu.jsonl [--plot gpu.png]
"""

import argparse
import collections
import json
import os
import re
import statistics

STEPS = 2000  # that a training takes by default
# Facts that a table shows otherwise, or not at all.
ASIDE = {"seconds", "batch", "first", "peak", "foreseen", "multiply_adds", "torch", "error", "rate", "start"}
GB = 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", help="what gpu.py wrote")
    parser.add_argument("--plot", metavar="FILE", help="draw the steps there; needs matplotlib")
    options = parser.parse_args()
    show(options.results)
    if options.plot:
        draw(load(options.results), options.plot)


def load(path):
    """{part: {row: facts}}; the lists of a row's lines are joined, of other facts the last one counts."""
    parts = collections.defaultdict(dict)
    if os.path.exists(path):
        with open(path) as file:
            for line in map(json.loads, file):
                facts = parts[line.pop("part")].setdefault(line.pop("row"), {})
                facts.pop("error", None)  # of an earlier attempt
                for name, value in line.items():
                    facts[name] = facts.get(name, []) + value if isinstance(value, list) else value
    return parts


def reason(text):
    """The line that says most of what a failing process, or an exception, has said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for telling in ("OOM when allocating", "[Oo]ut of memory", "XLA|libdevice|ptxas", r"^[\w.]*Error\b", ""):
        found = [line for line in lines if re.search(telling, line)]
        if found:
            return found[-1][:200].replace("|", "/")
    return "it said nothing"


def rate(facts):
    """Pictures/s, the median of the steps; None where there is none."""
    if "rate" in facts:
        return facts["rate"]
    return facts["batch"] / statistics.median(facts["seconds"]) if facts.get("seconds") else None


def long_rate(facts):
    """The same over a whole training of ours of STEPS steps, with the first one."""
    if not rate(facts) or "foreseen" not in facts:
        return None
    return STEPS * facts["batch"] / (facts["first"] + (STEPS - 1) * facts["batch"] / rate(facts))


def show(path):
    """Print the tables, and the goals."""
    parts = load(path)
    machine = parts.get("limits", {}).get("machine", {})
    torch = {row.get("torch") for rows in parts.values() for row in rows.values()} - {None}
    known = dict(machine, PyTorch=", ".join(sorted(torch)))
    names = ("driver", "TensorFlow", "CUDA", "cuDNN", "PyTorch", "cores", "commit")
    versions = ["%s %s" % (name, known[name]) for name in names if known.get(name)]
    print("\n**%s**\n" % ", ".join([str(machine.get("card", "unknown card")), *versions]))
    for part, rows in parts.items():
        aside = ("machine", "done", "the rest" if "done" in rows else "")
        rows = {row: table_row(facts) for row, facts in rows.items() if row not in aside}
        columns = list(dict.fromkeys(name for facts in rows.values() for name in facts))
        print("| %s | %s |" % (part, " | ".join(columns)))
        print("| --- |%s" % (" ---: |" * len(columns)))
        for row, facts in rows.items():
            print("| %s | %s |" % (row, " | ".join(facts.get(name, "") for name in columns)))
        print()
    for goal, at, limit, value in goals(parts):
        if value is None:
            verdict = "not measured"
        else:
            passed = value >= limit if at == "least" else value <= limit
            verdict = "%.2f, %s" % (value, "pass" if passed else "**miss**")
        print("- %s, at %s %g: %s" % (goal, at, limit, verdict))


def table_row(facts):
    """{column: text}."""
    cells = {}
    if rate(facts):
        cells["pictures/s"] = f"{rate(facts):,.0f}"
    if long_rate(facts):
        cells["over %d steps" % STEPS] = f"{long_rate(facts):,.0f}"
    if "first" in facts:
        cells["first step, s"] = "%.1f" % facts["first"]
    for name, title in (("peak", "peak, GB"), ("foreseen", "foreseen by --dry_run, GB")):
        if name in facts:
            cells[title] = "%.1f" % (facts[name] / GB)
    if "start" in facts:
        cells["start to end, s"] = "%.1f" % statistics.median(facts["start"])
    cells.update((name, "%.3g" % value) for name, value in facts.items() if name not in ASIDE)
    if "error" in facts:
        cells["failed"] = facts["error"]
    return cells


# --- goals ----------------------------------------


def goals(parts):
    """[(what, "least" or "most", the goal, the value or None)]."""

    def ratio(one, other, measure=rate):
        found = [parts.get(part, {}).get(row) for part, row in (one, other)]
        values = [measure(facts) if facts else None for facts in found]
        return values[0] / values[1] if all(values) else None

    def seconds(facts):
        return statistics.median(facts["start"]) if "start" in facts else None

    small, step, bare = "50-128-float32", ("50-256-mixed", "mixed, XLA"), ("records", "bare step")
    auto = [
        ratio(("50-128-more", "float32, XLA auto"), (small, row), long_rate)
        for row in ("float32", "float32, XLA")
    ]
    auto = min(auto) if all(auto) else None
    eager, compiled = (("50-256-mixed", "PyTorch " + how) for how in ("fp16", "fp16 compile"))
    with_xla, without = (("mini-128-float32", "float32" + how) for how in (", XLA", ""))
    start = ratio(("startup", "GPU"), ("startup", "CPU"), seconds)
    folder = ratio(("inference", "predict.py over a folder"), ("inference", "batch 32"))
    return [
        ("XLA auto over %d steps / the best switch" % STEPS, "least", 0.95, auto),
        ("mixed with XLA / PyTorch fp16", "least", 1.5, ratio(step, eager)),
        ("mixed with XLA / torch.compile", "least", 1.2, ratio(step, compiled)),
        ("from records, flip / bare step", "least", 0.9, ratio(("records", "flip"), bare)),
        ("from records, standard / bare step", "least", 0.8, ratio(("records", "standard"), bare)),
        ("mini with XLA / without", "least", 2, ratio(with_xla, without)),
        ("predict.py's start, GPU / CPU", "most", 1.5, start),
        ("predict.py over a folder / bare step", "least", 0.8, folder),
    ]


# --- plot ----------------------------------------


def draw(parts, path):
    """Pictures/s of all steps in turns, with the share of the product's speed, as plot.py does."""
    from plot import draw_all

    limits = parts["limits"]
    cases = []
    for part, rows in parts.items():
        bars = []
        for row, facts in rows.items():
            if "multiply_adds" in facts and rate(facts):
                half = "mixed" in row or "fp16" in row
                ceiling = limits["product, " + ("fp16" if half else "TF32")]["TFLOP/s"] * 1e12
                times = (
                    2 if part == "inference" else 6
                )  # operations for a multiply-add, and twice that backward
                rates = [facts["batch"] / each for each in facts["seconds"]]
                bar = {"name": row if row.startswith("PyTorch") else "ours, " + row, "rate": rate(facts)}
                bar["error"] = statistics.pstdev(rates) / len(rates) ** 0.5
                bars.append(dict(bar, efficiency=rate(facts) * facts["multiply_adds"] * times / ceiling))
        if bars:
            cases.append({"case": part, "rows": bars})
    draw_all(cases, limits["machine"]["card"], path)


if __name__ == "__main__":
    main()
