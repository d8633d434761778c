"""What --xla auto chooses, on faked cards."""

import types

import pytest

from suite.process import device
from suite.training import memory, xla
from suite.training.options import parse_options


@pytest.fixture
def cards(monkeypatch):
    """A list that stands for the GPUs; the network has 50 layers and 4 thousand million multiply-adds."""
    found = ["GPU:0"]
    monkeypatch.setattr(device, "gpus", lambda: found)
    monkeypatch.setattr(memory, "of_one_picture", lambda config: (25000000, 4000000000))
    monkeypatch.setattr(xla, "cannot_compile", lambda: None)
    return found


def choose(*arguments, steps=2000, graphs=1, validations=100, batch_size=128, strategy=None):
    options = vars(parse_options(list(arguments)))
    options.update(layers=50, batch_size=batch_size)
    return xla.choose({"options": options}, strategy, steps, graphs, validations)


def test_by_hand(cards, capsys):
    """Compiling takes 12.5 s and must save 15; a step saves 7 ms and 0.18 ms for each picture."""
    assert choose() == (True, False)
    assert capsys.readouterr().err == "xla: on: 2000 steps take about 60s less, compiling them 12s\n"
    assert choose(steps=400) == (False, False)
    assert capsys.readouterr().err == "xla: off: 400 steps take about 12s less, compiling them 12s\n"
    # 15 s at 499.3 steps.
    assert choose(steps=499) == (False, False) and choose(steps=500) == (True, False)
    # A validation saves as much for each batch, and is compiled twice.
    assert choose(validations=998) == (True, False) and choose(validations=999) == (True, True)
    assert choose(steps=400, validations=10**6) == (False, False)
    # A frozen start has a graph of its own.
    assert choose(steps=998, graphs=2) == (False, False) and choose(steps=999, graphs=2) == (True, False)
    # A small batch saves the launches only.
    assert choose(batch_size=2, steps=2000) == (False, False)
    assert choose(batch_size=2, steps=2100) == (True, False)


def test_where_it_is_not_measured_or_cannot_be(cards, capsys, monkeypatch):
    assert choose(strategy=types.SimpleNamespace()) == (False, False)
    assert "not measured on several devices; --xla yes takes it" in capsys.readouterr().err
    monkeypatch.setattr(xla, "cannot_compile", lambda: "libdevice not found")
    assert choose() == (False, False)
    said = capsys.readouterr().err
    assert said.endswith("compiling them 12s; but it cannot compile here: libdevice not found\n")
    # What is not worth it is not tried.
    choose(steps=400)
    assert "libdevice" not in capsys.readouterr().err
    del cards[:]
    assert choose() == (False, False) and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "given, expected", [(["--xla"], True), (["--xla", "yes"], True), (["--xla", "no"], False)]
)
def test_what_is_asked_for_is_taken(cards, capsys, given, expected):
    assert choose(*given, steps=1) == choose(*given, steps=10**6) == (expected, expected)
    assert capsys.readouterr().err == ""


def test_here_it_compiles():
    """For the CPU, where there is no GPU."""
    assert xla.cannot_compile() is None


def test_what_dry_run_says_of_it(cards, capsys, monkeypatch):
    xla.print_state()
    monkeypatch.setattr(xla, "cannot_compile", lambda: "libdevice not found")
    xla.print_state()
    assert capsys.readouterr().out == "XLA: compiles\nXLA: cannot compile here: libdevice not found\n"
    del cards[:]
    xla.print_state()
    assert capsys.readouterr().out == ""
