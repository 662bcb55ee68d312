"""`__all__` is exactly what a user can see."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, cast

import pytest

from cacheness.coordination.leases import ComputeLeases
from cacheness.memoize import Options
from cacheness.protocols import CachedFunction

PACKAGES = ["cacheness", "cacheness.keys", "cacheness_dask", "cacheness_prefect"]


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_all_is_what_a_user_sees(package: ModuleType) -> None:
    seen = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    # A package that imports its names on demand has them in __dir__, which is what completion shows.
    seen |= {name for name in dir(package) if not name.startswith("_") and name in package.__all__}
    assert set(package.__all__) == seen


def test_every_name_in_all_is_there(package: ModuleType) -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)


def test_every_public_name_says_what_it_is_for(package: ModuleType) -> None:
    silent = [
        f"{package.__name__}.{name}"
        for name in package.__all__
        if (inspect.isclass(getattr(package, name)) or inspect.isroutine(getattr(package, name)))
        and not getattr(package, name).__doc__
    ]
    assert silent == []


@pytest.mark.slow
def documented(text: str) -> set[str]:
    """The names in the `Args:` sections of a docstring."""
    sections = re.findall(r"^Args[^\n]*:\n((?:    .*\n|\n)+)", f"{inspect.cleandoc(text)}\n", re.MULTILINE)
    return {name for section in sections for name in re.findall(r"^    (\w+): ", section, re.MULTILINE)}


def ours(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods of a class and of its bases in the same package, and its constructor."""
    package = cls.__module__.partition(".")[0]
    for base in cls.__mro__:
        for name, member in vars(base).items() if base.__module__.partition(".")[0] == package else ():
            function = getattr(member, "__func__", member)
            is_made = name == "__init__" and base is cls and not dataclasses.is_dataclass(cls) and not is_protocol(cls)
            # pydantic writes model_post_init
            if inspect.isfunction(function) and (is_made or not name.startswith("_")) and name != "model_post_init":
                yield f"{cls.__name__}.{name}", function


def is_protocol(cls: type) -> bool:
    return getattr(cls, "_is_protocol", False)


#: What calls return or take and users do not import.
RETURNED = (CachedFunction, ComputeLeases)


def test_every_parameter_is_documented(package: ModuleType) -> None:
    missing = []
    for value in (*(getattr(package, name) for name in package.__all__), *RETURNED):
        if inspect.isclass(value):
            shared = documented(value.__doc__ or "") if not issubclass(value, BaseException) else None
            calls = (
                [] if shared is None else [one for one in ours(value) if value not in RETURNED or "__" not in one[0]]
            )
        else:
            shared, calls = set(), [(value.__name__, value)] if callable(value) else []
        for name, function in calls:
            known = documented(inspect.unwrap(function).__doc__ or "") | (shared or set())
            known |= {"self", "cls", "kwds"}  # kwds: of the stub in place of an overloaded method
            missing += [f"{name}({p})" for p in inspect.signature(function).parameters if p not in known]
    assert "\n".join(missing) == ""


def test_every_field_of_a_public_record_is_documented(package: ModuleType) -> None:
    missing = []
    for cls in {*(getattr(package, name) for name in package.__all__), Options}:
        if dataclasses.is_dataclass(cls):
            described = set(re.findall(r"^    (\w+):[^#\n]*#: .", inspect.getsource(cast("type", cls)), re.MULTILINE))
            own = inspect.get_annotations(cast("type", cls)).keys() - described
            missing += [f"{cls}.{f.name}" for f in dataclasses.fields(cls) if f.name in own and f.name[0] != "_"]
    assert "\n".join(missing) == ""


def test_importing_cacheness_imports_no_driver_and_no_orchestrator() -> None:
    heavy = [
        "alembic",
        "dask",
        "distributed",
        "numpy",
        "obstore",
        "pandas",
        "polars",
        "prefect",
        "psycopg",
        "pyarrow",
        "s3fs",
    ]
    code = f"import sys; from cacheness import UnifiedCache; print([name for name in {heavy} if name in sys.modules])"
    seen = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert seen.strip() == "[]"
