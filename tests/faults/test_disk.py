"""Disks that are full or cannot be written to, and files that vanish: one line, and nothing lost."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, draw_dataset, run
from PIL import Image

from suite.files import atomic
from suite.files.schemas import SPLITS
from suite.model import modelfolder
from suite.training import checkpoints


def mount(*arguments):
    sudo = ["sudo", "-n"] if os.geteuid() else []
    return subprocess.run([*sudo, *arguments], stderr=subprocess.PIPE, encoding="utf-8")


@pytest.fixture
def disk(tmp_path):
    """A function that makes a file system of so many bytes, and puts copies of folders there; its path."""
    place = str(tmp_path / "disk")

    def make(size, **folders):
        os.makedirs(place)
        done = mount("mount", "-t", "tmpfs", "-o", "size=%d,mode=777" % size, "tmpfs", place)
        if done.returncode:
            pytest.skip("no file system of its own can be made here: %s" % done.stderr)
        for name, folder in folders.items():
            shutil.copytree(folder, os.path.join(place, name))
        return place

    yield make
    mount("umount", place)


@pytest.fixture
def mounted(tmp_path):
    """A folder that is a mount point, but lies on the same disk as the folder above it."""
    source, target = str(tmp_path / "source"), str(tmp_path / "mounted")
    os.makedirs(source)
    os.makedirs(target)
    done = mount("mount", "--bind", source, target)
    if done.returncode:
        pytest.skip("no folder can be mounted here: %s" % done.stderr)
    yield target
    mount("umount", target)


def make_read_only(place):
    assert mount("mount", "-o", "remount,ro", place).returncode == 0


def size(folder):
    paths = [os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return sum(os.path.getsize(path) for path in paths)


def fill(place):
    """Leave 10 kB of a disk free."""
    status = os.statvfs(place)
    with open(os.path.join(place, "filler"), "wb") as file:
        file.write(bytes(status.f_bavail * status.f_bsize - 10000))


def files(folder):
    """{path: bytes} of all files below a folder but TensorBoard's."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            if "tfevents" not in name:
                with open(os.path.join(parent, name), "rb") as file:
                    found[os.path.relpath(os.path.join(parent, name), folder)] = file.read()
    return found


def fails(script, *arguments, says):
    """It ends with status 1 and one line that says so."""
    out, err = run(script, *arguments, status=1)
    lines = [line for line in err.splitlines() if line.startswith("%s: error: " % script)]
    assert len(lines) == 1 and lines[0] == err.splitlines()[-1] and says in lines[0], err
    return lines[0]


# --- full ----------------------------------------


@pytest.mark.slow
@pytest.mark.versions
def test_training_on_a_full_disk(workspace, disk):
    """No room for the next checkpoint: the last one stays, and with more room the same command goes on."""
    place = disk(size(workspace.model) + (10 << 20), model=workspace.model)
    model = os.path.join(place, "model")
    arguments = ["--data", workspace.records, "--output", model, "--bn_batches", 0]
    arguments += ["--step", 102, "--save_num", 2]
    fails("train.py", *arguments, says="no space left")
    assert modelfolder.latest_checkpoint(model).endswith("model.ckpt-100")
    assert checkpoints.is_finite(modelfolder.latest_checkpoint(model))
    assert not [name for name in os.listdir(model) if checkpoints.UNFINISHED.fullmatch(name)]
    assert mount("mount", "-o", "remount,size=2g", place).returncode == 0
    assert "resuming at step 100" in run("train.py", *arguments)[1]
    assert modelfolder.latest_checkpoint(model).endswith("model.ckpt-102")


@pytest.mark.slow
@pytest.mark.versions
@pytest.mark.parametrize("script", ["FlowIO.py", "evaluate.py", "export.py"])
def test_a_full_disk_keeps_what_was_there(workspace, disk, script):
    arguments, place = prepare(workspace, disk, script)
    before = files(place)
    fill(place)
    fails(script, *arguments, says="no space left")
    os.remove(os.path.join(place, "filler"))
    assert files(place) == before


@pytest.mark.slow
def test_prediction_on_a_full_disk_goes_without_its_cache(workspace, disk):
    place = disk(1 << 30, model=workspace.model)
    fill(place)
    picture = os.path.join(workspace.dataset, "kiwi", "0.png")
    out, _ = run("predict.py", picture, "--model", os.path.join(place, "model"))
    assert "kiwi" in out


@pytest.mark.slow
def test_what_predict_writes_on_a_full_disk(workspace, disk):
    """The file is named, and no broken picture stays."""
    place = disk(1 << 20)
    fill(place)
    pictures = os.path.join(workspace.dataset, "kiwi")
    features = os.path.join(place, "features.npz")
    for option, path, named in (("--features", features, features), ("--explain", place, ".jpg")):
        err = fails("predict.py", pictures, "--model", workspace.model, option, path, says="No space left")
        assert named in err
    saved = set(os.listdir(place)) - {"filler"}
    assert 0 < len(saved) < len(os.listdir(pictures))
    for name in saved:
        with Image.open(os.path.join(place, name)) as image:
            image.load()


# --- not to be written to ----------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("script", ["FlowIO.py", "train.py", "evaluate.py", "export.py"])
def test_a_disk_that_is_read_only(workspace, disk, script):
    arguments, place = prepare(workspace, disk, script)
    before = files(place)
    make_read_only(place)
    fails(script, *arguments, says="Read-only file system")
    assert files(place) == before


def prepare(workspace, disk, script):
    """A disk with what a script has written to it; its arguments to do so again, and the disk's place."""
    place = disk(1 << 30, model=workspace.model, records=workspace.records)
    model, records = os.path.join(place, "model"), os.path.join(place, "records")
    arguments = {
        "FlowIO.py": ["--dataset", workspace.dataset, "--output", records, "--image_size", 40],
        "train.py": ["--data", records, "--output", model, "--step", 102],
        "evaluate.py": ["--data", records, "--model", model],
        "export.py": ["--model", model, "--output", os.path.join(place, "exported")],
    }[script]
    if script == "export.py":
        shutil.copytree(workspace.exported, arguments[-1])
    return arguments, place


# --- mounted ----------------------------------------


def test_mount_points_are_seen(disk, mounted):
    place = disk(1 << 20)
    for folder in (place, mounted):
        inside = os.path.join(folder, "inside")
        os.makedirs(inside)
        assert atomic.is_mount_point(folder) and not atomic.is_mount_point(inside)
        with pytest.raises(OSError, match="busy"):  # what it is good for
            os.rename(folder, folder + "-2")


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, kind",
    [("FlowIO.py", "disk"), ("FlowIO.py", "mounted"), ("evaluate.py", "disk"), ("export.py", "disk")],
)
def test_an_output_that_is_a_mount_point(workspace, request, script, kind):
    """Once where it is empty, as a new volume is, and once to replace what is there."""
    place = request.getfixturevalue(kind)
    place = place(1 << 30) if kind == "disk" else place
    arguments = {
        "FlowIO.py": ["--dataset", workspace.dataset, "--image_size", 32],
        "evaluate.py": ["--data", workspace.records, "--model", workspace.model],
        "export.py": ["--model", workspace.model],
    }[script]
    run(script, *arguments, "--output", place)
    first = files(place)
    for path in first:
        os.truncate(os.path.join(place, path), 0)
    run(script, *arguments, "--output", place)
    assert first.keys() == files(place).keys() and all(files(place).values())
    beside = os.listdir(os.path.dirname(place))
    assert not [name for name in beside if name.endswith((atomic.PARTIAL, atomic.PREVIOUS))]


# --- vanishing ----------------------------------------


def test_pictures_that_vanish_are_listed(tmp_path):
    """Files that were there when the folders were listed, and are gone when they are read."""
    draw_dataset(tmp_path / "dataset", 12, ["apple", "kiwi"])
    program = """if True:
        import os, shutil, FlowIO
        from suite.pictures import folders
        from suite.process import lifetime
        def vanish(dataset, *rest, list_sources=folders.list_sources):
            found = list_sources(dataset, *rest)
            os.remove(os.path.join(dataset, "apple", "3.png"))
            return found
        folders.list_sources = vanish
        lifetime.run(FlowIO.main)
    """
    command = [sys.executable, "-c", program, "--dataset", tmp_path / "dataset", "--output", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "apple/3.png,cannot be read: No such file or directory" in (tmp_path / "out/skipped.csv").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["output", "data"])
def test_a_folder_that_vanishes_while_it_trains(workspace, tmp_path, victim):
    model, records = str(tmp_path / "model"), str(tmp_path / "records")
    shutil.copytree(workspace.records, records)
    command = [sys.executable, os.path.join(ROOT, "train.py"), "--mini", "--data", records, "--output", model]
    command += ["--step", "200", "--save_num", "100", "--log_num", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("step 1/"):
            folder = {"output": model, "data": records}[victim]
            os.rename(folder, folder + " gone")  # at once, whatever is being written there
    assert process.wait() == 1 and "Traceback" not in "".join(lines)
    assert lines[-1].startswith("train.py: error: "), lines
    if victim == "data":  # it was in memory; the validation missed it
        assert SPLITS[1] in lines[-1] and modelfolder.latest_checkpoint(model).endswith("-100")
