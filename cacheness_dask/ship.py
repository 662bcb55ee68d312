"""Send decisions with an expression: for a large graph with many misses on a distributed scheduler.

Dask sends an array or a data frame as an expression of a few kilobytes, and the scheduler creates
the tasks. If the client rewrote them, each task would be sent separately. So the unchanged
expression is sent with the decisions about its keys, and the scheduler rewrites the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import cached_property
from typing import Any, Final, cast
from uuid import uuid4

from dask._expr import Expr
from dask.highlevelgraph import HighLevelGraph, Layer

from cacheness_dask.apply import apply
from cacheness_dask.decisions import GraphPlan
from cacheness_dask.graphs import Annotations, Graph, as_expression, materialised, of_graph

#: Tasks that run. Below this, either way takes less than half a second and 2 MB: docs/explanation/decisions/0009.
LARGE: Final = 10_000


class Beside(Expr):
    """An expression that the scheduler rewrites as decided, when it creates the tasks."""

    _parameters: list[str] = ["expr", "decisions"]  # noqa: RUF012  Dask's own declaration
    #: The graph that was created on one side is not sent to the other.
    _pickle_functools_cache = False

    def __dask_keys__(self) -> list[Any]:
        return list(self.operands[1].keys)

    def __dask_graph__(self) -> Graph:
        return self._rewritten[0]

    def __dask_annotations__(self) -> Annotations:
        return self._rewritten[1]

    @cached_property
    def _rewritten(self) -> tuple[Graph, Annotations]:
        expr, decisions = self.operands
        graph, annotations = materialised(expr)
        made = apply(decisions, graph, annotations)
        return made, of_graph(annotations, made)


class Plain(Graph):
    """A graph for a scheduler in this process: a dictionary with the interface of Dask's expressions."""

    def __dask_graph__(self) -> Graph:
        return self


def shipped(plan: GraphPlan, dsk: Any, annotations: Annotations, client: Any) -> Any:
    """Return what runs, in the scheduler's form. The plan drops its graph."""
    graph, plan.graph = plan.graph, {}
    if client is not None and isinstance(dsk, Expr) and _pays(plan, len(graph), dsk):
        # With a given name, Dask does not hash all the decisions to make one.
        return cast("Any", Beside)(_unmade(dsk), plan.decisions.for_elsewhere(), _determ_token=uuid4().hex)
    made = apply(plan.decisions, graph, annotations)
    return Plain(made) if client is None else as_expression(made, annotations)


def _pays(plan: GraphPlan, size: int, expr: Expr) -> bool:
    """Return True when rewriting on the scheduler is cheap there, and loses nothing."""
    if len(plan.runs) < LARGE or 2 * len(plan.runs) < size or plan.cut:
        return False
    # The hash seed decides which blocks of an array are fused, and a key that is fused away on the
    # scheduler is neither loaded nor stored. This may happen to results that are stored only if
    # worthwhile, not to a hit or a mark.
    return not (plan.hits or plan.decisions.marked) or next(_low_level(expr), None) is None


def _low_level(expr: Expr) -> Iterator[Expr]:
    """Return the parts of an expression that are optimised where its graph is created."""
    if hasattr(type(expr), "_optimized_dsk"):
        yield expr
    for operand in expr.dependencies():
        yield from _low_level(operand)


def _unmade(part: Any) -> Any:
    """Return an expression without its created tasks, which it would otherwise keep and send along."""
    if isinstance(part, HighLevelGraph):
        layers = {name: _unmade_layer(layer) for name, layer in part.layers.items()}
        return HighLevelGraph(layers, part.dependencies, part.key_dependencies)
    if not isinstance(part, Expr):
        return part
    operands = [_unmade(operand) for operand in part.operands]
    if all(new is old for new, old in zip(operands, part.operands, strict=True)):
        return part
    return type(part)(*operands, _determ_token=part._determ_token)  # noqa: SLF001  or it would get another name


def _unmade_layer(layer: Layer) -> Layer:
    if "_cached_dict" not in vars(layer):
        return layer
    made = copy(layer)
    del made._cached_dict  # type: ignore[attr-defined]  # noqa: SLF001
    return made
