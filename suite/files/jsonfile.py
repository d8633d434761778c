"""The JSON files that say what records and models are: written whole, and believed only after three checks.

A format version, a schema, and a checksum over the content, so that neither a damaged file nor a hostile
one gives a wrong answer without a word.
"""

from __future__ import annotations

import hashlib
import json
import os

import fastjsonschema

from suite.files import atomic
from suite.process.errors import UserError
from suite.process.tf_versions import tf

NUMBER = {"type": "integer", "minimum": 0, "maximum": 10**8}
TEXT = {"type": "string", "minLength": 1, "maxLength": 255}
SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
CLASSES = {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True}
IMAGE_SIZE = {"type": "integer", "minimum": 1, "maximum": 2048}
COUNTS = {  # pictures, by split and class
    "type": "object",
    "properties": {
        split: {"type": "object", "additionalProperties": NUMBER} for split in ("train", "val", "test")
    },
    "required": ["train", "val", "test"],
    "additionalProperties": False,
}

# {file: (format version, the script that writes it, what must be there, what may be)}
FILES: dict[str, tuple[int, str, dict, dict]] = {
    "dataset.json": (
        1,
        "FlowIO.py",
        {
            "classes": CLASSES,
            "image_size": IMAGE_SIZE,
            "counts": COUNTS,
            "skipped": NUMBER,
            "options": {"type": "object"},
        },
        {
            "seed": {"type": "integer"},
            "copies": NUMBER,
            "near_duplicates": NUMBER,
            "shards": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
            "digest": SHA256,
        },
    ),
    "model.json": (
        1,
        "train.py",
        {
            "network": {
                "type": "object",
                "properties": {
                    "layers": {"enum": [50, 101, 152]},
                    "mini": {"type": "boolean"},
                    "shortcut": {"enum": ["zero_pad", "projection", "projection_all"]},
                    "preactivation": {"type": "boolean"},
                    "zero_init_residual": {"type": "boolean"},
                    "dropout": {"type": "number", "minimum": 0, "maximum": 0.95},
                },
                "required": ["layers", "mini", "shortcut", "preactivation"],
                "additionalProperties": False,
            },
            "classes": CLASSES,
            "image_size": IMAGE_SIZE,
            "normalize": {"enum": ["per_image", "minus1_1"]},
            "options": {"type": "object"},
        },
        {
            "keep_size": {"type": "boolean"},
            "dataset": {
                "type": "object",
                "properties": {"digest": {"anyOf": [SHA256, {"type": "null"}]}, "counts": COUNTS},
            },
            "versions": {"type": "object"},
        },
    ),
    "best.json": (
        1,
        "train.py",
        {"step": NUMBER},
        {
            "accuracy": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "loss": {"type": ["number", "null"]},
            "since": {"type": "array", "items": NUMBER},
            "recalibrated": {"type": "boolean"},
        },
    ),
}


def read(path: str) -> dict:
    """The dict in one of FILES, on any of TensorFlow's file systems, checked.

    Raises:
        UserError: it is damaged, has another format version, or was changed by hand.
    """
    name = os.path.basename(path)
    version, maker, _, _ = FILES[name]
    try:
        # Records may lie on gs:// or hdfs://; a local file should not wait for TensorFlow.
        with (tf.gfile.GFile if "://" in path else open)(path, "rb") as file:
            content = json.loads(file.read().decode("utf-8"), parse_constant=refuse_constant)
        found = content.get("format_version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError("%s: damaged, not JSON; write it again with %s" % (path, maker)) from error
    if found != version:
        raise UserError(
            "%s: format version %s, this suite reads %s; write it again with %s"
            % (path, found, version, maker)
        )
    try:
        fastjsonschema.validate(schema(name), content)
    except fastjsonschema.JsonSchemaValueException as error:
        what = error.message[len("data") :].lstrip(". ")  # "data" is what the validator calls the content
        raise UserError("%s: %s; write it again with %s" % (path, what, maker)) from error
    if content.pop("checksum", None) not in (None, checksum(content)):
        raise UserError(
            "%s: damaged, or changed since %s wrote it; bring the original back, or take the line of its "
            "checksum out if the change is yours" % (path, maker)
        )
    return content


def schema(name: str) -> dict:
    """The JSON schema of one of FILES; draft 4, in which 224.0 is no integer."""
    version, _, required, optional = FILES[name]
    return {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "properties": dict(format_version={"enum": [version]}, checksum=SHA256, **required, **optional),
        "required": ["format_version", *required],
        "additionalProperties": False,
    }


def refuse_constant(name: str) -> None:
    """Raises ValueError: Python reads NaN and Infinity, which JSON does not have."""
    raise ValueError("%s is not JSON" % name)


def checksum(content: dict) -> str:
    """SHA-256 of a dict, in hexadecimal, whatever the order and the spaces that it is written with."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()


def write(path: str, content: dict) -> None:
    """Write a dict whole or not at all; one of FILES gets its version and checksum."""
    name = os.path.basename(path)
    if name in FILES:
        content = dict(content, format_version=FILES[name][0])
        content["checksum"] = checksum(json.loads(json.dumps(content)))
    with atomic.replacing_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")
