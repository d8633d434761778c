"""Draw throughput.json, which throughput.py wrote, as throughput.png.

python benchmarks/plot.py [FOLDER]
"""

import json
import os
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLUMNS = 3
OURS, OTHERS = "#1b7f5c", "#9aa5b1"


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(folder, "throughput.json")) as file:
        content = json.load(file)
    draw_all(content["results"], content["machine"]["processor"], os.path.join(folder, "throughput.png"))


def draw_all(results, machine, path):
    """A picture of all cases, [{"case", "rows": [{"name", "rate", "error", "efficiency"}]}]."""
    rows = -(-len(results) // COLUMNS)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=(14, 2.2 * rows), squeeze=False)
    for axis in axes.flat[len(results) :]:
        axis.remove()
    for axis, result in zip(axes.flat, results):
        draw(axis, result)
    figure.suptitle("pictures/s, and the share of a matrix product's speed; %s" % machine)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def draw(axis, result):
    rows = result["rows"][::-1]
    rates = [row["rate"] for row in rows]
    colours = [OURS if row["name"].startswith("ours") else OTHERS for row in rows]
    axis.barh([row["name"] for row in rows], rates, xerr=[row["error"] for row in rows], color=colours)
    for at, row in enumerate(rows):
        rate = ("%.0f" if row["rate"] >= 100 else "%.3g") % row["rate"]
        axis.text(row["rate"], at, "  %s  (%.0f%%)" % (rate, 100 * row["efficiency"]), va="center")
    axis.set_xlim(0, 1.45 * max(rates))
    axis.set_title(result["case"], fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
