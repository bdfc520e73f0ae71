from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreworld.report.html import Html, escape, join, tag


@given(st.text())
def test_any_text_survives_as_text_and_never_as_markup(text: str) -> None:
    element = ElementTree.fromstring(tag("p", text, title=text))
    printable = "".join(c if c in "\t\n\r" or " " <= c < "\ufffe" or c > "\uffff" else "\ufffd" for c in text)
    assert len(element) == 0
    assert (element.text or "").replace("\r", "\n") == printable.replace("\r\n", "\n").replace("\r", "\n")


def test_markup_stays_and_text_is_escaped() -> None:
    assert tag("p", Html("<b>1</b>"), "<b>2</b>") == "<p><b>1</b>&lt;b&gt;2&lt;/b&gt;</p>"
    assert join(["a", Html("<i></i>")], " & ") == "a &amp; <i></i>"


def test_mixing_markup_with_text_gives_text_that_is_escaped() -> None:
    mixed = Html("<b>") + "<script>"
    assert not isinstance(mixed, Html)
    assert escape(mixed) == "&lt;b&gt;&lt;script&gt;"
    assert escape(f"{Html('<b>')}") == "&lt;b&gt;"


@pytest.mark.parametrize(
    ("value", "written"),
    [(None, "<p></p>"), (False, "<p></p>"), (True, '<p data-x=""></p>'), (0, '<p data-x="0"></p>'),
     (1.5, '<p data-x="1.5"></p>'), (2.0, '<p data-x="2"></p>'), ('"', '<p data-x="&quot;"></p>')],
)  # fmt: skip
def test_attributes(value: str | int | float | bool | None, written: str) -> None:
    assert tag("p", data_x=value) == written


def test_void_elements_close_themselves() -> None:
    assert tag("img", alt="") == '<img alt=""/>'
    assert tag("canvas") == "<canvas></canvas>"
