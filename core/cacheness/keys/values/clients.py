"""Encode handles to external systems by their configuration.

Their contents (rows, pages) are not part of a key, as they would not be with the address as an
argument; they are listed. Types are recognised by their class names, so that no library is imported
for them.
"""

from __future__ import annotations

import contextvars
import weakref
from collections.abc import Iterable
from typing import Any

from cacheness.keys.encode import Encoder, handles
from cacheness.keys.error_paths import FAILURES, Unencodable
from cacheness.keys.values.lazy_files import family, is_of
from cacheness.keys.values.objects import instance

#: Settings of redis about login and waiting, which do not count.
_LOGIN = frozenset({"username", "password", "credential_provider", "retry", "retry_on_error"})


@family("sqlalchemy:Engine")
def _engine(encoder: Encoder, value: Any) -> None:
    url = value.url
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise Unencodable("an engine with a database in memory")
    encoder.tagged("engine", url.render_as_string(hide_password=True))
    encoder.note(f"what is in the database {url.render_as_string(hide_password=True)}")


@family("sqlalchemy:AsyncEngine")
def _async_engine(encoder: Encoder, value: Any) -> None:
    encoder.tagged("asynchronous", value.sync_engine)


@family("sqlalchemy:sessionmaker", "sqlalchemy:async_sessionmaker")
def _session_maker(encoder: Encoder, value: Any) -> None:
    options = {name: option for name, option in value.kw.items() if name != "info" or option}
    encoder.tagged("session maker", options)


@family("sqlalchemy:scoped_session", "sqlalchemy:async_scoped_session")
def _scoped_session(encoder: Encoder, value: Any) -> None:
    encoder.tagged("scoped session", value.session_factory)


@family("sqlalchemy:MetaData")
def _metadata(encoder: Encoder, value: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("metadata", value.schema, {name: value.tables[name] for name in sorted(value.tables)})
        encoder.leave(value, start)


@family("sqlalchemy:Table")
def _table(encoder: Encoder, value: Any) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("table", str(value.name), value.schema, list(value.columns))
        encoder.leave(value, start)


@family("sqlalchemy:Column")
def _column(encoder: Encoder, value: Any) -> None:
    said = [bool(value.nullable), bool(value.primary_key), bool(value.unique), bool(value.index)]
    default, on_server = (getattr(d, "arg", None) for d in (value.default, value.server_default))
    targets = sorted(key.target_fullname for key in value.foreign_keys)
    kind = value.type  # an object that keeps state about its use
    encoder.tagged("column", str(value.name), type(kind), repr(kind), said, targets)
    encoder.add(default)
    encoder.add(on_server if isinstance(on_server, str) else str(on_server))


@family("sqlalchemy.sql:ClauseElement")
def _statement(encoder: Encoder, value: Any) -> None:
    # By its text, because an object without a name gets a different one in each process.
    try:
        compiled = value.compile()
    except FAILURES:  # it is for one kind of database
        instance(encoder, value)
        return
    if (start := encoder.enter(value)) >= 0:
        parts = _parts_of(value)
        tables = [getattr(part, "table", part) for part in parts]
        encoder.tagged("statement", type(value), str(compiled), len(parts))
        for part in parts:
            encoder.tagged("part", type(part), *_type_of(part))
        bound = getattr(compiled, "bind_names", {})
        encoder.add({name: [b.value, b.callable, b.required, *_type_of(b)] for b, name in bound.items()})
        encoder.add(_once(table for table in tables if is_of(type(table), "sqlalchemy:Table")))
        encoder.add(_once(_model_of(part) for part in parts))
        encoder.add([list(getattr(value, name, None) or ()) for name in ("_with_options", "_context_options")])
        encoder.add(dict(getattr(value, "_execution_options", None) or {}))
        encoder.leave(value, start)


def _parts_of(statement: Any) -> list[Any]:
    """Append a statement with all its parts, tables without their columns, each once."""
    found = {id(statement): statement}
    waiting = [statement]
    while waiting:
        for part in waiting.pop(0).get_children():
            if id(part) not in found:
                found[id(part)] = part
                waiting.append(part)
    return list(found.values())


def _type_of(part: Any) -> list[Any]:
    kind = getattr(part, "type", None)  # an object that keeps state about its use
    return [type(kind), repr(kind)]


def _model_of(part: Any) -> Any:
    """Return the user's class for whose rows a part of a statement stands."""
    entity = getattr(part, "_annotations", {}).get("parententity")
    return getattr(getattr(entity, "mapper", None), "class_", None)


def _once(found: Iterable[Any]) -> list[Any]:
    return list({id(thing): thing for thing in found if thing is not None}.values())


@family("httpx:BaseClient")
def _http_client(encoder: Encoder, value: Any) -> None:
    said = [str(value.base_url), str(value.params), repr(value.timeout), bool(value.follow_redirects)]
    hooks = {name: list(called) for name, called in value.event_hooks.items() if called}
    encoder.tagged("client", type(value), said, value.headers.multi_items(), hooks)
    encoder.note("what httpx gets from the network")


@family("botocore.client:BaseClient")
def _aws_client(encoder: Encoder, value: Any) -> None:
    about = value.meta
    encoder.tagged("client", about.service_model.service_name, about.region_name, about.endpoint_url)
    encoder.note(f"what is behind {about.endpoint_url}")


@family("redis:Redis")
def _redis(encoder: Encoder, value: Any) -> None:
    options = value.connection_pool.connection_kwargs
    encoder.tagged("client", {name: options[name] for name in sorted(options) if name not in _LOGIN})
    encoder.note("what is in redis")


@handles(contextvars.ContextVar)
def _context_variable(encoder: Encoder, value: contextvars.ContextVar[Any]) -> None:
    try:
        encoder.tagged("context variable", value.get())
    except LookupError:
        encoder.tagged("context variable")  # never set


@handles(weakref.ref, weakref.KeyedRef)
def _reference(encoder: Encoder, value: weakref.ref[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("weak reference", value())
        encoder.leave(value, start)


def is_of_sqlalchemy(value: Any) -> bool:
    """Return True when sqlalchemy computed an attribute of a model from the others."""
    kind = type(value)
    if is_of(kind, "sqlalchemy:InstrumentedAttribute"):  # a column of the table; relationships have more attributes
        return is_of(type(getattr(getattr(value, "comparator", None), "prop", None)), "sqlalchemy:ColumnProperty")
    return is_of(kind, *(f"sqlalchemy:{name}" for name in ("Mapper", "registry", "ClassManager", "MetaData", "_ModNS")))
