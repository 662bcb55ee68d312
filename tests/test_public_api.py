"""`__all__` is exactly what a user can see."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from types import ModuleType

import pytest

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
