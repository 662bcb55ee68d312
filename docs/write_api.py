"""Writes docs/api.md from the code: `make docs`. A test fails when the page is out of date."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "api.md"
MODULES = ("cacheness", "cacheness.keys", "cacheness.errors", "cacheness_dask", "cacheness_prefect")
HEAD = "# Every public name\n\nWritten from the code by `make docs`; edit the docstrings instead.\n"


def page() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n{section}" for name in MODULES for section in _module(name))


def _module(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    yield f"## {name}\n\n{_doc(module)}\n"
    for public in _names(module):
        yield from _describe(f"{name}.{public}", getattr(module, public))


def _names(module: Any) -> list[str]:
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.lower)
    return [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]


def _describe(name: str, value: Any) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"### class `{name}`\n\n{_doc(value)}\n"
        if dataclasses.is_dataclass(value):
            yield from _fields(value)
        if not issubclass(value, BaseException):
            for member, function in vars(value).items():
                if not member.startswith("_") and _is_documented(function):
                    yield from _describe(member, getattr(function, "__func__", function))
    elif isinstance(value, property):
        yield f"- **`{name}`**: {_first_line(value)}\n"
    elif "." not in name:
        yield f"- **`{name}{_signature(value)}`**: {_first_line(value)}\n"
    elif callable(value):
        yield f"### `{name}{_signature(value)}`\n\n{_doc(value)}\n"


def _fields(cls: Any) -> Iterator[str]:
    rows = "".join(f"| `{f.name}` | `{_default(f)}` |\n" for f in dataclasses.fields(cls) if not f.name.startswith("_"))
    yield f"| field | default |\n|---|---|\n{rows}"


def _default(field: dataclasses.Field[Any]) -> str:
    return "required" if field.default is dataclasses.MISSING else repr(field.default)


def _is_documented(value: Any) -> bool:
    return isinstance(value, (property, classmethod, staticmethod)) or inspect.isfunction(value)


def _signature(function: Any) -> str:
    try:
        text = str(inspect.signature(function))
    except (TypeError, ValueError):
        return "()"
    return re.sub(r" at 0x[0-9a-f]+", "", text).replace("|", "\\|") if "`" in text else text


def _doc(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "").strip()


def _first_line(value: Any) -> str:
    return _doc(value).partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page())
