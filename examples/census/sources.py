"""Find the installed distributions and the source files of each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement


@dataclass(frozen=True, slots=True)
class Sources:
    """One distribution: its name, and its files by their names within it."""

    name: str
    version: str
    files: Mapping[str, Path]


def installed(only: Iterable[str] = (), *, copies: Mapping[str, Path] | None = None) -> list[Sources]:
    """Return every distribution with Python files, those with most files first.

    `copies` names distributions whose files are taken from another folder instead.
    """
    wanted = {name.lower() for name in only}
    roots = {name.lower(): root for name, root in (copies or {}).items()}
    found = {}
    for dist in distributions():
        name = dist.name.lower()
        if name not in found and (not wanted or name in wanted):
            found[name] = _sources(dist, roots.get(name))
    return sorted((s for s in found.values() if s.files), key=lambda s: (-len(s.files), s.name.lower()))


def needed_by(*names: str) -> set[str]:
    """Return these distributions and all that they require here, by name."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:  # of an extra, or for another system
            continue
        found[name] = dist.name
        required = map(Requirement, dist.requires or ())
        waiting += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return set(found.values())


def copy_files(source: Sources, folder: Path) -> Path:
    """Copy a distribution's files, so that they can be edited without a change of the environment."""
    for name, path in source.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def modules_provided(sources: Iterable[Sources]) -> dict[str, str]:
    """Return the distribution of each top-level module."""
    owners: dict[str, str] = {}
    for source in sources:
        for name in source.files:
            owners.setdefault(name.partition("/")[0].removesuffix(".py"), source.name)
    return owners


def _sources(dist: Distribution, root: Path | None) -> Sources:
    base = root or Path(str(dist.locate_file("")))
    return Sources(dist.name, dist.version, {name: base / name for name in sorted(_python_files(dist))})


def _python_files(dist: Distribution) -> list[str]:
    # `dist.files` looks for every installed file on the disk: 10 s for this environment; RECORD takes 0.3 s.
    record = dist.read_text("RECORD") or ""
    names = (row[0] for row in csv.reader(record.splitlines()) if row)
    return [
        name for name in names if name.endswith(".py") and not name.startswith((".", "/")) and "__pycache__" not in name
    ]
