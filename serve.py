"""Serve a model over HTTP: to programs, and on a page to drop photos on.

    python serve.py [--model models/resnet] [--host 127.0.0.1] [--port 8000]

    curl --data-binary @photo.jpg http://127.0.0.1:8000/classify

docs/serving.md says what can be asked. A better checkpoint is taken as soon as train.py has saved it; SIGTERM
answers what was accepted and ends.
"""

if __name__ == "__main__":
    from suite.process import interrupt  # noqa: F401

import argparse
import asyncio
import functools
import importlib.util
import ipaddress
import re
import signal

from suite.files.schemas import MODEL
from suite.model.classifier import Classifier
from suite.model.network import add_mirror_option, warn_of_mirror
from suite.model.reader import Reader
from suite.pictures import imagefile, sandbox
from suite.process import commandline, device, lifetime
from suite.process.errors import UserError
from suite.process.terminal import say

LOOPBACK = ("localhost", "127.0.0.1", "::1")
TOO_SHORT = 16  # characters of a token that can be guessed


def main():
    """Returns the exit status."""
    options = parse_options()
    if not importlib.util.find_spec("h11"):
        raise UserError("h11 is missing; pip install -r requirements/serve.txt")
    token = read_token(options.token_file) if options.token_file else None
    imagefile.warm_up((*imagefile.FORMATS, *options.formats))
    device.start(options)
    return asyncio.run(serve(options, token))


def parse_options(arguments=None):
    """The argparse.Namespace of a list of arguments, by default the command line's."""
    parser = commandline.ArgumentParser(__doc__)
    number = commandline.number
    parser.add_argument("--model", default=MODEL, help="model folder, or one checkpoint in it")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: all of this machine's"
    )
    parser.add_argument(
        "--port", type=number(int, 0, 65535), default=8000, help="0: any that is free, which is said"
    )
    parser.add_argument(
        "--batch_size", type=number(int, 1), default=32, help="pictures computed at a time, at most"
    )
    parser.add_argument(
        "--max_pixels",
        type=number(int, 1),
        default=25 * 1000 * 1000,
        help="of a picture that is no JPEG, whose decoder takes no short cuts",
    )
    imagefile.add_formats_option(parser)
    sandbox.add_option(parser)
    add_mirror_option(parser)
    access = parser.add_argument_group("access")
    access.add_argument(
        "--token_file",
        metavar="FILE",
        help="its first line has to be sent with each request but for the page and /healthz",
    )
    access.add_argument(
        "--allowed_host",
        action="append",
        metavar="NAME",
        type=host_name,
        help="a name that it may be asked under besides localhost, and no other; may be repeated (default: "
        "any; where only this machine reaches it, localhost)",
    )
    access.add_argument("--log", action="store_true", help="a line about each request on standard error")
    options = parser.parse_args(arguments)
    sandbox.check_option(options, parser)
    return options


def host_name(text):
    """An argparse type: a name without scheme, port or path."""
    if not re.fullmatch(r"[\w.-]+|[0-9a-fA-F:]+:[0-9a-fA-F:]*", text):
        raise argparse.ArgumentTypeError(
            "%r is no name such as ai.example.com; without scheme and port" % text
        )
    return text


def read_token(path):
    """The first line of a file. Raises UserError where that is no secret, OSError."""
    with open(path, encoding="utf-8", errors="replace") as file:
        token = file.readline().strip()
    if not re.fullmatch("[!-~]{%d,}" % TOO_SHORT, token):
        raise UserError(
            "%s: its first line must be a token of %d ASCII characters or more, without spaces"
            % (path, TOO_SHORT)
        )
    return token


async def serve(options, token):
    """Serve until a signal; returns the exit status.

    Raises:
        UserError: the model cannot be loaded, or the address cannot be had.
    """
    from suite.serving import http  # here, because h11 comes with it
    from suite.serving.api import Api
    from suite.serving.service import Service

    service = Service(options.model, functools.partial(load, options), options.batch_size)
    api = Api(service, allowed_hosts(options), token)
    server = http.Server(api.check, api.handle, say if options.log else None)
    service.start()
    try:
        port = await server.start(options.host, options.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "is no host"
        raise UserError("--host %s --port %d: %s" % (options.host, options.port, reason)) from error
    if not token and not is_loopback(options.host):
        say("warning: whoever reaches %s may ask; see --token_file" % options.host)
    host = "[%s]" % options.host if ":" in options.host else options.host
    stopping = asyncio.ensure_future(stop_signal())
    await asyncio.sleep(0)  # it begins to wait
    say("serving %s at http://%s:%d/" % (service.loaded.name, host, port))
    signal_number = await stopping
    say("answering what was accepted")
    api.is_stopping = True
    await server.stop()
    await service.close()
    return 0 if signal_number == signal.SIGTERM else 128 + signal_number


def load(options, model):
    """A Classifier of a modelfolder.Model; see predict.Classifier."""
    warn_of_mirror(options, model)
    limits = imagefile.MAX_PIXELS, options.max_pixels
    reader = Reader(model, device.data_format(), options.sandbox, options.formats, limits)
    # Without --device: what it names is all that device.start has left.
    return Classifier(model, mirror=options.mirror, reader=reader)


def allowed_hosts(options):
    """The names under which it may be asked; None: any."""
    here = (*LOOPBACK, options.host.lower()) if is_loopback(options.host) else LOOPBACK
    if options.allowed_host:
        return tuple(name.lower() for name in options.allowed_host) + here
    return here if is_loopback(options.host) else None


def is_loopback(host):
    """Whether only this machine itself reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


async def stop_signal():
    """Wait for a stop signal; returns its number. The next one ends all at once."""
    loop = asyncio.get_event_loop()
    received: asyncio.Queue = asyncio.Queue()  # two may come at once, as from a supervisor to all of a group
    for number in lifetime.STOP_SIGNALS:
        loop.add_signal_handler(number, received.put_nowait, number)
    number = await received.get()
    for each in lifetime.STOP_SIGNALS:
        loop.remove_signal_handler(each)
    lifetime.stop_at_once()
    return number


if __name__ == "__main__":
    lifetime.run(main)
