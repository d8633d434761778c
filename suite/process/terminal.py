"""What a person sees: lines on standard error, and text from outside made fit for a terminal."""

import re
import sys
import unicodedata


def printable(text):
    """Text from outside for a terminal, its control characters, which could do anything there, spelt out."""
    return re.sub("[\0-\x1f\x7f-\x9f]", lambda match: "\\x%02x" % ord(match.group()), text)


def counted(number, noun, plural=None):
    """1 picture, 2 pictures; `plural` where it takes more than an s."""
    return "%d %s" % (number, noun if number == 1 else plural or noun + "s")


def columns(text):
    """How many columns of a terminal a text takes: Chinese signs are as wide as two others."""
    widths = (2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)
    return sum(width for sign, width in zip(text, widths) if not unicodedata.combining(sign))


def left(text, width):
    """Text from outside for a table: `printable`, and filled up with spaces to a number of columns."""
    return printable(text) + " " * (width - columns(printable(text)))


def is_terminal():
    """Whether a person may be watching standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def say(line):
    """What is not a result goes to standard error, above a bar that may be there."""
    if sys.stderr is None:
        return
    write = sys.modules["tqdm"].tqdm.write if "tqdm" in sys.modules else print
    write(printable(line), file=sys.stderr)
    sys.stderr.flush()


def progress_bar(what, total, done=0, bar_format=None):
    """A tqdm.tqdm on the terminal, if standard error is one.

    Args:
        total, done: in all, and before it begins.
        bar_format: see tqdm.
    """
    from tqdm import tqdm  # here, because predict.py has no use for it

    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit="img",
        bar_format=bar_format,
        mininterval=0.5,
        disable=not is_terminal(),
    )
