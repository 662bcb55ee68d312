"""Plain calls are fingerprinted without a second look, and their fingerprints are those of a whole look."""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from dask.base import collections_to_expr
from dask.core import flatten
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workloads import WORKLOADS, inc, total, write_inputs

from cacheness_dask import walk
from cacheness_dask.fingerprint import fingerprints
from cacheness_dask.graphs import materialised
from cacheness_dask.marks import marked


def draws(*given: Any) -> float:
    return float(np.random.default_rng().random())


def bare(first: Any = None, *others: Any) -> Any:
    return first, others


def gives_up(*given: Any) -> Any:
    return given, pickle.loads(given[0])


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
)  # all that a plain call takes
ARGUMENTS = (
    SCALARS
    | st.sampled_from(
        ["table.csv", "./folder", "~/x", __file__, "file:///x/y.csv", np.float64(1.5), inc, print, (1, "b")]
    )
    | st.lists(st.integers(), max_size=2)
    | st.integers(0, 9).map(lambda place: TaskRef(f"task-{place}"))
    | st.integers(0, 9).map(lambda place: List(TaskRef(f"task-{place}"), 1))
)
FUNCTIONS = st.sampled_from(
    [inc, total, bare, bare, draws, gives_up, operator.add, partial(bare, 1), marked, sum, str.upper, open]
)


def task(key: str, func: Callable[..., Any], args: list[Any], named: bool) -> Task:
    return Task(key, func, *args, **({"by": 2} if named else {}))


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Tasks that take what comes before them, other names and data among them."""
    made: dict[str, Any] = {}
    for place in range(draw(st.integers(2, 10))):
        key = f"task-{place}"
        kind = draw(st.integers(0, 9))
        if kind == 0:
            made[key] = DataNode(key, draw(SCALARS))
        elif kind == 1 and place:
            made[key] = Alias(key, f"task-{place - 1}")
        else:
            args = [arg for arg in draw(st.lists(ARGUMENTS, max_size=3)) if _is_before(arg, place)]
            made[key] = task(key, draw(FUNCTIONS), args or [1], draw(st.booleans()) and kind == 2)
    return made


def _is_before(arg: Any, place: int) -> bool:
    needed = [arg.key] if isinstance(arg, TaskRef) else getattr(arg, "dependencies", ())
    return all(int(key.removeprefix("task-")) < place for key in needed)


def both(graph: dict[Any, Any], keys: list[Any]) -> int:
    """How many calls were taken as plain; everything that is known of all tasks is the same without that."""
    found = fingerprints(graph, keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk.Walk, "_note_plain", lambda self, node: None)
        whole = fingerprints(graph, keys)
    assert list(found.digests.items()) == list(whole.digests.items())
    for name in ("terms", "refused", "plumbing", "marked", "cuttable", "incomplete", "files", "groups", "texts"):
        assert getattr(found, name) == getattr(whole, name), name
    assert {key: found.clues.get(key) for key in whole.clues} == dict(whole.clues)
    assert {key: found.inputs_of(key) for key in graph} == {key: whole.inputs_of(key) for key in graph}
    return len(whole.clues) - len(found.clues)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_plain_calls_of_any_graph_have_the_fingerprints_of_a_whole_look(graph: dict[str, Any]) -> None:
    both(graph, list(graph))


def test_calls_with_scalars_and_results_are_plain() -> None:
    graph: dict[str, Any] = {f"a-{n}": Task(f"a-{n}", inc, n) for n in range(10)}
    graph |= {f"b-{n}": Task(f"b-{n}", bare, TaskRef(f"a-{n}"), "text", 1.5, None) for n in range(10)}
    assert both(graph, list(graph)) == 18


@pytest.mark.slow
def test_workloads_have_the_fingerprints_of_a_whole_look(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    for make in WORKLOADS.values():
        expression = collections_to_expr([make(tmp_path)]).optimize()
        both(materialised(expression)[0], list(flatten(expression.__dask_keys__())))
