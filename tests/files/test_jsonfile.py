"""jsonfile.py: a file is believed if its version, its schema and its checksum say so."""

import json

import pytest

from suite.files import jsonfile
from suite.process.errors import UserError

MODEL = {
    "network": {"layers": 50, "mini": True, "shortcut": "zero_pad", "preactivation": False},
    "classes": ["cat", "猫"],
    "image_size": 32,
    "normalize": "per_image",
    "options": {"lr": 0.1},
}


@pytest.fixture
def written(tmp_path):
    """A function that writes a model.json with changes that keep its checksum or not; its path."""

    def write(keep=False, **changes):
        path = str(tmp_path / "model.json")
        jsonfile.write(path, MODEL)
        with open(path, encoding="utf-8") as file:
            content = dict(json.load(file), **changes)
        if not keep:
            del content["checksum"]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        return path

    return write


def test_what_is_written_is_read(written):
    assert jsonfile.read(written(keep=True)) == dict(MODEL, format_version=1)
    assert jsonfile.read(written()) == dict(
        MODEL, format_version=1
    )  # by hand, or before there were checksums


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"format_version": 2}, "format version 2, this suite reads 1"),
        ({"image_size": 224.0}, "image_size must be integer"),
        ({"image_size": True}, "image_size must be integer"),
        ({"image_size": 10**6}, "image_size must be smaller than or equal to 2048"),
        ({"classes": []}, "classes must contain at least 1 items"),
        ({"classes": ["cat", "cat"]}, "classes must contain unique items"),
        ({"classes": ["x" * 300]}, "must be shorter than or equal to 255 characters"),
        ({"network": dict(MODEL["network"], layers=18)}, "network.layers must be one of [50, 101, 152]"),
        (
            {"network": dict(MODEL["network"], stem="large")},
            "network.stem must be one of ['article', 'small']",
        ),
        ({"network": dict(MODEL["network"], code="1")}, "network must not contain {'code'} properties"),
        ({"normalize": "__import__('os')"}, "normalize must be one of"),
        ({"fit": "stretch"}, "fit must be one of"),
        ({"options": []}, "options must be object"),
        ({"more": 1}, "must not contain {'more'} properties"),
    ],
)
def test_another_schema_is_refused(written, changes, says):
    with pytest.raises(UserError) as caught:
        jsonfile.read(written(**changes))
    message = str(caught.value)
    assert (
        "model.json: " in message
        and says in message
        and message.endswith("write it again with train.py --fresh")
    )


def test_a_change_breaks_the_checksum(written):
    with pytest.raises(UserError, match="model.json: damaged, or changed since train.py wrote it"):
        jsonfile.read(written(keep=True, classes=["dog", "猫"]))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format_version": NaN}', pytest.param("[" * 100000, id="deep"), '"\\ud800'],
)
def test_what_is_not_json_is_refused(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(UserError, match="model.json: damaged, not JSON"):
        jsonfile.read(str(tmp_path / "model.json"))


def test_the_line_of_the_checksum_can_be_taken_out(tmp_path):
    path = str(tmp_path / "model.json")
    jsonfile.write(path, MODEL)
    with open(path, encoding="utf-8") as file:
        lines = [line for line in file if '"checksum"' not in line]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    assert jsonfile.read(path) == dict(MODEL, format_version=1)


@pytest.mark.parametrize("name", ["model.ckpt-240", "recalibrated.ckpt-3", "final", "a.b"])
def test_a_checkpoint_may_have_any_name(tmp_path, name):
    path = str(tmp_path / (name + ".temperature.json"))
    jsonfile.write(path, {"temperature": 2.0, "index": "0" * 64})
    assert jsonfile.read(path)["temperature"] == 2
    with open(path, "a") as file:
        file.write("}")
    with pytest.raises(UserError, match="damaged, not JSON"):
        jsonfile.read(path)
