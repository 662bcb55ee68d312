"""Provide statements for the metadata databases, their parameters, and records from their rows.

The texts of frequent statements are in `sqlite_texts.py` and `postgresql_texts.py`, so that a new
process need not import SQLAlchemy; the driver's cursor runs them. Others are built on first use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, Literal, Protocol, TypeAlias

from cacheness.lazy_dataclass import dataclass
from cacheness.records import Entry, Equivalence, Where, made_of

#: The columns of an entry, in the order of its fields.
COLUMNS: Final = tuple(f.name for f in fields(Entry))
_TAGS: Final = COLUMNS.index("tags")
_before_tags: Final[Callable[[Entry], tuple[Any, ...]]] = attrgetter(*COLUMNS[:_TAGS])
_after_tags: Final[Callable[[Entry], tuple[Any, ...]]] = attrgetter(*COLUMNS[_TAGS + 1 :])
#: The columns of a dispute, in the order of its fields.
DISPUTE: Final = ("namespace", "key", "at", "stored", "computed", "function", "detail")
#: The columns of a function's row.
CODE: Final = ("name", "module", "components")
#: The columns of an equivalence, in the order of its fields.
EQUIVALENCE: Final = tuple(f.name for f in fields(Equivalence))
#: Characters of a tag or prefix in the index; indexes have a limit, and the entry's row has the whole text.
HINT_LENGTH: Final = 500
#: The purpose of a page of entries: to read, newest first, only keys in the order of an index, or to delete.
Purpose: TypeAlias = Literal["scan", "newest", "lead", "doom", "doom what is free"]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL for one driver."""

    text: str
    constants: Mapping[str, Any]  #: values that are part of the statement
    order: tuple[str, ...]  #: of values, for placeholders without names


class Builder(Protocol):
    """Builds statements with SQLAlchemy."""

    def page(self, purpose: Purpose, where: Where) -> Statement:
        """Return a page of rows that meet a condition; the values are parameters."""
        ...


class Statements:
    """The statements of one database, by name."""

    def __init__(
        self,
        texts: Mapping[str, Statement],
        builder: Callable[[], Builder],
        keys: Callable[[Sequence[bytes] | Sequence[str]], Any],
    ) -> None:
        self._texts = dict(texts)
        vars(self).update(texts)  # each is an attribute; the names of pages contain spaces
        self._builder = builder
        #: Makes the value of the parameter `keys`.
        self.keys = keys

    def __getattr__(self, name: str) -> Statement:
        raise AttributeError(f"there is no statement {name!r}")  # for type checkers: each attribute is a statement

    def page(self, purpose: Purpose, where: Where) -> Statement:
        """Return a page of rows that meet a condition; the values are parameters."""
        name = name_of_page(purpose, where)
        if name not in self._texts:
            self._texts[name] = self._builder().page(purpose, where)
        return self._texts[name]

    def sample(self, limit: int) -> Statement:
        """Return neighbours in key order. The limit is part of the text, because PostgreSQL then plans with it."""
        text, constants, order = (getattr(self.neighbours, each) for each in ("text", "constants", "order"))
        return Statement(text.replace("{limit}", str(limit)), constants, order)


_CONDITIONS: Final = (
    "keys", "mac", "blob", "tag", "functions", "prefix", "created_before", "older_than", "expired", "shard",
)  # fmt: skip


def conditions_of(where: Where) -> list[str]:
    """Return the conditions that are set."""
    given = ((name, getattr(where, name)) for name in _CONDITIONS)
    return [name for name, value in given if value is not None and value is not False]


def hint_of(where: Where) -> str | None:
    """Return the kind of hint that finds the rows. Conditions with keys need none."""
    if where.keys is not None:
        return None
    return "tag" if where.tag is not None else "prefix" if where.prefix else None


def lead_of(where: Where) -> str | None:
    """Return the index whose order a deletion follows; None for key order."""
    if where.keys is not None or where.shard is not None or hint_of(where) is not None:
        return None
    return "expiry" if where.expired else "function" if where.functions is not None else _age_of(where)


def _age_of(where: Where) -> str | None:
    return None if where.created_before is where.older_than is None else "age"


def name_of_page(purpose: Purpose, where: Where) -> str:
    """Return a name shared by statements that differ only in their values."""
    functions = "" if where.functions is None else f" {len(where.functions)}"
    return f"{purpose} by {hint_of(where) or 'row'}:{functions} {' '.join(conditions_of(where))}"


def values_of(where: Where, keys: Callable[[Sequence[bytes]], Any]) -> dict[str, Any]:
    """Return the parameters of a statement built from `where`."""
    return dict(_values_of(where, keys))


def _values_of(where: Where, keys: Callable[[Sequence[bytes]], Any]) -> Iterator[tuple[str, Any]]:
    yield "namespace", where.namespace
    kind = hint_of(where)
    if kind is not None:
        yield "kind", kind
        yield "hint", getattr(where, kind)[:HINT_LENGTH]
    for name in conditions_of(where):
        value = getattr(where, name)
        if name == "shard":
            yield "lowest", bytes([value])
            yield "highest", bytes([value]) + b"\xff" * 32
        elif name == "keys":
            yield name, keys(value)
        elif name == "functions":
            for number, function in enumerate(value):
                yield f"function_{number}", function
        elif name == "tag":
            yield name, f"\n{value}\n"
        else:
            yield name, value


def row_of(entry: Entry) -> tuple[Any, ...]:
    """Return an entry as a row, with its columns in order."""
    return (*_before_tags(entry), text_of(entry.tags), *_after_tags(entry))


def text_of(tags: Sequence[str]) -> str:
    """Return tags as their column has them."""
    return "\n" + "\n".join(tags) + "\n" if tags else ""


def entry_of(row: Sequence[Any]) -> Entry:
    """Return an entry from a row with its columns in order."""
    *before, tags, provenance, key_id, mac = row
    return made_of((*before, _tags_of(tags) if tags else (), provenance, key_id, mac))


def _tags_of(tags: Any) -> tuple[str, ...]:
    # Values in another format are kept unchanged, and then fail the signature.
    is_ours = isinstance(tags, str) and len(tags) > 2 and tags[0] == tags[-1] == "\n"
    return tuple(tags[1:-1].split("\n")) if is_ours else (tags,)


def hints_of(entry: Entry) -> list[tuple[str, str]]:
    """Return the hints by which an entry is found besides key and function: kind and tag."""
    named = [("tag", tag) for tag in entry.tags]
    named += [("prefix", entry.prefix)] if entry.prefix else []
    return [(kind, name[:HINT_LENGTH]) for kind, name in named]
