"""What can be asked over HTTP, and what is answered: docs/serving.md has it for those who ask."""

from __future__ import annotations

import argparse
import asyncio
import base64
import binascii
import hmac
import json
import re
from typing import Any, Callable

from suite.evaluation import catalogue
from suite.model.classifier import best
from suite.pictures.imagefile import BadPicture
from suite.process.commandline import number
from suite.serving import page
from suite.serving.http import Refused, Request, Response, answer, busy
from suite.serving.service import Service

PICTURES = 64  # a request
TOP = 3
FAILING = 3  # batches in turn that could not be computed, and /healthz says so
MODELS = "/v1/models/"  # as TensorFlow Serving has it
INPUT = "image_bytes"  # of our SavedModel's signature


class Api:
    """The functions `check` and `handle` that http.Server calls.

    Args:
        service: answers for pictures.
        hosts: names that a request's Host may have; None: any.
        token: what has to be sent with each request but those for the page and /healthz; None: nothing.
    """

    def __init__(self, service: Service, hosts: tuple[str, ...] | None, token: str | None):
        self.service, self.hosts, self.token = service, hosts, token
        self.is_stopping = False
        self.parsing = asyncio.Lock()
        self.pages = {language: page.render(language, token is not None) for language in catalogue.LANGUAGES}

    # --- before the body ----------------------------------------

    def check(self, request: Request) -> None:
        """Raises Refused where the request will not be answered, whatever its body is."""
        methods = self.methods(request.path)
        if request.path == "/healthz" and request.method in methods:
            return  # it tells nothing, and who watches over servers asks by bare addresses, or names no Host
        host = host_of(request.headers.get("host", ""))
        if not host:
            raise Refused(400, "bad_request", "Host must be a name or an address, with a port or without")
        if self.hosts is not None and host not in self.hosts:
            # Another site's name may be made to lead here, whose pages could then read the answers.
            raise Refused(403, "wrong_host", "not served under the name %s; see --allowed_host" % host)
        if not methods:
            raise Refused(404, "not_found", "there is no %s" % request.path)
        if request.method not in methods:
            allow = ", ".join(methods)
            raise Refused(405, "wrong_method", "%s takes %s" % (request.path, allow), (("Allow", allow),))
        if request.path == "/":
            return
        scheme, _, given = request.headers.get("authorization", "").encode("latin-1").partition(b" ")
        right = hmac.compare_digest(given, (self.token or "").encode("ascii"))
        if self.token and not (scheme.lower() == b"bearer" and right):
            needed = (("WWW-Authenticate", "Bearer"),)
            raise Refused(401, "no_token", "send the token: Authorization: Bearer ...", needed)
        if request.method == "POST":
            self.check_origin(request)
            if self.is_stopping:
                raise busy("stopping", "the server is about to end")

    def methods(self, path: str) -> tuple[str, ...]:
        """Those that a path takes; none where there is no such path."""
        name = self.service.loaded.name
        if path in ("/", "/healthz", MODELS + name):
            return "GET", "HEAD"
        return ("POST",) if path in ("/classify", MODELS + name + ":predict") else ()

    def check_origin(self, request: Request) -> None:
        """Raises Refused where a page of another site sends this from somebody's browser."""
        origin = request.headers.get("origin")
        foreign = origin and origin.partition("://")[2] != request.headers.get("host")
        if foreign or request.headers.get("sec-fetch-site") == "cross-site":
            raise Refused(403, "other_site", "pages of other sites may not ask")

    # --- with it ----------------------------------------

    async def handle(self, request: Request) -> Response:
        """The Response. Raises Refused."""
        if request.path == "/":
            html, headers = self.pages[page.choose_language(request.headers.get("accept-language", ""))]
            return Response(200, html, "text/html; charset=utf-8", headers)
        if request.path == "/healthz":
            is_failing = self.service.failures >= FAILING
            state = "stopping" if self.is_stopping else "failing" if is_failing else "ok"
            return answer({"status": state}, 200 if state == "ok" else 503)
        if request.path == "/classify":
            return await self.classify(request)
        if request.path.endswith(":predict"):
            return await self.predict(request)
        status = {"error_code": "OK", "error_message": ""}
        version = {"version": str(self.service.loaded.version), "state": "AVAILABLE", "status": status}
        return answer({"model_version_status": [version]})

    async def classify(self, request: Request) -> Response:
        """One picture, the body, as it is in a file."""
        top = parameter(request, "top", number(int, 1), TOP)
        threshold = parameter(request, "threshold", number(float, 0, 1), 0)
        name = request.query.get("image", "")
        with self.service.using(1) as loaded:
            answered: dict[str, Any] = {"model": loaded.name, "version": loaded.version}
            try:
                row = await self.service.probabilities(loaded, request.body)
            except BadPicture as error:
                why = {"error": str(error), "code": "bad_picture"}
                raise Refused(
                    422, "bad_picture", str(error), results=[dict(image=name, **why)], **answered
                ) from error
            label, predictions = best(row, loaded.classes, top, threshold, loaded.classify.unknown)
            result = {"image": name, "label": label, "predictions": predictions}
            return answer(dict(answered, results=[result]))

    async def predict(self, request: Request) -> Response:
        """As TensorFlow Serving's REST interface of the SavedModel that export.py writes."""
        async with self.parsing:  # in a thread, as 16 MB take a while, and one at a time, as they take memory
            pictures = await self.service.in_thread(None, parse_instances, request.body)
        with self.service.using(len(pictures)) as loaded:
            work = [self.service.probabilities(loaded, picture) for picture in pictures]
            rows = await asyncio.gather(*work, return_exceptions=True)
            for number, row in enumerate(rows):
                if isinstance(row, BadPicture):
                    raise Refused(422, "bad_picture", "instances[%d]: %s" % (number, row))
                if isinstance(row, BaseException):
                    raise row
            predictions = [
                {
                    "probabilities": [float(each) for each in row],
                    "label": loaded.classes[int(row.argmax())],
                    "classes": loaded.classes,
                }
                for row in rows
            ]
            return answer({"predictions": predictions})


def host_of(host: str) -> str | None:
    """The name or number, in lower case, of one that may have a port; None where it is none."""
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/?#@\[\]]+?)\.?)(?::\d*)?", host)
    return (found.group(1) or found.group(2)).lower() if found else None


def parameter(request: Request, name: str, parse: Callable[[str], float], default: float) -> Any:
    """A number of the query; `parse`: a commandline.number. Raises Refused."""
    try:
        return parse(request.query[name]) if name in request.query else default
    except argparse.ArgumentTypeError as error:
        raise Refused(400, "bad_parameter", "%s: %s" % (name, error)) from error


def parse_instances(body: bytes) -> list[bytes]:
    """The pictures of a :predict. Raises Refused."""
    if sum(map(body.count, (b"{", b"[", b","))) > 8 * PICTURES:  # each value would take memory
        raise Refused(413, "too_many_pictures", "more values than %d pictures have" % PICTURES)
    try:
        content = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(400, "bad_json", "no JSON in UTF-8: %s" % error) from error
    instances = content.get("instances") if isinstance(content, dict) else None
    if not isinstance(instances, list) or not instances:
        example = '{"instances": [{"%s": {"b64": "..."}}]}' % INPUT
        raise Refused(400, "bad_request", "must be such as %s" % example)
    if content.get("signature_name", "serving_default") != "serving_default":
        raise Refused(400, "bad_request", "the one signature is serving_default")
    if len(instances) > PICTURES:
        raise Refused(413, "too_many_pictures", "%d pictures, %d are the limit" % (len(instances), PICTURES))
    return [decode_instance(number, instance) for number, instance in enumerate(instances)]


def decode_instance(number: int, instance: Any) -> bytes:
    """The bytes of {"image_bytes": {"b64": ...}} or {"b64": ...}, as there is one input. Raises Refused."""
    if isinstance(instance, dict) and set(instance) == {INPUT}:
        instance = instance[INPUT]
    try:
        (key,) = instance
        if key == "b64" and isinstance(instance, dict):
            return base64.b64decode(instance["b64"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        pass
    raise Refused(400, "bad_request", 'instances[%d]: must be {"%s": {"b64": "..."}}' % (number, INPUT))
