"""--fresh: a model in the way is set aside, whole, and nothing else is."""

import os

import pytest
from helpers import (
    config_for,
    folder_bytes,
    refuses,
    run,
)

from suite.model import modelfolder
from suite.process.errors import UsageError
from suite.training import config, distribution, existing
from suite.training.existing import check_existing
from suite.training.options import parse_options


def test_a_new_name_is_one_of_nothing_that_is_there(tmp_path, monkeypatch):
    output = str(tmp_path / "resnet")
    assert modelfolder.unused(output + os.sep) == output + "-2"
    (tmp_path / "resnet-2").mkdir()
    os.symlink("nowhere", output + "-3")
    assert modelfolder.unused(output) == output + "-4"
    monkeypatch.chdir(tmp_path / "resnet-2")
    assert modelfolder.unused(".") == output + "-2-2" and modelfolder.unused("..") == "%s-2" % tmp_path


@pytest.mark.slow
def test_fresh_sets_the_old_model_aside_whole(workspace, copy, tmp_path):
    before = folder_bytes(copy)
    arguments = ["--data", workspace.records, "--output", copy]
    other = [*arguments, "--step", 200, "--shortcut", "projection"]
    refuses("train.py", *other, says="%s-2, or --fresh" % copy, status=2)
    more = ["--mini", "--shortcut", "projection", "--fresh", "--step", 2, "--save_num", 2]
    more += ["--batch_size", 4, "--bn_batches", 0]
    _, err = run("train.py", *arguments, *more, "--dry_run")
    assert folder_bytes(copy) == before and not os.path.exists(copy + "-2")
    _, err = run("train.py", *arguments, *more)
    assert "the old model is in %s-2 now" % copy in err and "resuming" not in err
    assert folder_bytes(copy + "-2") == before
    assert modelfolder.load_model(copy).network["shortcut"] == "projection"
    assert modelfolder.latest_step(copy) == 2


def test_fresh_does_not_set_aside_what_the_training_starts_from(workspace, copy):
    before = folder_bytes(copy)
    arguments = ["--data", workspace.records, "--output", copy, "--fresh", "--model", copy]
    refuses("train.py", *arguments, says="would set aside", status=2)
    assert folder_bytes(copy) == before


def test_fresh_minds_no_neighbour_of_a_like_name(tmp_path):
    """models/resnet-2 is not in models/resnet; a link to it or its best checkpoint is."""
    output = tmp_path / "resnet"
    (output / "best").mkdir(parents=True)
    (output / "model.json").write_text("{}")
    os.symlink(str(output / "best"), str(tmp_path / "link"))
    for model, refused in (
        ("resnet-2", False),
        ("resnet", True),
        ("resnet/best/m.ckpt-1", True),
        ("link", True),
    ):
        options = parse_options(["--output", str(output), "--model", str(tmp_path / model), "--fresh"])
        if refused:
            with pytest.raises(UsageError, match="would set aside"):
                existing.begins_anew(options, distribution.ALONE)
        else:
            assert existing.begins_anew(options, distribution.ALONE)


def test_fresh_says_how_the_new_model_differs(workspace, copy, capsys):
    asked, _ = config_for(workspace, "--output", copy, "--optimizer", "momentum")
    asked["network"].update(mini=False)
    existing.announce_fresh(asked)
    assert capsys.readouterr().err == "the old model had --mini yes, now no; --optimizer adam, now momentum\n"
    asked, _ = config_for(workspace, "--output", copy, "--lr", 0.1)
    existing.announce_fresh(asked)
    with open(os.path.join(copy, "model.json"), "w") as file:  # --fresh is a way out of that
        file.write("{")
    existing.announce_fresh(asked)
    assert capsys.readouterr().err == ""


def test_only_weights_that_it_was_begun_with_are_named_to_resume(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    plain, records = config_for(workspace)
    begun, _ = config_for(workspace, "--model", "other")
    for model in ("other", "other/", "./other", str(tmp_path / "other")):
        check_existing(begun, config_for(workspace, "--model", model)[0])
    check_existing(begun, plain)
    for there, model in ((plain, "other"), (plain, "models/resnet"), (begun, "another")):
        with pytest.raises(UsageError, match="--model .*%s: .* leave out --model to go on" % model):
            check_existing(there, config_for(workspace, "--model", model)[0])
    options = parse_options(["--data", workspace.records])
    config.complete_options(options, records, begun, None)
    assert options.model == str(tmp_path / "other")  # after a resume without it, too


def test_fresh_moves_no_folder_that_holds_no_model(workspace, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    arguments = ["--data", workspace.records, "--output", tmp_path, "--fresh"]
    refuses("train.py", *arguments, says="holds letters.txt", status=1)
    assert (tmp_path / "letters.txt").exists()
