"""When two class names are one: Unicode writes é in two ways, and file systems keep one or the other."""

from __future__ import annotations

import unicodedata


def canonical(name: str) -> str:
    """The one way in which the suite writes a name: Unicode's NFC."""
    return unicodedata.normalize("NFC", name)


def blurred(name: str) -> str:
    """What is left of a name without what people overlook: case, and spaces around it."""
    return canonical(name).strip().lower()


def index_of(names: list[str]) -> dict[str, int]:
    """The places of names in a list, for `find`."""
    places: dict[str, int] = {}
    for i, name in enumerate(names):
        places.setdefault(canonical(name), i)
    return {**places, **{name: i for i, name in enumerate(names)}}


def find(places: dict[str, int], name: str) -> int | None:
    """Where a class is among those of `index_of`: that of the same letters first, else of the same name."""
    return places.get(name, places.get(canonical(name)))


def explain_difference(name: str, others: list[str]) -> str:
    """For a message: which of the others it is easily taken for, the difference spelt out; or nothing."""
    for other in others:
        if blurred(other) == blurred(name) and canonical(other) != canonical(name):
            return "%a and %a differ by case or by spaces only" % (canonical(name), canonical(other))
    return ""
