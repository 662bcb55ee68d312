"""Writes docs/reference/api.md from the code: `make docs`. A test fails when the page is out of date."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

PAGE = Path(__file__).parent / "reference/api.md"
MODULES = ("cacheness", "cacheness.keys", "cacheness.errors", "cacheness_dask", "cacheness_prefect")
HEAD = "# Every public name\n\nWritten from the code by `make docs`; edit the docstrings instead.\n"


def page() -> str:
    """The whole page."""
    described: set[int] = set()
    return HEAD + "".join(f"\n{section}" for name in MODULES for section in _module(name, described))


#: What a call of the cache returns or takes and users do not import, by where it is and what to call it.
OTHERS = (
    ("cacheness.memoize.options.Options", "Options of `@cache.cached`"),
    ("cacheness.protocols.CachedFunction", "What `@cache.cached` returns"),
    ("cacheness.coordination.leases.ComputeLeases", "What `cache.compute_leases` is"),
)
#: What may be given for the fields of a record that keeps them in another form.
GIVEN_AS = {"Config": "cacheness.config.CacheParameters", "Options": "cacheness.memoize.options.CachedOptions"}


def _found(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _module(name: str, described: set[int]) -> Iterator[str]:
    module = importlib.import_module(name)
    yield f"## {name}\n\n{_doc(module) if name != 'cacheness.errors' else _tree(module)}\n"
    for public in _names(module):
        value = getattr(module, public)
        if id(value) not in described:
            described.add(id(value))
            yield from _describe(f"{name}.{public}", value)
    for dotted, title in OTHERS if name == "cacheness" else ():
        value = _found(dotted)
        described.add(id(value))
        yield from _describe(title, value, heading=f"### {title}")


def _names(module: Any) -> list[str]:
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.lower)
    return [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]


def _describe(name: str, value: Any, heading: str | None = None) -> Iterator[str]:
    if inspect.isclass(value):
        yield f"{heading or f'### class `{name}`'}\n\n{_sections(_doc(value))}\n"
        if issubclass(value, BaseException):
            return
        if dataclasses.is_dataclass(value):
            yield _fields(value)
        members = {name: member for base in _bases(value) for name, member in vars(base).items()}
        if shown := [_member(name, member) for name, member in members.items() if _is_public(name, member)]:
            yield "".join(shown)
    elif callable(value):
        yield f"### `{name}{_signature(value)}`\n\n{_sections(_doc(value))}\n"
    else:
        # A set shows its members in another order in each process.
        yield f"### `{name}`\n\n`{sorted(value) if isinstance(value, frozenset) else value!r}`\n"


def _bases(cls: type) -> Iterator[type]:
    """Return the class, after those bases in its package that are not public."""
    package = cls.__module__.partition(".")[0]
    public = {id(value) for value in vars(importlib.import_module(package)).values()}
    for base in reversed(cls.__mro__):
        if base is cls or (base.__module__.partition(".")[0] == package and id(base) not in public):
            yield base


def _is_public(name: str, member: Any) -> bool:
    known = isinstance(member, (property, classmethod, staticmethod)) or inspect.isfunction(member)
    return known and not name.startswith("_") and name != "model_post_init"  # pydantic's


def _member(name: str, member: Any) -> str:
    function = getattr(member, "__func__", member)
    shown = name if isinstance(member, property) else name + _signature(function)
    return f"- `{shown}`\n\n{textwrap.indent(_sections(_doc(function)), '  ')}\n"


def _sections(doc: str) -> str:
    """Markdown of a docstring: `Args:` and `Raises:` become lists, `Returns:` a paragraph."""
    text = re.sub(r"^(Args[^\n]*|Raises):\n((?:    .*\n?|\n)+)", _items, doc + "\n", flags=re.MULTILINE)
    return re.sub(r"^Returns:\n((?:    .*\n?)+)", _paragraph, text, flags=re.MULTILINE).strip()


def _items(section: re.Match[str]) -> str:
    items = re.sub(r"\n {5,}", " ", section[2]).split("\n")
    shown = (re.sub(r"^(\w+): ", r"- `\1`: ", item.strip()) for item in items if item.strip())
    return f"{section[1]}:\n\n" + "\n".join(shown) + "\n\n"


def _paragraph(section: re.Match[str]) -> str:
    return f"Returns: {' '.join(section[1].split())}\n"


def _fields(cls: Any) -> str:
    """Fields with the comments that stand beside them in the code."""
    comments = dict(re.findall(r"^    (\w+):[^#\n]*#: (.+)$", inspect.getsource(cls), re.MULTILINE))
    types = inspect.get_annotations(cls)
    if cls.__name__ in GIVEN_AS:
        types = types | inspect.get_annotations(_found(GIVEN_AS[cls.__name__]))
    rows = [
        (f"`{field.name}`", _type(types.get(field.name, field.type)), _default(field), comments.get(field.name, ""))
        for field in dataclasses.fields(cls)
        if not field.name.startswith("_")
    ]
    head = "| field | type | default | meaning |\n|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _type(annotation: Any) -> str:
    return f"`{_name_of_type(annotation)}`".replace("|", "\\|")


def _name_of_type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):  # shown alike by every version of Python
        return " | ".join(map(_name_of_type, get_args(annotation)))
    if annotation is NoneType:
        return "None"
    text = getattr(annotation, "__forward_arg__", annotation)
    return text if isinstance(text, str) else getattr(text, "__name__", str(text))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "" if field.default_factory is dataclasses.MISSING else "a new one each"


class _Plain:
    """An annotation as it was written."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _signature(function: Any) -> str:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "()"
    parameters = [
        p.replace(annotation=_plain(p.annotation))
        for p in signature.parameters.values()
        if p.name not in ("self", "cls")
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=_plain(signature.return_annotation)))
    return re.sub(r"<(\w+)[^>]* at 0x[0-9a-f]+>", r"\1", text)


def _plain(annotation: Any) -> Any:
    return _Plain(annotation) if isinstance(annotation, str) else annotation


def _tree(module: Any) -> str:
    return f"```text\n{_doc(module)}\n```"


def _doc(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "").strip()


if __name__ == "__main__":
    PAGE.write_text(page())
