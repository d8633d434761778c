"""What a person sees: lines on standard error, and text from outside made fit for a terminal."""

import contextlib
import functools
import os
import re
import sys
import unicodedata

LISTED = 6  # names in a message


def printable(text):
    """Text from outside for a terminal, its control characters, which could do anything there, spelt out."""
    return re.sub("[\0-\x1f\x7f-\x9f]", lambda match: "\\x%02x" % ord(match.group()), text)


def counted(number, noun, plural=None):
    """1 picture, 2 pictures; `plural` where it takes more than an s."""
    return "%d %s" % (number, noun if number == 1 else plural or noun + "s")


def some(names):
    """The first LISTED of a list of names, for a message, and how many more there are."""
    return ", ".join(names[:LISTED]) + (" and %d more" % (len(names) - LISTED) if len(names) > LISTED else "")


def columns(text):
    """How many columns of a terminal a text takes: Chinese signs are as wide as two others."""
    widths = (2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
    return sum(width for sign, width in zip(text, widths) if not unicodedata.combining(sign))


def print_table(rows, widths):
    """Print rows of cells: the first column as wide as its longest, the others right-aligned in `widths`."""
    first = max(columns(printable(name)) for name, *_ in rows)
    for name, *cells in rows:
        line = printable(name) + " " * (first - columns(printable(name)))
        print("".join([line, *(" %*s" % cell for cell in zip(widths, cells))]).rstrip())


def is_terminal():
    """Whether a person may be watching standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def wrapped(line):
    """On a terminal, broken between words where it would break within one; commands stay whole, to be copied.

    Elsewhere a message is one line.
    """
    width = os.get_terminal_size(sys.stderr.fileno()).columns if is_terminal() else 0
    lines = [""]
    for word in re.findall(r"\s*(?:python \w+\.py[^;]*;?|\S+)", line) if width else [line]:
        if lines[-1] and columns(lines[-1] + word) > width:
            lines.append("")
            word = word.lstrip()
        lines[-1] += word
    return "\n".join(lines)


_write = print  # or, as soon as there is a bar, tqdm's, which writes above it


def say(line):
    """What is not a result goes to standard error, while somebody reads that; the work goes on without."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            _write(wrapped(printable(line)), file=sys.stderr)
            sys.stderr.flush()


say_once = functools.lru_cache(None)(say)  # each line once


def progress_bar(what, total, done=0, bar_format=None, unit="img"):
    """A tqdm.tqdm on the terminal, if standard error is one.

    Args:
        total, done: in all, and before it begins.
        bar_format, unit: see tqdm.
    """
    from tqdm import tqdm  # here, because predict.py has no use for it

    global _write
    _write = tqdm.write
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        bar_format=bar_format,
        dynamic_ncols=True,
        disable=not is_terminal() or bool(total) and done >= total,
    )
