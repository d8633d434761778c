"""The JSON files that say what records and models are: written whole, and believed only after three checks.

A format version, a schema, and a checksum over the content, so that neither a damaged file nor a hostile
one gives a wrong answer without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
import re

import fastjsonschema

from suite.files import atomic
from suite.files.schemas import FILES, SHA256
from suite.process.errors import UserError
from suite.process.tf_versions import tf


def read(path: str) -> dict:
    """The dict in one of FILES, on any of TensorFlow's file systems, checked.

    Raises:
        UserError: it is damaged, has another format version, or was changed by hand.
    """
    name = kind(path)
    version, maker, _, _ = FILES[name]
    again = "write it again with %s" % (maker if maker == "FlowIO.py" else maker + " --fresh")
    try:
        # Records may lie on gs:// or hdfs://; a local file should not wait for TensorFlow.
        with (tf.gfile.GFile if "://" in path else open)(path, "rb") as file:
            content = json.loads(file.read().decode("utf-8"), parse_constant=refuse_constant)
        found = content.get("format_version")
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError("%s: damaged, not JSON; %s" % (path, again)) from error
    if found != version:
        raise UserError("%s: format version %s, this suite reads %s; %s" % (path, found, version, again))
    try:
        fastjsonschema.validate(schema(name), content)
    except fastjsonschema.JsonSchemaValueException as error:
        what = error.message[len("data") :].lstrip(". ")  # "data" is what the validator calls the content
        raise UserError("%s: %s; %s" % (path, what, again)) from error
    if content.pop("checksum", None) not in (None, checksum(content)):
        raise UserError(
            "%s: damaged, or changed since %s wrote it; bring the original back, or take the line of its "
            "checksum out if the change is yours" % (path, maker)
        )
    return content


def kind(path: str) -> str:
    """Which of FILES a path is of: temperature.json for best/model.ckpt-240.temperature.json."""
    return re.sub(r".+\.(?=temperature\.json$)", "", os.path.basename(path))


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
    name = kind(path)
    if name in FILES:
        content = dict(content, format_version=FILES[name][0])
        # First, so that its line can be taken out and JSON remains.
        content = {"checksum": checksum(json.loads(json.dumps(content))), **content}
    with atomic.replacing_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=2)
        file.write("\n")
