"""What the tests of the papers share: their blocks, commands and prose, and bash to run them in."""

import os
import re
import shlex
import subprocess
import sys

from helpers import ROOT

READMES = ("README.md", "README.zh-CN.md")
WALKTHROUGHS = ("docs/walkthrough.md", "docs/walkthrough.zh-CN.md")
SERVING = ("docs/serving.md", "docs/serving.zh-CN.md")
SCALE = ("docs/scale.md", "docs/scale.zh-CN.md")
GUIDES = (*READMES, *WALKTHROUGHS, *SERVING, *SCALE, "docs/CONTRIBUTING.md")
LINKING = (*GUIDES, "benchmarks/README.md", "benchmarks/accuracy.md", "data/README.md", "models/README.md")


def read(paper):
    with open(os.path.join(ROOT, paper), encoding="utf-8") as file:
        return file.read()


def blocks(paper):
    """[(what follows the opening fence, the lines between the fences)]"""
    return re.findall(r"^```(.*)\n((?:.*\n)*?)```$", read(paper), re.MULTILINE)


def prose(paper):
    """A paper without its blocks."""
    return re.sub(r"^```.*\n(?:.*\n)*?```$", "", read(paper), flags=re.MULTILINE)


def commands(paper):
    """The lines of the blocks of commands, and the commands within sentences."""
    inline = re.findall(r"`((?:python|make|pip|tensorboard) [^`]+)`", prose(paper))
    lines = [body.replace("\\\n", " ").splitlines() for kind, body in blocks(paper) if kind == "sh"]
    return [line for line in dict.fromkeys(sum(lines, []) + inline) if line]


def section(title):
    """The text below a heading of README.md."""
    return read("README.md").split("\n## %s\n" % title)[1].split("\n## ")[0]


def run_block(body, folder, **instead):
    """Run a block of commands by bash in `folder`.

    Args:
        instead: {command: bash code that takes its place}, besides python, which is this one.
    """
    instead.setdefault("python", '%s %s/"$@"' % (shlex.quote(sys.executable), shlex.quote(ROOT)))
    functions = ["%s() { %s\n}" % pair for pair in instead.items()]
    script = "\n".join(["set -e", *functions, body])
    done = subprocess.run(["bash", "-c", script], cwd=str(folder), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def block_with(text, kind="sh"):
    """The README's one block of a kind that has a text in it."""
    (body,) = blocks_with(text, kind)
    return body


def blocks_with(text, kind="sh"):
    return [body for found, body in blocks("README.md") if found == kind and text in body]
