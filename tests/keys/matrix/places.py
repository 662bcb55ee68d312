"""Places where a user's code stands: how it is laid out in a folder, and how it is loaded from there."""

from __future__ import annotations

import importlib
import json
import linecache
import pathlib
import site
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module stands. `package` is what its name begins with, `root` the folder of its top."""

    name: str
    package: str = ""
    root: str = "."
    has_init: bool = True  #: a namespace package has none
    direct_url: Mapping[str, Any] | None = None  #: how an installer says that it came from a folder

    @property
    def helper(self) -> str:
        """The full name of the module beside the subject."""
        return f"{self.package}.helper" if self.package else "helper"

    def write(self, folder: pathlib.Path, files: Mapping[str, str]) -> None:
        """Lay the files of a carrier out."""
        target = folder.joinpath(self.root, *self.package.split(".")) if self.package else folder / self.root
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (target / name).write_text(text.replace("$helper", self.helper))
        if self.package and self.has_init:
            (target / "__init__.py").write_text("")
        _write_entry_point(folder, self.helper)
        if self.direct_url is not None:
            _write_distribution(folder, self)

    def load(self, folder: pathlib.Path) -> Callable[..., Any]:
        """Run the module as it is run in this place, and return its function."""
        sys.path.insert(0, str(folder))
        if self.direct_url is not None:
            site.addsitedir(str(folder / "site"))
        sys.path.insert(0, str(folder / self.root))
        if self.name in _MAIN:
            return _MAIN[self.name](folder / "subject.py")
        if self.name != "editable install":
            importlib.import_module(self.helper)  # in another order than the subject does
        return importlib.import_module(f"{self.package}.subject" if self.package else "subject").f  # type: ignore[no-any-return]


def _write_entry_point(folder: pathlib.Path, helper: str) -> None:
    info = folder / "plugins-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cacheness_matrix]\ng = {helper}:g\n")


def _write_distribution(folder: pathlib.Path, place: Place) -> None:
    info = folder / "site" / "team-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: team\nVersion: 1.0\n")
    url = {"url": (folder / "src").as_uri(), **dict(place.direct_url or {})}
    (info / "direct_url.json").write_text(json.dumps(url))
    names = ("__init__", "subject", "helper")
    record = [f"team/{name}.py,," for name in names] if place.root == "site" else ["__editable__.team.pth,,"]
    (info / "RECORD").write_text("\n".join([*record, "team-1.0.dist-info/RECORD,,", ""]))
    if place.root != "site":
        (folder / "site" / "__editable__.team.pth").write_text(str(folder / place.root) + "\n")


def _script(path: pathlib.Path) -> Callable[..., Any]:
    """As `python subject.py` runs it."""
    return _run_main(path.read_text(), str(path), {"__file__": str(path)})


def _cell(path: pathlib.Path) -> Callable[..., Any]:
    """As a notebook runs it: a file of this name never stood on disk, only its lines are kept."""
    text, name = path.read_text(), f"/tmp/ipykernel_1/{abs(hash(str(path)))}.py"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    # Notebooks have no __file__: what stands beside the notebook is named from the working directory.
    return _run_main(text.replace("__file__", repr(str(path))), name, {})


def _run_main(text: str, name: str, names: Mapping[str, Any]) -> Callable[..., Any]:
    module = types.ModuleType("__main__")
    vars(module).update(names)
    sys.modules["__main__"] = module
    exec(compile(text, name, "exec", dont_inherit=True), vars(module))
    return vars(module)["f"]  # type: ignore[no-any-return]


_MAIN: Final = {"script": _script, "notebook cell": _cell, "by-value pickle": _script}

PLACES: Final = (
    Place("script"),
    Place("notebook cell"),
    Place("module"),
    Place("package", "team"),
    Place("namespace package", "space.team", has_init=False),
    Place("editable install", "team", "src", direct_url={"dir_info": {"editable": True}}),
    Place("path install", "team", "site", direct_url={"dir_info": {}}),
    Place("by-value pickle"),
)
