"""When two class names are one: Unicode writes é in two ways, and file systems keep one or the other."""

from __future__ import annotations

import unicodedata


def canonical(name: str) -> str:
    """The one way in which the suite writes a name: Unicode's NFC."""
    return unicodedata.normalize("NFC", name)


def blurred(name: str) -> str:
    """What is left of a name without what people overlook: case, and spaces around it."""
    return canonical(name).strip().casefold()


def index_of(names: list[str]) -> dict[str, int]:
    """{canonical name: its place in the list}."""
    return {canonical(name): i for i, name in enumerate(names)}


def explain_difference(name: str, others: list[str]) -> str:
    """For a message: which of the others it is easily taken for, the difference spelt out; or nothing."""
    for other in others:
        if blurred(other) == blurred(name) and canonical(other) != canonical(name):
            return "%a and %a differ by case or by spaces only" % (canonical(name), canonical(other))
    return ""
