"""Contexts and options that decide results and are set elsewhere: listed where they are not as they came.

They belong to a thread, or to a process, and are not the function's, so they do not count in its key.
"""

from __future__ import annotations

import decimal
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from cacheness.keys.trace import FAILURES, Harmless

_DECIMAL: Final = frozenset({"Decimal", "decimal", "getcontext"})
#: They decide how a frame is printed, or by which engine it is computed, as dask.dataframe does when it is imported.
_HARMLESS: Final = ("display.", "styler.", "plotting.", "compute.")


def changed_settings(words: Collection[str]) -> Iterator[str]:
    """What stands otherwise than by default, of what code that reads these names may depend on."""
    if not _DECIMAL.isdisjoint(words) and (found := _decimal_settings()):
        yield f"the decimal context: {found}"
    for library in ("pandas", "pd"):
        if library in words and (names := _pandas_options()):
            line = f"options of pandas that were set: {', '.join(names)}"
            yield Harmless(line) if all(name.startswith(_HARMLESS) for name in names) else line
            return


def _decimal_settings() -> str:
    now, default = decimal.getcontext(), decimal.DefaultContext
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    return ", ".join(
        f"{name} is {getattr(now, name)}" for name in names if getattr(now, name) != getattr(default, name)
    )


def _pandas_options() -> list[str]:
    config: Any = sys.modules.get("pandas._config.config")
    with suppress(*FAILURES):  # how pandas keeps them is its own
        known = vars(config)["_registered_options"]
        get = vars(config)["get_option"]
        return sorted(name for name, option in known.items() if get(name) != option.defval)
    return []
