"""The pages in two languages: nothing lacks its translation, nothing is left over."""

import collections
import glob
import json
import os
import re

import pytest
from helpers import ROOT

from suite.evaluation import catalogue, report


def messages():
    """The words that the templates mark; the plural where there is one."""
    page = report.environment("en")
    for path in glob.glob(os.path.join(ROOT, "suite", "*", "*.html")):
        with open(path, encoding="utf-8") as file:
            for _, _, found in page.extract_translations(file.read()):
                yield found if isinstance(found, str) else [text for text in found if text][-1]


@pytest.fixture(scope="module")
def pairs():
    """[(English, Chinese)] as they stand in the file."""
    with open(catalogue.CATALOGUE, encoding="utf-8") as file:
        return json.load(file, object_pairs_hook=list)


def test_each_message_is_translated_and_each_translation_used(pairs):
    assert collections.Counter(english for english, _ in pairs) == collections.Counter(set(messages()))


def test_both_languages_have_the_same_parts(pairs):
    part = re.compile(r"%\(\w+\)s|%%|\{\w+\}|</?[a-z][^>]*>")
    for english, chinese in pairs:
        assert sorted(part.findall(english)) == sorted(part.findall(chinese)), english
        assert re.search("[\u4e00-\u9fff]", chinese) or english in (" ", ", ", ": "), english


def test_a_plural():
    gettext, ngettext = catalogue.translations("en")
    assert gettext("Classes") == "Classes"
    assert [ngettext("one", "many", count) for count in (0, 1, 2)] == ["many", "one", "many"]
    _, ngettext = catalogue.translations("zh")
    plural = "%(count)s in all, the surest first."
    assert ngettext("", plural, 1) == ngettext("", plural, 2) == "共 %(count)s 个，最有把握的排在前面。"


@pytest.mark.parametrize(
    "environment, language",
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_TW"}, "zh"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "C"}, "en"),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_CN"}, "zh"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
        ({"LC_ALL": "C", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),
    ],
)
def test_the_language_of_a_locale(environment, language):
    assert catalogue.default_language(environment) == language
