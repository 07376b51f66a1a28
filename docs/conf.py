"""Sphinx: the pages of this folder, and what the docstrings and the commands say of themselves."""

from __future__ import annotations

import re
from typing import Any

from audioset import __version__

project = "audioset"
author = "The audioset authors"
project_copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings say types, shapes and units
napoleon_google_docstring = False
napoleon_use_ivar = True  # attributes once, in the class's own text
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"audioset {release}"
html_copy_source = False

SHARED = re.compile(r"(\w+(?:, \w+)+) : (.+)")  # "start_s, end_s : float", which napoleon takes for one name


def tidy_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Give names that share a description one each, and put the source where napoleon does not swallow it."""
    tidy: list[str] = []
    for index, line in enumerate(lines):
        shared = SHARED.fullmatch(line)
        if shared and what in ("class", "exception"):
            text = [description for description in lines[index + 1 :] if description]
            length = next((end for end, description in enumerate(text) if description[0] != " "), len(text))
            *first, last = shared[1].split(", ")
            for attribute in first:
                tidy += [f"{attribute} : {shared[2]}", *text[:length]]
            tidy.append(f"{last} : {shared[2]}")
        elif line.startswith("Source:"):
            tidy += ["Notes", "-----", line]
        else:
            tidy.append(line)
    lines[:] = tidy


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", tidy_docstring, priority=400)  # napoleon has 500
