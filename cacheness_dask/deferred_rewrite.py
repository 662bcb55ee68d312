"""Decisions beside the expression: how a large graph that mostly misses goes to a distributed scheduler.

Dask sends an array or a data frame as an expression of a few kilobytes, and the scheduler makes the
tasks. Rewritten on the client, each task would travel by itself. So what is sent is the expression as
it is, with what was decided about its keys, and the scheduler does the rewriting, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import cached_property
from typing import Any, Final, cast
from uuid import uuid4

from dask._expr import Expr
from dask.highlevelgraph import HighLevelGraph, Layer

from cacheness_dask.graphs import Annotations, Graph, as_expression, materialised, of_graph
from cacheness_dask.rewrite import GraphPlan, apply

#: Tasks that run. Below, either way takes less than half a second and 2 MB: docs/explanation/decisions/0009.
LARGE: Final = 10_000


class Beside(Expr):
    """An expression that its scheduler rewrites as decided, when it makes the tasks."""

    _parameters: list[str] = ["expr", "decisions"]  # noqa: RUF012  Dask's own declaration
    #: What was materialised on one side is not sent to the other.
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
    """A graph for a scheduler in this process: a dictionary, and asked for its graph as Dask's expressions are."""

    def __dask_graph__(self) -> Graph:
        return self


def shipped(plan: GraphPlan, dsk: Any, annotations: Annotations, client: Any) -> Any:
    """What runs, in the form that its scheduler takes. The plan lets go of its graph."""
    graph, plan.graph = plan.graph, {}
    if client is not None and isinstance(dsk, Expr) and _pays(plan, len(graph), dsk):
        # A name is given, or Dask would hash all the decisions to make one.
        return cast("Any", Beside)(_unmade(dsk), plan.decisions.for_elsewhere(), _determ_token=uuid4().hex)
    made = apply(plan.decisions, graph, annotations)
    return Plain(made) if client is None else as_expression(made, annotations)


def _pays(plan: GraphPlan, size: int, expr: Expr) -> bool:
    """Return True when rewriting on the scheduler costs little there, and loses nothing."""
    if len(plan.runs) < LARGE or 2 * len(plan.runs) < size or plan.cut:
        return False
    # Which blocks of an array are fused goes by the hash seed, and a key that is fused away over there is
    # neither loaded nor stored. That may befall what is stored on the off chance, not a hit or a mark.
    return not (plan.hits or plan.decisions.marked) or next(_low_level(expr), None) is None


def _low_level(expr: Expr) -> Iterator[Expr]:
    """The parts of an expression that are optimised where they are materialised."""
    if hasattr(type(expr), "_optimized_dsk"):
        yield expr
    for operand in expr.dependencies():
        yield from _low_level(operand)


def _unmade(part: Any) -> Any:
    """An expression without the tasks that were made of it: it keeps them, and would take them along."""
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
