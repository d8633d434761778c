"""train.py --folds and evaluate.py of what it trained."""

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, refuses, run

from suite.evaluation import out_of_fold
from suite.files import atomic, jsonfile
from suite.model import modelfolder
from suite.process.errors import UsageError, UserError
from suite.records import folds, reading
from suite.training import config, distribution, existing
from suite.training.options import parse_options


@pytest.fixture
def planned(workspace, tmp_path):
    """A folder in which three folds were begun, and the records."""
    records, folder = reading.load_records(workspace.records), str(tmp_path / "parts")
    jsonfile.write(folds.path(folder), folds.make(records, 3, 0))
    return folder, records


@pytest.mark.parametrize(
    "options, says",
    [
        ("--folds 1", "from 2 to 100"),
        ("--folds 3 --patience 2", "--folds: not with --patience"),
        ("--folds 3 --model models/other --step 0", "--folds: nothing is trained with --step 0"),
    ],
)
def test_what_does_not_go_with_folds(options, says, capsys):
    with pytest.raises(SystemExit) as refused:
        parse_options(options.split())
    assert refused.value.code == 2 and says in capsys.readouterr().err


def test_the_plan_stays_until_it_is_set_aside(planned, copy):
    folder, records = planned
    options = parse_options(["--output", folder, "--folds", "3", "--seed", "5"])
    assert existing.find_folds(options, records, False)["seed"] == 0
    assert existing.find_folds(options, records, True)["seed"] == 5
    options.folds = 4
    with pytest.raises(UsageError, match="--folds 4: .* holds 3; give that, or --output .*-2, or --fresh"):
        existing.find_folds(options, records, False)
    options.folds = 3
    os.rename(folds.path(folder), folds.path(folder) + atomic.PARTIAL)  # killed while that was written
    assert existing.find_folds(options, records, False)["seed"] == 5
    options.output = copy
    with pytest.raises(
        UserError, match="holds best and no folds.json; choose another --output, such as .*model-2"
    ):
        existing.find_folds(options, records, False)


def test_no_other_training_goes_among_folds(planned):
    """What would train on all pictures, or fewer steps than one fold has."""
    folder, _ = planned
    fold = modelfolder.fold(folder, 2)
    for arguments in (["--output", fold], ["--output", fold, "--fresh"], ["--output", fold, "--folds", "3"]):
        with pytest.raises(UserError, match="lies among the models .* choose another --output, .*parts-2"):
            existing.refuse_folds(parse_options(arguments), "--fresh" in arguments)
    with pytest.raises(UserError, match="holds the models of --folds; give that again, or --output"):
        existing.refuse_folds(parse_options(["--output", folder]), False)
    existing.refuse_folds(parse_options(["--output", folder, "--folds", "3"]), False)
    anew = parse_options(["--output", folder, "--fresh"])
    assert existing.begins_anew(anew, distribution.ALONE)
    existing.refuse_folds(anew, True)
    options = parse_options(["--output", folder, "--folds", "3", "--step", "86"])
    os.makedirs(fold)
    for suffix in (".index", ".data-00000-of-00001"):
        open(os.path.join(fold, "model.ckpt-86" + suffix), "w").close()
    existing.check_reached(options, [fold])
    options.step = 20
    with pytest.raises(UsageError, match="--step 20: .*fold_2 is at step 86 already; give that or more"):
        existing.check_reached(options, [fold])


def test_a_damaged_plan_is_not_made_up(planned):
    """Another one might put pictures that a fold has seen into it."""
    folder, records = planned
    with open(folds.path(folder), "a") as file:
        file.write("x")
    for read in (lambda: folds.read(folder, records), lambda: out_of_fold.load_model(folder)):
        with pytest.raises(
            UserError, match="folds.json: damaged; bring it back, or begin anew with .*--fresh"
        ):
            read()


def test_the_weights_must_not_know_the_pictures(workspace, planned):
    """Those of a model that was trained on them do; ImageNet's do not."""
    _, records = planned
    options = parse_options(["--folds", "3", "--model", "other"])
    part = folds.to_train(records, jsonfile.read(folds.path(planned[0])), 1)

    class Weights:
        fingerprints = modelfolder.load_model(workspace.model).fingerprints

    with pytest.raises(UsageError, match="--model other: was trained or validated on 108 of the pictures"):
        config.refuse_seen(options, part, Weights)
    Weights.fingerprints = None
    config.refuse_seen(options, part, Weights)


def test_folds_are_no_model(planned, workspace):
    folder, _ = planned
    with pytest.raises(UserError, match="train.py --folds, which are for evaluate.py; name one of them"):
        modelfolder.load_model(folder)
    with pytest.raises(UserError, match="not trained to the end: fold_1, fold_2, fold_3; the train.py"):
        out_of_fold.load_model(folder)
    assert modelfolder.unused(os.path.join(folder, "fold_2")) == folder + "-2"
    assert not out_of_fold.load_model(workspace.model).folds


def read_answers(folder):
    """predictions.csv: {file name: [label, predicted, ...]}, in order."""
    with open(os.path.join(folder, "predictions.csv"), encoding="utf-8-sig", newline="") as file:
        return {name: row for name, *row in list(csv.reader(file))[1:]}


@pytest.mark.slow
def test_folds_from_end_to_end(workspace, tmp_path):
    """Stopped in the second, resumed, and each picture answered by the model that has not seen it."""
    output = tmp_path / "parts"
    same = ["--data", workspace.records, "--output", output, "--folds", 2, "--bn_batches", 1]
    begun = [*same, "--mini", "--epochs", 20, "--batch_size", 27, "--save_num", 30]
    command = [sys.executable, os.path.join(ROOT, "train.py"), *map(str, begun), "--log_num", "1"]
    out, _ = run("train.py", *begun, "--dry_run")
    assert "for 2 trainings, an estimate" in out and not output.exists()
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8")
    said = []
    for line in process.stderr:
        said.append(line)
        if "fold 2 of 2\n" in said and line.startswith("step "):
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 143 and "for 2 trainings" in "".join(said)
    evaluation = ["--data", workspace.records, "--model", output]
    refuses("evaluate.py", *evaluation, says="not trained to the end: fold_2; the train.py", status=1)

    _, err = run("train.py", *same, "--epochs", 20, "--batch_size", 27)  # the network stays
    assert (
        "fold_1 is at step 40 already" in err and "all 2 folds are trained; next: python evaluate.py" in err
    )
    out, _ = run("evaluate.py", *evaluation, "--compare", output)
    assert "right where the other is wrong: this model 0, the other 0" in out
    assert "on 108 pictures of train and val, each answered by the one of 2 models" in out
    pooled = read_answers(output / "evaluation")
    with open(str(output / "evaluation" / "evaluation.json"), encoding="utf-8") as file:
        results = json.load(file)
    assert (results["split"], results["n"], results["folds"]) == ("folds", 108, 2)
    with open(str(output / "evaluation" / "suspects.csv"), encoding="utf-8-sig", newline="") as file:
        suspects = list(csv.DictReader(file))
    assert len(suspects) == results["suspects"]
    assert all(pooled[row["filename"]][:2] == [row["label"], row["suggested"]] for row in suspects)

    plan = jsonfile.read(folds.path(str(output)))
    for number in (1, 2):
        model = modelfolder.load_model(modelfolder.fold(str(output), number))
        assert model.trained_on == plan["counts"][2 - number]
        where = tmp_path / str(number)
        alone = ["--data", workspace.records, "--model", model.folder, "--split", "train", "--output", where]
        run("evaluate.py", *alone)
        answers = read_answers(where)
        held_out = np.array(plan["files"]["train-00000-of-00001.tfrecord"]) == number
        assert held_out.sum() > 40
        for name in np.array(list(answers))[held_out]:
            np.testing.assert_allclose(*[np.float64(each[name][2:]) for each in (answers, pooled)], atol=1e-5)

    refuses("evaluate.py", *evaluation, "--split", "test", says="--split: ", status=2)
    refuses("evaluate.py", *evaluation, "--compare", workspace.model, says="only one of the two", status=2)
    run("train.py", *same, "--mini", "--step", 1, "--batch_size", 4, "--fresh")
    assert os.path.exists(folds.path(str(output) + "-2")) and os.path.exists(folds.path(str(output)))
