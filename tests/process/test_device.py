"""Where it computes: devices, their descriptions, TF32."""

import os
import subprocess
import sys
import types

import pytest
from helpers import ROOT
from tensorflow.python.client import device_lib
from tensorflow.python.platform import build_info

from suite.process import device, tf_versions
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
