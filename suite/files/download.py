"""Download a file that is known by its MD5: what broke off goes on, what stalls ends, what is wrong goes.

Keras's get_file begins anew each time and waits for ever; pooch begins anew, too, and brings six packages.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import BinaryIO

from suite.files import atomic
from suite.process.errors import UserError
from suite.process.terminal import progress_bar, say

TIMEOUT = 20  # seconds without a byte
BLOCK = 1 << 20


def fetch(addresses: list[str], path: str, md5: str) -> None:
    """Download `path` from the first of the addresses that gives it whole, unless it is there.

    Several processes may ask for it at the same time; the others wait. What has come of it is kept beside it.

    Raises:
        UserError: none of them gives it; says why, for each.
    """
    if is_file(path, md5):
        return
    if os.path.exists(path):
        say("warning: %s is damaged, or another file, by its MD5; downloading it again" % path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with atomic.locked_file(path + atomic.PARTIAL) as file:
        if is_file(path, md5):  # another process has fetched it meanwhile
            os.remove(file.name)
            return
        before = None
        while before != file.seek(0, os.SEEK_END):  # as long as something comes
            before, reasons = file.tell(), []
            for address in addresses:
                say("downloading %s" % address)
                try:
                    receive(address, file)
                except (OSError, http.client.HTTPException) as error:
                    if atomic.is_full_disk(error):
                        raise
                    reasons.append("%s: %s" % (host(address), reason(error)))
                    continue
                if is_file(file.name, md5):
                    os.replace(file.name, path)
                    return
                file.truncate(0)
                reasons.append("%s: is not that file, by its MD5" % host(address))
        if not file.tell():
            os.remove(file.name)
    raise UserError("%s: cannot be downloaded; %s" % (path, "; ".join(reasons)))


def receive(address: str, file: BinaryIO) -> None:
    """Append what the file lacks.

    Raises:
        OSError, http.client.HTTPException: it broke off, stalled, or was refused.
    """
    there = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(address, headers={"Range": "bytes=%d-" % there} if there else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if there and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # all of it is there, or something else
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            there = file.truncate(0)
        length = response.headers["Content-Length"]
        whole = there + int(length) if length else None
        try:
            with progress_bar("downloading", whole, there, unit="B") as bar:
                for block in iter(lambda: response.read(BLOCK), b""):
                    file.write(block)
                    bar.update(len(block))
        finally:
            file.flush()
    done = file.seek(0, os.SEEK_END)
    if whole and done < whole:  # which urllib does not say
        raise OSError("broke off after %d of %d bytes" % (done, whole))


def host(address: str) -> str:
    """Of an address the part that tells it from the others."""
    return urllib.parse.urlsplit(address).netloc


def reason(error: Exception) -> str:
    """What an exception of urllib's says, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return "HTTP %d %s" % (error.code, error.reason)
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def is_file(path: str, md5: str) -> bool:
    """Whether it is there and has that MD5."""
    if not os.path.exists(path):
        return False
    digest = hashlib.md5()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest() == md5
