"""Build every statement for the metadata databases, written once for both.

SQLAlchemy makes the text. `write_texts.py` writes the texts of frequent statements into files, so
that a process imports SQLAlchemy only for integrity checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import sqlalchemy as sa

from cacheness.metadata.sql.statements import (
    CODE,
    COLUMNS,
    DISPUTE,
    EQUIVALENCE,
    Purpose,
    Statement,
    conditions_of,
    hint_of,
)
from cacheness.metadata.sql.tables import (
    activity,
    checks,
    compute_leases,
    disputes,
    entries,
    equivalences,
    functions,
    leases,
    not_stored,
    quotas,
    schema_version,
    sessions,
    store,
    tags,
    tombstones,
    totals,
    uses,
)
from cacheness.records import Where

_KEY: Final = ("namespace", "key")
EPOCHS_KEPT: Final = 500  #: characters, about thirty epochs
#: The state of a session that may commit. Part of the text, so that hot statements carry no constants.
LIVE: Final = sa.literal_column("'live'", sa.Text)
_ZERO: Final = sa.literal_column("0", sa.BigInteger)
_DAY: Final = sa.literal_column("86400000000", sa.BigInteger)
_IS_KEY: Final = sa.func.length(entries.c.key) == sa.literal_column("32")
#: Columns of `activity`: key columns in order, then counts and amounts.
_COUNTED: Final = ("span", "hour", "function", "outcome", "reason")
_SUMS: Final = ("calls", "seconds_spent", "seconds_saved", "bytes")


def one_line(statement: object) -> str:
    """Return the text of a statement, in which no literal contains white space."""
    return " ".join(str(statement).split())


class Flavour(Protocol):
    """SQL that differs between the databases."""

    #: Return the database's clock, in microseconds since the epoch.
    clock: sa.ColumnElement[int]
    #: Return the time from which ages are counted: that clock, or the parameter `now`.
    now: sa.ColumnElement[int]
    #: Return the row of `totals` to which this transaction adds; several, so that writers do not wait for each other.
    slot: sa.ColumnElement[int]

    def compile(self, statement: sa.ClauseElement) -> Statement:
        """Turn a statement into text for the driver."""
        ...

    def upsert(self, table: sa.Table) -> Any:
        """Return an INSERT that supports ON CONFLICT."""
        ...

    def among(self, column: sa.ColumnElement[Any], width: int) -> sa.ColumnElement[bool]:
        """Return whether a column, whose values all have this width, is in the parameter `keys`."""
        ...

    def each(self, width: int) -> sa.FromClause:
        """Return the keys in the parameter `keys` as rows of one column, `key`."""
        ...

    def position(self, column: sa.ColumnElement[str], text: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
        """Return the position of a text in a column, case-sensitive; 0 if absent."""
        ...


class StatementBuilder:
    """Builds the statements of one database: attributes are frequent statements, methods build others."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._compile = flavour.compile

    # the store itself

    @property
    def identity(self) -> Statement:
        """Read the store's identity and schema version."""
        version = sa.select(schema_version.c.version_num).scalar_subquery()
        return self._compile(sa.select(store.c.id, store.c.epoch, store.c.min_reader, version))

    @property
    def create_store(self) -> Statement:
        """Write the identity of a new store."""
        return self._compile(sa.insert(store))

    @property
    def create_version(self) -> Statement:
        """Write the schema version of a new store."""
        return self._compile(sa.insert(schema_version))

    @property
    def begin_epoch(self) -> Statement:
        """Put a repair's epoch before the earlier ones, in one statement: two repairs may start together."""
        newest = _given("new_epoch", sa.Text()).concat(",").concat(store.c.epoch)
        return self._compile(sa.update(store).values(epoch=sa.func.substr(newest, 1, EPOCHS_KEPT)))

    @property
    def usage(self) -> Statement:
        """Read the epochs, and whether there is a session, and an entry with a blob."""
        blobs = sa.exists().where(entries.c.blob.is_not(None))
        return self._compile(sa.select(store.c.epoch, sa.exists(sa.select(sessions.c.id)), blobs))

    @property
    def sync(self) -> Statement:
        """Change nothing, in a synced transaction, which makes earlier commits durable too."""
        return self._compile(sa.update(store).values(epoch=store.c.epoch))

    # entries

    @property
    def find(self) -> Statement:
        """Read one row by its key, unless it is disputed."""
        return self._compile(_rows().where(this_key(), ~_is_disputed()))

    @property
    def find_many(self) -> Statement:
        """Read the undisputed rows under many keys."""
        return self._compile(_rows().where(_this_namespace(), self.among_keys(), ~_is_disputed()))

    @property
    def present(self) -> Statement:
        """Read the unexpired, undisputed rows under many keys, without their bytes."""
        target = entries.alias("target")
        columns = [
            sa.func.coalesce(target.c[name], entries.c[name])
            for name in ("size", "raw_size", "compute_seconds", "outputs", "created_at")
        ]
        named = sa.and_(target.c.namespace == entries.c.namespace, target.c.key == entries.c.link)
        is_whole = sa.and_(target.c.alias == entries.c.alias, target.c.link.is_(None), *self._is_served(target))
        these = (_this_namespace(), self.among_keys(), *self._is_served(entries))
        found = (
            sa.select(entries.c.key, *columns, entries.c.link)
            .select_from(entries.outerjoin(target, named))
            .where(*these)
        )
        return self._compile(found.where(sa.or_(entries.c.link.is_(None), is_whole)))

    def _is_served(self, row: Any) -> tuple[sa.ColumnElement[bool], ...]:
        """Return whether a row is neither expired nor disputed."""
        unexpired = sa.or_(row.c.expires_at.is_(None), row.c.expires_at > self.flavour.now)
        its = (disputes.c.namespace == row.c.namespace, disputes.c.key == row.c.key)
        return unexpired, ~sa.exists().where(*its, disputes.c.at >= row.c.created_at)

    @property
    def by_alias(self) -> Statement:
        """Read some undisputed rows with an alias, without links; few, because an attacker may have added some."""
        its = entries.c.alias == _given("alias", sa.LargeBinary())
        found = _rows().where(_this_namespace(), its, entries.c.link.is_(None), ~_is_disputed())
        # Not ordered by time: SQLite would read all entries through the index on time.
        return self._compile(found.limit(sa.literal_column("9")))

    @property
    def links(self) -> Statement:
        """Read the links to one of these aliases, locked for deletion; rows locked by others are skipped."""
        columns = (entries.c.key, plausible(entries.c.size), entries.c.blob, entries.c.link)
        these = (_this_namespace(), self.flavour.among(entries.c.alias, 32), entries.c.link.is_not(None), _IS_KEY)
        return self._compile(sa.select(*columns).where(*these).with_for_update(skip_locked=True))

    @property
    def named_codes(self) -> Statement:
        """Return which of many digests an entry names as its code: one index look-up per digest."""
        given = self.flavour.each(32)
        named = sa.exists().where(_this_namespace(), entries.c.fn == given.c.key)
        return self._compile(sa.select(given.c.key).where(named))

    @property
    def keys_by_value(self) -> Statement:
        """Read digests of values, and the keys of the entries that hold them."""
        # Without "IS NOT NULL", for which SQLite would read the whole index.
        these = (_this_namespace(), self.flavour.among(entries.c.value, 32), _IS_KEY)
        return self._compile(sa.select(entries.c.value, entries.c.key).where(*these).limit(sa.literal_column("1000")))

    @property
    def swap(self) -> Statement:
        """Change expiry and signature, if nothing else has changed."""
        same = [
            entries.c[name].is_not_distinct_from(_given(f"old_{name}", entries.c[name].type))
            for name in ("blob", "digest", "created_at", "expires_at", "key_id", "mac")
        ]
        new = {name: _given(f"new_{name}", entries.c[name].type) for name in ("expires_at", "key_id", "mac")}
        return self._compile(sa.update(entries).where(this_key(), *same).values(new))

    @property
    def totals(self) -> Statement:
        """Read what a namespace holds: sums of a few rows, however many entries there are."""
        return self._compile(sa.select(*(kept.scalar_subquery() for kept in _kept_totals())))

    @property
    def holdings(self) -> Statement:
        """Read what a namespace holds, and its quota."""
        quota = (quotas.c.max_bytes, quotas.c.max_entries, quotas.c.policy, quotas.c.maintained_at)
        here = _given("namespace", sa.Text())
        sums = [_total(column).label(column.name) for column in (totals.c.entries, totals.c.bytes)]
        kept = sa.select(*sums).where(totals.c.namespace == here).subquery("kept")
        joined = kept.outerjoin(quotas, quotas.c.namespace == here)
        return self._compile(sa.select(kept.c.entries, kept.c.bytes, *quota).select_from(joined))

    @property
    def add_totals(self) -> Statement:
        """Add a transaction's changes to the totals, at its end."""
        return self._add_to_totals(self.flavour.slot)

    @property
    def correct_totals(self) -> Statement:
        """Add the result of a recount, separate from the changes of transactions."""
        return self._add_to_totals(sa.literal_column("0", sa.Integer))

    @property
    def recount(self) -> Statement:
        """Return how much too low the kept totals are: both sums in one statement, so of one moment."""
        counted = sa.select(sa.func.count()).select_from(entries).where(_this_namespace())
        summed = _sum(plausible(entries.c.size)).where(_this_namespace())
        held, held_bytes = (kept.scalar_subquery() for kept in _kept_totals())
        return self._compile(sa.select(counted.scalar_subquery() - held, summed.scalar_subquery() - held_bytes))

    @property
    def set_quota(self) -> Statement:
        """Set a namespace's quota; a row changes only if the quota does."""
        names = ("max_bytes", "max_entries", "policy")
        values = {name: _given(name, quotas.c[name].type) for name in ("namespace", *names)}
        said = self.flavour.upsert(quotas).values(**values)
        new = {name: said.excluded[name] for name in names}
        is_news = sa.or_(*(quotas.c[name].is_distinct_from(said.excluded[name]) for name in names))
        return self._compile(said.on_conflict_do_update(index_elements=("namespace",), set_=new, where=is_news))

    @property
    def note_maintenance(self) -> Statement:
        """Record that a namespace was maintained."""
        policy = sa.literal_column("'lru'", sa.Text)
        noted = self.flavour.upsert(quotas).values(
            namespace=_given("namespace", sa.Text()), policy=policy, maintained_at=self.flavour.clock
        )
        now = {"maintained_at": noted.excluded.maintained_at}
        return self._compile(noted.on_conflict_do_update(index_elements=("namespace",), set_=now))

    @property
    def neighbours(self) -> Statement:
        """Read neighbours in key order, starting at a key, with what decides about their eviction.

        The limit is in the text, in place of `{limit}`, and uses are looked up for each neighbour:
        with a parameter and a join, PostgreSQL plans for a tenth of the table and reads all uses.
        """
        seconds = sa.func.coalesce(entries.c.compute_seconds, 0.0)
        used, hits = (
            sa.select(column).where(_same_key(uses)).correlate(entries).scalar_subquery()
            for column in (uses.c.accessed_at, uses.c.hits)
        )
        columns = (entries.c.key, plausible(entries.c.size), entries.c.created_at, seconds)
        decides = (sa.func.coalesce(used, entries.c.created_at), sa.func.coalesce(hits, _ZERO))
        from_there = (_this_namespace(), entries.c.key >= _given("key", sa.LargeBinary()))
        found = sa.select(*columns, *decides).where(*from_there).order_by(entries.c.key)
        return self._compile(found.limit(sa.literal_column("{limit}")))

    @property
    def functions(self) -> Statement:
        """Read the functions of a namespace's entries, each once: one index look-up per function."""
        first = sa.select(sa.func.min(entries.c.function).label("name")).where(_this_namespace())
        names = first.cte("names", recursive=True)
        following = sa.select(sa.func.min(entries.c.function)).where(
            _this_namespace(), entries.c.function > names.c.name
        )
        names = names.union_all(sa.select(following.scalar_subquery()).where(names.c.name.is_not(None)))
        return self._compile(sa.select(names.c.name).where(names.c.name.is_not(None)))

    @property
    def delete(self) -> Statement:
        """Delete the rows under many keys."""
        return self._compile(sa.delete(entries).where(_this_namespace(), self.among_keys()))

    # uses

    @property
    def record_use(self) -> Statement:
        """Count hits of an existing entry."""
        at = _given("at", sa.BigInteger())
        later = sa.case((uses.c.accessed_at > at, uses.c.accessed_at), else_=at)
        more = uses.c.hits + _given("uses", sa.BigInteger())
        is_there = sa.exists().where(_same_key(uses))
        return self._compile(sa.update(uses).where(*_is(uses), is_there).values(accessed_at=later, hits=more))

    @property
    def uses(self) -> Statement:
        """Read the uses of many keys, which have entries."""
        these = (_this_namespace(), self.among_keys())
        found = sa.select(uses.c.key, uses.c.accessed_at, uses.c.hits).select_from(entries.join(uses, _same_key(uses)))
        return self._compile(found.where(*these))

    @property
    def delete_uses(self) -> Statement:
        """Delete the uses of many keys."""
        return self._compile(self._delete_hints(uses))

    # tags

    @property
    def untag(self) -> Statement:
        """Delete the tags of many keys."""
        return self._compile(self._delete_hints(tags))

    # figures

    @property
    def record_activity(self) -> Statement:
        """Write a row of figures, replacing the previous one."""
        return self._write_activity(lambda row, name: row.excluded[name])

    @property
    def add_activity(self) -> Statement:
        """Add a row of figures to the existing one."""
        return self._write_activity(lambda row, name: activity.c[name] + row.excluded[name])

    @property
    def ended_activity(self) -> Statement:
        """Read a page of processes' rows that are old enough to be added to others, locked; skips locked pages."""
        return self._old_activity(activity.c.who != _text(""))

    @property
    def old_activity(self) -> Statement:
        """Read a page of a span's rows that are old enough to be dropped, locked; skips locked pages."""
        return self._old_activity(activity.c.span == _given("span", sa.Text()), activity.c.who == _text(""))

    @property
    def delete_activity(self) -> Statement:
        """Delete one row of figures."""
        return self._compile(
            sa.delete(activity).where(*(column == _given(column.name, column.type) for column in activity.primary_key))
        )

    @property
    def all_activity(self) -> Statement:
        """Read the totals of all calls: the kept sums, and rows that are not added to them yet."""
        return self._sum_activity(activity.c.span == _text("all"), _apart(_ZERO))

    @property
    def activity_since(self) -> Statement:
        """Read calls since an hour: in hours until a day begins, days until a month begins, and months."""
        span, hour, who = activity.c.span, activity.c.hour, activity.c.who
        hours, days, months = (_given(name, sa.BigInteger()) for name in ("hours", "days", "months"))
        return self._sum_activity(
            _apart(hours),
            sa.and_(span == _text("hour"), who == _text(""), hour >= hours, hour < days),
            sa.and_(span == _text("day"), hour >= days, hour < months),
            sa.and_(span == _text("month"), hour >= months),
        )

    @property
    def activity_by_hour(self) -> Statement:
        """Read calls in each span since an hour, for all functions and reasons together."""
        span, hour = activity.c.span, activity.c.hour
        hours, days, months = (_given(name, sa.BigInteger()) for name in ("hours", "days", "months"))
        spans = {
            "hour": (_apart(hours),),
            "hours": (span == _text("hours"), hour >= hours),
            "days": (span == _text("days"), hour >= days, hour < hours),
            "months": (span == _text("months"), hour >= months, hour < days),
        }
        parts = [
            sa.select(_text(name.removesuffix("s")).label("span"), hour, activity.c.outcome, *_figures()).where(
                _these_figures(), *these
            )
            for name, these in spans.items()
        ]
        found = sa.union_all(*parts).subquery("found").c
        columns = (found.span, found.hour, _text("").label("function"), found.outcome, _text("").label("reason"))
        return self._compile(sa.select(*columns, *_summed(found)).group_by(found.span, found.hour, found.outcome))

    # reasons for results that are not stored

    @property
    def note_unstored(self) -> Statement:
        """Record why a result was not stored; an unchanged reason is written again only after a day."""
        reason = _given("reason", sa.Text())
        noted = self.flavour.upsert(not_stored).values(**named_key(), reason=reason, at=self.flavour.clock)
        new = {name: noted.excluded[name] for name in ("reason", "at")}
        old = sa.or_(not_stored.c.reason != noted.excluded.reason, not_stored.c.at < noted.excluded.at - _DAY)
        return self._compile(noted.on_conflict_do_update(index_elements=_KEY, set_=new, where=old))

    @property
    def unstored(self) -> Statement:
        """Read the reasons of many keys that are not too old."""
        these = (not_stored.c.namespace == _given("namespace", sa.Text()), self.flavour.among(not_stored.c.key, 32))
        recent = not_stored.c.at >= self.flavour.now - _given("age", sa.BigInteger())
        return self._compile(sa.select(not_stored.c.key, not_stored.c.reason).where(*these, recent))

    @property
    def delete_unstored(self) -> Statement:
        """Drop reasons that are too old."""
        old = not_stored.c.at < self.flavour.now - _given("age", sa.BigInteger())
        return self._compile(sa.delete(not_stored).where(not_stored.c.namespace == _given("namespace", sa.Text()), old))

    # the code that made results

    @property
    def note_function(self) -> Statement:
        """Write a row, and that it was seen today, replacing anything else under its digest."""
        today = self.flavour.clock - self.flavour.clock % _DAY
        row = {name: _given(name, functions.c[name].type) for name in ("namespace", "digest", *CODE)}
        noted = self.flavour.upsert(functions).values(**row, first_seen=today, last_seen=today)
        new = {name: noted.excluded[name] for name in (*CODE, "last_seen")}
        is_other = [functions.c[name] != noted.excluded[name] for name in CODE]
        is_news = sa.or_(functions.c.last_seen < noted.excluded.last_seen, *is_other)
        return self._compile(
            noted.on_conflict_do_update(index_elements=("namespace", "digest"), set_=new, where=is_news)
        )

    @property
    def function_codes(self) -> Statement:
        """Read the rows under many digests."""
        these = (functions.c.namespace == _given("namespace", sa.Text()), self.flavour.among(functions.c.digest, 32))
        return self._compile(sa.select(functions.c.digest, *(functions.c[name] for name in CODE)).where(*these))

    @property
    def old_functions(self) -> Statement:
        """Read a page of rows not seen for long, and whether an entry names them; locked, skipping locked ones."""
        named = sa.exists().where(entries.c.namespace == functions.c.namespace, entries.c.fn == functions.c.digest)
        old = functions.c.last_seen < self.flavour.now - _given("age", sa.BigInteger())
        found = sa.select(functions.c.digest, named).where(functions.c.namespace == _given("namespace", sa.Text()), old)
        page = found.order_by(functions.c.last_seen).limit(_given("limit", sa.Integer()))
        return self._compile(page.with_for_update(of=functions, skip_locked=True))

    @property
    def see_function(self) -> Statement:
        """Record that a row was seen today."""
        today = self.flavour.clock - self.flavour.clock % _DAY
        return self._compile(sa.update(functions).where(*_this_function()).values(last_seen=today))

    @property
    def delete_function(self) -> Statement:
        """Drop one row."""
        return self._compile(sa.delete(functions).where(*_this_function()))

    # disputes

    @property
    def dispute(self) -> Statement:
        """Dispute an entry; an earlier dispute about its key is replaced."""
        said = self.flavour.upsert(disputes).values({name: _given(name, disputes.c[name].type) for name in DISPUTE})
        new = {name: said.excluded[name] for name in DISPUTE if name not in _KEY}
        return self._compile(said.on_conflict_do_update(index_elements=_KEY, set_=new))

    @property
    def count_disputes(self) -> Statement:
        """Count a function's disputes of the last day."""
        its = (
            disputes.c.namespace == _given("namespace", sa.Text()),
            disputes.c.function == _given("function", sa.Text()),
        )
        recent = disputes.c.at > self.flavour.now - _DAY
        return self._compile(sa.select(sa.func.count()).select_from(disputes).where(*its, recent))

    @property
    def disputes(self) -> Statement:
        """Read every dispute of a namespace that is about the existing entry."""
        return self._compile(self._disputes())

    @property
    def disputes_of(self) -> Statement:
        """Read the same, for many keys."""
        return self._compile(self._disputes().where(self.flavour.among(disputes.c.key, 32)))

    def _disputes(self) -> sa.Select[Any]:
        still = sa.and_(_same_key(disputes), disputes.c.at >= entries.c.created_at)
        wanted = sa.select(*(disputes.c[name] for name in DISPUTE if name != "namespace"))
        wanted = wanted.select_from(disputes.join(entries, still))
        return wanted.where(disputes.c.namespace == _given("namespace", sa.Text())).order_by(disputes.c.key)

    @property
    def settle(self) -> Statement:
        """Drop the disputes about many keys."""
        return self._compile(self._delete_hints(disputes))

    @property
    def delete_stale_disputes(self) -> Statement:
        """Drop disputes about entries that are deleted or replaced."""
        still = sa.exists().where(_same_key(disputes), disputes.c.at >= entries.c.created_at)
        return self._compile(sa.delete(disputes).where(disputes.c.namespace == _given("namespace", sa.Text()), ~still))

    # equivalences

    @property
    def equivalences(self) -> Statement:
        """Read the equivalences of a namespace."""
        row = equivalences.c
        wanted = sa.select(*(row[name] for name in EQUIVALENCE)).where(row.namespace == _given("namespace", sa.Text()))
        return self._compile(wanted.order_by(row.new, row.old).limit(sa.literal_column("1000")))

    @property
    def find_equivalent(self) -> Statement:
        """Read the rows under a few keys, each with the equivalences of a fingerprint; no equivalence, no row."""
        row = equivalences.c
        theirs = (row.namespace == _given("namespace", sa.Text()), row.new == _given("new", sa.LargeBinary()))
        wanted = sa.select(*(entries.c[name] for name in COLUMNS), *(row[name] for name in EQUIVALENCE))
        return self._compile(wanted.where(_this_namespace(), self.among_keys(), ~_is_disputed(), *theirs))

    @property
    def set_equivalence(self) -> Statement:
        """Write an equivalence, unless the existing one has ended."""
        said = self.flavour.upsert(equivalences).values(
            {name: _given(name, equivalences.c[name].type) for name in EQUIVALENCE}
        )
        pair = ("namespace", "new", "old")
        new = {name: said.excluded[name] for name in EQUIVALENCE if name not in pair}
        return self._compile(
            said.on_conflict_do_update(index_elements=pair, set_=new, where=equivalences.c.until > _ZERO)
        )

    @property
    def delete_equivalence(self) -> Statement:
        """Delete one equivalence."""
        row = equivalences.c
        pair = (row.new == _given("new", sa.LargeBinary()), row.old == _given("old", sa.LargeBinary()))
        return self._compile(sa.delete(equivalences).where(row.namespace == _given("namespace", sa.Text()), *pair))

    @property
    def delete_old_equivalences(self) -> Statement:
        """Drop old equivalences, except revoked ones."""
        row, before = equivalences.c, _given("before", sa.BigInteger())
        old = (row.namespace == _given("namespace", sa.Text()), row.created_at < before, row.until >= _ZERO)
        return self._compile(sa.delete(equivalences).where(*old))

    # tombstones

    @property
    def bury(self) -> Statement:
        """Write a tombstone."""
        tombstone = self.flavour.upsert(tombstones).values(blob=_given("blob", sa.Text()), at=self.flavour.clock)
        return self._compile(tombstone.on_conflict_do_nothing())

    @property
    def tombstones(self) -> Statement:
        """Read a page of blobs to delete, by name."""
        name = tombstones.c.blob
        between = (name > _given("after", sa.Text()), name >= _given("first", sa.Text()))
        wanted = sa.select(name).where(*between, name < _given("last", sa.Text()))
        return self._compile(wanted.order_by(name).limit(_given("limit", sa.Integer())))

    @property
    def clear_tombstone(self) -> Statement:
        """Delete the tombstone of a blob."""
        return self._compile(sa.delete(tombstones).where(tombstones.c.blob == _given("name", sa.Text())))

    # sessions

    @property
    def open_session(self) -> Statement:
        """Open a session."""
        return self._compile(sa.insert(sessions).values({c.name: _given(c.name, c.type) for c in sessions.c}))

    @property
    def retire(self) -> Statement:
        """Mark a session as ended or fenced, permanently."""
        retired = {"state": _given("new_state", sa.Text()), "fenced_at": self.flavour.clock}
        return self._compile(sa.update(sessions).where(this_session(), sessions.c.state == LIVE).values(retired))

    @property
    def live_sessions(self) -> Statement:
        """Read every live session, and whether its lease has run out."""
        columns = [sessions.c[name] for name in ("id", "host", "boot_id", "pid_ns", "pid", "pid_start")]
        expired = sa.func.coalesce(leases.c.until < self.flavour.clock, sa.true())
        joined = sessions.outerjoin(leases, leases.c.session == sessions.c.id)
        return self._compile(sa.select(*columns, expired).select_from(joined).where(sessions.c.state == LIVE))

    @property
    def retired_sessions(self) -> Statement:
        """Return which sessions will not commit again."""
        these = self.flavour.among(sessions.c.id, 16)
        return self._compile(sa.select(sessions.c.id).where(these, sessions.c.state != LIVE))

    @property
    def condemn(self) -> Statement:
        """Insert an unknown session as fenced; returns a row if it was unknown."""
        row = {column.name: _given(column.name, column.type) for column in sessions.c if column.name != "fenced_at"}
        fenced = self.flavour.upsert(sessions).values(**row, fenced_at=self.flavour.clock)
        return self._compile(fenced.on_conflict_do_nothing().returning(sessions.c.id))

    @property
    def delete_sessions(self) -> Statement:
        """Drop sessions that were fenced or ended long ago."""
        old = sessions.c.fenced_at < self.flavour.now - _given("age", sa.BigInteger())
        return self._compile(sa.delete(sessions).where(sessions.c.state != LIVE, old))

    # checks

    @property
    def check_times(self) -> Statement:
        """Read when each shard was last checked."""
        return self._compile(
            sa.select(checks.c.shard, checks.c.at).where(checks.c.namespace == _given("namespace", sa.Text()))
        )

    @property
    def record_check(self) -> Statement:
        """Record that a shard was checked."""
        checked = self.flavour.upsert(checks).values({c.name: _given(c.name, c.type) for c in checks.c})
        return self._compile(
            checked.on_conflict_do_update(index_elements=("namespace", "shard"), set_={"at": checked.excluded.at})
        )

    # compute leases

    @property
    def take_compute_lease(self) -> Statement:
        """Take or renew a compute lease; changes no row while another token holds it."""
        until = self.flavour.clock + _given("microseconds", sa.BigInteger())
        mine = {name: _given(name, compute_leases.c[name].type) for name in (*_KEY, "token")}
        taken = self.flavour.upsert(compute_leases).values(**mine, until=until)
        free = sa.or_(compute_leases.c.until < self.flavour.clock, compute_leases.c.token == taken.excluded.token)
        new = {"token": taken.excluded.token, "until": taken.excluded.until}
        return self._compile(taken.on_conflict_do_update(index_elements=_KEY, set_=new, where=free))

    @property
    def end_compute_lease(self) -> Statement:
        """Release the caller's compute lease."""
        mine = (*_is(compute_leases), compute_leases.c.token == _given("token", sa.Text()))
        return self._compile(sa.delete(compute_leases).where(*mine))

    @property
    def compute_lease_holder(self) -> Statement:
        """Read who computes a key."""
        lasts = compute_leases.c.until >= self.flavour.clock
        return self._compile(sa.select(compute_leases.c.token).where(*_is(compute_leases), lasts))

    def _sum_activity(self, *spans: sa.ColumnElement[bool]) -> Statement:
        # Separate conditions, so that each uses an index; with OR between them, PostgreSQL reads the whole table.
        names = ("function", "outcome", "reason")
        columns = [activity.c[name] for name in names]
        parts = [sa.select(*columns, *_figures()).where(_these_figures(), these) for these in spans]
        found = sa.union_all(*parts).subquery("found").c
        kinds = (_text("all").label("span"), _ZERO.label("hour"))
        counted = [found[name] for name in names]
        return self._compile(sa.select(*kinds, *counted, *_summed(found)).group_by(*counted))

    def _old_activity(self, *these: sa.ColumnElement[bool]) -> Statement:
        hour = activity.c.hour
        found = sa.select(*(activity.c[name] for name in (*_COUNTED, "who", *_SUMS)))
        found = found.where(_these_figures(), *these, hour < _given("before", sa.BigInteger())).order_by(hour)
        return self._compile(found.limit(_given("limit", sa.Integer())).with_for_update(skip_locked=True))

    def _write_activity(self, figure: Callable[[Any, str], Any]) -> Statement:
        row = self.flavour.upsert(activity).values({c.name: _given(c.name, c.type) for c in activity.c})
        new = {name: figure(row, name) for name in _SUMS}
        return self._compile(row.on_conflict_do_update(index_elements=list(activity.primary_key), set_=new))

    def _add_to_totals(self, slot: sa.ColumnElement[int]) -> Statement:
        changes = {name: _given(name, sa.BigInteger()) for name in ("entries", "bytes")}
        added = self.flavour.upsert(totals).values(namespace=_given("namespace", sa.Text()), slot=slot, **changes)
        return self._compile(adding(added.inline()))  # without RETURNING, which nobody reads

    # pages of entries by a condition

    def page(self, purpose: Purpose, where: Where) -> Statement:
        """Read a page of rows that meet a condition; the values are parameters."""
        page = {"newest": self._newest, "lead": self._lead}.get(purpose)
        return self._compile(self._in_key_order(purpose, where) if page is None else page(where))

    def _newest(self, where: Where) -> sa.Select[Any]:
        """Read the newest first, starting at a time."""
        at = (entries.c.created_at, entries.c.key)
        before = sa.tuple_(*at) < sa.tuple_(_given("at", sa.BigInteger()), _given("before", sa.LargeBinary()))
        page = _rows().where(_this_namespace(), before, *self._conditions(where))
        return page.order_by(*(column.desc() for column in at)).limit(_given("limit", sa.Integer()))

    def _lead(self, where: Where) -> sa.Select[Any]:
        """Read keys in the order of the index that `lead_of` names, after a time and key; locks nothing."""
        at = (entries.c.expires_at if where.expired else entries.c.created_at, entries.c.key)
        after = sa.tuple_(*at) > sa.tuple_(_given("at", sa.BigInteger()), _given("after", sa.LargeBinary()))
        found = sa.select(*at).where(_this_namespace(), after, *self._conditions(where), _IS_KEY)
        return found.order_by(*at).limit(_given("limit", sa.Integer()))

    def _in_key_order(self, purpose: Purpose, where: Where) -> sa.Select[Any]:
        """Read rows after a key: whole rows, or keys, sizes and blobs, locked for deletion."""
        hint, matching = hint_of(where), self._conditions(where)
        if where.keys is None:
            matching.append((tags if hint else entries).c.key > _given("after", sa.LargeBinary()))
        else:
            matching = [self.among_keys(), *(_only_filtering(condition) for condition in matching[1:])]
        key = entries.c.key
        wanted = _rows()
        if purpose != "scan":
            wanted = sa.select(key, plausible(entries.c.size), entries.c.blob, entries.c.alias)
            wanted = wanted.with_for_update(of=entries, skip_locked=purpose == "doom what is free")
            # A key of another length is not ours; in SQLite, where keys are passed as one value, it
            # would hide the others.
            matching.append(_IS_KEY)
        if hint is not None:
            # Join from the hint to the row, in the order of the index; the row decides whether the hint still holds.
            key = tags.c.key
            named = (tags.c.kind == _given("kind", sa.Text()), tags.c.tag == _given("hint", sa.Text()))
            wanted = wanted.select_from(tags.join(entries, _same_key(tags))).where(*named)
            wanted = wanted.where(tags.c.namespace == _given("namespace", sa.Text()))
        page = wanted.where(_this_namespace(), *matching).order_by(key)
        return page.limit(_given("limit", sa.Integer()))

    def _conditions(self, where: Where) -> list[sa.ColumnElement[bool]]:
        return [self._condition(name, where) for name in conditions_of(where)]

    def _condition(self, name: str, where: Where) -> sa.ColumnElement[bool]:
        if name == "keys":
            return self.among_keys()
        if name == "functions":
            names = [_given(f"function_{number}", sa.Text()) for number in range(len(where.functions or ()))]
            return entries.c.function.in_(names) if names else sa.literal_column("1 = 0", sa.Boolean)
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

    def among_keys(self) -> sa.ColumnElement[bool]:
        """Return whether a row's key is in the parameter `keys`."""
        return self.flavour.among(entries.c.key, 32)

    def _delete_hints(self, table: sa.Table) -> sa.ClauseElement:
        these = self.flavour.among(table.c.key, 32)
        return sa.delete(table).where(table.c.namespace == _given("namespace", sa.Text()), these)


def replacing(insert: Any, where: sa.ColumnElement[bool] | None = None) -> Any:
    """Make an INSERT into `entries` replace the row under its key, and store what it replaced."""
    new = {name: insert.excluded[name] for name in COLUMNS if name not in _KEY}
    old = {"replaced": entries.c.blob, "replaced_size": entries.c.size}
    return insert.on_conflict_do_update(index_elements=_KEY, set_={**new, **old}, where=where)


def adding(insert: Any) -> Any:
    """Make an INSERT into `totals` add to its slot."""
    more = {name: totals.c[name] + insert.excluded[name] for name in ("entries", "bytes")}
    return insert.on_conflict_do_update(index_elements=("namespace", "slot"), set_=more)


def unused(insert: Any) -> Any:
    """Make an INSERT into `uses` start over if the key had an entry before."""
    new = {name: insert.excluded[name] for name in ("accessed_at", "hits")}
    return insert.on_conflict_do_update(index_elements=_KEY, set_=new)


def _only_filtering(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Keep a condition from using an index.

    SQLite would read all old rows, or all of a function, to find a few keys.
    """
    return sa.case((condition, sa.literal_column("1")), else_=sa.literal_column("0")) == sa.literal_column("1")


def _rows() -> sa.Select[Any]:
    return sa.select(*(entries.c[name] for name in COLUMNS))


def _given(name: str, kind: sa.types.TypeEngine[Any]) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=kind)


def _is(table: sa.Table) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return (table.c.namespace == _given("namespace", sa.Text()), table.c.key == _given("key", sa.LargeBinary()))


def _this_function() -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    digest = functions.c.digest == _given("digest", sa.LargeBinary())
    return functions.c.namespace == _given("namespace", sa.Text()), digest


def this_key() -> sa.ColumnElement[bool]:
    """Return whether an entry is the one in the parameters `namespace` and `key`."""
    return sa.and_(*_is(entries))


def _same_key(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.namespace == entries.c.namespace, table.c.key == entries.c.key)


def _is_disputed() -> sa.ColumnElement[bool]:
    """Return whether this very entry is disputed: an entry that was put later is another one."""
    return sa.exists().where(_same_key(disputes), disputes.c.at >= entries.c.created_at)


def named_key() -> dict[str, Any]:
    """Return the values of the columns `namespace` and `key`: the parameters of these names."""
    return {name: _given(name, entries.c[name].type) for name in _KEY}


def plausible(size: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return the size in an unverified row: 0 if it is not a valid size, so that sums neither fail nor overflow."""
    is_size = size.between(_ZERO, sa.literal_column(str(1 << 50), sa.BigInteger))
    return sa.case((is_size, size), else_=_ZERO)


def _kept_totals() -> list[sa.Select[Any]]:
    here = totals.c.namespace == _given("namespace", sa.Text())
    return [_sum(column).where(here) for column in (totals.c.entries, totals.c.bytes)]


def _text(value: str) -> sa.ColumnElement[str]:
    """Return a text that is part of the statement."""
    return sa.literal_column(f"'{value}'", sa.Text)


def _these_figures() -> sa.ColumnElement[bool]:
    return activity.c.namespace == _given("namespace", sa.Text())


def _apart(since: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Select processes' rows, which are all of hours: with the span as well, SQLite would not use their index."""
    return sa.and_(activity.c.who != _text(""), activity.c.hour >= since)


def _figures() -> list[sa.ColumnElement[Any]]:
    return [activity.c[name] for name in _SUMS]


def _summed(found: Any) -> list[sa.ColumnElement[Any]]:
    return [sa.cast(sa.func.sum(found[name]), activity.c[name].type).label(name) for name in _SUMS]


def _sum(column: sa.ColumnElement[int]) -> sa.Select[Any]:
    return sa.select(_total(column))


def _total(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(sa.func.sum(column), _ZERO), sa.BigInteger)


def _this_namespace() -> sa.ColumnElement[bool]:
    return entries.c.namespace == _given("namespace", sa.Text())


def this_session() -> sa.ColumnElement[bool]:
    """Return whether a session is the one in the parameter `session`."""
    return sessions.c.id == _given("session", sa.Text())
