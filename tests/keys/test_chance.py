"""Unseeded chance: what draws, what is seeded, and that nothing is imported to find out."""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib
import operator
import random
import secrets
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import scipy.stats
from scipy import optimize

from cacheness import UnifiedCache
from cacheness.keys import Chance, fingerprint, register_random
from cacheness.keys.code import random_calls

TABLE = pd.DataFrame({"a": range(10)})
NAMES = pl.DataFrame({"a": range(10)})
DICE = {"six": functools.partial(random.randrange, 6)}
SHARED = random.Random(4)
ROLL = random.randint


def always(fn: Any) -> tuple[str, ...]:
    return Chance(fn).always


def simulate(steps: int, seed: int | None = None) -> float:
    return float(np.random.default_rng(seed).normal(size=steps).sum())


def simulate_with(steps: int, rng: Any = None) -> float:
    if rng is None:
        rng = np.random.default_rng()
    return float(rng.normal(size=steps).sum())


def simulate_or(steps: int, rng: Any = None) -> float:
    rng = rng or random.Random()
    return float(rng.random()) + steps


def simulate_either(steps: int, seed: int | None = None) -> float:
    if seed is None:  # noqa: SIM108
        state = np.random.RandomState()
    else:
        state = np.random.RandomState(seed)
    return float(state.normal()) + steps


def simulate_globally(steps: int, seed: int | None = None) -> float:
    if seed is not None:
        random.seed(seed)
    return random.gauss(0, 1) + steps


def outer(steps: int, key: int | None = None) -> float:
    return simulate(steps, seed=key)


def seed_all(number: int) -> None:
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


@decorated
def wrapped() -> float:
    return random.triangular()


@functools.lru_cache
def remembered(n: int) -> int:
    return secrets.randbelow(n)


class Model:
    def __init__(self, random_state: int | None = None) -> None:
        self.weights = np.random.RandomState(random_state).normal(size=3)

    def predict(self, x: float) -> float:
        return float(self.weights.sum() * x)


class Noisy(Model):
    def predict(self, x: float) -> float:
        return x + random.vonmisesvariate(0, 1)


@dataclasses.dataclass
class Ticket:
    price: float
    number: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)


MODEL = Model(3)
NOISY = Noisy(3)


def inside() -> Any:
    import numpy.random as draw

    class Local:
        def value(self) -> Any:
            return draw.standard_normal()  # noqa: NPY002

    return Local().value()


ON_ONE_LINE: dict[str, Any] = {"__name__": "__main__"}
exec("def rolled(): import os, random; return random.betavariate(1, 2), os.sep", ON_ONE_LINE)


def generator_of_its_own() -> Iterator[float]:
    from random import expovariate as wait

    yield from (wait(1) for _ in range(3))


DRAWS: dict[str, Any] = {
    "module": lambda: random.paretovariate(1),
    "alias": lambda: ROLL(1, 6),
    "import inside, in a class": inside,
    "import on one line": ON_ONE_LINE["rolled"],
    "generator expression": generator_of_its_own,
    "dict comprehension": lambda: {n: np.random.rand() for n in range(2)},  # noqa: NPY002
    "nested lambdas": lambda: (lambda: (lambda: random.random())())(),  # noqa: PLC3002
    "default of a lambda": lambda: (lambda r=random.random: r())(),  # noqa: PLC3002
    "constant getattr": lambda: getattr(np.random, "poisson")(3),  # noqa: B009
    "methodcaller": lambda: operator.methodcaller("choice", [1, 2])(random),
    "methodcaller on a frame": lambda frame: operator.methodcaller("sample", n=2)(frame),
    "importlib": lambda: importlib.import_module("random").random(),
    "sorted by chance": lambda: sorted([1, 2, 3], key=lambda _: random.random()),
    "factory": lambda: collections.defaultdict(uuid.uuid4)["x"],
    "kept partial": lambda: DICE["six"](),
    "kept generator": lambda: SHARED.random(),
    "seeded from the clock": lambda: (random.seed(), random.random()),
    "seed is None": lambda: random.Random(None).random(),
    "bit generator": lambda: np.random.Generator(np.random.Philox()),
    "frame's sample": lambda: TABLE.sample(3),
    "sample of an argument": lambda frame: frame.sample(frac=0.5),
    "sample in a chain": lambda: pd.DataFrame({"a": [1, 2]}).sample(1),
    "sample in groups": lambda frame: frame.groupby("a").sample(2),
    "polars": lambda: NAMES.sample(3),
    "polars' expression": lambda: pl.col("a").shuffle(),
    "distribution": lambda: scipy.stats.gamma.rvs(2, size=3),
    "frozen distribution": lambda: scipy.stats.norm(0, 1).rvs(4),
    "distribution in an argument": lambda law: law.rvs(size=2),
    "by signature": lambda f: optimize.differential_evolution(f, [(0, 1)]),
    "by signature, keyword only": lambda: scipy.sparse.random_array((3, 3)),
    "default of a helper": lambda: simulate(3),
    "None for a helper": lambda: simulate(3, None),
    "helper of a helper": lambda: outer(3),
    "guarded": lambda: simulate_with(3),
    "or": lambda: simulate_or(3),
    "else": lambda: simulate_either(3),
    "seeded if it is given": lambda: simulate_globally(3),
    "mapped": lambda: list(map(simulate, range(3))),
    "decorated": lambda: wrapped(),
    "remembered": lambda: remembered(9),
    "a new object": lambda: Model().predict(1),
    "process-wide generator by another name": lambda: np.random.mtrand._rand.rand(),
    "a method": lambda: NOISY.predict(1),
    "default factory": lambda: Ticket(3.0),
    "walrus": lambda: [y for _ in range(3) if (y := random.random())],
    "vectorized": lambda: np.vectorize(lambda x: x + random.random())([1, 2]),
    "library's function": random.random,
    "partial": functools.partial(random.uniform, 0, 1),
    "object": NOISY,
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_draws_is_seen(name: str) -> None:
    found = always(DRAWS[name])
    assert found
    assert all(text.startswith("unseeded randomness: ") for text in found), found


SEEDED: dict[str, Any] = {
    "generator": lambda: random.Random(4).random(),
    "numpy's": lambda: np.random.default_rng([1, 2]).random(),
    "legacy": lambda: np.random.RandomState(seed=3).rand(),
    "global, seeded before": lambda: (random.seed(3), random.random()),
    "seeded by a helper": lambda: (seed_all(3), np.random.rand(), ROLL(1, 6)),  # noqa: NPY002
    "seeded and sampled": lambda: (np.random.seed(3), TABLE.sample(3)),  # noqa: NPY002
    "sample": lambda frame: frame.sample(3, random_state=1),
    "polars": lambda: NAMES.sample(n=3, seed=1),
    "polars, seeded before": lambda: (pl.set_random_seed(3), NAMES.sample(3)),
    "distribution": lambda: scipy.stats.norm.rvs(size=3, random_state=7),
    "sample of a generator": lambda rng: rng.sample([1, 2, 3], 2),
    "shuffle by a generator": lambda rng: rng.shuffle([1, 2, 3]),
    "sample of an own generator": lambda: random.Random(3).sample([1, 2, 3], k=2),
    "helper": lambda: simulate(3, 4),
    "helper, by name": lambda: simulate(3, seed=4),
    "helper of a helper": lambda: outer(3, key=1),
    "guarded": lambda: simulate_with(3, np.random.default_rng(1)),
    "or": lambda: simulate_or(3, rng=random.Random(3)),
    "else": lambda: simulate_either(3, 1),
    "seeded if it is given": lambda: simulate_globally(3, 1),
    "each its own": lambda seeds: [np.random.default_rng(seed).random() for seed in seeds],
    "spread": lambda options: np.random.default_rng(**options),
    "named": lambda: uuid.uuid5(uuid.NAMESPACE_DNS, "example"),
    "types": lambda x: isinstance(x, (random.Random, np.random.Generator)),
    "state": lambda: random.getstate(),
    "operating system": lambda: __import__("os").getcwd(),
    "an object that is there": lambda: MODEL.predict(2),
    "a new object": lambda: Model(random_state=3).predict(1),
    "comparison": lambda a, b: secrets.compare_digest(a, b),
    "seed sequence": lambda: np.random.SeedSequence(3).spawn(2),
    "value in a dict": lambda: {"sample": 3, "rvs": 4}["sample"],
}


@pytest.mark.parametrize("name", SEEDED)
def test_what_is_seeded_is_innocent(name: str) -> None:
    assert always(SEEDED[name]) == ()


@pytest.mark.parametrize("fn", [simulate, simulate_with, simulate_or, simulate_either, simulate_globally, outer])
def test_a_parameter_that_seeds_decides_at_the_call(fn: Callable[..., Any]) -> None:
    (draw,) = fingerprint(fn).chance
    assert draw.unless == fn.__code__.co_varnames[1]
    assert random_calls.of_call([draw], {"steps": 1, draw.unless: None}) != ()
    assert random_calls.of_call([draw], {"steps": 1, draw.unless: 7}) == ()


def test_a_seed_of_nought_is_a_seed() -> None:
    assert random_calls.of_call(fingerprint(simulate).chance, {"seed": 0}) == ()


def library(folder: Path, name: str, source: str) -> None:
    """Leave a package in a folder as pip leaves one that came from an index."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("from .inner import *\nfrom .inner import Split as Splitter\n")
    (folder / name / "inner.py").write_text(textwrap.dedent(source))
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("pip")
    (info / "RECORD").write_text(f"{name}/__init__.py,,\n{name}/inner.py,,\n{name}-1.0.dist-info/METADATA,,\n")


SOURCE = """
class Base:
    def __init__(self, size=3, *, random_state=None):
        self.size, self.random_state = size, random_state

class Forest(Base):
    pass

class Split:
    def __init__(self, n=5, shuffle=False, seed=None):
        self.n, self.shuffle, self.seed = n, shuffle, seed

def resample(*arrays, random_state=None):
    return arrays

def mix(values, seed=None):
    return values
"""
USES = """
from cacheness import UnifiedCache
from cacheness.keys import Chance, fingerprint

def a():
    from {0} import Forest
    return Forest()
def b():
    from {0} import resample
    return resample([1])
def c():
    import {0}
    return {0}.mix([1])
def d():
    from {0} import Splitter
    return Splitter(3, True)
def e():
    from {0}.inner import Forest
    return Forest(4, random_state=0)
def f():
    from {0} import mix
    return mix([1], 3)
def g():
    from {0} import Splitter
    return Splitter(3)
def h(arrays):
    from {0} import resample
    return resample(*arrays, random_state=1)

def verdicts():
    return "".join("." if fingerprint(x).chance == () else "D" for x in (a, b, c, d, e, f, g, h))

import sys
before = verdicts()
loaded = "{0}" in sys.modules
import {0}, {0}.inner
Chance.clear()
print(before, verdicts(), loaded)
"""


@pytest.mark.slow
def test_a_library_is_known_by_its_signatures_whether_it_is_loaded_or_not(tmp_path: Path) -> None:
    library(tmp_path / "site", "woodland", SOURCE)
    script = tmp_path / "uses.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n" + USES.format("woodland"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DDDD....", "DDDD....", "False"]


def measured() -> float:
    return float(operator.index(3))


def indirect() -> float:
    return measured()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(random_calls, "_registered", {})
    yield
    Chance.clear()


@pytest.mark.usefixtures("registry")
def test_others_can_be_registered() -> None:
    assert always(indirect) == ()
    register_random("operator.index")
    assert "operator.index" in always(indirect)[0]
    register_random(measured, draws=False)
    assert always(indirect) == ()


@pytest.mark.usefixtures("registry")
def test_a_registered_function_names_its_seed() -> None:
    register_random("bisect.bisect", seed="lo")
    bisect = importlib.import_module("bisect")
    assert always(lambda: bisect.bisect([1], 1)) != ()
    assert always(lambda: bisect.bisect([1], 1, lo=0)) == ()


@pytest.mark.parametrize("thing", [3, "random", object()])
def test_only_functions_and_classes_can_be_registered(thing: Any) -> None:
    with pytest.raises(TypeError, match="dotted name"):
        register_random(thing)


def test_functions_of_the_process_wide_generator_have_one_key() -> None:
    def roll() -> int:
        return ROLL(1, 6)

    before = fingerprint(roll).digest
    state = random.getstate()
    random.random()
    try:
        assert fingerprint(roll).digest == before
    finally:
        random.setstate(state)


def rolled(sides: int, seed: int | None = None) -> int:
    return random.Random(seed).randint(1, sides)


def test_cached_chance_is_stored_listed_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        roll = cache.cached(rolled)
        assert roll(10**9) == roll(10**9)
        roll(10**8, seed=None)
        told = [record.getMessage() for record in caplog.records if "unseeded randomness" in record.getMessage()]
        assert len(told) == 1
        assert any("rolled calls random.Random" in line for line in roll.explain(5).incomplete)
        assert roll.explain(5, seed=3).incomplete == ()


def test_cached_chance_can_be_refused(tmp_path: Path) -> None:
    with UnifiedCache(cache_dir=tmp_path) as cache:
        roll = cache.cached(incomplete="refuse")(rolled)
        assert len({roll(10**12) for _ in range(3)}) == 3
        assert roll(10**12, 4) == roll(10**12, 4)
        assert len(cache.list_entries()) == 1
