"""Values in families: whenever something that can be observed of two of them differs, their encodings differ.

A family is a list of expressions, so that a second process with another hash seed makes the same values again;
there each must have the digest that it has here. `python -m tests.keys.matrix.values [WORD…]` compares all pairs
within each family whose name holds a word.
"""

from __future__ import annotations

import collections
import importlib.util
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cacheness import UnhashableArgument
from cacheness.keys import digest_of
from tests.keys.matrix.families import FAMILIES, Family, Observe

_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """Two values with one digest that something tells apart, or one value with two digests."""

    family: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.family}: {self.kind}: {self.detail}"


def chosen(words: Sequence[str] = ()) -> list[Family]:
    """The families whose names hold one of the words, and whose packages are installed."""
    return [
        one
        for one in FAMILIES
        if (not one.needs or importlib.util.find_spec(one.needs) is not None)
        and (not words or any(word in one.name for word in words))
    ]


def faults(family: Family, elsewhere: Mapping[str, str]) -> tuple[list[Fault], collections.Counter[str]]:
    """Compare all pairs of a family's values, and each with its digest in another process."""
    counts: collections.Counter[str] = collections.Counter()
    found: list[Fault] = []
    seen: list[tuple[str, str, dict[str, str]]] = []
    for expression, value in _values(family):
        observed = {name: _observed(observe, value) for name, observe in family.observations.items()}
        digest = _digest(value)
        counts["values"] += 1
        if elsewhere[expression] != digest:
            found.append(Fault(family.name, "another digest in another process", expression))
        if digest.startswith("refused"):
            counts["refused"] += 1
        else:
            seen.append((expression, digest, observed))
    for (one, digest, observed), (other, other_digest, other_observed) in itertools.combinations(seen, 2):
        different = [name for name in observed if observed[name] != other_observed[name]]
        counts["pairs"] += 1
        if different and digest == other_digest:
            found.append(Fault(family.name, "one digest", f"{one}  and  {other}: {', '.join(different)}"))
        elif not different and digest != other_digest:
            counts["told apart by the digest alone"] += 1
    return found, counts


def digests_elsewhere(families: Sequence[Family]) -> dict[str, dict[str, str]]:
    """The digests that a process with another hash seed makes, by family and expression."""
    root = str(pathlib.Path(__file__).parents[3])
    path = os.pathsep.join((root, os.environ.get("PYTHONPATH", "")))
    names = [family.name for family in families]
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.keys.matrix.values", "--digests", *names],
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(ended.stdout))


def _values(family: Family) -> Iterator[tuple[str, Any]]:
    module = types.ModuleType("matrix_" + re.sub(r"\W", "_", family.name))
    sys.modules[module.__name__] = module
    exec(family.setup, vars(module))
    for expression in family.expressions():
        yield expression, eval(expression, vars(module))


def _digest(value: Any) -> str:
    try:
        return digest_of(value).hex()
    except UnhashableArgument as error:
        return f"refused: {type(error).__name__}"


def _observed(observe: Observe, value: Any) -> str:
    try:
        return _ADDRESS.sub("", repr(observe(value)))
    except Exception as error:  # noqa: BLE001 - that it cannot be observed is an observation
        return f"raises {type(error).__name__}"


def main(words: list[str]) -> int:
    """Print every fault, then the counts."""
    families = chosen(words)
    elsewhere = digests_elsewhere(families)
    total: collections.Counter[str] = collections.Counter()
    wrong = 0
    for family in families:
        found, counts = faults(family, elsewhere[family.name])
        print(*found, f"{family.name}: {dict(counts)}", sep="\n")
        wrong += len(found)
        total += counts
    print(f"{len(families)} families of {len(FAMILIES)}: {dict(total)}, {wrong} faults")
    return int(wrong > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--digests"]:
        named = [family for family in FAMILIES if family.name in sys.argv[2:]]
        json.dump({one.name: {text: _digest(value) for text, value in _values(one)} for one in named}, sys.stdout)
    else:
        sys.exit(main(sys.argv[1:]))
