"""The download, from a server on this machine that does what servers do."""

import hashlib
import http.server
import os
import socket
import threading

import numpy as np
import pytest

from suite.files import atomic, download
from suite.process.errors import UserError

CONTENT = np.random.RandomState(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/BEHAVIOUR: how it answers."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["Range"]))
        getattr(self, self.path[1:])(int((self.headers["Range"] or "bytes=0-")[6:-1]))

    def head(self, status, length=None):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def whole(self, start):
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.head(206 if start else 200, len(CONTENT) - start)
        self.wfile.write(CONTENT[start:])

    def deaf(self, start):
        """Knows no ranges."""
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT)

    def without_length(self, start):
        self.head(206 if start else 200)
        self.wfile.write(CONTENT[start:])

    def breaks_off(self, start):
        """After 100,000 bytes each time."""
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.head(206 if start else 200, len(CONTENT) - start)
        self.wfile.write(CONTENT[start : start + 100_000])

    def stalls(self, start):
        self.head(200, len(CONTENT))
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        self.server.over.wait()

    def silent(self, start):
        self.server.over.wait()

    def too_short(self, start):
        """Says that it is shorter than it is."""
        self.head(200, 1000)
        self.wfile.write(CONTENT)

    def wrong(self, start):
        self.head(200, 5)
        self.wfile.write(b"wrong")

    def missing(self, start):
        self.send_error(404)

    def moved(self, start):
        self.send_response(302)
        self.send_header("Location", "/whole")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

        def handle_error(self, request, client_address):
            """The client has gone: as expected."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked, server.over = [], threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.address = "http://127.0.0.1:%d/" % server.server_address[1]
        yield server
        server.over.set()
        server.shutdown()


def fetch(server, path, *behaviours):
    download.fetch([server.address + behaviour for behaviour in behaviours], str(path), MD5)


@pytest.mark.parametrize("behaviour", ["whole", "deaf", "without_length", "moved", "breaks_off"])
@pytest.mark.parametrize(
    "there",
    [b"", CONTENT[:1000], CONTENT, CONTENT + b"more", b"other"],
    ids=["none", "part", "whole", "more", "other"],
)
def test_what_comes_is_the_file(server, tmp_path, behaviour, there):
    """Also where something is there already: a part, all of it, more, or something else."""
    path = tmp_path / "models" / "file.h5"
    path.parent.mkdir()
    (tmp_path / "models" / ("file.h5" + atomic.PARTIAL)).write_bytes(there)
    fetch(server, path, behaviour)
    assert path.read_bytes() == CONTENT and os.listdir(str(path.parent)) == ["file.h5"]


def test_what_broke_off_goes_on(server, tmp_path):
    fetch(server, tmp_path / "file.h5", "breaks_off")
    assert [start for _, start in server.asked] == [None, "bytes=100000-", "bytes=200000-"]


def test_what_is_there_needs_no_network(tmp_path, capsys):
    path = tmp_path / "file.h5"
    path.write_bytes(CONTENT)
    download.fetch(["http://127.0.0.1:9/nothing"], str(path), MD5)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="file.h5: cannot be downloaded; .*refused"):
        download.fetch(["http://127.0.0.1:9/nothing"], str(path), MD5)
    assert path.read_bytes() == b"damaged" and os.listdir(str(tmp_path)) == ["file.h5"]
    assert "warning: %s is damaged, or another file, by its MD5" % path in capsys.readouterr().err


@pytest.mark.parametrize(
    "behaviour, reason",
    [
        ("stalls", "timed out"),
        ("silent", "timed out"),
        ("too_short", "is not that file"),
        ("wrong", "is not that file"),
        ("missing", "HTTP 404"),
    ],
)
def test_another_address_serves_where_one_does_not(server, tmp_path, monkeypatch, behaviour, reason):
    monkeypatch.setattr(download, "TIMEOUT", 2)
    path = tmp_path / "file.h5"
    with pytest.raises(UserError) as caught:
        fetch(server, path, behaviour)
    assert "%s: %s" % (server.address[7:-1], reason) in str(caught.value)
    assert "\n" not in str(caught.value) and not path.exists()
    fetch(server, path, behaviour, "whole")
    assert path.read_bytes() == CONTENT


def test_no_such_host(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = "http://127.0.0.1:%d/file" % unused.getsockname()[1]
        for each in (address, "http://no-such-host.invalid/file"):
            with pytest.raises(UserError, match=each.split("/")[2].replace(".", r"\.")):
                download.fetch([each], str(tmp_path / "file.h5"), MD5)


def test_two_at_once_get_none(server, tmp_path, monkeypatch):
    """The first gives up, and removes what the second has waited for."""
    monkeypatch.setattr(download, "TIMEOUT", 1)
    said = []

    def ask():
        with pytest.raises(UserError) as caught:
            fetch(server, tmp_path / "file.h5", "silent")
        said.append(str(caught.value))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 2 and all("timed out" in each for each in said) and not os.listdir(str(tmp_path))


def test_two_at_once_get_one(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(server, tmp_path / "file.h5", "whole")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file.h5").read_bytes() == CONTENT and os.listdir(str(tmp_path)) == ["file.h5"]
