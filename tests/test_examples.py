"""The examples in the papers run as they stand and print what is promised."""

import base64
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
from helpers import LABELS, ROOT, draw_demo, finding, run
from papers import block_with, blocks, blocks_with, commands, read, run_block, section
from PIL import Image

from suite.files import jsonfile
from suite.files.schemas import FITS


def picture_file(path, fruit="kiwi", seed=0):
    os.makedirs(os.path.dirname(str(path)), exist_ok=True)
    draw_demo.picture(fruit, 64, random.Random(seed)).save(str(path))


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
def test_the_workflow_runs_as_it_stands(tmp_path):
    """The block for a CPU, with options that make it quick, and the files of the first table."""
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
    out = run_block(blocks_with("source .venv/bin/activate")[0], tmp_path)
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
    run_block(body, user_folder, docker=write % "docker.txt", curl="cat > posted.json; " + write % "curl.txt")
    docker, curl = ((user_folder / name).read_text().split("\0")[:-1] for name in ("docker.txt", "curl.txt"))
    mounted, inside = docker[docker.index("-v") + 1].split(":")
    name = docker[docker.index("-e") + 1].split("=")[1]
    (version,) = os.listdir(os.path.join(mounted, name))
    assert inside == "/models" and version.isdigit() and curl[-1].endswith("/v1/models/%s:predict" % name)
    assert curl[:2] == ["-d", "@-"]
    (instance,) = json.loads((user_folder / "posted.json").read_text())["instances"]
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
    """A function: what predict.py --json says of files of many kinds by a model of this fit.

    README's block for ONNX has been run there; which pixels the network is shown it has no part in.
    """
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
    half = draw_demo.picture("kiwi", 99, random.Random(0)).resize((74, 99))  # decoded at half its size
    half.save(str(files / "half.jpg"))
    monkeypatch.chdir(user_folder)

    def answers_of(fit):
        path = os.path.join("models", "resnet", "model.json")
        jsonfile.write(path, dict(jsonfile.read(path), fit=fit))
        out, _ = run("predict.py", "files", "--json", cwd=str(user_folder))
        return [json.loads(line) for line in out.splitlines()]

    return answers_of


def run_python(path):
    """The variables of README's Python lines for ONNX, run on the file `path`."""
    (code,) = [body for kind, body in blocks("README.md") if kind == "python" and "onnxruntime" in body]
    assert code.count("photo.jpg") == 1
    variables = {}
    exec(code.replace("photo.jpg", path), variables)
    return variables


def check_probabilities(found, answer):
    expected = {each["label"]: each["probability"] for each in answer["predictions"]}
    assert dict(zip(LABELS, found)) == pytest.approx(expected, abs=0.02), answer["image"]


@pytest.mark.slow
def test_onnx_in_python(answers):
    for fit in FITS:
        found = answers(fit)
        assert len(found) == 31
        for answer in found:
            check_probabilities(run_python(answer["image"])["probabilities"][0], answer)


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
    environment = dict(os.environ, NODE_PATH=os.path.join(node, "node_modules"))
    for answer in answers("pad")[:5]:
        pixels = np.stack(run_python(answer["image"])["bands"], 2)
        pixels.tofile("pixels")
        with open("classify.js", "w") as file:
            file.write("const size = %d;\n" % len(pixels))
            file.write("const bytes = new Uint8Array(require('fs').readFileSync('pixels'));\n")
            file.write("const pixels = new Float32Array(bytes.buffer);\n" + block_with("images", "js"))
        command = [os.path.join(node, "bin", "node"), "classify.js"]
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        check_probabilities(json.loads(done.stdout), answer)


def test_java_names_what_the_model_has():
    assert {"images", "probabilities"} <= set(re.findall(r"\w+", block_with("images", "java")))  # not run


# --- within a program ----------------------------------------


def test_the_model_in_three_lines(user_folder):
    """As a program of its own, which finds the suite by PYTHONPATH."""
    code = block_with("from predict import Classifier", "python")
    environment = finding(ROOT)
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=str(user_folder), env=environment, capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, done.stdout) == (0, predicted(user_folder) + "\n"), done.stderr


def test_a_batch_in_a_program(user_folder, monkeypatch, capsys):
    monkeypatch.chdir(user_folder)
    exec(block_with("classify.batch", "python"), {})
    one, other, bad = capsys.readouterr().out.splitlines()
    assert one.startswith("photo.jpg ") and other.startswith("holiday_photos/beach.jpg ")
    assert bad.startswith("no_such_file.jpg cannot be used: cannot be read: No such file")


@pytest.mark.slow
def test_a_view_of_flask(user_folder, monkeypatch):
    if not os.environ.get("CI"):  # which installs the packages of developers
        pytest.importorskip("flask")
    monkeypatch.chdir(user_folder)
    variables = {"__name__": "view"}
    exec(block_with("import flask", "python"), variables)
    with variables["classify"]:
        client = variables["app"].test_client()
        with open("photo.jpg", "rb") as file:
            answer = client.post("/classify", data=file.read())
        assert answer.status_code == 200
        assert answer.get_json()["predictions"][0]["label"] == predicted(user_folder)
        refused = client.post("/classify", data=b"no picture")
        assert refused.status_code == 422 and refused.get_json()["error"].startswith("not a picture")


def test_resnet_in_a_program_of_ones_own(tmp_path):
    (code,) = [body for kind, body in blocks("README.md") if kind == "python" and "import resnet" in body]
    environment = finding(ROOT)
    command = [sys.executable, "-c", code + "\nprint(logits.shape.as_list())"]
    out = subprocess.run(
        command, cwd=str(tmp_path), env=environment, stdout=subprocess.PIPE, check=True
    ).stdout
    assert out == b"[None, 1000]\n"
