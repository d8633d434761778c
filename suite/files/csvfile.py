"""Tables that a spreadsheet may open."""

import csv
import re


def write(path, columns, rows):
    """A table in UTF-8, its cells harmless to spreadsheets, bytes that are no text spelt by their codes."""
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([harmless(str(value)) for value in row] for row in rows)


def harmless(text):
    """Text from outside for a cell; what a spreadsheet would run gets a ' before it, as OWASP advises."""
    return "'" + text if re.match(r"[=+@\t\r]|-(?![0-9.]+\Z)", text) else text
