"""The papers cannot rot: their commands are run or parsed, their quotations, links and figures looked up."""

import ast
import collections
import glob
import importlib.util
import os
import re
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT, run
from papers import (
    GUIDES,
    LINKING,
    READMES,
    SCALE,
    SERVING,
    WALKTHROUGHS,
    blocks,
    commands,
    prose,
    read,
    section,
)

import evaluate
import export
import FlowIO
import predict
import serve
from suite.training import distribution
from suite.training.options import parse_options

PARSERS = {
    "FlowIO.py": FlowIO.parse_options,
    "train.py": parse_options,
    "evaluate.py": evaluate.parse_options,
    "predict.py": predict.parse_options,
    "export.py": export.parse_options,
    "serve.py": serve.parse_options,
}


# --- commands ----------------------------------------


def check_python(script, *arguments):
    """The script's own parser accepts the arguments."""
    if script in PARSERS:
        PARSERS[script](list(arguments))
        return
    if script == "-m":
        assert importlib.util.find_spec(arguments[0]), arguments
        return
    assert os.path.exists(os.path.join(ROOT, script)), script
    given = [word for word in arguments if word.startswith("--")]
    if given:
        out, _ = run(script, "--help")
        assert all(word in out for word in given), out


def check_make(*arguments):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environment.pop("MFLAGS", None)
    targets = [word for word in arguments if "PYTHON=" not in word]  # names a file that need not be here
    subprocess.run(["make", "-n", *targets], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)


def check_pip(verb, option, file):
    assert (verb, option) == ("install", "-r") and os.path.exists(os.path.join(ROOT, file))


def check_source(file):
    environment, inside = file.split("/", 1)
    assert inside == "bin/activate"
    assert re.search(r"(^| )%s/made\b" % re.escape(environment), read("Makefile"))


def check_export(assignment):
    name, _, value = assignment.partition("=")
    if name == "PYTHONPATH":  # see test_resnet_in_a_program_of_ones_own
        return
    assert name == "TF_CONFIG"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        machines = distribution.read_environment()
    assert len(machines.addresses) == 2 and machines.index == 0


def check_git(*arguments):
    clone, address, folder, *more = arguments
    assert (clone, address) == ("clone", "REPOSITORY") and more == ["&&", "cd", folder]


def check_sudo(program, verb, package):
    assert (program, verb) == ("apt-get", "install")
    assert "sudo apt-get install %s " % package in read("data/fashion_mnist.py")


def check_tensorboard(option, folder):
    assert option == "--logdir" and os.path.exists(os.path.join(ROOT, folder))


CHECKS = {
    "python": check_python,
    "make": check_make,
    "pip": check_pip,
    "source": check_source,
    "export": check_export,
    "git": check_git,
    "sudo": check_sudo,
    "tensorboard": check_tensorboard,
    "docker": lambda *_: None,  # these three: see test_serving
    "echo": lambda *_: None,
    "curl": lambda *_: None,
}


@pytest.mark.parametrize("paper, command", [(paper, each) for paper in GUIDES for each in commands(paper)])
def test_each_command_is_accepted(paper, command):
    program, *arguments = shlex.split(command, comments=True)
    try:
        CHECKS[program](*arguments)
    except SystemExit:
        pytest.fail("%s: refused: %s" % (paper, command))


def test_the_commands_of_make_demo_are_accepted():
    lines = [line.split() for line in read("Makefile").splitlines() if line.startswith("\t$(RUN) ")]
    variables = dict(re.findall(r"^([A-Z]+) := (.*)$", read("Makefile"), re.MULTILINE))
    checked = set()
    for _, script, *arguments in lines:
        if script in PARSERS:
            check_python(script, *(re.sub(r"\$\((\w+)\)", lambda m: variables[m[1]], a) for a in arguments))
            checked.add(script)
    assert checked == {"FlowIO.py", "train.py", "evaluate.py", "predict.py"}


def test_each_option_named_in_a_sentence_exists(capsys):
    known = {"--logdir"}  # of tensorboard
    for parse in PARSERS.values():
        with pytest.raises(SystemExit):
            parse(["--help"])
        known |= set(re.findall(r"--\w+", capsys.readouterr().out))
    for paper in (*READMES, *WALKTHROUGHS, *SERVING, *SCALE):
        named = set()
        for code in re.findall(r"`([^`]+)`", prose(paper)):
            named |= set(re.findall(r"(?<!\S)--\w+", code))
        assert named and named <= known, (paper, named - known)


FOREIGN = ("No matching distribution", "Descriptors cannot", "Cannot convert", "Assign requires")  # messages


def test_each_message_of_ours_that_is_quoted_exists():
    literals = set()
    for path in glob.glob(os.path.join(ROOT, "*.py")) + glob.glob(os.path.join(ROOT, "suite", "*", "*.py")):
        tree = ast.walk(ast.parse(read(path)))
        literals |= {node.s for node in tree if isinstance(node, ast.Str)}
    for paper in READMES:
        quoted = re.findall(r"\*`([^`]+)`\*", read(paper))
        assert len(quoted) > 5
        for message in quoted:
            if not message.startswith(FOREIGN):
                words = ["(?:%s|%%[sdg])" % re.escape(word) for word in message.split()]
                assert any(re.search(" ".join(words), literal) for literal in literals), (paper, message)


# --- two languages ----------------------------------------


@pytest.mark.parametrize("english, chinese", [READMES, WALKTHROUGHS, SERVING, SCALE])
def test_both_languages_say_the_same(english, chinese):
    def without_comments(paper):
        return [(kind, re.sub(r"\s+(?:#|//) .*", "", body)) for kind, body in blocks(paper)]

    def shape(paper):
        """Headings by level, list items, and rows of tables by their number of cells, in order."""
        lines = re.findall(r"^(#+ |- |\|.*\|$)", prose(paper), re.MULTILINE)
        return [line if line[0] != "|" else line.count("|") for line in lines]

    def figures(paper):
        return collections.Counter(re.findall(r"\d[\d,]*\.\d+|\d+,\d{3}\b", prose(paper)))

    assert without_comments(english) == without_comments(chinese)
    assert shape(english) == shape(chinese)
    assert figures(english) == figures(chinese)


# --- links, quotations, figures ----------------------------------------


def anchors(paper):
    """What headings are called in links, as GitHub has it."""
    headings = re.findall(r"^#+ (.*)$", prose(paper), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("paper", LINKING)
def test_links_lead_somewhere(paper):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(paper)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(paper), path)) if path else paper
        assert os.path.exists(os.path.join(ROOT, target)), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("paper", WALKTHROUGHS)
def test_quoted_code_is_the_code(paper):
    quoted = [(kind.split(), body) for kind, body in blocks(paper) if kind.startswith("python")]
    assert len(quoted) > 10
    for (_, file), body in quoted:
        assert body in read(file), (file, body)


@pytest.mark.parametrize("paper", ["docs/CONTRIBUTING.md"])
def test_the_map_names_each_module(paper):
    paths = glob.glob(os.path.join(ROOT, "*.py")) + glob.glob(os.path.join(ROOT, "suite", "**", "[!_]*.py"))
    modules = {os.path.relpath(path, ROOT) for path in paths}
    named = re.findall(r"^\| `([\w/]+\.py)` \|", read(paper), re.MULTILINE)
    assert sorted(named) == sorted(modules)


def test_each_figure_of_what_to_expect_was_measured():
    text, measured = section("What to expect"), read("benchmarks/README.md") + read("benchmarks/accuracy.md")
    figures = re.findall(r"\d+\.\d+(?= |$)", re.sub(r"TensorFlow [12]\.15", "", text))
    assert len(figures) > 20
    assert [figure for figure in figures if figure not in measured] == []
    rows = re.findall(r"\| \d+ \| ([\d.]+) \| [\d.]+ \| [\d.]+ \| (?:(\d+) h )?(\d+) min \|", text)
    assert len(rows) == 6
    for rate, hours, minutes in rows:
        assert int(hours or 0) * 60 + int(minutes) == round(2000 * 32 / float(rate) / 60)


@pytest.fixture(scope="module")
def draw_network():
    sys.path.insert(0, os.path.join(ROOT, "docs"))
    import draw_network

    sys.path.pop(0)
    return draw_network


@pytest.mark.slow
def test_pictures_of_the_network_are_current(draw_network):
    for name, text in draw_network.draw().items():
        assert read(os.path.join("docs", name)) == text, "python docs/draw_network.py draws it anew"


@pytest.mark.slow
def test_shapes_and_counts_of_the_walkthrough(draw_network):
    for layers in (50, 101, 152):
        stages = draw_network.stages(layers)
        total = [f"{sum(getattr(s, n) for s in stages):,}" for n in ("parameters", "multiply_adds")]
        for paper in WALKTHROUGHS:
            assert re.search(r"\| layer_%d \| [\d, ]+ \| %s \| %s \|" % (layers, *total), read(paper))
    for stage in draw_network.stages(50):
        row = r"\| `%s` \| .*\| %s \|" % (stage.name, " × ".join(map(str, stage.shape)))
        for paper in WALKTHROUGHS:
            assert re.search(row, read(paper)), (paper, stage)
