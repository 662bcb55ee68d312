"""Lineage: which earlier results have the values that a result was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cacheness import NotCached, UnifiedCache
from cacheness.cli.commands import app
from tests.conftest import World


def chain(cache: Any) -> tuple[Any, Any, Any]:
    @cache.cached
    def load(n: int) -> Any:
        return np.arange(float(n))

    @cache.cached
    def clean(rows: Any, least: int = 1) -> Any:
        return rows[rows >= least]

    @cache.cached
    def score(rows: Any, weight: int) -> float:
        return float(rows.sum()) * weight

    return load, clean, score


def test_a_result_is_followed_to_where_its_arguments_come_from(world: World) -> None:
    cache = world.cache
    load, clean, score = chain(cache)
    score(clean(load(1000)), 2)
    rows, cleaned = load(1000), clean(load(1000))
    found = cache.lineage(score.key(cleaned, 2))
    assert [(edge.argument, edge.source, edge.is_certain) for edge in found.edges] == [
        ("rows", clean.key(rows).hex, True),
        ("rows", load.key(1000).hex, True),
    ]
    assert [name.rpartition(".")[2] for name in found.functions.values()] == ["score", "clean", "load"]
    assert len(cache.lineage(score.key(cleaned, 2), up=1).edges) == 1
    assert cache.lineage(load.key(1000)).edges == ()
    diagram = found.mermaid()
    assert diagram.startswith("flowchart TD\n")
    assert diagram.count("-->|rows|") == 2
    with pytest.raises(NotCached, match="no result is cached under the key"):
        cache.lineage("00" * 32)


def test_names_from_a_store_do_not_write_a_diagram(world: World) -> None:
    world.cache.put([1, 2, 3] * 50, a=1)
    value = world.cache.get(a=1)
    hostile = 'c| n0\n    click n0 href "javascript:alert(1)"\n    n1 -->|\x1b[31m\u202e<img>'
    made = world.cache.put("made", **{hostile: value})
    diagram = world.cache.lineage(made.cache_key).mermaid()
    assert len(diagram.splitlines()) == 4
    assert diagram.count("|") == 2
    assert not [part for part in ("<img>", "\x1b", "\u202e", 'href "') if part in diagram]


def test_what_may_be_a_coincidence_is_said_to_be_one_unless_it_was_passed(world: World) -> None:
    cache = world.cache
    load, _, score = chain(cache)

    @cache.cached
    def two() -> int:
        return 2

    two(), load(5)
    score(load(5), 2)
    found = cache.lineage(score.key(load(5), 2))
    assert {edge.argument: edge.is_certain for edge in found.edges} == {"rows": True, "weight": False}
    assert "weight of" in str(found)
    assert "may be" in str(found)
    score.refresh(load(5), two.lazy().arg)
    found = cache.lineage(score.key(load(5), 2))
    assert {edge.argument: edge.is_certain for edge in found.edges} == {"rows": True, "weight": True}
    cache.put(np.arange(5.0), by="hand")  # the same value twice: either may be it
    assert [e.is_certain for e in cache.lineage(score.key(load(5), 2)).edges if e.argument == "rows"] == [False, False]


def test_the_command_prints_it(tmp_path: Path) -> None:
    with UnifiedCache(tmp_path) as cache:
        load, clean, _ = chain(cache)
        clean(load(1000))
        key = clean.key(load(1000)).hex

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["lineage", key, "-d", str(tmp_path), *arguments])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert json.loads(run("--json"))["edges"][0]["argument"] == "rows"
    assert run("--mermaid", "--up", "1").startswith("flowchart TD")
    assert "rows of" in run()
