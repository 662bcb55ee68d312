"""Functions of Python's within expressions and lazy frames of polars count like any other."""
# ruff: noqa: E501 - a table of sources reads better wide

from __future__ import annotations

import contextlib
import pathlib
import pickle
import sys
from typing import Any

import polars as pl
import pytest

from cacheness.keys import digest_of, fingerprint
from tests.keys.edits import load

HEAD = "import polars as pl\nRATE = [3]\ndef helper(x): return x * 3\ndef g(x): return helper(x)\n"
EXPRESSIONS = {
    "elements": "pl.col('a').map_elements(g, return_dtype=pl.Int64)",
    "batches": "pl.col('a').map_batches(g)",
    "a lambda": "pl.col('a').map_elements(lambda x: helper(x), return_dtype=pl.Int64)",
    "several columns": "pl.map_batches(['a'], g)",
    "folded": "pl.fold(pl.lit(0), lambda one, other: helper(other), pl.all())",
    "rolling": "pl.col('a').rolling_map(g, 3)",
    "within others": "pl.when(pl.col('a') > 1).then(pl.col('a').map_batches(g)).otherwise(0).sum()",
    "a lazy frame": "pl.LazyFrame({'a': [1]}).select(pl.col('a').map_batches(g))",
    "a step of a lazy frame": "pl.LazyFrame({'a': [1]}).map_batches(g)",
    "groups": "pl.LazyFrame({'a': [1]}).group_by('a').map_groups(g, schema=None)",
}


@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
@pytest.mark.parametrize("name", EXPRESSIONS)
def test_a_function_within_counts(name: str, tmp_path: pathlib.Path) -> None:
    def keys(head: str, place: str) -> tuple[bytes, bytes]:
        (tmp_path / place).mkdir()
        module = load(f"{head}E = {EXPRESSIONS[name]}\ndef f(x): return E\n", "with_functions", tmp_path / place)
        found = fingerprint(module.f)
        assert found.digest == fingerprint(module.f).digest
        assert not found.incomplete
        return found.digest, digest_of(module.E)

    before = keys(HEAD, "before")
    for moved, same in ((HEAD, "again"), ("# a comment\n\n" + HEAD, "formatted")):
        assert keys(moved, same) == before
    after = keys(HEAD.replace("x * 3", "x * 4"), "after")
    assert after[0] != before[0]
    assert after[1] != before[1]


@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if name != "groups"])
@pytest.mark.parametrize("kind", ["pl.Int64", "pl.Struct({'x': pl.Int64, 'y': pl.Enum(['b', 'c'])})"])
def test_what_polars_remembers_of_its_run_does_not_count(name: str, kind: str) -> None:
    source = EXPRESSIONS[name].replace(
        "batches(g)", f"batches(g, return_dtype={kind})" if "step" not in name else "batches(g)"
    )
    source = source.replace("pl.Int64", kind)
    head = HEAD.replace("helper(x)\n", "x\n")
    module = load(f"{head}E = {source}\ndef f(x): return E\n", "that_ran")
    before = fingerprint(module.f).digest
    with contextlib.suppress(pl.exceptions.PolarsError):  # a type that the function does not keep to
        (module.E if isinstance(module.E, pl.LazyFrame) else pl.LazyFrame({"a": [1]}).select(module.E)).collect()
    assert fingerprint(module.f).digest == before


def test_the_type_that_was_asked_for_counts() -> None:
    kinds = (None, pl.Int64, pl.Int32, pl.Struct({"x": pl.Int64}), pl.Struct({"name": pl.Int64}))
    found = {digest_of(pl.col("a").map_batches(len, return_dtype=kind)) for kind in kinds}
    assert len(found) == len(kinds)


def test_what_a_function_within_refers_to_is_watched() -> None:
    module = load(HEAD + "E = pl.col('a').map_batches(lambda s: s * RATE[0])\ndef f(x): return E\n", "with_a_rate")
    before = fingerprint(module.f).digest
    module.RATE[0] = 4
    assert fingerprint(module.f).digest != before


class Runs:
    """Would be run by the one who unpickles it."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


def test_pickles_in_data_are_data() -> None:
    content = b"\1" + bytes(sys.version_info[1:3]) + pickle.dumps(Runs())
    for value in (pl.lit(content), pl.lit(pl.Series([content])), pl.LazyFrame({"a": [content]}).select("a")):
        assert digest_of(value) == digest_of(value)


@pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsInefficientMapWarning")
def test_a_function_that_cannot_be_got_out_is_listed() -> None:
    source = "import polars as pl, threading\ndef make():\n    lock = threading.Lock()\n    return lambda s: s if lock else None\nE = pl.col('a').map_batches(make())\ndef f(x): return E\n"
    assert "Expr" in fingerprint(load(source, "with_a_lock").f).incomplete[0]
