"""The page to drop photos on, in either language: one file, which asks nobody but its own server."""

from __future__ import annotations

import base64
import hashlib
import os
import re

from suite.evaluation import catalogue

HERE = os.path.dirname(os.path.abspath(__file__))


def render(language: str, needs_token: bool) -> tuple[bytes, tuple]:
    """The page in UTF-8, and the headers that go with it: it may run and load nothing but what is in it."""
    page = catalogue.environment(HERE, language).get_template("page.html")
    html = page.render(language=catalogue.LANGUAGES[language], needs_token=needs_token)
    allowed = ["default-src 'none'", "img-src blob: data:", "connect-src 'self'"]
    for kind in ("style", "script"):
        inline = re.findall("<%s>(.*?)</%s>" % (kind, kind), html, re.DOTALL)
        hashes = (base64.b64encode(hashlib.sha256(each.encode("utf-8")).digest()).decode() for each in inline)
        allowed.append("%s-src %s" % (kind, " ".join("'sha256-%s'" % each for each in hashes)))
    allowed += ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    headers = (
        ("Content-Security-Policy", "; ".join(allowed)),
        ("Content-Language", catalogue.LANGUAGES[language]),
        ("Referrer-Policy", "no-referrer"),
        ("Vary", "Accept-Language"),
    )
    return html.encode("utf-8"), headers


def choose_language(accepted: str) -> str:
    """One of catalogue.LANGUAGES, by a browser's Accept-Language: the first of them that it names.

    Browsers list what they want most first.
    """
    for each in accepted.split(","):
        language = each.split(";")[0].strip().lower().split("-")[0]
        if language in catalogue.LANGUAGES:
            return language
    return "en"
