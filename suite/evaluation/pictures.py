"""Class folders of pictures, evaluated with no conversion by hand: evaluate.py --pictures."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import tempfile

from suite.files import classnames
from suite.pictures import folders
from suite.process import terminal, tf_versions
from suite.process.errors import UserError
from suite.process.terminal import counted, say
from suite.records import reading, writing
from suite.records.splits import assign_splits, drop_copies
from suite.records.spool import Spool


@contextlib.contextmanager
def converted(options, model, parent):
    """The pictures of options.pictures as records for a model, which go at the end of the context.

    Those of classes that the model does not know are left out and said, files that cannot be used likewise.

    Args:
        options: evaluate.py's; of a folder of splits, options.split is taken.
        parent: the folder to write to.
    Yields:
        reading.Records that hold all of them in options.split; {class: pictures} of what is not known; and
        (SourceFile, reason) for each file that cannot be used.
    Raises:
        UserError: nothing is left to evaluate, or a class hardly differs in name from one of the model's.
    """
    folders.refuse_inside(parent, options.pictures)
    classes, sources = folders.list_sources(options.pictures, options.layout, options.follow_links, False)
    others = [source.filename for source in sources if source.given not in (None, options.split)]
    sources = [source for source in sources if source.given in (None, options.split)]
    if not sources:
        raise UserError("%s: no pictures in its %s folder" % (options.pictures, options.split))
    if others:
        another = shlex.quote(os.path.join(options.pictures, others[0].split(os.sep)[0]))
        values = options.pictures, options.split, another
        say("of %s only the pictures to %s are measured; --pictures %s are others" % values)
    unknown = leave_out_unknown(classes, sources, options.pictures, model)
    found = {source.label for source in sources}
    kept = [name for label, name in enumerate(classes) if label in found and name not in unknown]
    labels = {name: label for label, name in enumerate(kept)}
    sources = [
        source._replace(label=labels[classes[source.label]], given=options.split)
        for source in sources
        if classes[source.label] in labels
    ]
    conversion = argparse.Namespace(
        **vars(options), dataset=options.pictures, image_size=model.image_size, keep_size=model.keep_size
    )
    vars(conversion).update(fit=model.fit, cluster=None, seed=0, train_ratio=0, val_ratio=0)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        with Spool(folder) as spool:
            pictures, skipped = writing.encode_all(sources, spool, conversion)
            pictures, copies, conflicts = drop_copies(pictures, kept)
            skipped += conflicts
            if not pictures:
                source, reason = skipped[0]
                raise UserError(
                    "%s: no usable picture (%s: %s)" % (options.pictures, source.filename, reason)
                )
            splits = assign_splits(pictures, 0, 0)
            tf_versions.as_version_1()
            writing.write_shards(folder, splits, kept, spool)
        writing.write_dataset_json(folder, kept, splits, skipped, copies, [], conversion)
        if copies:
            say("left out as exact copies: %s" % counted(copies, "picture"))
        yield dataclasses.replace(reading.load_records(folder), alias=options.pictures), unknown, skipped


def leave_out_unknown(classes, sources, folder, model):
    """{class: pictures} of those that the model does not know, which is said; see `converted`."""
    known = classnames.index_of(model.classes)
    numbers = dict.fromkeys((classes[source.label] for source in sources), 0)
    for source in sources:
        numbers[classes[source.label]] += 1
    unknown = {name: count for name, count in numbers.items() if classnames.find(known, name) is None}
    for name in unknown:
        difference = classnames.explain_difference(name, model.classes)
        if difference:
            raise UserError("%s: classes %s; rename the folder" % (folder, difference))
    if len(unknown) == len(numbers):
        message = "%s: holds %s, which %s does not know; it knows %s"
        raise UserError(
            message % (folder, terminal.some(list(unknown)), model.folder, terminal.some(model.classes))
        )
    if unknown:
        total = counted(sum(unknown.values()), "picture")
        say(
            "left out: %s of classes that %s does not know: %s"
            % (total, model.folder, terminal.some(list(unknown)))
        )
    return unknown
