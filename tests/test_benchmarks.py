"""What the scripts of benchmarks/, docs/ and data/ take from the suite is there; they are not run here."""

import ast
import functools
import glob
import os
import re

import pytest
from helpers import ROOT
from papers import read


def listed(pattern):
    """The paths of files, from ROOT on."""
    return sorted(os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, pattern)))


SCRIPTS = [path for room in ("benchmarks", "docs", "data") for path in listed(room + "/*.py")]
# By what imports them; of two, such as predict.py, the one beside the script.
MODULES = {path[:-3].replace(os.sep, "."): path for path in listed("*.py") + listed("suite/*/*.py")}
MODULES.update((os.path.basename(path)[:-3], path) for path in SCRIPTS)


@functools.lru_cache(None)
def names(path):
    """What a module defines, assigns or imports outside of its functions and classes; a folder nothing."""
    found, nodes = {"__doc__", "__file__"}, ast.parse(read(path)).body if path else []
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        nodes.extend(ast.iter_child_nodes(node))
    return found


def programs(source):
    """The trees of a script, and of the programs for other processes among its strings."""
    tree = ast.parse(source)
    yield tree
    for node in ast.walk(tree):
        text = getattr(node, "s", None)
        if isinstance(text, str) and "import " in text:
            try:
                yield ast.parse(re.sub("%[a-z]", "0", text))
            except SyntaxError:  # a sentence
                continue


def missing(source):
    """The names that a script takes from MODULES and that they do not have."""
    for tree in programs(source):
        known = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                known.update((alias.asname or alias.name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = "%s.%s" % (node.module, alias.name)
                    known[alias.asname or alias.name] = name
                    is_ours = node.module.partition(".")[0] in ("suite", *MODULES)
                    if is_ours and name not in MODULES and alias.name not in names(MODULES.get(node.module)):
                        yield name
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = known.get(node.value.id)
                if module in MODULES and node.attr not in names(MODULES[module]):
                    yield "%s.%s" % (module, node.attr)


@pytest.mark.parametrize("path", SCRIPTS)
def test_what_a_script_takes_is_there(path):
    assert not list(missing(read(path)))


@pytest.mark.parametrize(
    "source, name",
    [
        ("from suite.files import atomic\natomic.replaced('a')", "suite.files.atomic.replaced"),
        ("def main():\n    from suite.records.reading import load", "suite.records.reading.load"),
        ("from suite.files import atoms", "suite.files.atoms"),
        ("import train as ours\nours.tried()", "train.tried"),
        ("run('import random_model; random_model.make(%r); random_model.mend()')", "random_model.mend"),
    ],
)
def test_what_is_not_there_is_found(source, name):
    assert list(missing(source)) == [name]


@pytest.mark.parametrize("path", listed("benchmarks/*.py"))
def test_each_benchmark_is_told_of(path):
    """In a paper, or by the benchmark that it is a part of."""
    others = {*listed("benchmarks/*.py"), *listed("*/*.md"), "README.md"} - {path}
    told = r"\b(from|import) {0}\b|benchmarks/{0}\.py|`{0}\.py|\"{0}\.py\"".format(
        os.path.basename(path)[:-3]
    )
    assert any(re.search(told, read(other)) for other in others)
