"""Where it computes, and how it ends by a signal."""

import subprocess
import sys
import types

import pytest
from helpers import ROOT

from suite.process import commandline, device


@pytest.mark.parametrize(
    "asked, already, expected",
    [
        ("auto", None, None),
        ("auto", "2,3", "2,3"),
        ("cpu", "2,3", "-1"),
        ("gpu:0", None, "0"),
        ("gpu:1", None, "1"),
        ("gpu:1", "2,3", "3"),
        ("gpu:2", "2,3", "-1"),
        ("gpu:0", "", ""),
    ],
)
def test_the_device_is_chosen_among_the_visible_ones(asked, already, expected):
    assert device.visible_devices(asked, already) == expected


@pytest.mark.parametrize(
    "vendors, expected", [([], False), (["0x8086", "0x1af4"], False), (["0x10de"], True)]
)
def test_an_nvidia_device_is_found_without_its_driver(tmp_path, monkeypatch, vendors, expected):
    for number, vendor in enumerate(vendors):
        (tmp_path / str(number)).write_text(vendor + "\n")
    monkeypatch.setattr(device.glob, "glob", lambda _: sorted(map(str, tmp_path.iterdir())))
    monkeypatch.setattr(device.shutil, "which", lambda _: None)
    monkeypatch.setattr(device.os.path, "exists", lambda _: False)
    assert device.has_nvidia() == expected


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("chosen", ["auto", "cpu"])
def test_a_gpu_that_is_not_seen_is_missed_only_where_there_is_one(monkeypatch, capsys, there, chosen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(device, "gpus", lambda: [])
    monkeypatch.setattr(device, "has_nvidia", lambda: there)
    monkeypatch.setattr(device.tf.test, "is_built_with_cuda", lambda: True)
    device.start(types.SimpleNamespace(device=chosen, verbose=False))
    assert ("sees no GPU" in capsys.readouterr().err) == (there and chosen == "auto")


MOMENTS = {
    "anywhere": "os.kill(os.getpid(), 15)",
    "in a destructor": "class Forgets:\n def __del__(self): os.kill(os.getpid(), 15)\nForgets()",
    "while a module forgets all exceptions": "try: os.kill(os.getpid(), 15)\nexcept BaseException: pass",
    "in a process that was forked, too": "if not os.fork(): os.kill(os.getpid(), 15)\nos.wait()\n"
    "os.kill(os.getpid(), 15)",
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_stops_at_once_and_tidies_once(moment):
    body = MOMENTS[moment].split("\n") + ["time.sleep(9)"]
    code = [
        "import os, time",
        "from suite.process import lifetime",
        "def main():",
        " with lifetime.tidying(lambda: os.write(1, b'tidied')):",
    ]
    code += ["  " + line for line in body] + ["lifetime.run(main)"]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"tidied", b"-c: stopped\n")


# --- mistakes that are near to something ----------------------------------------


@pytest.mark.parametrize(
    "path, meant",
    [
        ("data/datset", "data/dataset"),
        ("dta/dataset", "data"),
        ("data/dataset/cats/1.jgp", "data/dataset/cats/1.jpg"),
        ("data/dataset/cats/1.jpg", None),
        ("nothing like it", None),
    ],
)
def test_a_mistyped_path_is_answered_with_the_one_that_is_there(tmp_path, monkeypatch, path, meant):
    (tmp_path / "data" / "dataset" / "cats").mkdir(parents=True)
    (tmp_path / "data" / "dataset" / "cats" / "1.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert commandline.meant(path) == ("; did you mean %s?" % meant if meant else "")
    assert commandline.meant(str(tmp_path / path)) == (
        "; did you mean %s?" % (tmp_path / meant) if meant else ""
    )
    assert commandline.missing(path, "no such folder").startswith(
        "%s (in %s): no such folder" % (path, tmp_path)
    )


def test_a_mistyped_option_is_answered_with_the_right_one(capsys):
    for given, hint in (("--bathc_size", "; did you mean --batch_size?"), ("--zzz", "")):
        parser = commandline.ArgumentParser("Words.")
        parser.add_argument("--batch_size")
        with pytest.raises(SystemExit):
            parser.parse_args([given, "3"])
        assert capsys.readouterr().err.endswith("unrecognized arguments: %s 3%s\n" % (given, hint))
