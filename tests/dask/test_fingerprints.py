"""A fingerprint stands for one value: what looks alike differs, what is the same agrees."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask._expr import FinalizeCompute
from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    List,
    Set,
    Task,
    TaskRef,
    Tuple,
    _execute_subgraph,
    execute_graph,
)
from dask.base import collections_to_expr
from dask.core import flatten
from workloads import WORKLOADS, inc, write_inputs

from cacheness import UnhashableArgument
from cacheness.keys import Digest, digest_of, make_key
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.graphs import IDENTITY, materialised, name_of
from cacheness_dask.prints import Fingerprints
from cacheness_dask.result_keys import entry_key, result_key


def of(collection: Any) -> tuple[dict[Any, Any], list[Any], Fingerprints]:
    expr = FinalizeCompute(collections_to_expr([collection])).optimize()
    graph, _ = materialised(expr)
    keys = list(flatten(expr.__dask_keys__()))
    return graph, keys, fingerprints(graph, keys)


def digest(collection: Any) -> bytes:
    """The fingerprint of a collection's result."""
    _, keys, prints = of(collection)
    assert prints.refused == {}
    return prints.terms[keys[0]]


def term(*args: Any, func: Callable[..., Any] = sum) -> bytes:
    """The fingerprint of one task with these arguments, beside two others that they may refer to."""
    graph = {
        "a": Task("a", inc, 1),
        "b": Task("b", inc, 2),
        "x": Task("x", func, *args),
    }
    found = fingerprints(graph, ["x"])
    assert found.refused == {}
    return found.terms["x"]


A, B = TaskRef("a"), TaskRef("b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (List(A, B), List(B, A)),
        (List(A, B), Tuple(A, B)),
        (List(A, B), [1, 2]),
        (Dict({"p": A, "q": B}), Dict({"p": B, "q": A})),
        (A, B),
        (["a-b", "c"], ["a", "b-c"]),
        (np.array(["a-b", "c"], dtype=object), np.array(["a", "b-c"], dtype=object)),
        (np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).T),
        (np.arange(4), np.arange(4.0)),
        (1, 1.0),
        (1, True),
        (1, "1"),
        (b"a", "a"),
        (None, "None"),
        (0.0, -0.0),
        ((1, 2), [1, 2]),
        ({1, 2}, [1, 2]),
        ({1: 2}, {"1": 2}),
        ([[1], [2]], [[1, 2]]),
        ([], [[]]),
        ("", None),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1.0]})),
        (slice(1, 2), slice(1, 2, 1)),
        (range(3), [0, 1, 2]),
    ],
)
def test_what_looks_alike_differs(one: Any, other: Any) -> None:
    assert term(one) != term(other)
    assert term(one, func=inc) != term(one)


def frames() -> dict[str, pd.DataFrame]:
    """Frames that are easily taken for one another."""
    base = pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]})
    made = {
        "base": base,
        "order of columns": base[["b", "a"]],
        "names": base.rename(columns={"a": "c"}),
        "index": base.set_axis([1, 2], axis=0),
        "index name": base.rename_axis("n"),
        "column name": base.rename_axis("n", axis=1),
        "types": base.astype({"a": "int32"}),
        "values": base + 1,
        "swapped": pd.DataFrame({"a": [3, 4], "b": [1.0, 2.0]}),
        "text": base.astype({"a": "str"}),
        "objects": base.astype({"a": "object"}),
        "one row": base.iloc[:1],
        "other row": base.iloc[1:],
        "no rows": base.iloc[:0],
        "transposed": base.T,
        "times": base.astype({"a": "datetime64[ns]"}),
        "coarser times": base.astype({"a": "datetime64[s]"}),
        "series": base.a,
        "one column": base[["a"]],
    }
    made["attrs"] = base.copy()
    made["attrs"].attrs["unit"] = "m"
    made["other attrs"] = base.copy()
    made["other attrs"].attrs["unit"] = "s"
    made["flags"] = base.set_flags(allows_duplicate_labels=False)
    return made


def test_frames_that_look_alike_differ_and_equal_ones_agree() -> None:
    assert len({term(frame) for frame in frames().values()}) == len(frames())
    assert [term(frame) for frame in frames().values()] == [term(frame) for frame in frames().values()]
    whole = pd.DataFrame({"a": range(6), "b": range(6)})
    apart = pd.DataFrame({"a": range(2, 4), "b": range(2, 4)}, index=pd.RangeIndex(2, 4))
    assert term(whole.iloc[2:4]) == term(apart)
    one_by_one = whole[["a"]].assign(b=whole.b)
    assert len(one_by_one._mgr.blocks) > len(whole._mgr.blocks)  # pandas keeps them otherwise
    assert term(one_by_one) == term(whole)


def test_splitting_arguments_differently_differs() -> None:
    assert len({term("ab", "c"), term("a", "bc"), term("abc"), term(["ab", "c"]), term("ab", "c", None)}) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Set(A, B), Set(B, A)),
        (Task(None, set, List(A, B)), Task(None, set, List(B, A))),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        (float("nan"), -float("nan")),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), np.arange(6).reshape(2, 3)),
        (DataNode(None, 5), 5),
        (Alias("a"), A),
    ],
)
def test_what_is_equal_agrees(one: Any, other: Any) -> None:
    assert term(one) == term(other)


def test_a_transposed_array_differs() -> None:
    a = da.from_array(np.arange(9).reshape(3, 3), chunks=2)
    assert digest(a) != digest(a.T)


def test_keyword_and_positional_arguments_differ() -> None:
    assert digest(dask.delayed(inc)(1, 2)) != digest(dask.delayed(inc)(1, by=2))


def test_names_of_keys_do_not_count() -> None:
    one = dask.delayed(inc)(1, dask_key_name="one")
    other = dask.delayed(inc)(1, dask_key_name="other")
    assert digest(one) == digest(other)


def test_fused_and_separate_tasks_agree() -> None:
    first, second = Task("a", inc, 1), Task("b", inc, TaskRef("a"), by=3)
    apart = {"a": first, "b": second, "c": Task("c", inc, TaskRef("b"))}
    fused = {"f": Task.fuse(first, second, key="f"), "c": Task("c", inc, TaskRef("f"))}
    everything = {"c": Task.fuse(Task.fuse(first, second, key="f"), fused["c"], key="c")}
    assert len({fingerprints(graph, ["c"]).terms["c"] for graph in (apart, fused, everything)}) == 1


def closure_over(n: int) -> Callable[[int], int]:
    return lambda x: x * n


def test_closures_over_different_values_differ() -> None:
    two, three = (dask.delayed(closure_over(n))(5) for n in (2, 3))
    assert digest(two) != digest(three)
    assert digest(two) == digest(dask.delayed(closure_over(2))(5))


SOURCE = """
def helper_of_helper(x):
    return x + {constant}

def helper(x):
    return helper_of_helper(x) * 2

def work(x):
    {comment}
    return helper(x)
"""


def work(constant: int = 1, comment: str = "pass") -> Callable[[int], int]:
    module = types.ModuleType("users_code")
    exec(SOURCE.format(constant=constant, comment=comment), module.__dict__)
    return module.work  # type: ignore[no-any-return]


def test_a_changed_helper_of_a_helper_is_a_miss_and_a_comment_is_a_hit() -> None:
    plain = digest(dask.delayed(work())(1))
    assert digest(dask.delayed(work(constant=2))(1)) != plain
    assert digest(dask.delayed(work(comment="pass  # a comment"))(1)) == plain


def test_the_key_of_an_entry_is_what_its_arguments_say() -> None:
    for number in range(100):
        made = digest_of(number)
        assert entry_key(made) == make_key(args={}, function=Digest(made, "any name")).digest.hex()


def test_the_key_of_a_result_is_that_of_a_function_without_arguments() -> None:
    for name in ("", "f", "<lambda>", "f\0é" * 50, "f" * 100_000):
        made = digest_of(name)
        ours, cores = result_key(made, name), make_key(args={}, function=Digest(made, name))
        for field in ("digest", "function", "prefix", "args", "components", "code", "outputs", "own", "alias"):
            assert getattr(ours, field) == getattr(cores, field)


@pytest.mark.slow
def test_no_fingerprint_stands_for_two_values(tmp_path: Path) -> None:
    """Over every node of every collection: computed, and compared by the core's canonical encoding."""
    write_inputs(tmp_path)
    values: dict[bytes, tuple[bytes, Any]] = {}
    compared = 0
    for name in sorted(WORKLOADS):
        if name.startswith("p2p"):
            continue
        graph, _, prints = of(WORKLOADS[name](tmp_path))
        results = execute_graph(graph, keys=set(graph))
        for key, made in prints.digests.items():
            known = values.setdefault(made, (digest_of(results[key]), (name, key)))
            assert known[0] == digest_of(results[key]), f"{name}: {key!r} has the fingerprint of {known[1]}"
            compared += 1
    assert compared > 400
    by_value: dict[bytes, set[bytes]] = {}
    for made, (value, _) in values.items():
        by_value.setdefault(value, set()).add(made)
    assert len(by_value) > 200  # else this test compares one constant with itself


def test_delayed_values_in_closures_count_by_what_they_compute() -> None:
    def user_of(lazy: Any) -> bytes:
        return digest(dask.delayed(lambda x: lazy(x).compute() if callable(lazy) else lazy)(1))

    def two(x: int) -> int:
        return x + 2

    assert user_of(dask.delayed(inc)) == user_of(dask.delayed(inc))
    assert user_of(dask.delayed(inc)) != user_of(dask.delayed(two))
    assert user_of(dask.delayed(inc)(1)) == user_of(dask.delayed(inc)(1))
    assert len({user_of(dask.delayed(inc)(dask.delayed(f)(n))) for f in (inc, two) for n in (1, 2)}) == 4


def test_a_delayed_function_that_calls_itself_has_a_fingerprint() -> None:
    @dask.delayed
    def countdown(n: int) -> Any:
        return n and countdown(n - 1).compute()

    assert digest(countdown(3)) != digest(countdown(4))


def test_other_names_within_fused_tasks_do_not_count() -> None:
    def named(prefix: str, step: Any) -> bytes:
        inner = {
            f"{prefix}-in": Task(f"{prefix}-in", inc, TaskRef("outside")),
            f"{prefix}-out": step(f"{prefix}-out", f"{prefix}-in"),
        }
        graph = {
            "a": Task("a", inc, 1),
            f"{prefix}-x": Task(f"{prefix}-x", _execute_subgraph, inner, f"{prefix}-out", ("outside",), TaskRef("a")),
        }
        found = fingerprints(graph, [f"{prefix}-x"])
        assert found.refused == {}
        assert name_of(graph[f"{prefix}-x"]) == "inc"
        return found.terms[f"{prefix}-x"]

    plain = named("p", lambda key, of: Task(key, inc, TaskRef(of)))
    around = named("q", lambda key, of: Task(key, IDENTITY, Task(None, inc, TaskRef(of))))
    twice = named("r", lambda key, of: Task(key, IDENTITY, Task(None, IDENTITY, Task(None, inc, TaskRef(of)))))
    assert plain == around == twice
    other = named("s", lambda key, of: Task(key, IDENTITY, Alias(key, of)))
    assert other != plain
    assert other == fingerprints({"a": Task("a", inc, 1), "b": Task("b", inc, TaskRef("a"))}, ["b"]).terms["b"]


def block(of: Any, number: int) -> Any:
    """An array that a delayed value becomes, under names that are new each time."""
    return da.from_delayed(dask.delayed(inc, pure=False)(of, number), (), float)


def test_sums_of_delayed_arrays_agree_whatever_their_names_are() -> None:
    def blocks() -> Any:
        total, found = block(1.0, 0), []
        for number in range(1, 5):
            found.append(da.where(block(1.0, number) > 0, total, 0) + total)
            total += block(1.0, number)
        return da.stack([*found, total]).max()

    assert len({digest(blocks()) for _ in range(4)}) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda n: dask.delayed(inc, pure=False)(n),
        lambda n: da.from_delayed(dask.delayed(inc, pure=False)(n), (3,), float),
        lambda n: db.from_delayed([dask.delayed(list, pure=False)([n])]).map(inc),
        lambda n: dd.from_delayed([dask.delayed(pd.DataFrame, pure=False)({"a": [n]})], meta={"a": int}).a,
    ],
    ids=["delayed", "array", "bag", "frame"],
)
def test_a_collection_in_an_argument_counts_by_what_it_computes(make: Callable[[int], Any]) -> None:
    class Around:
        def __init__(self, collection: Any) -> None:
            self.collection = collection

    assert make(1).__dask_keys__() != make(1).__dask_keys__()
    assert digest_of(make(1)) == digest_of(make(1))
    assert digest_of(make(1)) != digest_of(make(2))
    assert term(Around(make(1)), func=id) == term(Around(make(1)), func=id)


def test_what_one_sees_of_a_lazy_array_counts_too() -> None:
    arrays = [da.ones(4, chunks=2), da.ones(4, chunks=4), da.ones(4, chunks=2, dtype="i4"), da.ones(6, chunks=2)]
    assert len({digest_of(array) for array in arrays}) == len(arrays)


def test_a_collection_that_draws_cannot_be_counted() -> None:
    with pytest.raises(UnhashableArgument, match=r"a collection has no fingerprint: .*random"):
        digest_of(da.from_delayed(dask.delayed(np.random.rand)(3), (3,), float))
