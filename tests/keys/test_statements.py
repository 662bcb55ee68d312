"""Statements of SQLAlchemy: the same key in every process, another one for every change."""
# ruff: noqa: E501 - a table of sources reads better wide

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import sqlalchemy as sa

from cacheness.keys import digest_of, fingerprint
from tests.keys.edits import load

ROOT = pathlib.Path(__file__).parents[2]
HEAD = (
    "import sqlalchemy as sa\nfrom sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, aliased, selectinload\n"
    "from sqlalchemy.types import TypeDecorator\nclass Cents(TypeDecorator):\n    impl = sa.Integer\n    cache_ok = True\n    def process_result_value(self, value, dialect): return value / 100\n"
    "T = sa.Table('t', sa.MetaData(), sa.Column('id', sa.Integer), sa.Column('v', Cents))\n"
    "class Base(DeclarativeBase): pass\nclass User(Base):\n    __tablename__ = 'u'\n    id: Mapped[int] = mapped_column(primary_key=True)\n    def label(self): return f'user {self.id}'\n"
)
#: A statement, and an edit that must be seen.
STATEMENTS = {
    "where": ("sa.select(T.c.id).where(T.c.id > 3)", ("> 3", "> 4")),
    "in a list": ("sa.select(T.c.id).where(T.c.id.in_([1, 2]))", ("[1, 2]", "[1, 3]")),
    "two aliases": ("(lambda a, b: sa.select(a.c.id, b.c.id).where(a.c.id == 1))(T.alias(), T.alias())", ("b.c.id)", "a.c.id)")),
    "a subquery": ("sa.select(sa.select(sa.func.max(T.c.id).label('m')).where(T.c.id < 9).subquery())", ("< 9", "< 8")),
    "a common table": ("(lambda c: sa.select(c.c.id).where(c.c.id != 3))(sa.select(T.c.id).cte())", ("!= 3", "!= 2")),
    "a condition": ("sa.and_(T.c.id > 3, sa.func.lower(T.c.v) == 'a')", ("'a'", "'b'")),
    "an insert": ("sa.insert(T).values(id=1)", ("id=1", "id=2")),
    "a text": ("sa.text('select :n').bindparams(n=1)", ("n=1", "n=2")),
    "a callable": ("sa.select(sa.bindparam('n', callable_=lambda: 3))", (": 3", ": 4")),
    "a type": ("sa.select(sa.type_coerce(T.c.id, sa.Float))", ("sa.Float", "Cents")),
    "code of a type in a table": ("sa.select(T).where(T.c.id > 3)", ("/ 100", "/ 10")),
    "a column of a table": ("sa.select(T.c.id).where(T.c.id > 3)", ("'v', Cents", "'v', sa.Text")),
    "a model": ("sa.select(User).where(User.id > 3)", ("user {", "User {")),
    "an aliased model": ("(lambda a: sa.select(a).where(a.id > 3))(aliased(User))", ("user {", "User {")),
    "execution options": ("sa.select(T.c.id).where(T.c.id > 3).execution_options(n=1)", ("n=1", "n=2")),
}  # fmt: skip

ASK = """
import json, sys
from cacheness.keys import digest_of, fingerprint
from tests.keys.edits import load
found = {}
for name, source in json.load(sys.stdin).items():
    module = load(source, "statement")
    before = fingerprint(module.f).digest.hex(), digest_of(module.Q).hex()
    str(module.Q)
    found[name] = [before, (fingerprint(module.f).digest.hex(), digest_of(module.Q).hex())]
print(json.dumps(found))
"""


def source_of(statement: str) -> str:
    return f"{HEAD}Q = {statement}\ndef f(x): return str(Q)\n"


@pytest.mark.slow
def test_statements_count_the_same_everywhere_and_after_use() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "core")))}
    sources = json.dumps({name: source_of(statement) for name, (statement, _) in STATEMENTS.items()})
    first, second = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", ballast + ASK], input=sources, env=environment, text=True, stdout=subprocess.PIPE, check=True
            ).stdout
        )
        for ballast in ("", "x = [object() for _ in range(100_000)]\n")
    )  # fmt: skip
    for name, (before, after) in first.items():
        assert before == after, name
        assert before == second[name][0], name


@pytest.mark.parametrize("name", STATEMENTS)
def test_an_edit_of_a_statement_is_seen(name: str) -> None:
    statement, (old, new) = STATEMENTS[name]
    source = source_of(statement)
    assert old in source
    before, after = load(source, "statement"), load(source.replace(old, new), "statement")
    assert not fingerprint(before.f).incomplete
    assert fingerprint(before.f).digest != fingerprint(after.f).digest
    assert digest_of(before.Q) != digest_of(after.Q)


def test_a_statement_for_one_database_counts_by_its_parts() -> None:
    from sqlalchemy.dialects.postgresql import insert

    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Integer))
    found = {digest_of(insert(table).values(id=n).on_conflict_do_nothing()) for n in (1, 2)}
    assert len(found) == 2
