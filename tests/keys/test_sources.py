"""Parameters of functions of libraries that are not loaded."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from cacheness.keys.code.sources import parameters_in_source


def test_a_parser_that_fails_beside_other_threads_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawing_of_dice.py").write_text("def roll(sides, *, seed=None): ...")
    monkeypatch.syspath_prepend(tmp_path)
    parse, failures = ast.parse, [SystemError("AST constructor recursion depth mismatch (before=48, after=44)")] * 3

    def fails_at_first(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return parse(*args)

    monkeypatch.setattr(ast, "parse", fails_at_first)
    assert parameters_in_source("drawing_of_dice.roll")["seed"] is None
    assert not failures
