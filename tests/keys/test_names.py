"""Functions by name: what a row keeps of it, what a filter means by it, and what becomes of a result after a rename."""

from __future__ import annotations

import functools
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from cacheness import UnifiedCache
from cacheness.keys import Digest, make_key


def module(name: str, source: str, file: str | None = None) -> Any:
    made = types.ModuleType(name)
    made.__file__ = file or f"/somewhere/{name}.py"
    exec(source, vars(made))
    return made


#: Two teams, each with a function of that name.
TWO = "LIMIT = {}\ndef load(x): return x, LIMIT\ndef save(x): return x\nclass Reader:\n    def load(self): return 1"


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    with UnifiedCache(cache_dir=tmp_path / "cache") as cache:
        for number, name in enumerate(("sales", "team.stock")):
            made = module(name, TWO.format(number))
            cache.cached(made.load)(number)
            cache.cached(made.save)(number)
        cache.put("by hand", x=1)
        cache.put("labelled", x=1, function=Digest(bytes(32), "a task"))
        yield cache


def functions_of(cache: UnifiedCache, name: str) -> list[str]:
    return sorted(entry["function"] for entry in cache.list_entries(function=name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("load", ["sales:load", "team.stock:load"]),
        ("sales:load", ["sales:load"]),
        ("sales.load", ["sales:load"]),
        ("team.stock.load", ["team.stock:load"]),
        ("sales", ["sales:load", "sales:save"]),
        ("sales:", ["sales:load", "sales:save"]),
        ("team.stock", ["team.stock:load", "team.stock:save"]),
        ("team", ["team.stock:load", "team.stock:save"]),
        ("stock.load", []), ("LOAD", []), ("sales:lo", []), (":load", []),
        ("a task", ["a task"]),
        ("", [""]),
    ],
)  # fmt: skip
def test_a_filter_takes_a_module_a_qualified_name_or_both(cache: UnifiedCache, name: str, expected: list[str]) -> None:
    assert functions_of(cache, name) == expected
    assert sorted(entry.function for entry in cache.iter_entries(function=name)) == expected


def test_the_functions_that_have_results_are_listed(cache: UnifiedCache) -> None:
    names = ["", "a task", "sales:load", "sales:save", "team.stock:load", "team.stock:save"]
    assert cache.functions() == names


def test_a_deletion_by_a_name_of_several_functions_lists_them_and_deletes_nothing(cache: UnifiedCache) -> None:
    for name, candidates in (("load", "sales:load, team.stock:load"), ("sales", "sales:load, sales:save")):
        with pytest.raises(ValueError, match=candidates):
            cache.delete_matching(function=name)
    assert len(cache.list_entries()) == 6
    assert cache.delete_matching(function="sales.load") == 1
    assert cache.delete_matching(function="load") == 1  # one is left that it can be
    assert cache.delete_matching(function="sales:save") == 1
    assert cache.delete_matching(function="nobody") == 0
    assert cache.functions() == ["", "a task", "team.stock:save"]


def test_a_filter_takes_the_function_itself(cache: UnifiedCache) -> None:
    sales, stock = (module(name, TWO.format(9)) for name in ("sales", "team.stock"))
    for function in (sales.load, cache.cached(sales.load), functools.partial(sales.load, 1)):
        assert [entry.function for entry in cache.iter_entries(function=function)] == ["sales:load"]
    assert len(cache.list_entries(function=sales.Reader)) == 0
    assert cache.delete_matching(function=stock.load) == 1
    assert cache.delete_matching(function=stock.load) == 0
    assert functions_of(cache, "load") == ["sales:load"]
    for wrong in (7, ["sales.load"]):
        with pytest.raises(TypeError, match="neither a function nor the name of one"):
            cache.delete_matching(function=wrong)


def test_a_deletion_may_name_a_whole_module(cache: UnifiedCache) -> None:
    assert cache.delete_matching(function="sales:") == 2
    assert functions_of(cache, "team.stock") == ["team.stock:load", "team.stock:save"]


def test_an_exact_name_is_never_ambiguous(cache: UnifiedCache) -> None:
    cache.put(1, x=2, function=Digest(bytes(32), "load"))
    assert functions_of(cache, "load") == ["load"]
    assert cache.delete_matching(function="load") == 1
    assert functions_of(cache, "load") == ["sales:load", "team.stock:load"]


@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("jobs.daily", None, "jobs.daily:f"),
        ("__main__", "/srv/jobs/report.py", "report:f"),
        ("__prefect_loader_4711__", "/srv/jobs/flows/nightly.py", "nightly:f"),
        ("__mp_main__", "/srv/jobs/report.py", "report:f"),
    ],
)
def test_a_script_is_called_like_its_file(name: str, file: str | None, expected: str) -> None:
    made = module(name, "def f(x): return x", file)
    assert make_key(function=made.f, args={}).function == expected
    assert make_key(function=made.f, args={}, version="1").function == expected


def test_what_wraps_a_function_is_called_like_it() -> None:
    made = module("jobs", TWO.format(1))
    for fn, name in (
        (functools.partial(made.load, 1), "jobs:load"),
        (functools.partial(functools.partial(made.load), 1), "jobs:load"),
        (made.Reader().load, "jobs:Reader.load"),
        (made.Reader, "jobs:Reader"),
        (len, "builtins:len"),
    ):
        assert make_key(function=fn, args={}).function == name


@pytest.mark.slow
def test_without_a_file_there_is_still_a_module(tmp_path: Path) -> None:
    program = f"""
from cacheness import UnifiedCache
cache = UnifiedCache(cache_dir={str(tmp_path)!r})
RATE = 2
@cache.cached
def price(x): return x * RATE
price(1)
RATE = 3
print(cache.functions(), price.explain(1).sentence())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.startswith("['__main__:price'] miss: value of `__main__.RATE` changed;")


# after a rename

BEFORE = "LIMIT = 3\ndef helper(x): return x\ndef load(x): return [helper(i) for i in (x, LIMIT)], lambda: x"


def explained(cache: UnifiedCache, fn: Any, x: int = 1) -> str:
    return cache.explain(fn, x).sentence().partition("; nearest")[0]


@pytest.fixture
def empty(tmp_path: Path) -> Any:
    with UnifiedCache(cache_dir=tmp_path / "renamed") as cache:
        yield cache


def test_a_stranger_of_the_same_name_is_not_compared_with(empty: UnifiedCache) -> None:
    empty.cached(module("sales", TWO.format(1)).load)(1)
    stock = module("stock", "def load(x): return -x")
    assert explained(empty, stock.load) == "miss: no earlier entry of `stock.load`"


def test_a_renamed_function_is_found_by_its_code(empty: UnifiedCache) -> None:
    empty.cached(module("sales", "def unlike(x): return x").unlike)(1)
    empty.cached(module("sales", BEFORE).load)(1)
    renamed = module("sales", BEFORE.replace("load", "fetch"))
    assert explained(empty, renamed.fetch) == "miss: `sales.load` is called `sales.fetch` now"
    moved = module("shop.sales", BEFORE.replace("load", "fetch"))
    assert explained(empty, moved.fetch) == "miss: `sales.load` is called `shop.sales.fetch` now"
    more = module("shop.sales", BEFORE.replace("load", "fetch").replace("LIMIT = 3", "LIMIT = 4"))
    assert explained(empty, more.fetch, 2) == (
        "miss: `sales.load` is called `shop.sales.fetch` now; value of `shop.sales.LIMIT` changed; arg `x` 1 -> 2"
    )
    empty.cached(more.fetch)(2)
    assert explained(empty, more.fetch, 3) == "miss: arg `x` 2 -> 3"


def test_a_function_that_moved_unchanged_keeps_its_results(empty: UnifiedCache) -> None:
    empty.cached(module("sales", "def load(x): return x").load)(1)
    assert empty.explain(module("stock", "def load(x): return x").load, 1).hit
