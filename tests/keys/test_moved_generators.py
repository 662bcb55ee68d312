"""A process-wide generator of random numbers that moved is named, however little it moved; others are not."""

# ruff: noqa: NPY002  the old generator of the process is what this is about

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from cacheness.keys.moved_generators import moved_since, positions


@pytest.fixture(autouse=True)
def states_stay() -> Iterator[None]:
    pythons, numpys = random.getstate(), np.random.get_state()
    random.seed(1)
    np.random.seed(1)
    yield
    random.setstate(pythons)
    np.random.set_state(numpys)


def moved(*steps: Callable[[], Any]) -> list[tuple[str, ...]]:
    found = []
    for step in steps:
        before = positions()
        step()
        found.append(moved_since(before))
    return found


def test_each_draw_moves_pythons_generator() -> None:
    draws = [
        random.random,
        lambda: random.gauss(0, 1),
        lambda: random.gauss(0, 1),
        lambda: random.seed(5),
        lambda: random.shuffle([1, 2]),
    ]
    assert moved(*draws) == [("random",)] * 5


def test_each_draw_moves_numpys_generator() -> None:
    # The second of two normal numbers is drawn with the first.
    draws = [np.random.rand, np.random.standard_normal, np.random.standard_normal, lambda: np.random.seed(5)]
    assert moved(*draws) == [("numpy.random",)] * 4


def test_generators_of_ones_own_move_neither() -> None:
    own, numpys = random.Random(3), np.random.default_rng(3)
    states = random.getstate(), np.random.get_state()
    steps = [own.random, numpys.normal, lambda: random.setstate(states[0]), lambda: np.random.set_state(states[1])]
    assert moved(lambda: None, *steps) == [()] * 5


def test_another_kind_of_generator_in_its_place_is_looked_at_too() -> None:
    twister = np.random.get_bit_generator()
    try:
        np.random.set_bit_generator(np.random.PCG64(1))
        assert moved(np.random.rand, lambda: None) == [("numpy.random",), ()]
    finally:
        np.random.set_bit_generator(twister)


def test_each_of_two_twisters_in_one_place_is_looked_at() -> None:
    twister = np.random.get_bit_generator()
    assert moved(np.random.rand, lambda: None) == [("numpy.random",), ()]
    try:
        np.random.set_bit_generator(np.random.MT19937(1))
        assert moved(np.random.rand, lambda: None) == [("numpy.random",), ()]
    finally:
        np.random.set_bit_generator(twister)
    assert moved(np.random.rand, lambda: None) == [("numpy.random",), ()]


def test_a_replaced_generator_of_python_is_looked_at_too(monkeypatch: pytest.MonkeyPatch) -> None:
    other = random.Random(7)
    monkeypatch.setattr(random, "getstate", lambda: other.getstate())
    assert moved(other.random, lambda: None) == [("random",), ()]


@pytest.mark.parametrize(("draw", "found"), [("numpy.random.rand()", "('numpy.random',)"), ("numpy.random.rand", "()")])
def test_a_generator_that_is_loaded_meanwhile_moved_if_anything_was_drawn(draw: str, found: str) -> None:
    script = (
        "from cacheness.keys.moved_generators import *; import sys; assert 'numpy.random.mtrand' not in sys.modules;"
        f" before = positions(); import numpy.random; numpy.random.seed; {draw}; print(moved_since(before))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == found
