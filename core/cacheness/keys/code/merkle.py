"""Compute digests for graphs with cycles: equal exactly for graphs of the same structure.

A node's digest covers its content and the digests of the nodes that it refers to. In a cycle, each
node is first distinguished from the others by what is reachable from it, round by round; so it does
not matter which node was visited first, nor whether two equal nodes were one object or two.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

from blake3 import blake3

from cacheness.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Vertex:
    """A node's content, and the names of the nodes that it refers to, in order."""

    content: bytes
    edges: Sequence[Hashable]
    ordered: bool = True


def digests_of(graph: Mapping[Hashable, Vertex]) -> dict[Hashable, bytes]:
    """Return the digest of each node. Every edge must lead to a node of the graph."""
    done: dict[Hashable, bytes] = {}
    for circle in _circles(graph):
        if len(circle) == 1 and circle[0] not in graph[circle[0]].edges:
            done[circle[0]] = _combine(b"node", graph[circle[0]], done)
        else:
            done.update(_digests_in_circle(graph, circle, done))
    return done


def _digests_in_circle(
    graph: Mapping[Hashable, Vertex], circle: Sequence[Hashable], done: Mapping[Hashable, bytes]
) -> dict[Hashable, bytes]:
    colours = dict.fromkeys(circle, bytes(32))
    told_apart = 0
    while len(set(colours.values())) > told_apart:
        told_apart = len(set(colours.values()))
        known = _Overlay(colours, done)
        colours = {name: _combine(b"turn", graph[name], known) for name in circle}
    known = _Overlay(colours, done)
    # The whole cycle, each node with its edges: equal only for cycles of the same structure.
    everything = b"".join(sorted({_combine(b"turn", graph[name], known) for name in circle}))
    return {name: blake3(b"circle" + colours[name] + everything).digest() for name in circle}


class _Overlay(dict[Hashable, bytes]):
    """The colours of a cycle, and the digests of all nodes outside it."""

    def __init__(self, colours: Mapping[Hashable, bytes], rest: Mapping[Hashable, bytes]) -> None:
        super().__init__(colours)
        self._rest = rest

    def __missing__(self, name: Hashable) -> bytes:
        return self._rest[name]


def _combine(kind: bytes, vertex: Vertex, known: Mapping[Hashable, bytes]) -> bytes:
    targets = [known[edge] for edge in vertex.edges]
    if not vertex.ordered:
        targets.sort()
    return blake3(b"".join([kind, b"%x:" % len(vertex.content), vertex.content, *targets])).digest()


def _circles(graph: Mapping[Hashable, Vertex]) -> Iterator[list[Hashable]]:
    """Return the strongly connected components, each after those it refers to (Tarjan, without recursion)."""
    number: dict[Hashable, int] = {}
    low: dict[Hashable, int] = {}
    stack: list[Hashable] = []
    on_stack: set[Hashable] = set()
    for start in graph:
        if start in number:
            continue
        work = [(start, iter(graph[start].edges))]
        number[start] = low[start] = len(number)
        stack.append(start)
        on_stack.add(start)
        while work:
            name, edges = work[-1]
            for target in edges:
                if target not in number:
                    number[target] = low[target] = len(number)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(graph[target].edges)))
                    break
                if target in on_stack:
                    low[name] = min(low[name], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == number[name]:
                    at = stack.index(name)
                    circle = stack[at:]
                    del stack[at:]
                    on_stack.difference_update(circle)
                    yield circle
