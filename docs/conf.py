"""How Sphinx builds the site: Markdown pages, the reference from docstrings, nothing from the network."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

import generated  # noqa: E402 - found beside this file

from foreworld import __version__  # noqa: E402 - found in the checkout, installed or not

project = "foreworld"
author = "The foreworld contributors"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "literal"  # docstrings put code between single backticks
python_use_unqualified_type_names = True
# What lies outside of this site has no page here, and the site is built without asking others for theirs; nor have
# type variables, and types of inner modules that a signature may name.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|nn|gymnasium|gym|collections|pathlib|typing|types|dataclasses|contextlib|abc)(\..*)?"),
    (r"py:class", r"Tensor|list\[.*|foreworld(\.\w+){3,}"),
]

html_theme = "furo"
html_title = f"foreworld {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b6bb0", "color-brand-content": "#0b6bb0"},
    "dark_css_variables": {"color-brand-primary": "#5fb4f2", "color-brand-content": "#5fb4f2"},
}


def setup(app: Sphinx) -> None:
    """Let pages take parts from the code and from measured results, and read docstrings as they are meant."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", escape, priority=400)
    app.connect("autodoc-process-signature", shorten)


def fill(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the marks of a page."""
    source[0] = generated.fill(source[0])


def shorten(app: Sphinx, what: str, name: str, value: Any, options: Any, taken: str, given: str) -> tuple[str, str]:
    """Show what a reader can call: no private fields, no signature of a protocol, `...` for a default made anew."""
    if what == "class" and getattr(value, "_is_protocol", False):
        return "", given
    shown = re.sub(r", _\w+: [^=]* = <factory>", "", taken or "")
    return shown.replace("<factory>", "...") or taken, given


def escape(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Keep the stars and bars of shapes and formulas from being read as markup, before the sections are parsed."""
    for number, line in enumerate(lines):
        if line.startswith("Example"):
            return
        parts = line.split("`")
        parts[::2] = [re.sub(r"[*|]", r"\\\g<0>", part) for part in parts[::2]]
        lines[number] = "`".join(parts)
    if what == "property" and lines:
        # napoleon takes what stands before a colon for the type
        lines[0] = lines[0].replace(": ", " – ", 1)
