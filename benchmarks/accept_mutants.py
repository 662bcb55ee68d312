"""What a change of code gets past the evidence: mutants of 40 functions, each accepted or refused after 200 calls.

`make accept-mutants` runs it. A mutant changes an operator, a constant, a condition or a call. It is compared with its
function by `cache.accept`, and by 2,000 other calls, whose results nobody has stored. It ends with an error when a
mutant is accepted that differs on more than 5 % of these.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from cacheness import UnifiedCache

SAMPLE: Final = 200
STORED: Final = 400
HELD_OUT: Final = 2000
WORST: Final = 0.05

#: Bodies of functions of two whole numbers, `a` from -100 to 100 and `b` from 0 to 30.
BODIES: Final = (
    "return a + b",
    "return a * a - b",
    "return max(a, b) - min(a, b)",
    "if a > b:\n    return a\nreturn b",
    "if a > 95:\n    return 0\nreturn a * 2",
    "if b == 30:\n    return -1\nreturn a + b",
    "if a < 0 and b > 25:\n    return a\nreturn b",
    "return sum(range(b)) + a",
    "return [n for n in range(b) if n % 3 == 0]",
    "return sorted(str(a * b))",
    "return str(a).upper() + str(b)",
    "return {'low': min(a, 10), 'high': max(b, 20)}",
    "total = a\nfor n in range(b):\n    if n > 20:\n        total += n\n    else:\n        total -= 1\nreturn total",
    "total = a\nfor n in range(3):\n    total = total * 2 + n\nreturn total - b",
    "return abs(a) // (b + 1)",
    "return abs(a) % (b + 1)",
    "return round(a / (b + 1), 2)",
    "return round(a ** 2 / 7, 1) if b else None",
    "try:\n    return a // b\nexcept ZeroDivisionError:\n    return 0",
    "return 'x' * (b % 5) + str(a)",
    "return (a & 7) | (b & 3)",
    "return a ^ b",
    "return (a << 2) - (b >> 1)",
    "values = [a, b, a + b]\nreturn sum(values) / len(values)",
    "values = sorted([a, b, 7])\nreturn values[1]",
    "seen = set()\nfor n in range(b):\n    seen.add(n * a % 11)\nreturn len(seen)",
    "return min(max(a, -50), 50)",
    "return bool(a % 2) == bool(b % 2)",
    "return not (a > 0 or b > 15)",
    "return a if a >= 0 else -a - 1",
    "names = ['low', 'mid', 'high']\nreturn names[0 if a < -30 else 1 if a < 30 else 2]",
    "return ''.join(sorted(str(abs(a)) + str(b)))",
    "return dict(zip('ab', (a, b)))",
    "return any(n == abs(a) for n in range(b))",
    "return all(n < 29 for n in range(b))",
    "rate = 0.19 if a > 0 else 0.07\nreturn round(b * (1 + rate), 2)",
    "fee = 5\nif b > 10:\n    fee = 3\nif b > 28:\n    fee = 0\nreturn a + fee",
    "def square(n):\n    return n * n\nreturn square(a) + square(b)",
    "half = lambda n: n // 2\nreturn half(a) - half(b)",
    "return [len(word) for word in str(a).split('-')] + [b]",
)
#: Which mutants a test makes each time.
SHARE: Final = ((3, 1), (6, 10), (12, 3), (28, 11), (38, 1))

_OPERATORS: Final[dict[type[ast.AST], tuple[type[ast.AST], ...]]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Add, ast.FloorDiv), ast.FloorDiv: (ast.Mult, ast.Mod),
    ast.Div: (ast.Mult, ast.FloorDiv), ast.Mod: (ast.FloorDiv,), ast.Pow: (ast.Mult,), ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitXor, ast.BitAnd), ast.BitXor: (ast.BitOr,), ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
    ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.Lt), ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt,),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
_CALLS: Final = {
    "max": ("min",), "min": ("max",), "sum": ("len",), "len": ("sum",), "abs": ("int",), "sorted": ("list",),
    "any": ("all",), "all": ("any",), "str": ("repr",), "round": ("divmod",), "range": ("list",), "set": ("list",),
    "upper": ("lower",), "bool": ("int",), "dict": ("list",), "zip": ("list",),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant."""

    body: int
    mutant: int
    is_accepted: bool
    different: float  #: share of the calls that were held out


def mutants_of(body: str) -> list[str]:
    """Sources of the function with one change each, all that there are."""
    found = []
    for number in range(sum(1 for _ in _changes(ast.parse(_source(body))))):
        tree = ast.parse(_source(body))
        list(_changes(tree))[number]()
        found.append(ast.unparse(ast.fix_missing_locations(tree)))
    original = ast.unparse(ast.parse(_source(body)))
    return [source for source in dict.fromkeys(found) if source != original]


def _changes(tree: ast.AST) -> Iterator[Callable[[], None]]:
    for node in ast.walk(tree):
        yield from _other_operators(node)
        yield from _other_operands(node)
        if isinstance(node, ast.Call):
            place, name = (node.func, "attr") if isinstance(node.func, ast.Attribute) else (node.func, "id")
            for other in _CALLS.get(getattr(place, name), ()):
                yield partial(setattr, place, name, other)


def _other_operators(node: ast.AST) -> Iterator[Callable[[], None]]:
    for name, value in ast.iter_fields(node):
        for operator in _OPERATORS.get(type(value), ()):
            yield partial(setattr, node, name, operator())
    if isinstance(node, ast.Compare):
        for operator in _OPERATORS.get(type(node.ops[0]), ()):
            yield partial(setattr, node, "ops", [operator()])
    if isinstance(node, ast.If | ast.IfExp):
        yield partial(setattr, node, "test", ast.UnaryOp(ast.Not(), node.test))


def _other_operands(node: ast.AST) -> Iterator[Callable[[], None]]:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for more in (1, -1, 10, 100):
            yield partial(setattr, node, "value", node.value + more)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in ("a", "b"):
        yield partial(setattr, node, "id", "b" if node.id == "a" else "a")
    if isinstance(node, ast.BinOp):
        yield partial(setattr, node, "right", ast.Constant(3))
        yield partial(setattr, node, "left", ast.UnaryOp(ast.USub(), node.left))


def _source(body: str) -> str:
    return "def function(a, b):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def outcome_of(body: int, mutant: int, folder: Path, rng: random.Random) -> Outcome:
    """Store results of a function, change it, and see whether the change is accepted."""
    filled = folder / str(body)
    original = _load(folder, _source(BODIES[body]))
    if not filled.exists():
        with UnifiedCache(filled) as cache, cache.write_batch():
            cached = cache.cached(single_flight=False)(original)
            for arguments in {_arguments(rng) for _ in range(STORED)}:
                cached(*arguments)
    expected = [(arguments, original(*arguments)) for arguments in (_arguments(rng) for _ in range(HELD_OUT))]
    changed = _load(folder, mutants_of(BODIES[body])[mutant])
    copy = folder / "copy"
    shutil.copytree(filled, copy)
    try:
        with UnifiedCache(copy) as cache:
            (change,) = cache.accept(changed, sample=SAMPLE)
    finally:
        shutil.rmtree(copy)
    different = sum(_came_to(changed, arguments) != ("is", value) for arguments, value in expected)
    return Outcome(body, mutant, change.state == "accepted", different / len(expected))


def _arguments(rng: random.Random) -> tuple[int, int]:
    return rng.randint(-100, 100), rng.randint(0, 30)


def _came_to(function: Callable[..., Any], arguments: tuple[int, int]) -> tuple[str, Any]:
    try:
        return "is", function(*arguments)
    except Exception as error:  # noqa: BLE001 - of a mutant
        return "failed", type(error)


def _load(folder: Path, source: str) -> Callable[..., Any]:
    (folder / "mutated.py").write_text(source)
    sys.modules.pop("mutated", None)
    importlib.invalidate_caches()
    found: Callable[..., Any] = importlib.import_module("mutated").function
    return found


def outcomes(chosen: Iterator[tuple[int, int]] | list[tuple[int, int]], folder: Path, seed: int) -> Iterator[Outcome]:
    """What comes of each of these mutants."""
    rng, before = random.Random(seed), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
    try:
        for body, mutant in chosen:
            yield outcome_of(body, mutant, folder, rng)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("mutated", None)
        sys.dont_write_bytecode = before


def main() -> None:
    """Try every mutant, and say how many got past, and how far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    every = [(body, number) for body, text in enumerate(BODIES) for number in range(len(mutants_of(text)))]
    with tempfile.TemporaryDirectory() as folder:
        found = list(outcomes(every, Path(folder), parser.parse_args().seed))
    accepted = [one for one in found if one.is_accepted]
    kinds = Counter("equal" if not one.different else "differ" for one in accepted)
    worst = max((one.different for one in accepted), default=0.0)
    for one in accepted:
        if one.different:
            print(f"accepted: mutant {one.mutant} of function {one.body}, {100 * one.different:.2f} % differ")
    print(
        f"{len(BODIES)} functions, {len(found)} mutants: {len(found) - len(accepted)} refused,"
        f" {kinds['equal']} accepted that differ nowhere, {kinds['differ']} accepted that do,"
        f" on {100 * worst:.2f} % of {HELD_OUT:,} other calls at most"
    )
    if worst > WORST:
        sys.exit(f"a mutant was accepted that differs on more than {100 * WORST:.0f} % of calls")


if __name__ == "__main__":
    main()
