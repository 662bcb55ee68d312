"""cacheness never draws from the generators of the process, whose sequence the user may have seeded."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

from cacheness.circuit import Guard
from cacheness.deadlines import Limits
from cacheness.errors import StoreUnavailable
from cacheness.jitter import between

ROOT = Path(__file__).parent.parent
FILES = sorted(path for name in ("core", "cacheness_dask", "cacheness_prefect") for path in (ROOT / name).rglob("*.py"))
#: What may be used of the module `random`: classes, whose instances are not shared, and what draws nothing.
OWN = {"Random", "SystemRandom", "getstate"}


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_uses_a_generator_of_the_process(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in {"random", "numpy.random"}:
            assert {alias.name for alias in node.names} <= OWN
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            assert node.attr in OWN
        if isinstance(node, ast.Attribute) and node.attr == "random" and isinstance(node.value, ast.Name):
            assert node.value.id not in {"np", "numpy"}


def test_a_retry_leaves_a_seeded_sequence_as_it_is() -> None:
    answers = iter([StoreUnavailable("down"), StoreUnavailable("down"), None])

    def attempt() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "there"

    random.seed(7)
    before = random.getstate()
    assert Guard("a server", Limits(failures=9)).call(attempt) == "there"
    assert random.getstate() == before


def test_pauses_stay_within_their_bounds() -> None:
    drawn = {between(0.5, 1.0) for _ in range(100)}
    assert len(drawn) > 1
    assert all(0.5 <= pause <= 1.0 for pause in drawn)
