"""Settings of Sphinx, which makes a site of these pages: `make docs`. They read as well where Markdown is shown."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ABOUT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = "cacheness"
version = release = ABOUT["version"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
# `def f(): ...` and the output of a shell are no errors in a page.
suppress_warnings = ["misc.highlighting_failure"]
nitpicky = True

html_theme = "furo"
html_title = f"cacheness {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def list_pages(app: Any, name: str, source: list[str]) -> None:
    """Put the pages that an index lists into the menu, in its order: each row or item of a list begins with one."""
    if name.rpartition("/")[2] == "index":
        pages = re.findall(r"^[|-] \[[^]]+\]\(([\w./-]+)\.md\)", source[0], re.MULTILINE)
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", "", *pages, "```", ""])


def setup(app: Any) -> None:
    """Register the hook."""
    app.connect("source-read", list_pages)
