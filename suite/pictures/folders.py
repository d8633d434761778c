"""A data set as the user made it: a folder per class, in folders for train, val and test or not."""

from __future__ import annotations

import collections
import contextlib
import os
import re
from pathlib import PurePath
from typing import Iterable, NamedTuple

from suite.files import atomic, classnames
from suite.files.litter import visible
from suite.files.schemas import SPLITS
from suite.pictures import imagefile
from suite.process import commandline
from suite.process.errors import UsageError, UserError
from suite.process.terminal import counted, say, some

LAYOUTS = ("auto", "classes", "splits")  # what the folders at the top are
# What people call the splits, in any case.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class SourceFile(NamedTuple):
    """A file of a data set."""

    given: str | None  # the split that the user's folders give it
    label: int  # class index
    filename: str  # relative to the data set's folder


def list_sources(
    dataset: str, layout: str, follow_links: bool, to_train: bool = True
) -> tuple[list[str], list[SourceFile]]:
    """The class names, in index order, and a SourceFile for each file of each class.

    Args:
        layout: one of LAYOUTS: what the folders at the top are.
        to_train: else there may be one class alone, empty ones, and no split to train on.
    Raises:
        UserError: see `find_splits` and `find_classes`; a class is empty, or a link without --follow_links.
    """
    if not os.path.isdir(dataset):
        if os.path.exists(dataset):
            raise UserError(
                "%s: is a file; there should be a folder, with a folder per class in it" % dataset
            )
        problem = "no such folder; there should be one, with a folder per class in it"
        raise UserError(commandline.missing(dataset, problem))
    parents = find_splits(dataset, layout, to_train)
    folders = find_classes(dataset, parents, to_train)
    sources = []
    for split, parent in parents:
        parent = os.path.join(dataset, parent)
        loose = [name for name in visible_names(parent) if os.path.isfile(os.path.join(parent, name))]
        if loose:
            say(
                "warning: %s in %s beside the class folders, in no class, the first: %s"
                % (counted(len(loose), "file"), parent, loose[0])
            )
        for label, by_split in enumerate(folders.values()):
            for name in by_split.get(split, []):  # the user may have none of this class in this split
                folder = os.path.join(parent, name)
                if not follow_links and (os.path.islink(folder) or split and os.path.islink(parent)):
                    raise UserError(
                        "%s is a link; --follow_links takes the pictures that it leads to" % folder
                    )
                for path in imagefile.list_files(folder, follow_links):
                    sources.append(SourceFile(split, label, os.path.relpath(path, dataset)))
    filled = {source.label for source in sources}
    empty = [name for label, name in enumerate(folders) if label not in filled]
    if empty and to_train:
        raise UserError("%s: class %s has no usable picture (it is empty)" % (dataset, empty[0]))
    return list(folders), sources


def refuse_inside(
    output: str, dataset: str, sources: Iterable[SourceFile] = (), option: str = "output"
) -> None:
    """Raises UsageError where `output` lies in the data set, which would hold what is written from then on.

    Args:
        sources: its files, in whose folders it may lie by a link of the data set's.
        option: that named `output`.
    """
    filled = {PurePath(os.path.dirname(source.filename)) for source in sources}
    held = {dataset, *(os.path.join(dataset, each) for path in filled for each in (path, *path.parents))}
    for folder in sorted(held):
        if atomic.is_within(output, folder):
            message = "--%s %s: lies in %s of the data set; choose a folder outside"
            raise UsageError(message % (option, output, folder))


def find_splits(dataset: str, layout: str, to_train: bool = True) -> list[tuple[str | None, str]]:
    """(split, the name of its folder) for each that the user has made, or (None, "") where there are none.

    Raises:
        UserError: the folders at the top can be taken for splits and for classes.
    """
    tops = list_folders(dataset)
    named = [name for name in tops if name.casefold() in SPLIT_NAMES]
    others = [name for name in tops if name not in named]
    if layout == "auto" and named and others:
        raise UserError(
            "%s: %s could be splits, but %s could not; --layout splits takes the former and passes over the "
            "latter, --layout classes takes all as classes" % (dataset, some(named), some(others))
        )
    if layout == "auto" and not named:
        refuse_repetition(dataset, "classes")
        layout = "classes"
    if layout == "classes":
        return [(None, "")]
    given: list[tuple[str | None, str]]
    given = [(split, name) for split in SPLITS for name in named if SPLIT_NAMES[name.casefold()] == split]
    found = [split for split, _ in given]
    for (split, name), (next_split, next_name) in zip(given, given[1:]):
        if split == next_split:
            raise UserError("%s: %s and %s are both %s; keep one of them" % (dataset, name, next_name, split))
    if "train" not in found and to_train:
        held = "has %s but" % " and ".join(name for _, name in given) if given else "has"
        raise UserError("%s: %s no train folder" % (dataset, held))
    if others:
        say(
            "passed over: %s, which %s"
            % (some(others), "is no split" if len(others) == 1 else "are no splits")
        )
    if layout == "auto":
        for _, name in given:
            refuse_repetition(os.path.join(dataset, name), "splits")
    return given


def refuse_repetition(folder: str, layout: str) -> None:
    """Raises UserError where what would be the classes in a folder hold folders of the same names.

    Args:
        layout: the one that takes them for classes all the same.
    """
    repeated = find_repetition(folder, list_folders(folder))
    if not repeated:
        return
    one, other, inside = repeated
    cure = "put the pictures of each together, or name the folders above them train, val and test"
    if all(name in SPLIT_NAMES for name in inside):
        cure = "turn it round, %s" % os.path.join(inside[-1], one)
    raise UserError(
        "%s: %s and %s both hold %s; if those are the classes or splits, %s; if %s and %s are the classes, "
        "with all that lies below them, --layout %s says so"
        % (folder, one, other, some(inside), cure, one, other, layout)
    )


def find_repetition(dataset: str, tops: list[str]) -> tuple[str, str, list[str]] | None:
    """Two of the folders at the top that hold folders of the same names, two or more, and these names."""
    holders: dict[str, list[int]] = collections.defaultdict(list)  # of a name: in which folders there is one
    for number, top in enumerate(tops):
        inside = set()
        with contextlib.suppress(OSError):  # a folder that is forbidden is said to be, later
            inside = {classnames.blurred(name) for name in list_folders(os.path.join(dataset, top))}
        shared: collections.Counter[int] = collections.Counter()
        for name in inside:
            shared.update(holders[name])
        for other in sorted(each for each, count in shared.items() if count > 1)[:1]:
            return tops[other], top, sorted(name for name in inside if other in holders[name])
        for name in inside:
            holders[name].append(number)
    return None


def find_classes(
    dataset: str, parents: list[tuple[str | None, str]], to_train: bool = True
) -> dict[str, dict[str | None, list[str]]]:
    """{class name: {split: [names of its folders]}}, in index order.

    Raises:
        UserError: fewer than two classes, names that are not text, or that hardly differ.
    """
    found: dict[str, dict[str | None, list[str]]] = {}
    for split, parent in parents:
        for name in list_folders(os.path.join(dataset, parent)):
            if not is_text(name):
                raise UserError("%s: the name of class folder %a is not UTF-8; rename it" % (dataset, name))
            found.setdefault(classnames.canonical(name), {}).setdefault(split, []).append(name)
    classes = sorted(found, key=imagefile.natural)
    if len(classes) < (2 if to_train else 1):
        held = "only one class, %s" % classes[0] if classes else "no class folders in it"
        examples = os.path.join(dataset, "cat"), os.path.join(dataset, "dog")
        raise UserError(
            "%s: %s; put the pictures of each class into a folder of its own, such as %s and %s"
            % (dataset, held, *examples)
        )
    seen: dict[str, str] = {}
    for name in classes:
        other = seen.setdefault(classnames.blurred(name), name)
        if other != name:
            difference = classnames.explain_difference(other, [name])
            raise UserError("%s: classes %s; rename one, or put them together" % (dataset, difference))
        spellings = {each for names in found[name].values() for each in names}
        if len(spellings) > 1:
            say("%s: class %s is written in two ways (%s); taken as one" % (dataset, name, spelt(spellings)))
    return {name: found[name] for name in classes}


def spelt(names: Iterable[str]) -> str:
    """Names that look alike, by their codes."""
    return " and ".join(sorted("%a" % name for name in names))


def list_folders(folder: str) -> list[str]:
    """The names of the folders in it that are not hidden."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_folder(entry)]
    return sorted(visible(names), key=imagefile.natural)


def is_folder(entry: os.DirEntry) -> bool:
    """Whether it is one, or a link to one; not where a link leads in a circle or where it is forbidden."""
    with contextlib.suppress(OSError):
        return entry.is_dir()
    return False


def visible_names(folder: str) -> list[str]:
    """The names in it, in natural order, but for hidden ones."""
    return sorted(visible(os.listdir(folder)), key=imagefile.natural)


def is_text(name: str) -> bool:
    """Whether a file name can be written as UTF-8: Python gives bytes that cannot as lone surrogates."""
    return not re.search("[\ud800-\udfff]", name)
