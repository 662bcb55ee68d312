"""Write a page about the demo: what ran, what was served, where a table comes from, and the repair."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cacheness import UnifiedCache

TASK = "task:table_of"  #: the tag that the plug-in gives to results of this task


def main(arguments: Sequence[str]) -> None:
    """Read the summary that the demo has written, read the rest from the cache, and write the page."""
    summary, picture, target = (Path(argument) for argument in arguments)
    with UnifiedCache.from_env() as cache:
        target.write_text(page(json.loads(summary.read_text()), picture.read_bytes(), cache))


def page(summary: dict[str, Any], picture: bytes, cache: UnifiedCache) -> str:
    """Return the page, which loads nothing from other addresses."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return templates.get_template("page.html").render(
        summary,
        picture=base64.b64encode(picture).decode(),
        stats=cache.stats(),
        report=str(cache.report()),
        lineage=lineage_of_the_largest_table(cache),
    )


def lineage_of_the_largest_table(cache: UnifiedCache) -> list[tuple[str, str]]:
    """Return the provenance of the largest table, from its entry."""
    entry = max(cache.list_entries(tag=TASK), key=lambda entry: entry["size"])
    made_by, code = entry["provenance"]["prefect"], entry["code"]
    return [
        ("task run", f"{made_by['task_run']}, in the run {made_by['flow_run']} of the flow {made_by['flow']}"),
        ("of files", f"{cache.get(entry['cache_key']).num_rows:,}, each by its content: {entry['args']['files']}"),
        ("by the code of", ", ".join(code["reached"])),
        ("with", ", ".join(f"{name} {version}" for name, version in code["versions"].items())),
        ("on", f"{entry['created_at']:%Y-%m-%d %H:%M:%S}, in {entry['compute_seconds']:.2f} s"),
        ("key", entry["cache_key"]),
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
