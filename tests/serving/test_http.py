"""Connections, deadlines and limits, of a server whose answers are made up."""

import asyncio
import contextlib
import queue
import socket
import struct
import threading
import time

import pytest

from suite.serving import http

SECONDS = 1  # the deadlines, here


def until(condition):
    """Wait for what the server does meanwhile, but not for ever: it may have been over before it was seen."""
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


@pytest.fixture
def serve():
    """A function that starts a server, in a thread of its own; returns the server and its port."""
    with contextlib.ExitStack() as stack:

        def start(handle=None, check=lambda request: None):
            async def echo(request):
                return http.answer({"path": request.path, "length": len(request.body)})

            async def run():
                server.loop, server.end = asyncio.get_event_loop(), asyncio.Event()
                ports.put(await server.start("127.0.0.1", 0))
                await server.end.wait()

            server, ports = http.Server(check, handle or echo, seconds=SECONDS), queue.Queue()
            server.lines = []
            server.log = server.lines.append
            thread = threading.Thread(target=lambda: asyncio.run(run()))
            thread.start()
            stack.callback(thread.join)
            port = ports.get()
            stack.callback(lambda: server.loop.call_soon_threadsafe(server.end.set))
            return server, port

        yield start


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.settimeout(20)
    return connection


def everything(connection):
    """What comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        for part in iter(lambda: connection.recv(1 << 16), b""):
            parts.append(part)
    return b"".join(parts).decode("latin-1")


def ask(port, *sent):
    """All that is answered to these bytes, after which nothing more is sent."""
    with connect(port) as connection:
        for part in sent:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        return everything(connection)


GET = b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /two HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"


def test_requests_follow_each_other(serve):
    _, port = serve()
    answers = ask(port, GET + POST + GET)
    assert answers.count("HTTP/1.1 200 OK") == 3
    assert answers.count('{"path": "/one", "length": 0}') == 2
    assert answers.count('{"path": "/two", "length": 3}') == 1
    # Byte by byte, and where the client waits to be told to go on.
    assert '"length": 3' in ask(port, *(POST[i : i + 1] for i in range(len(POST))))
    with connect(port) as connection:
        connection.sendall(POST[:-3].replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(b"abc")
        assert b'"length": 3' in connection.recv(1000)


def test_the_old_protocol_and_head(serve):
    server, port = serve()
    assert "Connection: close" in ask(port, b"GET /x HTTP/1.0\r\n\r\n")
    answers = ask(port, GET.replace(b"GET", b"HEAD") + GET)
    assert answers.count("HTTP/1.1 200 OK") == 2 and answers.count("{") == 1
    assert [line.split(" in ")[0] for line in server.lines] == [
        "127.0.0.1 GET /x of 0 bytes: 200",
        "127.0.0.1 HEAD /one of 0 bytes: 200",
        "127.0.0.1 GET /one of 0 bytes: 200",
    ]


@pytest.mark.parametrize(
    "sent, status, code",
    [
        (b"POST /x HTTP/1.1\r\nHost: x\r\n\r\n", 411, "no_length"),
        (
            b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            411,
            "no_length",
        ),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411, "no_length"),
        (
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
            411,
            "no_length",
        ),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 16777217\r\n\r\n", 413, "too_large"),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", 413, "too_large"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1" + b"0" * 18 + b"\r\n\r\n", 413, "too_large"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1" + b"0" * 5000 + b"\r\n\r\n", 400, "bad_request"),
        (b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc", 400, "bad_request"),
        (
            b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            400,
            "bad_request",
        ),
        (b"GET /x HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (17 << 10) + b"\r\n\r\n", 431, "bad_request"),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (1 << 20) + b"\r\n\r\n", 431, "bad_request"),
        (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "bad_request"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_what_is_refused(serve, sent, status, code):
    _, port = serve()
    said = ask(port, sent)
    assert said.startswith("HTTP/1.1 %d " % status) and '"code": "%s"' % code in said
    assert "Connection: close" in said
    assert "200 OK" in ask(port, GET)


def test_why_is_read_by_a_client_that_is_still_sending(serve):
    """Closing at once would have its system throw the answer away."""
    _, port = serve()
    with connect(port) as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        for _ in range(50):
            connection.sendall(b"x" * 100000)
        connection.shutdown(socket.SHUT_WR)
        assert "too_large" in everything(connection)


def drip(port, text):
    """Seconds until a client is cut off that sends a byte now and then, and what it was told."""
    began = time.perf_counter()
    with connect(port) as connection, contextlib.suppress(OSError):
        for i in range(len(text)):
            connection.sendall(text[i : i + 1])
            connection.settimeout(0.1)
            with contextlib.suppress(socket.timeout):
                said = connection.recv(1000)
                return time.perf_counter() - began, said
    return time.perf_counter() - began, b""


def test_clients_that_drip_are_cut_off(serve):
    _, port = serve()
    texts = [
        b"GET /" + b"x" * 1000,
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n" + b"x" * 1000,
    ]
    cut = []
    threads = [threading.Thread(target=lambda i=i: cut.append(drip(port, texts[i % 2]))) for i in range(20)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        began = time.perf_counter()
        assert "200 OK" in ask(port, GET)
        assert time.perf_counter() - began < 10 * SECONDS  # nobody else waits for 20 of them
    assert len(cut) == 20
    for seconds, said in cut:
        assert seconds < SECONDS + 3 and (b"408" in said or not said)  # whose first byte came too late
    assert any(said for _, said in cut)


def test_idle_and_deaf_clients_are_cut_off(serve):
    async def much(request):
        return http.Response(200, b"x" * (64 << 20))

    _, port = serve(much)
    with connect(port) as idle, connect(port) as deaf:
        deaf.sendall(GET)  # and never reads
        assert everything(idle) == ""
        time.sleep(2 * SECONDS)
        deaf.settimeout(10)
        assert len(everything(deaf)) < 64 << 20


def test_an_answer_that_takes_too_long(serve):
    async def late(request):
        await asyncio.sleep(60)

    _, port = serve(late)
    said = ask(port, GET)
    assert said.startswith("HTTP/1.1 503 ") and "no_answer" in said and "Retry-After: 1" in said


def test_no_more_than_so_many_connections_and_bytes(serve, monkeypatch):
    monkeypatch.setattr(http, "CONNECTIONS", 2)
    monkeypatch.setattr(http, "IN_FLIGHT", 1000)
    server, port = serve()
    with connect(port) as one:
        one.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n" + b"x" * 899)
        until(lambda: server.in_flight == 899)
        with connect(port) as two:
            two.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 102\r\n\r\n" + b"x" * 102)
            assert "too_many_bytes" in two.recv(1000).decode()
            assert "too_many_connections" in ask(port, GET)
        one.sendall(b"x")
        assert b"200 OK" in one.recv(1000)
        with connect(port) as idle:  # what is only announced takes no room
            idle.sendall(
                b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
            )
            assert b" 100 " in idle.recv(1000)
            one.sendall(POST)
            assert b"200 OK" in one.recv(1000)
    while server.connections or server.in_flight:
        time.sleep(0.01)


def test_the_end_comes_when_all_is_answered(serve):
    async def late(request):
        await asyncio.sleep(0.6 * SECONDS)
        return http.answer({})

    server, port = serve(late)
    with connect(port) as asking, connect(port) as sending, connect(port) as idle:
        asking.sendall(GET)
        sending.sendall(POST[:-3])
        time.sleep(0.2 * SECONDS)
        until(lambda: sum(each.is_accepted for each in server.connections) == 2)
        end = asyncio.run_coroutine_threadsafe(server.stop(), server.loop)
        time.sleep(0.1 * SECONDS)
        sending.sendall(POST[-3:])
        assert "200 OK" in everything(asking) and "200 OK" in everything(sending)
        assert everything(idle) == ""
        end.result(5)
    with pytest.raises(OSError):
        connect(port)


@pytest.mark.parametrize("fails", ["sending", "waiting", "deaf"])
def test_the_end_does_not_wait_for_clients_that_have_left(serve, fails):
    """By a reset while the body comes or the answer is made, or by not taking the answer."""

    async def handle(request):
        await asyncio.sleep(0.4 * SECONDS)
        return http.Response(200, b"x" * (64 << 20))

    server, port = serve(handle)
    with connect(port) as client:
        client.sendall(POST[:-3] if fails == "sending" else GET)
        until(lambda: any(each.is_accepted for each in server.connections))
        end = asyncio.run_coroutine_threadsafe(server.stop(), server.loop)
        if fails != "deaf":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close resets
            client.close()
        end.result(10 * SECONDS)


def test_a_head_that_is_refused_gets_its_status(serve):
    _, port = serve()
    many = b"A: " + b"a" * (15 << 10) + b"\r\nB: " + b"b" * 2000 + b"\r\n"
    for sent, status in (
        (b"HEAD /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"HEAD / HTTP/1.1\r\nHost: x\r\n" + many + b"\r\n", 431),
    ):
        said = ask(port, sent)
        assert said.startswith("HTTP/1.1 %d " % status) and said.endswith("\r\n\r\n")


def test_the_end_does_not_wait_for_what_comes_after_it_began(serve):
    """Clients that go on asking, or begin to."""
    server, port = serve()
    until, answers = threading.Event(), []

    def go_on():
        while not until.is_set():
            with contextlib.suppress(OSError), connect(port) as connection:
                connection.sendall(GET * 3)
                answers.append(everything(connection))

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(answers) < 20:
        time.sleep(0.01)
    with connect(port) as late:
        late.sendall(POST[:-3])
        asyncio.run_coroutine_threadsafe(server.stop(), server.loop).result(10 * SECONDS)
    until.set()
    for thread in threads:
        thread.join()


def test_an_address_that_names_another_host(serve):
    _, port = serve()
    assert " 200 " in ask(port, b"GET http://x/one HTTP/1.1\r\nHost: x\r\n\r\n")
    for target in (b"http://y/one", b"//y/one"):
        assert " 400 " in ask(port, b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target)


@pytest.mark.parametrize("error", [ZeroDivisionError, OSError(24, "Too many open files")])
def test_a_bug_of_ours_is_a_500_and_the_server_goes_on(serve, capsys, error):
    async def wrong(request):
        raise error

    _, port = serve(wrong)
    for _ in range(2):
        said = ask(port, GET)
        assert said.startswith("HTTP/1.1 500 ") and "internal" in said and "Error" not in said.split("{")[1]
    assert "Error" in capsys.readouterr().err
