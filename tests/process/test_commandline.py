"""What is said on a terminal, and how mistakes in a command are answered."""

import argparse
import os
import shlex

import pytest
from helpers import refuses, run

from suite.model import modelfolder, warmstart
from suite.pictures import imagefile, opening
from suite.process import commandline, terminal

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


def test_nothing_is_meant_where_the_working_directory_cannot_be_seen(monkeypatch):
    monkeypatch.setattr(os.path, "isdir", lambda path: path == "/")
    assert commandline.meant("models/resnet") == "" == commandline.meant("/none/at/all")


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
