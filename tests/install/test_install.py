"""The install lines of the READMEs: each in an environment that has only what the line brings.

make test-install
"""

import os
import re
import shlex
import shutil
import subprocess

import pytest
from helpers import ROOT
from papers import READMES, block_with, blocks, commands, read, run_block

# Of "Which TensorFlow for which machine": the Python, and the list to install.
ROW = re.compile(r"^\|.*\| (3\.\d+) \| `pip install -r (\S+)` \|.*\|$", re.MULTILINE)
LISTS = sorted({row for paper in READMES for row in ROW.findall(read(paper))})
LOCKS = {  # of the environments that make makes
    "requirements.txt": "requirements/tf1.lock",
    "requirements/intel.txt": "requirements/intel.lock",
    "requirements/tf2.txt": "requirements/tf2.lock",
}
EXPORT = {
    "requirements.txt": "requirements/tf1-export.txt",
    "requirements/tf2.txt": "requirements/tf2-export.txt",
}
SERVE = "requirements/serve.txt"
CLUSTER = "requirements/cluster.txt"
FASHION = "sudo apt-get install dataset-fashion-mnist"

# What stands for a command within a block: small and quick, and the suite is elsewhere.
COMMANDS = {
    "python": """
        local more=
        case $1 in
        FlowIO.py) more="--image_size 32" ;;
        train.py) more="--mini --step 2 --batch_size 4 --bn_batches 0" ;;
        data/fashion_mnist.py) more="--count 100 --val_count 10" ;;
        esac
        case $1 in
        -*) command python "$@" ;;
        *) command python %s/"$@" $more ;;
        esac"""
    % shlex.quote(ROOT),
    "pip": '(cd %s && command pip "$@")' % shlex.quote(ROOT),
    "sudo": 'dpkg --status "$3" > dpkg.txt',  # .ci/run has installed it
}


@pytest.fixture
def folder(tmp_path):
    """One whose gigabytes do not stay, as pytest's would."""
    yield tmp_path
    shutil.rmtree(str(tmp_path))


def make_environment(folder, version):
    finder = [os.path.join(ROOT, "requirements", "python.sh"), version]
    anything = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    python = subprocess.run(finder, env=anything, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    subprocess.run([python.stdout.strip(), "-m", "venv", folder], check=True)


def pins(text):
    """{(package, release)} of a lock, or of what pip lists as installed."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {(re.sub(r"[-_.]+", "-", package.lower()), release) for package, release in found}


def test_each_install_line_is_tested():
    found = {line for paper in READMES for line in commands(paper) if " install " in line}
    lists = {name for _, name in LISTS}
    assert set(LOCKS) < lists and set(EXPORT) < lists
    assert found == {"pip install -r " + name for name in [*lists, *EXPORT.values(), SERVE, CLUSTER]} | {
        FASHION
    }


@pytest.mark.parametrize("version, wanted", LISTS)
def test_what_a_line_installs_is_enough(folder, version, wanted):
    def run_here(body):
        return run_block("source .venv/bin/activate\n" + body, folder, **COMMANDS)

    make_environment(str(folder / ".venv"), version)
    run_here("pip install --quiet --no-compile -r " + wanted)
    if wanted in LOCKS:  # so this is the environment of `make demo`, too
        assert pins(run_here("python -m pip freeze")) <= pins(read(LOCKS[wanted]))

    run_here("python data/draw_demo.py --count 20")
    os.rename(str(folder / "data" / "demo" / "dataset"), str(folder / "data" / "dataset"))
    os.rename(str(folder / "data" / "demo" / "new_pictures" / "kiwi.jpg"), str(folder / "photo.jpg"))
    answer = run_here(block_with("train.py --mini --step 300")).splitlines()[-1]
    run_here("tensorboard --inspect --logdir models; python export.py")
    if wanted in EXPORT:  # the others have the same Pythons
        run_here("pip install --quiet -r %s; python -c 'import h11'" % SERVE)
        run_here("pip install --quiet -r %s; python -m distributed.cli.dask_worker --help" % CLUSTER)
    if wanted == "requirements.txt":
        run_here(block_with(FASHION))
    if wanted in EXPORT:
        run_here(block_with("--format onnx").replace(EXPORT["requirements.txt"], EXPORT[wanted]))
        for paper in READMES:
            (code,) = [body for kind, body in blocks(paper) if kind == "python" and "onnxruntime" in body]
            assert run_here("python -c " + shlex.quote(code)).split()[0] == answer.split()[1]
