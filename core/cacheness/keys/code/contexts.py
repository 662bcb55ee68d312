"""List contexts and options that decide results and are set elsewhere, if they are not at their defaults.

They belong to a thread or a process and not to the function, so they are not part of its key.
"""

from __future__ import annotations

import decimal
import locale
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, Final

from cacheness.keys.error_paths import FAILURES, Harmless

_DECIMAL: Final = frozenset({"Decimal", "decimal", "getcontext"})
_LOCALE: Final = frozenset({"locale", "strxfrm", "strcoll", "localeconv", "format_string", "currency", "strftime"})
_CATEGORIES: Final = ("LC_COLLATE", "LC_NUMERIC", "LC_TIME", "LC_MONETARY")
#: They decide how a frame is printed, or which engine computes it; dask.dataframe sets them when imported.
_HARMLESS: Final = ("display.", "styler.", "plotting.", "compute.")


def changed_settings(words: Collection[str]) -> Iterator[str]:
    """Return the changed settings on which code that reads these names may depend."""
    if not _DECIMAL.isdisjoint(words) and (found := _decimal_settings()):
        yield f"the decimal context: {found}"
    if not _LOCALE.isdisjoint(words) and (found := _locale_settings()):
        yield f"the locale: {found}"
    if ("numpy" in words or "np" in words) and (names := _numpy_options()):
        yield Harmless(f"print options of NumPy that were set: {', '.join(names)}")
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


def _locale_settings() -> str:
    now = {name: locale.setlocale(getattr(locale, name)) for name in _CATEGORIES if hasattr(locale, name)}
    return ", ".join(f"{name} is {value}" for name, value in now.items() if value != "C")


def _numpy_options() -> list[str]:
    printing: Any = sys.modules.get("numpy._core.printoptions")
    with suppress(*FAILURES):  # NumPy's place for its defaults is private
        default, now = vars(printing)["default_format_options_dict"], vars(printing)["format_options"].get()
        return sorted(name for name, value in now.items() if value != default.get(name))
    return []


def _pandas_options() -> list[str]:
    config: Any = sys.modules.get("pandas._config.config")
    with suppress(*FAILURES):  # pandas' place for them is private
        known = vars(config)["_registered_options"]
        get = vars(config)["get_option"]
        return sorted(name for name, option in known.items() if get(name) != option.defval)
    return []
