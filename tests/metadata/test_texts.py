"""The committed text of statements is what SQLAlchemy writes today, and calls for one result need no other."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import cacheness
from cacheness.metadata import postgresql, sqlite
from cacheness.metadata.sql import write_texts
from cacheness.metadata.sql.statements import COLUMNS, Statements

STATEMENTS = {"sqlite": sqlite._statements, "postgresql": postgresql._statements}
#: What a user does with single results, and what is done beside it: each loads what it needs in the order of its lines.
CALLS = """
    import logging, sys
    from cacheness import UnifiedCache

    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    parameters = eval(sys.argv[1])
    with UnifiedCache(**parameters) as cache:
        double = cache.cached(lambda x: 2 * x)
        assert cache.get(x=1) is None and double(3) == double(3) == 6
        cache.put(1, x=1)
        assert cache.get(x=1) == 1
        cache.put("tagged", x=2, tags=("a", "b"), prefix="p", ttl=0.001)
        cache.put("other", x=2, tags=("b",), prefix="q", ttl=60)
        cache.put_many([(n, {"n": n}) for n in range(5)])
        assert len(cache.get_many([cache.key(n=n) for n in range(6)])) == 5
        assert cache.touch(x=1, ttl=60) and cache.invalidate(x=1)
        cache.stats()
    with UnifiedCache(**parameters, max_entries=3) as cache:
        cache.put("evicts", x=4)
        for n in range(20):
            cache.put(n, m=n, ttl=0.001)
        assert cache.stats()["entries"] <= 8
        cache.evict()
        cache.clear()
    print(*(name for name in ("sqlalchemy", "alembic") if name in sys.modules))
"""


@pytest.mark.parametrize("database", write_texts.BUILDING)
def test_the_texts_are_what_sqlalchemy_writes(database: str) -> None:
    written = write_texts.path_of(database).read_text()
    assert written == write_texts.module_of(database), "run `make docs`"


@pytest.mark.parametrize("database", write_texts.BUILDING)
def test_every_statement_that_a_store_names_is_there(database: str) -> None:
    metadata = Path(cacheness.__file__).parent / "metadata"
    named = {
        name
        for path in (metadata / "sql/store.py", metadata / f"{database}.py")
        for name in re.findall(r"self\._sql\.(\w+)", path.read_text())
    }
    assert len(named) > 40
    assert all(hasattr(STATEMENTS[database], name) for name in named)
    assert not hasattr(STATEMENTS[database], "another")


def test_statements_of_another_shape_are_built_once() -> None:
    built = []

    class Builder:
        def page(self, purpose, where):
            built.append(purpose)
            return write_texts.sqlite_building.builder.page(purpose, where)

    statements = Statements({}, Builder, list)
    where = write_texts.Where("ns", shard=1)
    assert statements.page("scan", where) is statements.page("scan", write_texts.Where("other", shard=2))
    assert ":lowest" in statements.page("scan", where).text
    # A prefix that is there leads to the rows, an empty one does not.
    assert statements.page("scan", write_texts.Where("ns", prefix="")) is not statements.page(
        "scan", write_texts.Where("ns", prefix="p")
    )
    assert built == ["scan"] * 3


@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=[pytest.mark.external, pytest.mark.slow])]
)
def test_calls_for_one_result_load_no_sqlalchemy(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    parameters = {"cache_dir": str(tmp_path)}
    if database == "postgresql":
        url = request.getfixturevalue("emptied_url")
        parameters = {"metadata_backend": url, "blob_store": "memory://", "signing_key": "k" * 40}
    command = [sys.executable, "-c", textwrap.dedent(CALLS), repr(parameters)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "miss" in ran.stdout
    assert ran.stdout.splitlines()[-1] == ""


def test_a_row_of_an_entry_is_in_the_order_in_which_sqlite_stores_it() -> None:
    assert STATEMENTS["sqlite"].put.order == COLUMNS
    assert STATEMENTS["sqlite"].begin_use.order == ("namespace", "key", "created_at")
