"""The language of the pages that people look at: English as the templates have it, or Chinese.

Templates mark their words by jinja2's i18n extension, {% trans %} or _(). catalogue.json has each in English
(of those with a plural, that) and below it in Chinese. Templates fill in %(names)s; %% is a percent sign.
"""

from __future__ import annotations

import json
import os
from typing import Callable, Mapping

import jinja2

LANGUAGES = {"en": "en", "zh": "zh-CN"}  # --language: what it is called in HTML
CATALOGUE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "catalogue.json")


def default_language(environment: Mapping[str, str] = os.environ) -> str:
    """One of LANGUAGES: that of the messages of a POSIX locale, English where it is any but Chinese."""
    locale = next(filter(None, map(environment.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh" if locale.startswith("zh") else "en"


def translations(language: str) -> tuple[Callable[[str], str], Callable[[str, str, int], str]]:
    """gettext and ngettext of a language."""
    if language == "zh":
        with open(CATALOGUE, encoding="utf-8") as file:
            chinese = json.load(file)
        return chinese.__getitem__, lambda one, many, count: chinese[many]
    return str, lambda one, many, count: one if count == 1 else many


def environment(folder: str, language: str) -> jinja2.Environment:
    """A jinja2.Environment of the templates in a folder, whose words are put in a language."""
    loader = jinja2.FileSystemLoader(folder)
    page = jinja2.Environment(loader=loader, autoescape=True, extensions=["jinja2.ext.i18n"])
    page.policies["ext.i18n.trimmed"] = True
    page.install_gettext_callables(*translations(language), newstyle=True)  # type: ignore
    return page
