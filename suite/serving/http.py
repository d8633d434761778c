"""HTTP/1.1 on asyncio, with h11 as its parser: connections, deadlines and limits. Knows nothing of models.

The deadlines are why it is not one of the servers that exist: none of those tried cuts off a client that
sends a byte now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import http.client
import json
import time
import traceback
import urllib.parse
from typing import Any, Awaitable, Callable, Iterator, NamedTuple

import h11

from suite.process.terminal import say_once

CONNECTIONS = 256  # that are answered; up to as many more are told that they are too many
HEAD = 16 << 10  # bytes
BODY = 16 << 20
IN_FLIGHT = 256 << 20  # of all bodies together
SECONDS = 30  # to send a request, to be answered, and to take the answer
LINGER = 2  # seconds in which what a refused client still sends is thrown away, so that it reads why
CHUNK = 64 << 10  # bytes read at a time
JSON = "application/json"


class Request(NamedTuple):
    """What a client asks."""

    method: str
    path: str  # without the query, percent signs decoded
    query: dict[str, str]
    headers: dict[str, str]  # by names in lower case
    body: bytes = b""


class Response(NamedTuple):
    """What it gets."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple = ()


class Refused(Exception):
    """A request is answered with an error."""

    def __init__(self, status: int, code: str, message: str, headers: tuple = (), **more: object):
        super().__init__(message)
        self.response = answer(dict({"error": message, "code": code}, **more), status, headers)


def answer(content: dict, status: int = 200, headers: tuple = ()) -> Response:
    """A Response of JSON."""
    return Response(status, json.dumps(content).encode("ascii") + b"\n", headers=headers)


def busy(code: str, message: str) -> Refused:
    """What is refused now may be taken in a moment."""
    return Refused(503, code, message, (("Retry-After", "1"),))


class Server:
    """Takes connections until it is told to stop; what it has accepted it answers."""

    def __init__(
        self,
        check: Callable[[Request], None],
        handle: Callable[[Request], Awaitable[Response]],
        log: Callable[[str], None] | None = None,
        seconds: float = SECONDS,
    ):
        """Make it, without listening yet.

        Args:
            check: is called with a request whose body is not there yet; raises Refused if it need not come.
            handle: answers a request; raises Refused.
            log: is called with a line about each request.
            seconds: the deadlines.
        """
        self.check, self.handle, self.log, self.seconds = check, handle, log, seconds
        self.connections: set[Connection] = set()
        self.stopping = False

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which of 0 the system chooses. Raises OSError."""
        asyncio.get_event_loop().set_exception_handler(report)
        self.listening = await asyncio.start_server(self.accept, host, port, limit=CHUNK)
        return self.listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Answer what was accepted until now, and end. `check` is to refuse what comes meanwhile."""
        self.stopping = True
        accepted = {connection for connection in self.connections if connection.is_accepted}
        while any(connection.is_accepted for connection in accepted & self.connections):  # some have left
            await asyncio.sleep(0.02)
        self.listening.close()
        while self.connections:  # they wait for another request, or for a client to take its answer
            for connection in self.connections:
                connection.writer.transport.abort()
            await asyncio.sleep(0.02)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end."""
        if len(self.connections) >= 2 * CONNECTIONS:
            writer.transport.abort()
            return
        connection = Connection(self, reader, writer)
        is_one_too_many = len(self.connections) >= CONNECTIONS
        self.connections.add(connection)
        try:
            if is_one_too_many:
                full = busy("too_many_connections", "more than %d connections" % CONNECTIONS)
                await connection.send(full.response)
            else:
                while await connection.exchange():
                    pass
            await connection.linger()
        except (OSError, asyncio.TimeoutError, h11.RemoteProtocolError):
            pass  # it has gone, or was cut off
        finally:
            self.connections.discard(connection)
            writer.transport.abort()

    @property
    def in_flight(self) -> int:
        """The bytes of all bodies that are there: what a head only announces takes no room from others."""
        return sum(connection.arrived for connection in self.connections)


class Connection:
    """A client: one request after the other."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.server, self.reader, self.writer = server, reader, writer
        self.writer.transport.set_write_buffer_limits(0)  # so that drain() waits until all is sent
        self.http = h11.Connection(h11.SERVER, HEAD)
        self.request: Request | None = None  # that it is at
        self.wants_no_body = False  # in the answer
        self.is_accepted = False  # whether that will be answered
        self.arrived = 0  # bytes of its body

    async def exchange(self) -> bool:
        """Take a request and answer it. Returns whether another may follow."""
        if not self.http.trailing_data[0]:  # else it has been sent behind the last one
            first = await self.within(self.reader.read(HEAD))
            self.http.receive_data(first)
            if not first:
                return False
        began, self.request, self.wants_no_body = time.perf_counter(), None, False
        try:
            response = await self.respond()
        except Refused as error:
            response = error.response
        except h11.RemoteProtocolError as error:
            what = "not HTTP/1.1 as we know it: %s" % error
            response = Refused(error.error_status_hint, "bad_request", what).response
        await self.send(response)
        self.is_accepted, self.arrived = False, 0
        if self.server.log and self.request:
            milliseconds = 1000 * (time.perf_counter() - began)
            self.server.log(self.log_line(self.request, response, milliseconds))
        if (
            self.http.our_state is not h11.DONE
            or self.http.their_state is not h11.DONE
            or self.server.stopping
        ):
            return False
        self.http.start_next_cycle()
        return True

    async def respond(self) -> Response:
        """The Response to a request whose first bytes are there; raises Refused, or h11's errors."""
        try:
            request = await self.within(self.receive())
        except asyncio.TimeoutError as error:
            message = "the request took more than %g s to come" % self.server.seconds
            raise Refused(408, "too_slow", message) from error
        try:
            with faults_of_ours():
                return await self.within(self.server.handle(request))
        except asyncio.TimeoutError as error:
            message = "no answer in %g s" % self.server.seconds
            raise busy("no_answer", message) from error

    async def receive(self) -> Request:
        """A whole Request; raises Refused as soon as it is known that it will be."""
        event = await self.next_event()
        self.wants_no_body = event.method == b"HEAD"
        self.request = request = parse_head(event)
        with faults_of_ours():
            self.server.check(request)
        self.is_accepted = True
        check_length(request)
        body = bytearray()
        while True:
            event = await self.next_event()
            if isinstance(event, h11.EndOfMessage):
                return request._replace(body=bytes(body))
            if self.server.in_flight + len(event.data) > IN_FLIGHT:
                raise busy("too_many_bytes", "too many pictures are on their way")
            self.arrived += len(event.data)
            body += event.data

    async def next_event(self) -> Any:
        """h11's next event; raises ConnectionResetError at the connection's end."""
        while True:
            try:
                event = self.http.next_event()
            except ValueError as error:  # h11 0.14's own, of a length of thousands of digits
                raise Refused(400, "bad_request", "the length is no number that we know") from error
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError
            if event is not h11.NEED_DATA:
                return event
            if self.http.they_are_waiting_for_100_continue:
                none: list[tuple[str, str]] = []
                await self.write(h11.InformationalResponse(status_code=100, headers=none, reason=b"Continue"))
            self.http.receive_data(await self.reader.read(CHUNK if self.request else HEAD))

    async def send(self, response: Response) -> None:
        """Write a Response, and that it is the last one where more cannot be understood."""
        headers = [
            ("Date", email.utils.formatdate(usegmt=True)),
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
            *response.headers,
        ]
        if self.http.their_state is not h11.DONE or self.server.stopping:
            headers.append(("Connection", "close"))
        body = [] if self.wants_no_body else [h11.Data(data=response.body)]
        reason = http.client.responses[response.status].encode("ascii")
        begin = h11.Response(status_code=response.status, headers=headers, reason=reason)
        await self.write(begin, *body, h11.EndOfMessage())

    async def write(self, *events: h11.Event) -> None:
        """Send h11's events; raises asyncio.TimeoutError where the client does not take them."""
        self.writer.write(b"".join(filter(None, map(self.http.send, events))))
        await self.within(self.writer.drain())

    async def linger(self) -> None:
        """Throw away what still comes: closing at once would take back what was answered."""
        self.writer.write_eof()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.throw_away(), LINGER)

    async def throw_away(self) -> None:
        """Read to the end."""
        while await self.reader.read(CHUNK):
            pass

    def within(self, work: Awaitable) -> Awaitable:
        """The work, ended by asyncio.TimeoutError after the deadline."""
        return asyncio.wait_for(work, self.server.seconds)

    def log_line(self, request: Request, response: Response, milliseconds: float) -> str:
        """Who asked what, and how it ended."""
        address, *_ = self.writer.get_extra_info("peername") or ("-",)
        what = request.method, request.path, request.headers.get("content-length", "0")
        return "%s %s %s of %s bytes: %d in %.1f ms" % (address, *what, response.status, milliseconds)


@contextlib.contextmanager
def faults_of_ours() -> Iterator[None]:
    """Show an exception that is nothing for the client to read, and raise Refused in its place."""
    try:
        yield
    except (Refused, asyncio.TimeoutError, asyncio.CancelledError):
        raise
    except Exception as error:
        traceback.print_exc()
        raise Refused(500, "internal", "a fault of the server's; its log has more") from error


def report(loop: asyncio.AbstractEventLoop, context: dict) -> None:
    """What asyncio has to say of what nobody waits for. Of a flood of connections, once."""
    error = context.get("exception")
    if isinstance(error, OSError):
        say_once("warning: %s: %s" % (context["message"], error.strerror))
    else:
        loop.default_exception_handler(context)


def parse_head(head: h11.Request) -> Request:
    """A Request without its body, of h11's. Raises Refused."""
    if len(head.target) + sum(len(name) + len(value) for name, value in head.headers) > HEAD:
        raise Refused(431, "bad_request", "more than %d bytes of headers" % HEAD)
    try:
        target = urllib.parse.urlsplit(head.target.decode("ascii"))
        path = urllib.parse.unquote(target.path, errors="strict")
        pairs = urllib.parse.parse_qsl(target.query, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise Refused(400, "bad_request", "the address cannot be read: %s" % error) from error
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    if target.netloc and target.netloc != headers.get("host"):
        raise Refused(400, "bad_request", "the address names another host than Host does")
    return Request(head.method.decode("ascii"), path, dict(pairs), headers)


def check_length(request: Request) -> None:
    """Raises Refused where the length of the body to come is not said, or too much."""
    length = request.headers.get("content-length")
    if "transfer-encoding" in request.headers or length is None and request.method == "POST":
        raise Refused(411, "no_length", "say the length by Content-Length; chunks are not taken")
    if int(length or 0) and request.method != "POST":
        raise Refused(413, "too_large", "%s takes no body" % request.method)
    if int(length or 0) > BODY:
        raise Refused(413, "too_large", "%s bytes are too many, %d are the limit" % (length, BODY))
