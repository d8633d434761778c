"""A data set as the user made it: a folder per class, in folders for train, val and test or not."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from suite.files.schemas import SPLITS
from suite.pictures import imagefile
from suite.process.errors import UserError
from suite.process.terminal import counted, say


class SourceFile(NamedTuple):
    """A file of a data set."""

    given: str | None  # the split that the user's folders give it
    label: int  # class index
    filename: str  # relative to the data set's folder


def list_sources(dataset: str, follow_links: bool) -> tuple[list[str], list[SourceFile]]:
    """The class names, in index order, and a SourceFile for each file of each class.

    Raises:
        UserError: see `list_classes`; a class folder is a link, without --follow_links; or one is empty.
    """
    classes, given = list_classes(dataset)
    sources = []
    parents: list[str | None] = [*given] or [None]
    for split in parents:
        parent = os.path.join(dataset, split) if split else dataset
        loose = [name for name in visible_names(parent) if os.path.isfile(os.path.join(parent, name))]
        if loose:
            say(
                "warning: %s in %s beside the class folders, in no class, the first: %s"
                % (counted(len(loose), "file"), parent, loose[0])
            )
        for label, name in enumerate(classes):
            folder = os.path.join(parent, name)
            if not os.path.isdir(folder):  # the user has none of this class in this split
                continue
            if not follow_links and (os.path.islink(folder) or split and os.path.islink(parent)):
                raise UserError("%s is a link; --follow_links takes the pictures that it leads to" % folder)
            for path in imagefile.list_files(folder, follow_links):
                sources.append(SourceFile(split, label, os.path.relpath(path, dataset)))
    filled = {source.label for source in sources}
    empty = [name for label, name in enumerate(classes) if label not in filled]
    if empty:
        raise UserError("%s: class %s has no usable picture (it is empty)" % (dataset, empty[0]))
    return classes, sources


def list_classes(dataset: str) -> tuple[list[str], list[str]]:
    """The class names, in index order; and the splits that the user has made folders for, if any.

    Raises:
        UserError: no such folder, fewer than two class folders, or names that are not text.
    """
    if not os.path.isdir(dataset):
        raise UserError("%s: no such folder; --dataset names one that holds a folder per class" % dataset)
    tops = list_folders(dataset)
    given = [split for split in SPLITS if split in tops] if set(tops) <= set(SPLITS) else []
    if given and "train" not in given:
        raise UserError("%s: has %s but no train folder" % (dataset, " and ".join(given)))
    if given:
        tops = [name for split in given for name in list_folders(os.path.join(dataset, split))]
    classes = sorted(set(tops), key=imagefile.natural)
    if len(classes) < 2:
        found = "only one class, %s" % classes[0] if classes else "no class folders in it"
        examples = os.path.join(dataset, "cat"), os.path.join(dataset, "dog")
        raise UserError(
            "%s: %s; put the pictures of each class into a folder of its own, such as %s and %s"
            % (dataset, found, *examples)
        )
    for name in classes:
        if not is_text(name):
            raise UserError("%s: the name of class folder %a is not UTF-8; rename it" % (dataset, name))
    return classes, given


def list_folders(folder: str) -> list[str]:
    """The names of the folders in it that are not hidden."""
    return [name for name in visible_names(folder) if os.path.isdir(os.path.join(folder, name))]


def visible_names(folder: str) -> list[str]:
    """The names in it, in natural order, but for hidden ones."""
    return sorted(imagefile.visible(os.listdir(folder)), key=imagefile.natural)


def is_text(name: str) -> bool:
    """Whether a file name can be written as UTF-8: Python gives bytes that cannot as lone surrogates."""
    return not re.search("[\ud800-\udfff]", name)


def leaves(link: str, folder: str) -> bool:
    """Whether a link leads out of the folder."""
    return not os.path.realpath(link).startswith(os.path.join(os.path.realpath(folder), ""))
