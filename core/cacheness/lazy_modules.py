"""Load modules of a package when a name of theirs is first used: most processes use few of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from cacheness import forks


def loaded_on_use(
    package: str, names: Mapping[str, str] | None = None, modules: Collection[str] = ()
) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its name.
        names: for each name that it has from one of its modules, the module below the package.
        modules: names of modules in it that are attributes of it.
    """
    homes = names or {}

    def found(name: str) -> Any:
        if name not in homes and name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with forks.no_fork():  # a child forked during a thread's import could never import that module
            module = importlib.import_module(f"{package}.{homes.get(name, name)}")
        value = getattr(module, name) if name in homes else module
        setattr(sys.modules[package], name, value)
        return value

    return found
