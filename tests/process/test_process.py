"""Where it computes, and how it ends by a signal."""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types

import pytest
from helpers import ROOT, refuses, run
from tensorflow.python.client import device_lib
from tensorflow.python.platform import build_info

from suite.model import modelfolder, warmstart
from suite.pictures import imagefile, opening
from suite.process import commandline, device, terminal, tf_versions
from suite.process.errors import UsageError
from suite.process.tf_versions import tf


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
@pytest.mark.parametrize("built, why", [(True, "needs CUDA"), (False, "is for CPUs alone; README.md has")])
def test_a_gpu_that_is_not_seen_is_missed_only_where_there_is_one(
    monkeypatch, capsys, there, chosen, built, why
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(device, "gpus", lambda: [])
    monkeypatch.setattr(device, "has_nvidia", lambda: there)
    monkeypatch.setattr(device.tf.test, "is_built_with_cuda", lambda: built)
    device.start(types.SimpleNamespace(device=chosen, tf32="yes", verbose=False))
    said = "warning: TensorFlow sees no GPU; this build " + why
    assert (said in " ".join(capsys.readouterr().err.split())) == (there and chosen == "auto")


@pytest.mark.parametrize(
    "version, code, capability, says",
    [
        (1, None, (6, 1), "has code for it"),
        (1, None, (7, 5), "has code for it"),  # which runs the code of 7.0
        (1, None, (8, 0), "has code up to 7.0, which the driver compiles at the first use, for minutes"),
        (1, None, (3, 0), "cannot run on it: it has code from 3.5 on"),
        (2, ["sm_50", "sm_60", "sm_70", "sm_75", "compute_80"], (8, 9), "has code for it"),
        (2, ["sm_50", "sm_60", "sm_70", "sm_75", "compute_80"], (12, 0), "has code up to 8.0, which"),
        (2, ["sm_50", "sm_60", "sm_70", "sm_75", "compute_80"], (6, 1), "has code for it"),
        (2, ["sm_60", "sm_70"], (8, 0), "cannot run on it: it has code from 6.0 on"),  # no PTX
        (2, ["sm_90a", "compute_100"], (10, 3), "has code for it"),
        (2, [], (9, 0), "does not say"),
    ],
)
def test_a_gpu_is_described(monkeypatch, version, code, capability, says):
    """As either TensorFlow says it, of two GPUs that it does not have."""
    names = "NVIDIA H200", "Quadro RTX, 5000"
    monkeypatch.setattr(tf_versions, "is_2", lambda: version == 2)
    monkeypatch.setattr(device, "gpus", lambda: list(names))
    monkeypatch.setattr(device, "driver", lambda: "580.65.06")
    if version == 2:
        details = {name: {"device_name": name, "compute_capability": capability} for name in names}
        config = types.SimpleNamespace(list_physical_devices=lambda _: names, get_device_details=details.get)
        monkeypatch.setattr(tf_versions.tf, "config", types.SimpleNamespace(experimental=config))
        build = types.SimpleNamespace(get_build_info=lambda: {"cuda_compute_capabilities": code})
        monkeypatch.setattr(tf_versions.tf, "sysconfig", build)
    else:
        text = "device: 0, name: %s, pci bus id: 0000:00:04.0, compute capability: %d.%d"
        devices = [types.SimpleNamespace(physical_device_desc="")]
        devices += [types.SimpleNamespace(physical_device_desc=text % (name, *capability)) for name in names]
        monkeypatch.setattr(device_lib, "list_local_devices", lambda _: devices)
        monkeypatch.setattr(build_info, "cuda_version_number", "10", raising=False)
    start = "device: %s, compute capability %d.%d, driver 580.65.06; this "
    for line, name in zip(device.describe(), names):
        assert line.startswith(start % (name, *capability)) and says in line
    assert len(device.describe()) == 2


@pytest.mark.parametrize(
    "text, version",
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\nGCC version: 12",
            "535.104.05",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("", "552.22"),  # on WSL nvidia-smi alone knows it
    ],
)
def test_the_driver_tells_its_version(tmp_path, monkeypatch, text, version):
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(device, "DRIVER", str(tmp_path / "version"))
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 552.22\n")
    (tmp_path / "nvidia-smi").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device.driver() == version


def test_without_a_driver_there_is_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "DRIVER", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device.driver() is None and device.describe() == ["device: CPU, %d cores" % os.cpu_count()]


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


@pytest.mark.parametrize("is_ignored, status", [(False, 129), (True, 143)])
def test_a_terminal_that_closes_stops_it_but_with_nohup(is_ignored, status):
    """SIGHUP, and then SIGTERM."""
    handler = signal.SIG_IGN if is_ignored else signal.SIG_DFL
    code = "import os, time; from suite.process import lifetime; lifetime.stop_at_once()"
    code += "; os.kill(os.getpid(), 1); os.kill(os.getpid(), 15)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, preexec_fn=lambda: signal.signal(signal.SIGHUP, handler))
    assert done.returncode == status


def test_a_terminal_that_closes_lets_a_training_save():
    """Though SIGHUP comes twice then, from the shell and from the system."""
    code = "import os, time; from suite.process import lifetime; received = lifetime.catch_stop_signals()"
    code += "; [(os.kill(os.getpid(), 1), time.sleep(0.01)) for _ in 'ab']; print(len(received))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) == b"1\n"


def test_a_signal_ends_it_though_nobody_reads_what_it_says():
    """A pipe that is full, as of a pager that waits."""
    code = "import sys, time; from suite.process import lifetime; lifetime.stop_at_once()"
    code += "; print(flush=True); sys.stderr.write('x' * 10**6)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        process.stdout.readline()
        time.sleep(0.5)
        process.terminate()
        assert process.wait(timeout=30) == 143


def test_what_nobody_can_read_does_not_end_the_work():
    """Standard error is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "from suite.process.terminal import say; say('x'); print('done')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_nothing_is_meant_where_the_working_directory_cannot_be_seen(monkeypatch):
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/")
    assert commandline.meant("models/resnet") == "" == commandline.meant("/none/at/all")


@pytest.mark.parametrize("script", ["FlowIO.py", "train.py", "evaluate.py", "predict.py", "export.py"])
def test_a_missing_package_is_one_line(script):
    """-S: without what is installed."""
    command = [sys.executable, "-S", os.path.join(ROOT, script), "--help"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env={})
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"%s: error: \w+ is not installed for .*\n" % script, done.stderr)


def test_other_failures_of_an_import_are_not_hidden():
    for statement, says in (("import PIL.none", "No module"), ("raise KeyError(1)", "KeyError: 1")):
        code = "from suite.process import interrupt\n" + statement
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
        assert done.returncode == 1 and "Traceback" in done.stderr and says in done.stderr


# --- lines ----------------------------------------


@pytest.mark.parametrize(
    "width, shown",
    [
        (0, "a warning that is long; next: python train.py --model a b c; \u732b\u732b\u732b end"),
        (20, "a warning that is|long; next:|python train.py --model a b c;|\u732b\u732b\u732b end"),
        (10, "a warning|that is|long;|next:|python train.py --model a b c;|\u732b\u732b\u732b end"),
        (9, "a warning|that is|long;|next:|python train.py --model a b c;|\u732b\u732b\u732b|end"),
    ],
)
def test_a_terminal_breaks_lines_between_words(monkeypatch, capsys, width, shown):
    monkeypatch.setattr(terminal, "is_terminal", lambda: width > 0)
    monkeypatch.setattr(terminal.os, "get_terminal_size", lambda _: os.terminal_size((width, 24)))
    monkeypatch.setattr(terminal.sys.stderr, "fileno", lambda: 2, raising=False)
    terminal.say("a warning that is long; next: python train.py --model a b c; \u732b\u732b\u732b end")
    assert capsys.readouterr().err == shown.replace("|", "\n") + "\n"


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


def test_no_name_is_looked_for_among_very_many(tmp_path, monkeypatch):
    monkeypatch.setattr(commandline, "MANY", 3)
    for number in range(3):
        (tmp_path / ("%d.jpg" % number)).write_bytes(b"")
    assert commandline.meant(str(tmp_path / "1.jgp"))
    (tmp_path / "3.jpg").write_bytes(b"")
    assert not commandline.meant(str(tmp_path / "1.jgp"))


def test_a_command_to_type_keeps_odd_values_in_their_options():
    made = commandline.command("train.py", data="-my records", mini=True, output="-2", step=7)
    parser = argparse.ArgumentParser()
    for name in ("data", "output", "step"):
        parser.add_argument("--" + name)
    parser.add_argument("--mini", action="store_true")
    parsed = parser.parse_args(shlex.split(made)[2:])
    assert vars(parsed) == {"data": "-my records", "mini": True, "output": "-2", "step": "7"}


@pytest.mark.parametrize("script", ["FlowIO.py", "train.py"])
def test_a_seed_has_64_bits(script):
    refuses(script, "--seed", "1" * 65, says="--seed", status=2)


@pytest.mark.parametrize(
    "path, fits, meant",
    [
        ("models/resent", modelfolder.is_model, "models/resnet"),
        ("models/resnet/model.ckpt-2O", modelfolder.is_model, "models/resnet/model.ckpt-20"),
        ("modles/resnet", modelfolder.is_model, "models"),
        ("resnet.pi", modelfolder.is_model, None),
        ("slim_v2_5.ckpt", modelfolder.is_model, None),
        ("slim_v2_5.ckpt", warmstart.is_weights, "slim_v2_50.ckpt"),
        ("cats.pn", imagefile.may_be_picture, "cats.png"),
        ("text.pn", imagefile.may_be_picture, None),
        ("resnet.pi", os.path.isdir, None),
    ],
)
def test_what_is_of_another_kind_is_not_meant(tmp_path, path, fits, meant):
    (tmp_path / "models" / "resnet").mkdir(parents=True)
    for name in ("models/resnet/model.json", "models/resnet/model.ckpt-20.index", "slim_v2_50.ckpt"):
        (tmp_path / name).write_bytes(b"")
    for name, beginning in (("resnet.py", b"import"), ("text.png", b"text"), ("cats.png", opening.PNG)):
        (tmp_path / name).write_bytes(beginning)
    hint = "; did you mean %s?" % (tmp_path / meant) if meant else ""
    assert commandline.meant(str(tmp_path / path), fits) == hint


@pytest.mark.parametrize(
    "script, word, hint",
    [
        ("FlowIO.py", "data/my set", "; did you mean --dataset 'data/my set'?"),
        ("train.py", "data/tfrecords", "; did you mean --data data/tfrecords?"),
        ("evaluate.py", "models/resnet", "; did you mean --model models/resnet?"),
        ("export.py", "models/resnet", "; did you mean --model models/resnet?"),
        ("train.py", "yes", ""),
    ],
)
def test_a_path_without_its_option_is_answered_with_that(script, word, hint):
    _, err = run(script, word, status=2)
    assert err == "%s: error: unrecognized arguments: %s%s\n" % (script, word, hint)


def test_a_mistyped_option_is_answered_with_the_right_one(capsys):
    for given, hint in (("--bathc_size", "; did you mean --batch_size?"), ("--zzz", "")):
        parser = commandline.ArgumentParser("Words.")
        parser.add_argument("--batch_size")
        with pytest.raises(SystemExit):
            parser.parse_args([given, "3"])
        assert capsys.readouterr().err.endswith("unrecognized arguments: %s 3%s\n" % (given, hint))


# --- devices, TF32 ----------------------------------------


@pytest.mark.parametrize(
    "asked, seen, place, data_format",
    [
        ("auto", 0, "/cpu:0", "NHWC"),
        ("cpu", 2, "/cpu:0", "NHWC"),
        ("auto", 2, "/gpu:0", "NCHW"),
        ("gpu:1", 2, "/gpu:1", "NCHW"),
    ],
)
def test_a_session_computes_where_it_is_told(monkeypatch, asked, seen, place, data_format):
    monkeypatch.setattr(device, "gpus", lambda: ["a GPU"] * seen)
    before = dict(os.environ)
    *found, config = device.choose(asked)
    assert found == [place, data_format] and dict(os.environ) == before
    assert dict(config.device_count) == ({"GPU": 0} if data_format == "NHWC" else {})


def test_what_a_gpu_has_no_code_for_the_cpu_computes():
    """Such as pictures for TensorBoard, which tf.distribute asks of each GPU."""
    with tf.Graph().as_default(), tf.device("/gpu:0"), tf.Session(config=device.session_config()) as session:
        assert session.run(tf.summary.image("pictures", tf.zeros([1, 2, 2, 3])))


def test_only_a_training_takes_float16():
    """TensorFlow is told so once, and would take it in all later sessions: in validation, too."""
    tf.train.experimental.enable_mixed_precision_graph_rewrite(tf.train.GradientDescentOptimizer(1))
    try:
        for training in (True, False):
            config = tf.Session(config=device.session_config(mixed_precision=training))._config
            rewriting = config.graph_options.rewrite_options
            assert (rewriting.auto_mixed_precision == rewriting.ON) == training
    finally:
        tf.train.experimental.disable_mixed_precision_graph_rewrite()


def test_flags_for_xla_are_kept(monkeypatch):
    """Of another one it would end the process; that it knows this one, test_xla_computes_the_same shows."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=a")
    tf_versions.let_xla_do_without_ptxas()
    more = " --xla_gpu_unsafe_fallback_to_driver_on_ptxas_not_found=true" * tf_versions.is_2()
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=a" + more


@pytest.mark.parametrize(
    "asked, says", [("gpu:2", "sees 2 GPUs"), ("gpu", "none of auto"), ("", "none of auto")]
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, asked, says):
    monkeypatch.setattr(device, "gpus", lambda: ["a GPU"] * 2)
    with pytest.raises(UsageError, match=says):
        device.choose(asked)


@pytest.mark.slow
@pytest.mark.versions
@pytest.mark.parametrize("chosen", ["yes", "no"])
def test_tf32_is_forbidden_when_asked_for(chosen):
    code = """if True:
        import os, types
        from suite.process import device, tf_versions
        flags, load = [], tf_versions.importlib.import_module

        def import_module(name):
            flags.append(os.environ.get("XLA_FLAGS"))  # which XLA may read at once
            return load(name)

        tf_versions.importlib = types.SimpleNamespace(import_module=import_module)
        device.start(types.SimpleNamespace(device="cpu", tf32=%r, verbose=False))
        assert bool(flags[0]) == tf_versions.is_2()
        switch = "tensor_float_32_execution_enabled"
        allowed = getattr(tf_versions.tf.config.experimental, switch, lambda: True)
        print(os.environ.get("NVIDIA_TF32_OVERRIDE"), not tf_versions.is_2() or allowed())
    """
    command = [sys.executable, "-c", code % chosen]
    ours = ("NVIDIA_TF32_OVERRIDE", "XLA_FLAGS")  # which importing TensorFlow here has set
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    forbidden = tf_versions.is_2()
    expected = {"yes": "None True", "no": "0 %s" % (not forbidden)}
    assert done.stdout.strip() == expected[chosen], done.stderr
