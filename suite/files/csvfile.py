"""Tables that a spreadsheet may open."""

import csv
import itertools
import re


def write(path, columns, rows):
    """A table for people: its cells harmless to spreadsheets, bytes that are no text spelt by their codes.

    In UTF-8 with a byte order mark, without which Excel takes it for another encoding; what reads it says
    encoding="utf-8-sig".
    """
    with open(path, "w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([harmless(str(value)) for value in row] for row in itertools.chain([columns], rows))


def harmless(text):
    """Text from outside for a cell; what a spreadsheet would run gets a ' before it, as OWASP advises."""
    return "'" + text if re.match(r"[=+@\t\r]|-(?![0-9.]+\Z)", text) else text
