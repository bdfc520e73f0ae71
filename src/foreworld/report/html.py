"""Text that is markup, kept apart by type from text that is not."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_EMPTY = frozenset({"br", "circle", "hr", "img", "input", "line", "link", "meta", "path", "rect", "source"})
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Attribute = str | int | float | bool | None


class Html(str):
    """Markup that is safe to embed; every plain `str` is escaped instead.

    Concatenating or formatting gives a plain `str` again, so that markup is only ever
    made by `tag`, `join` and an explicit `Html(...)`.
    """

    __slots__ = ()


def escape(text: str) -> Html:
    """Turn text into markup; what already is markup stays as it is.

    Example:
        >>> escape("a < b & c")
        'a &lt; b &amp; c'
        >>> escape(Html("<b>bold</b>"))
        '<b>bold</b>'
    """
    if isinstance(text, Html):
        return text
    return Html(html.escape(_UNPRINTABLE.sub("\ufffd", text), quote=True))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Put pieces in a row, escaping those that are not markup."""
    return Html(escape(between).join(escape(part) for part in parts))


def tag(name: str, /, *children: str, **attributes: Attribute) -> Html:
    """Build one element.

    Args:
        name: the element's name.
        children: markup, or text to be escaped.
        attributes: a trailing underscore is dropped and inner ones become hyphens
            (`class_`, `data_x`); True gives a bare attribute, None and False none.

    Example:
        >>> tag("p", "1 < 2", class_="quiet", hidden=True)
        '<p class="quiet" hidden="">1 &lt; 2</p>'
    """
    given = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    written = "".join(
        f' {key}="{_attribute(value)}"' for key, value in given if value is not None and value is not False
    )
    if name in _EMPTY:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def _attribute(value: Attribute) -> str:
    if value is True:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escape(str(value))
