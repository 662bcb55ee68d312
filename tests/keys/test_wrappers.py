"""What libraries wrap around functions: the same key in every process, before and after a call, and another after an edit."""
# ruff: noqa: E501 - a table of sources reads better wide

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from cacheness import UnhashableArgument
from cacheness.keys import digest_of, fingerprint, make_key
from tests.keys.edits import load

ROOT = pathlib.Path(__file__).parents[2]
#: Source, and an edit that must be seen. `f(2)` is called between two keys.
WRAPPED = {
    "a memo with a lock": (
        "import cachetools, threading\nBOX = cachetools.LRUCache(9)\n@cachetools.cached(BOX, lock=threading.Lock())\ndef g(x): return x + 1\ndef f(x): return g(x)\n",
        ("x + 1", "x + 2"),
    ),
    "a memo by another key": (
        "import cachetools\n@cachetools.cached({}, key=lambda x: x % 9)\ndef g(x): return x\ndef f(x): return g(x)\n",
        ("% 9", "% 2"),
    ),
    "a checked method": (
        "import beartype\nclass K:\n    @beartype.beartype\n    def go(self, x: int) -> int: return x + 1\ndef f(x): return K().go(x)\n",
        ("x + 1", "x + 2"),
    ),
    "another type to check": (
        "import beartype\n@beartype.beartype\ndef g(x: int | None): return x\ndef f(x): return g(x)\n",
        ("int | None", "int | str"),
    ),
    "curried by keyword": (
        "import toolz\n@toolz.curry\ndef g(x, n): return x, n\nh = g(n=3)\ndef f(x): return h(x)\n",
        ("n=3", "n=4"),
    ),
    "curried code": (
        "import toolz\n@toolz.curry\ndef g(x, n): return x + n\nh = g(n=3)\ndef f(x): return h(x)\n",
        ("x + n", "x - n"),
    ),
    "a wrapper around a method": (
        "import wrapt\n@wrapt.decorator\ndef doubled(fn, instance, args, kwargs): return 2 * fn(*args)\nclass K:\n    @doubled\n    def go(self, x): return x\ndef f(x): return K().go(x)\n",
        ("2 * fn", "3 * fn"),
    ),
    "a proxy of one's own": (
        "import wrapt\nclass P(wrapt.ObjectProxy):\n    def __init__(self, wrapped, n):\n        super().__init__(wrapped)\n        self._self_n = n\n    def go(self): return self._self_n\np = P([1], 3)\ndef f(x): return p.go()\n",
        ("[1], 3", "[1], 4"),
    ),
    "what a proxy stands for": (
        "import wrapt\np = wrapt.ObjectProxy({'a': 1})\ndef f(x): return p['a']\n",
        ("'a': 1", "'a': 2"),
    ),
    "a delayed class": (
        "import dask\nclass K:\n    def __init__(self, x): self.x = x + 1\nd = dask.delayed(K)\ndef f(x): return d(x).compute(scheduler='sync').x\n",
        ("x + 1", "x + 2"),
    ),
    "a flow": (
        "from prefect import flow\n@flow\ndef g(x): return x + 1\ndef f(x): return g.fn(x)\n",
        ("x + 1", "x + 2"),
    ),
    "a class below a protocol": (
        "from typing import Protocol\nclass P(Protocol):\n    n: int\nclass Base:\n    def __init__(self): self.n = 3\nclass K(Base, P): pass\ndef f(x): return K().n\n",
        ("self.n = 3", "self.n = 4"),
    ),
    "a private attribute": (
        "import pydantic\nclass M(pydantic.BaseModel):\n    _at: list = pydantic.PrivateAttr(default_factory=lambda: [3])\ndef f(x): return M()._at\n",
        ("[3]", "[4]"),
    ),
}

ASK = """
import json, sys
from cacheness import UnhashableArgument
from cacheness.keys import digest_of, fingerprint, make_key
from tests.keys.edits import load
found = {}
for name, (source, _) in json.load(sys.stdin).items():
    f = load(source, "wrapped").f
    found[name] = [fingerprint(f).digest.hex(), f(2) and None, fingerprint(f).digest.hex()]
print(json.dumps(found))
"""


def keys_with(seed: str) -> dict[str, list[str]]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "core")))
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
    command = [sys.executable, "-W", "ignore", "-c", ASK]
    done = subprocess.run(
        command, input=json.dumps(WRAPPED), env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_a_wrapped_function_has_one_key_everywhere() -> None:
    first, second = keys_with("1"), keys_with("2")
    for name, (before, _, after) in first.items():
        assert before == after, f"{name}: its own call changes the key"
        assert before == second[name][0], f"{name}: another process makes another key"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", WRAPPED)
def test_an_edit_behind_a_wrapper_is_seen(name: str) -> None:
    source, (old, new) = WRAPPED[name]
    assert old in source
    before = fingerprint(load(source, "wrapped").f)
    after = fingerprint(load(source.replace(old, new), "wrapped").f)
    assert before.digest != after.digest
    assert before.incomplete == ()


def test_options_of_a_struct_count() -> None:
    # As msgspec's, which is written in C: its instances have members, and pickle knows nothing of them.
    kind = type(
        "StructConfig", (), {"__module__": "msgspec.structs", "__slots__": ("frozen", "tag"), "__reduce__": None}
    )

    def options(*, frozen: bool, tag: str | None) -> Any:
        made: Any = kind()
        made.frozen, made.tag = frozen, tag
        return made

    found = {digest_of(options(frozen=frozen, tag=tag)) for frozen in (True, False) for tag in (None, "a")}
    assert len(found) == 4
    assert digest_of(options(frozen=True, tag="a")) in found


def test_the_factory_of_a_structs_default_counts_by_its_code() -> None:
    factory: Any = type("Factory", (), {"__module__": "msgspec._core", "__slots__": ("factory",), "__reduce__": None})

    def digest(source: str) -> Any:
        made = factory()
        made.factory = eval(source)
        return digest_of(made)

    assert digest("lambda: [1]") == digest("lambda:  [1]") != digest("lambda: [2]")


MOCKS: dict[str, Callable[[], Any]] = {
    "Mock": mock.Mock,
    "MagicMock": mock.MagicMock,
    "AsyncMock": mock.AsyncMock,
    "PropertyMock": mock.PropertyMock,
    "not callable": mock.NonCallableMagicMock,
    "of a function": lambda: mock.create_autospec(sorted),
    "of a class": lambda: mock.create_autospec(dict),
    "call": lambda: mock.call,
    "a call of it": lambda: mock.call(1).a,
    "in a list": lambda: [mock.MagicMock()],
    "in a partial": lambda: functools.partial(mock.MagicMock(), 1),
}


@pytest.mark.parametrize("name", MOCKS)
def test_a_mock_is_no_argument_and_in_code_it_counts_by_its_class(name: str) -> None:
    one, other = MOCKS[name](), MOCKS[name]()
    for told in (one, other):
        with pytest.raises(UnhashableArgument, match="answers as a test has set it up"):
            digest_of(told)
        with pytest.raises(UnhashableArgument):
            make_key(args={"x": 1}, function=told, version="1")

    def task(x: int) -> object:
        return one, x

    key = make_key(args={"x": 1}, function=task)
    assert ["unittest.mock" in line for line in key.incomplete] == [True]
    first, one = key, other
    assert make_key(args={"x": 1}, function=task).hex == first.hex


def test_what_has_any_name_that_it_is_asked_for_is_around_nothing() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Anything:
            return Anything()

        def __call__(self, x: int) -> int:
            return x

    assert make_key(args={"x": 1}, function=Anything(), version="1").hex
    assert make_key(args={"x": 1}, function=Anything()).hex
