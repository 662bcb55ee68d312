"""Every statement that the metadata databases run, written once and compiled once for each.

SQLAlchemy writes the SQL and the driver's own cursor runs it: going through an engine costs more
than the whole of a cached read does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, Literal, Protocol

import sqlalchemy as sa

from cacheness.entry import Entry, Where
from cacheness.metadata.tables import checks, entries, flights, leases, schema_version, sessions, store, tombstones

#: The columns of an entry, in the order of its fields.
COLUMNS: Final = tuple(f.name for f in fields(Entry))
_KEY: Final = ("namespace", "key")
EPOCHS_KEPT: Final = 500  #: characters, some thirty epochs
#: The state of a session that may commit. Part of the text, so that hot statements carry no constants.
LIVE: Final = sa.literal_column("'live'", sa.Text)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL for one driver."""

    text: str
    constants: Mapping[str, Any]  #: values that are part of the statement
    order: tuple[str, ...]  #: of numbered placeholders; empty when they have names


class Flavour(Protocol):
    """What one database says differently from another."""

    #: The database's own clock, in microseconds since the epoch.
    clock: sa.ColumnElement[int]
    #: What an age is compared with: that clock, or the parameter `now`.
    now: sa.ColumnElement[int]

    def compile(self, statement: sa.ClauseElement) -> Statement:
        """Turn a statement into text for the driver."""
        ...

    def upsert(self, table: sa.Table) -> Any:
        """An INSERT that knows ON CONFLICT."""
        ...

    def among(self, column: sa.ColumnElement[Any], width: int) -> sa.ColumnElement[bool]:
        """Whether a column, whose values all have this width, is one of those in the parameter `keys`."""
        ...

    def keys(self, keys: Sequence[bytes] | Sequence[str]) -> Any:
        """The value for the parameter `keys`."""
        ...

    def position(self, column: sa.ColumnElement[str], text: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        """Where a text occurs in a column, letter for letter; 0 when it does not."""
        ...


class Statements:
    """The statements of one database, each compiled when it is first wanted."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._compile = flavour.compile
        self._by_shape: dict[tuple[Any, ...], Statement] = {}

    # the store itself

    @cached_property
    def identity(self) -> Statement:
        """Which store this is, and which schema it has."""
        version = sa.select(schema_version.c.version_num).scalar_subquery()
        return self._compile(sa.select(store.c.id, store.c.epoch, store.c.min_reader, version))

    @cached_property
    def create_store(self) -> Statement:
        """Say of an empty database which store it is."""
        return self._compile(sa.insert(store))

    @cached_property
    def create_version(self) -> Statement:
        """Say which schema a fresh database has."""
        return self._compile(sa.insert(schema_version))

    @cached_property
    def begin_epoch(self) -> Statement:
        """Put a repair's epoch before the earlier ones, in one statement: repairs may begin together."""
        newest = _given("new_epoch", sa.Text()).concat(",").concat(store.c.epoch)
        return self._compile(sa.update(store).values(epoch=sa.func.substr(newest, 1, EPOCHS_KEPT)))

    @cached_property
    def usage(self) -> Statement:
        """The epochs, and whether there is a session, and an entry with a blob."""
        blobs = sa.exists().where(entries.c.object.is_not(None))
        return self._compile(sa.select(store.c.epoch, sa.exists(sa.select(sessions.c.id)), blobs))

    # entries

    @cached_property
    def find(self) -> Statement:
        """One row by its key."""
        return self._compile(_rows().where(_this_key()))

    @cached_property
    def find_many(self) -> Statement:
        """The rows under many keys."""
        return self._compile(_rows().where(_this_namespace(), self._among_keys()))

    @cached_property
    def present(self) -> Statement:
        """The unexpired rows under many keys, without their bytes."""
        columns = (entries.c.key, entries.c.size, entries.c.raw_size, entries.c.compute_seconds)
        unexpired = sa.or_(entries.c.expires_at.is_(None), entries.c.expires_at > self.flavour.now)
        return self._compile(sa.select(*columns).where(_this_namespace(), self._among_keys(), unexpired))

    @cached_property
    def object_of(self) -> Statement:
        """The object that a row names."""
        return self._compile(sa.select(entries.c.object).where(_this_key()))

    @cached_property
    def put(self) -> Statement:
        """Insert or replace one entry; the transaction holds the writer's session."""
        return self._compile(replacing(self.flavour.upsert(entries).values({n: _value(n) for n in COLUMNS})))

    @cached_property
    def swap(self) -> Statement:
        """Change expiry and signature, if nothing else has changed."""
        same = [
            entries.c[name].is_not_distinct_from(_given(f"old_{name}", entries.c[name].type))
            for name in ("object", "digest", "created_at", "expires_at", "key_id", "mac")
        ]
        new = {name: _given(f"new_{name}", entries.c[name].type) for name in ("expires_at", "key_id", "mac")}
        return self._compile(sa.update(entries).where(_this_key(), *same).values(new))

    @cached_property
    def record_use(self) -> Statement:
        """Count hits."""
        at = _given("at", sa.BigInteger())
        later = sa.case((entries.c.accessed_at > at, entries.c.accessed_at), else_=at)
        more = entries.c.hits + _given("uses", sa.BigInteger())
        return self._compile(sa.update(entries).where(_this_key()).values(accessed_at=later, hits=more))

    @cached_property
    def totals(self) -> Statement:
        """Count and sum a namespace's entries."""
        sums = (sa.cast(sa.func.coalesce(sa.func.sum(c), 0), sa.BigInteger) for c in (entries.c.size, entries.c.hits))
        return self._compile(sa.select(sa.func.count(), *sums).where(_this_namespace()))

    def scan(self, where: Where) -> Statement:
        """A page of entries after a key, in key order."""
        return self._page(where, "scan")

    def doom(self, where: Where) -> Statement:
        """The same page, keys and objects only, locked for deletion."""
        return self._page(where, "doom")

    @cached_property
    def delete(self) -> Statement:
        """Delete the rows under many keys."""
        return self._compile(sa.delete(entries).where(_this_namespace(), self._among_keys()))

    @cached_property
    def least_recent(self) -> Statement:
        """Entries in the order of their last use."""
        return self._cheapest(entries.c.accessed_at)

    @cached_property
    def least_costly(self) -> Statement:
        """Entries in the order of what it costs to lose them."""
        # One more than the hits, so that a costly result that nobody has asked for yet is worth more
        # than a cheap one; one more than the size, because nothing divides by zero.
        seconds = sa.func.coalesce(entries.c.compute_seconds, 0.0)
        return self._cheapest(seconds * (entries.c.hits + 1) / (entries.c.size + 1.0), entries.c.accessed_at)

    # tombstones

    @cached_property
    def bury(self) -> Statement:
        """Leave a tombstone."""
        buried = self.flavour.upsert(tombstones).values(object=_given("object", sa.Text()), at=self.flavour.clock)
        return self._compile(buried.on_conflict_do_nothing())

    @cached_property
    def tombstones(self) -> Statement:
        """A page of objects to delete, by name."""
        name = tombstones.c.object
        between = (name > _given("after", sa.Text()), name >= _given("first", sa.Text()))
        wanted = sa.select(name).where(*between, name < _given("last", sa.Text()))
        return self._compile(wanted.order_by(name).limit(_given("limit", sa.Integer())))

    @cached_property
    def clear_tombstone(self) -> Statement:
        """Forget an object."""
        return self._compile(sa.delete(tombstones).where(tombstones.c.object == _given("name", sa.Text())))

    # sessions

    @cached_property
    def open_session(self) -> Statement:
        """Begin a session."""
        return self._compile(sa.insert(sessions).values({c.name: _given(c.name, c.type) for c in sessions.c}))

    @cached_property
    def session_lives(self) -> Statement:
        """One row when a session is live."""
        return self._compile(sa.select(sessions.c.id).where(_this_session(), sessions.c.state == LIVE))

    @cached_property
    def retire(self) -> Statement:
        """Set a session ended or fenced, for good."""
        retired = {"state": _given("new_state", sa.Text()), "fenced_at": self.flavour.clock}
        return self._compile(sa.update(sessions).where(_this_session(), sessions.c.state == LIVE).values(retired))

    @cached_property
    def live_sessions(self) -> Statement:
        """Every live session, and whether its lease is over."""
        columns = [sessions.c[name] for name in ("id", "host", "boot_id", "pid_ns", "pid", "pid_start")]
        expired = sa.func.coalesce(leases.c.until < self.flavour.clock, sa.true())
        joined = sessions.outerjoin(leases, leases.c.session == sessions.c.id)
        return self._compile(sa.select(*columns, expired).select_from(joined).where(sessions.c.state == LIVE))

    @cached_property
    def retired_sessions(self) -> Statement:
        """Which sessions will not commit again."""
        these = self.flavour.among(sessions.c.id, 16)
        return self._compile(sa.select(sessions.c.id).where(these, sessions.c.state != LIVE))

    @cached_property
    def condemn(self) -> Statement:
        """Make an unknown session known as fenced; a row when it was unknown."""
        row = {column.name: _given(column.name, column.type) for column in sessions.c if column.name != "fenced_at"}
        fenced = self.flavour.upsert(sessions).values(**row, fenced_at=self.flavour.clock)
        return self._compile(fenced.on_conflict_do_nothing().returning(sessions.c.id))

    @cached_property
    def forget_sessions(self) -> Statement:
        """Drop sessions that were retired long ago."""
        old = sessions.c.fenced_at < self.flavour.now - _given("age", sa.BigInteger())
        return self._compile(sa.delete(sessions).where(sessions.c.state != LIVE, old))

    # checks

    @cached_property
    def check_times(self) -> Statement:
        """When each shard was last checked."""
        return self._compile(
            sa.select(checks.c.shard, checks.c.at).where(checks.c.namespace == _given("namespace", sa.Text()))
        )

    @cached_property
    def record_check(self) -> Statement:
        """Note that a shard was checked."""
        checked = self.flavour.upsert(checks).values({c.name: _given(c.name, c.type) for c in checks.c})
        return self._compile(
            checked.on_conflict_do_update(index_elements=("namespace", "shard"), set_={"at": checked.excluded.at})
        )

    # flights

    @cached_property
    def take_flight(self) -> Statement:
        """Begin or renew a flight; no row changes when it is somebody else's."""
        until = self.flavour.clock + _given("microseconds", sa.BigInteger())
        mine = {name: _given(name, flights.c[name].type) for name in (*_KEY, "token")}
        taken = self.flavour.upsert(flights).values(**mine, until=until)
        free = sa.or_(flights.c.until < self.flavour.clock, flights.c.token == taken.excluded.token)
        new = {"token": taken.excluded.token, "until": taken.excluded.until}
        return self._compile(taken.on_conflict_do_update(index_elements=_KEY, set_=new, where=free))

    @cached_property
    def end_flight(self) -> Statement:
        """Give up one's own flight."""
        mine = (*_is(flights), flights.c.token == _given("token", sa.Text()))
        return self._compile(sa.delete(flights).where(*mine))

    @cached_property
    def flight_holder(self) -> Statement:
        """Who computes a key."""
        return self._compile(sa.select(flights.c.token).where(*_is(flights), flights.c.until >= self.flavour.clock))

    def _page(self, where: Where, purpose: Literal["scan", "doom"]) -> Statement:
        shape = (purpose, *_conditions_of(where))
        if shape not in self._by_shape:
            self._by_shape[shape] = self._compile(self._write_page(shape[1:], purpose))
        return self._by_shape[shape]

    def _write_page(self, conditions: Sequence[str], purpose: Literal["scan", "doom"]) -> sa.ClauseElement:
        after = entries.c.key > _given("after", sa.LargeBinary())
        matching = [self._condition(name) for name in conditions]
        wanted = _rows() if purpose == "scan" else sa.select(entries.c.key, entries.c.object).with_for_update()
        page = wanted.where(_this_namespace(), after, *matching).order_by(entries.c.key)
        return page.limit(_given("limit", sa.Integer()))

    def _condition(self, name: str) -> sa.ColumnElement[bool]:
        if name == "keys":
            return self._among_keys()
        if name == "tag":
            return self.flavour.position(entries.c.tags, _given("tag", sa.Text())) > 0
        if name in ("created_before", "older_than", "expired"):
            return self._age_condition(name)
        if name == "shard":
            lowest, highest = (_given(end, sa.LargeBinary()) for end in ("lowest", "highest"))
            return sa.and_(entries.c.key >= lowest, entries.c.key <= highest)
        return entries.c[name] == _given(name, entries.c[name].type)

    def _age_condition(self, name: str) -> sa.ColumnElement[bool]:
        if name == "expired":
            return entries.c.expires_at <= self.flavour.now
        age = _given(name, sa.BigInteger())
        return entries.c.created_at < (age if name == "created_before" else self.flavour.now - age)

    def _among_keys(self) -> sa.ColumnElement[bool]:
        return self.flavour.among(entries.c.key, 32)

    def _cheapest(self, *order: Any) -> Statement:
        wanted = _rows().where(_this_namespace()).order_by(*order)
        return self._compile(wanted.limit(_given("limit", sa.Integer())))


_CONDITIONS: Final = (
    "keys", "mac", "object", "tag", "function", "prefix", "created_before", "older_than", "expired", "shard",
)  # fmt: skip


def _conditions_of(where: Where) -> list[str]:
    """The conditions that are given."""
    given = ((name, getattr(where, name)) for name in _CONDITIONS)
    return [name for name, value in given if value is not None and value is not False]


def values_of(where: Where, flavour: Flavour) -> dict[str, Any]:
    """The parameters that go with a statement made from `where`."""
    return dict(_values_of(where, flavour))


def _values_of(where: Where, flavour: Flavour) -> Iterator[tuple[str, Any]]:
    yield "namespace", where.namespace
    for name in _conditions_of(where):
        value = getattr(where, name)
        if name == "shard":
            yield "lowest", bytes([value])
            yield "highest", bytes([value]) + b"\xff" * 32
        elif name == "keys":
            yield name, flavour.keys(value)
        elif name == "tag":
            yield name, f"\n{value}\n"
        else:
            yield name, value


def row_of(entry: Entry) -> dict[str, Any]:
    """An entry as parameters of the statement that puts it."""
    row = {name: getattr(entry, name) for name in COLUMNS}
    row["tags"] = "\n" + "\n".join(entry.tags) + "\n" if entry.tags else ""
    return row


def entry_of(row: Sequence[Any]) -> Entry:
    """An entry from a row that has its columns in order."""
    # By position, which takes half as long: COLUMNS are the record's fields, in their order.
    *before, tags, provenance, key_id, mac = row
    return Entry(*(*before, tuple(tags[1:-1].split("\n")) if tags else (), provenance, key_id, mac))


def replacing(insert: Any) -> Any:
    """Let an INSERT into `entries` replace the row under its key, and note the object that it replaced."""
    new = {name: insert.excluded[name] for name in COLUMNS if name not in _KEY}
    return insert.on_conflict_do_update(index_elements=_KEY, set_={**new, "replaced": entries.c.object})


def _rows() -> sa.Select[Any]:
    return sa.select(*(entries.c[name] for name in COLUMNS))


def _given(name: str, kind: sa.types.TypeEngine[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=kind)


def _value(name: str) -> sa.BindParameter[Any]:
    return _given(name, entries.c[name].type)


def _is(table: sa.Table) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return (table.c.namespace == _given("namespace", sa.Text()), table.c.key == _given("key", sa.LargeBinary()))


def _this_key() -> sa.ColumnElement[bool]:
    return sa.and_(*_is(entries))


def _this_namespace() -> sa.ColumnElement[bool]:
    return entries.c.namespace == _given("namespace", sa.Text())


def _this_session() -> sa.ColumnElement[bool]:
    return sessions.c.id == _given("session", sa.Text())
