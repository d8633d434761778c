"""What a person sees: lines on standard error, and text from outside made fit for a terminal."""

import re
import shutil
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


_live = False  # whether the terminal's last line is one that say_live wrote


def is_terminal():
    """Whether a person may be watching standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


def say(line):
    """What is not a result goes to standard error."""
    global _live
    print(("\r\033[K" if _live else "") + printable(line), file=sys.stderr, flush=True)
    _live = False


def say_live(line):
    """Show on the terminal a line that the next one takes the place of."""
    global _live
    width = shutil.get_terminal_size().columns - 1
    print("\r\033[K" + line[:width], end="", file=sys.stderr, flush=True)
    _live = True


def progress_bar(what, total):
    """A bar of pictures on the terminal, if standard error is one."""
    from tqdm import tqdm  # here, because train.py and predict.py have no use for it

    return tqdm(desc=what, total=total, unit="img", disable=None)
