"""Draw the pictures of README.md: the report of `make demo` in both languages, as chromium shows it.

    make demo
    python docs/draw_report.py [--model models/demo] [--data data/demo/tfrecords]

Writes report.png and report.zh-CN.png beside this file. Needs Debian's chromium and fonts-noto-cjk.
"""

import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
NAMES = {"en": "report.png", "zh": "report.zh-CN.png"}
WIDTH, HEIGHT = 1100, 1160


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model", default=os.path.join("models", "demo"), help="model folder")
    parser.add_argument("--data", default=os.path.join("data", "demo", "tfrecords"), help="its records")
    options = parser.parse_args()
    for language, name in NAMES.items():
        path = os.path.join(HERE, name)
        with tempfile.TemporaryDirectory() as folder:
            output = os.path.join(folder, "evaluation")
            command = [sys.executable, os.path.join(ROOT, "evaluate.py"), "--model", options.model]
            command += ["--data", options.data, "--language", language, "--output", output]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            photograph(os.path.join(output, "report.html"), path)
        print(path)


def photograph(page, path):
    """The top of an HTML file as a PNG of WIDTH x HEIGHT pixels, light."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--blink-settings=preferredColorScheme=1", "--window-size=%d,%d" % (WIDTH, HEIGHT)]
    command += ["--screenshot=" + path, "file://" + page]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
