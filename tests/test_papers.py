"""The papers cannot rot: their commands are run or parsed, their quotations, links and figures looked up."""

import ast
import base64
import collections
import glob
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from helpers import LABELS, ROOT, draw_demo, run
from PIL import Image

import evaluate
import export
import FlowIO
import predict
from suite.training import distribution
from suite.training.options import parse_options

READMES = ("README.md", "README.zh-CN.md")
WALKTHROUGHS = ("docs/walkthrough.md", "docs/walkthrough.zh-CN.md")
GUIDES = (*READMES, *WALKTHROUGHS, "docs/CONTRIBUTING.md")
LINKING = (*GUIDES, "benchmarks/README.md", "benchmarks/accuracy.md", "data/README.md", "models/README.md")

PARSERS = {
    "FlowIO.py": FlowIO.parse_options,
    "train.py": parse_options,
    "evaluate.py": evaluate.parse_options,
    "predict.py": predict.parse_options,
    "export.py": export.parse_options,
}


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


# --- commands ----------------------------------------


def check_python(script, *arguments):
    """The script's own parser accepts the arguments."""
    if script in PARSERS:
        PARSERS[script](list(arguments))
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
    assert file == ".venv/bin/activate" and "-m venv" in read("Makefile") and ".venv/made" in read("Makefile")


def check_export(assignment):
    name, _, value = assignment.partition("=")
    if name == "PYTHONPATH":  # see test_resnet_in_a_program_of_ones_own
        return
    assert name == "TF_CONFIG"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        machines = distribution.read_environment()
    assert len(machines.addresses) == 2 and machines.index == 0


def check_apt(verb, package):
    assert verb == "install" and "apt-get install %s " % package in read("data/fashion_mnist.py")


def check_tensorboard(option, folder):
    assert option == "--logdir" and os.path.exists(os.path.join(ROOT, folder))


CHECKS = {
    "python": check_python,
    "make": check_make,
    "pip": check_pip,
    "source": check_source,
    "export": check_export,
    "apt-get": check_apt,
    "tensorboard": check_tensorboard,
    "docker": lambda *_: None,  # these two: see test_serving
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
    for paper in (*READMES, *WALKTHROUGHS):
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


# --- commands that really run ----------------------------------------


def picture_file(path, fruit="kiwi", seed=0):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    draw_demo.picture(fruit, 64, random.Random(seed)).save(str(path))


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


def test_the_workflow_is_told_for_a_cpu_and_for_a_gpu():
    short, whole = blocks_with("source .venv/bin/activate")
    assert "FlowIO.py --image_size 64\npython train.py --mini --step 300\n" in short
    assert re.findall("python (.*)", whole) == [
        "FlowIO.py",
        "train.py",
        "evaluate.py",
        "predict.py photo.jpg",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("way", [0, 1])
def test_the_workflow_runs_as_it_stands(way, tmp_path):
    """A block of "Your own pictures", with options that make it quick, and the files of the first table."""
    classes = {line.split("/")[2] for line in block_with("data/dataset/", "text").splitlines()}
    assert len(classes) == 2
    for name, fruit in zip(sorted(classes), ("banana", "kiwi")):
        for number in range(20):
            picture_file(tmp_path / "data" / "dataset" / name / ("%d.jpg" % number), fruit, number)
    picture_file(tmp_path / "photo.jpg", "kiwi", 99)
    # An environment whose python adds options.
    activate = tmp_path / ".venv" / "bin" / "activate"
    os.makedirs(str(activate.parent))
    activate.write_text(
        """
        python() {
            local more=
            [ "$1" != FlowIO.py ] || more="--image_size 32"
            [ "$1" != train.py ] || more="--mini --step 2 --batch_size 4 --bn_batches 0"
            %s %s/"$@" $more
        }
        """
        % (shlex.quote(sys.executable), shlex.quote(ROOT))
    )
    out = run_block(blocks_with("source .venv/bin/activate")[way], tmp_path)
    assert out.splitlines()[-1].startswith("photo.jpg: ")
    table = re.findall(r"^\| `\w+\.py` \| .* \| (`[a-z/]+`): (.*) \|$", read("README.md"), re.MULTILINE)
    assert len(table) == 4
    for folder, files in table[:3]:
        for name in [""] + re.findall(r"`([^`]+)`", files):
            assert os.path.exists(str(tmp_path / folder.strip("`") / name)), (folder, name)


@pytest.fixture
def user_folder(workspace, tmp_path):
    """A folder with a trained model and pictures, as the papers name them."""
    shutil.copytree(workspace.model, str(tmp_path / "models" / "resnet"))
    picture_file(tmp_path / "photo.jpg", seed=98)
    picture_file(tmp_path / "holiday_photos" / "beach.jpg", "banana", 97)
    return tmp_path


@pytest.mark.slow
def test_predict_lines_run(user_folder):
    lines = [line for line in commands("README.md") if line.startswith("python predict.py ")]
    assert len(lines) >= 4
    out = run_block("\n".join(lines), user_folder)
    assert "photo.jpg" in out and "beach.jpg" in out and os.listdir(str(user_folder / "labelled"))


@pytest.mark.slow
def test_serving(user_folder):
    """What docker mounts is what was exported, and what curl posts is answered."""
    body = block_with("docker run")
    write = "printf '%%s\\0' \"$@\" > %s"
    run_block(body, user_folder, docker=write % "docker.txt", curl=write % "curl.txt")
    docker, curl = ((user_folder / name).read_text().split("\0")[:-1] for name in ("docker.txt", "curl.txt"))
    mounted, inside = docker[docker.index("-v") + 1].split(":")
    name = docker[docker.index("-e") + 1].split("=")[1]
    (version,) = os.listdir(os.path.join(mounted, name))
    assert inside == "/models" and version.isdigit() and ("/v1/models/%s:predict" % name) in curl[0]
    (instance,) = json.loads(curl[-1])["instances"]
    data = base64.b64decode(instance["image_bytes"]["b64"])
    with tf.Graph().as_default(), tf.Session() as session:
        loaded = tf.saved_model.load(session, ["serve"], os.path.join(mounted, name, version))
        signature = loaded.signature_def["serving_default"]
        (tensor,) = (signature.inputs[name].name for name in instance)
        fetches = {name: output.name for name, output in signature.outputs.items()}
        answer = session.run(fetches, {tensor: [data]})
    for name in answer:
        assert "`%s`" % name in section("Into your product")
    assert answer["label"][0].decode() == predicted(user_folder)


def predicted(folder):
    out, _ = run("predict.py", "photo.jpg", "--json", cwd=str(folder))
    return json.loads(out)["predictions"][0]["label"]


@pytest.fixture
def answers(user_folder, monkeypatch):
    """What predict.py --json says of files of many kinds; README's block for ONNX has been run there."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    run_block(block_with("--format onnx"), user_folder, pip=":")
    turned = Image.Exif()
    turned[0x0112] = 6
    files = user_folder / "files"
    files.mkdir()
    for side in (20, 32, 35, 48, 150):
        picture = draw_demo.picture("kiwi", side, random.Random(side))
        picture.save(str(files / ("%d.png" % side)))
        picture.save(str(files / ("%d.jpg" % side)))
        picture.convert("L").save(str(files / ("grey%d.jpg" % side)))
        picture.save(str(files / ("turned%d.jpg" % side)), exif=turned)
        picture.resize((side, 4 * side)).save(str(files / ("tall%d.png" % side)))
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture.save(str(files / ("transparent%d.png" % side)))
    out, _ = run("predict.py", "files", "--json", cwd=str(user_folder))
    monkeypatch.chdir(user_folder)
    return [json.loads(line) for line in out.splitlines()]


def run_python(paper, path):
    """The variables of a README's Python lines for ONNX, run on the file `path`."""
    (code,) = [body for kind, body in blocks(paper) if kind == "python" and "onnxruntime" in body]
    assert code.count("photo.jpg") == 1
    variables = {}
    exec(code.replace("photo.jpg", path), variables)
    return variables


def check_probabilities(found, answer):
    expected = {each["label"]: each["probability"] for each in answer["predictions"]}
    assert dict(zip(LABELS, found)) == pytest.approx(expected, abs=0.02), answer["image"]


@pytest.mark.slow
@pytest.mark.parametrize("paper", READMES)
def test_onnx_in_python(answers, paper):
    assert len(answers) == 30
    for answer in answers:
        check_probabilities(run_python(paper, answer["image"])["probabilities"][0], answer)


@pytest.fixture
def node():
    folder = os.path.join(ROOT, ".venv-node")
    if not os.path.exists(os.path.join(folder, "run")):
        if os.environ.get("CI"):
            pytest.fail("CI makes .venv-node/run")
        pytest.skip("needs Node.js: make .venv-node/run")
    return folder


@pytest.mark.slow
def test_onnx_in_javascript(node, answers):
    pixels = np.array([np.stack(run_python("README.md", each["image"])["bands"], 2) for each in answers])
    pixels.tofile("pixels")
    program = """(async () => {
        const size = %d, length = size * size * 3;
        const all = new Float32Array(new Uint8Array(require("fs").readFileSync("pixels")).buffer);
        for (let at = 0; at < all.length; at += length) {
            const pixels = all.slice(at, at + length);
            %s
            console.log(JSON.stringify(Array.from(probabilities.data)));
        }
    })();"""
    command = [
        os.path.join(node, "bin", "node"),
        "-e",
        program % (pixels.shape[1], block_with("images", "js")),
    ]
    environment = dict(os.environ, NODE_PATH=os.path.join(node, "node_modules"))
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(found) == len(answers), done.stderr
    for probabilities, answer in zip(found, answers):
        check_probabilities(probabilities, answer)


def test_java_names_what_the_model_has():
    assert {"images", "probabilities"} <= set(re.findall(r"\w+", block_with("images", "java")))  # not run


def test_resnet_in_a_program_of_ones_own(tmp_path):
    (code,) = [body for kind, body in blocks("README.md") if kind == "python" and "import resnet" in body]
    environment = dict(os.environ, PYTHONPATH=ROOT)
    command = [sys.executable, "-c", code + "\nprint(logits.shape.as_list())"]
    out = subprocess.run(
        command, cwd=str(tmp_path), env=environment, stdout=subprocess.PIPE, check=True
    ).stdout
    assert out == b"[None, 1000]\n"


# --- two languages ----------------------------------------


@pytest.mark.parametrize("english, chinese", [READMES, WALKTHROUGHS])
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
