"""Fingerprints of functions: what they reach, what they only write to, and when they change."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import gc
import itertools
import logging
import math
import operator
import pathlib
import re
import sys
import threading
import weakref
from typing import Any

import cloudpickle
import numpy as np
import pytest

from cacheness import UnhashableArgument
from cacheness.keys import digest_of, encode, fingerprint
from tests.keys.edits import load

TABLE = {"a": 1}
LOCK = threading.Lock()
LOGGER = logging.getLogger(__name__)
LOG: list[int] = []
HERE = pathlib.Path(__file__).parent


def lookup(name: str) -> int:
    return TABLE[name]


def test_a_mutable_global_counts_as_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(lookup)
    monkeypatch.setitem(TABLE, "a", 2)
    changed = fingerprint(lookup)
    monkeypatch.setitem(TABLE, "a", 1)
    assert changed.digest != before.digest == fingerprint(lookup).digest


def test_a_global_bound_to_another_object_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(lookup).digest
    monkeypatch.setitem(globals(), "TABLE", {"a": 2})
    assert fingerprint(lookup).digest != before


def test_a_patched_helper_method_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def predict(self) -> int:
            return 1

    def run() -> int:
        return Model().predict()

    before = fingerprint(run).digest
    monkeypatch.setattr(Model, "predict", lambda self: 2)
    assert fingerprint(run).digest != before
    monkeypatch.undo()
    assert fingerprint(run).digest == before
    Model.extra = 1  # type: ignore[attr-defined]
    assert fingerprint(run).digest != before


def test_new_code_or_defaults_given_to_a_function_count_at_once() -> None:
    def one(x: int = 1) -> int:
        return x

    before = fingerprint(one).digest
    one.__defaults__ = (2,)
    changed = fingerprint(one).digest
    one.__code__ = (lambda x: x + 1).__code__
    assert len({before, changed, fingerprint(one).digest}) == 3


def make(n: Any) -> Any:
    def inner(x: int) -> Any:
        return n, x

    return inner


@pytest.mark.parametrize("other", ["make(high=x)", "make(x, low=1)", "make(low=x, high=1)"])
def test_the_name_under_which_a_call_gives_an_argument_counts(other: str) -> None:
    def reading(call: str) -> bytes:
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(f"def f(x):\n    return {call}", "m.py", "exec"), names)
        return fingerprint(names["f"]).digest

    assert reading("make(low=x)") == reading("make(low=x)")
    assert reading("make(low=x)") != reading(other)


def test_closures_over_different_values_differ() -> None:
    assert fingerprint(make(2)).digest == fingerprint(make(2)).digest != fingerprint(make(3)).digest
    assert fingerprint(make(2)).digest != fingerprint(make(2.0)).digest


def test_which_of_two_equal_functions_wraps_which_value_matters() -> None:
    one, other = make(1), make(2)
    assert fingerprint(make([one, other])).digest != fingerprint(make([other, one])).digest

    def pair(f: Any, g: Any) -> Any:
        def run() -> Any:
            return f(1) - g(2)

        return run

    assert fingerprint(pair(one, other)).digest != fingerprint(pair(other, one)).digest
    deep_one, deep_other = make(make(1)), make(make(2))
    assert fingerprint(pair(deep_one, deep_other)).digest != fingerprint(pair(deep_other, deep_one)).digest


def ping(n: int) -> int:
    return n and pong(n - 1)


def pong(n: int) -> int:
    return n and ping(n - 1) + 1


def test_a_circle_of_functions_has_one_digest_for_each_wherever_one_enters() -> None:
    one, other = fingerprint(ping).digest, fingerprint(pong).digest
    _forget(ping, pong)
    assert (fingerprint(pong).digest, fingerprint(ping).digest) == (other, one)
    assert one != other


def _forget(*functions: Any) -> None:
    from cacheness.keys.code import fingerprint

    for function in functions:
        fingerprint._plans.pop(id(function), None)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rings_of_any_size_can_be_told_apart(size: int) -> None:
    def ring(marks: list[int]) -> Any:
        cells: list[list[Any]] = [[] for _ in marks]
        functions = [make((mark, cell)) for mark, cell in zip(marks, cells, strict=True)]
        for at, cell in enumerate(cells):
            cell.append(functions[(at + 1) % len(functions)])
        return functions

    marks = [0] * size
    assert len({fingerprint(f).digest for f in ring(marks)}) == 1
    marks[0] = 1
    digests = [fingerprint(f).digest for f in ring(marks)]
    assert len(set(digests)) == size
    assert digests == [fingerprint(f).digest for f in ring(marks)]


def test_a_function_pickled_by_value_keeps_its_fingerprint() -> None:
    module = load(
        """
        import math
        LIMIT = [1]
        class Base:
            def go(self, x): return helper(x)
        class Model(Base):
            def go(self, x): return super().go(x) + LIMIT[0]
        def helper(x): return math.floor(x)
        def fact(n): return 1 if n < 2 else n * fact(n - 1)
        def f(x, model=Model()): return helper(x) + model.go(x) + fact(3)
        """,
        "pickled_by_value",
    )
    try:
        cloudpickle.register_pickle_by_value(module)
        copy = cloudpickle.loads(cloudpickle.dumps(module.f))
        model = cloudpickle.loads(cloudpickle.dumps(module.Model()))
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["pickled_by_value"]
    assert copy is not module.f
    assert fingerprint(copy).digest == fingerprint(module.f).digest
    assert encode(model) == encode(module.Model())


def test_the_name_of_the_module_does_not_count() -> None:
    source = "class C:\n    def m(self): return helper()\ndef helper(): return 1\ndef f(x): return C().m() + x\n"
    one, other = load(source, "__main__x"), load(source, "__prefect_loader_123__")
    assert fingerprint(one.f).digest == fingerprint(other.f).digest
    assert encode(one.C()) == encode(other.C())


def test_a_notebook_cell_run_again_keeps_its_fingerprint() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = ["LIMIT = 3\n", "def helper(x):\n    return min(x, LIMIT)\n", "def f(x):\n    return helper(x)\n"]
    for at, cell in enumerate(cells):
        exec(compile(cell, f"/tmp/ipykernel_1/{at}.py", "exec"), names)
    before = fingerprint(names["f"]).digest
    exec(compile(cells[1], "/tmp/ipykernel_2/99.py", "exec"), names)
    assert fingerprint(names["f"]).digest == before
    exec(compile(cells[1].replace("min", "max"), "/tmp/ipykernel_2/100.py", "exec"), names)
    assert fingerprint(names["f"]).digest != before


def test_what_cannot_be_encoded_counts_by_its_type_and_is_listed() -> None:
    holder = {"engine": LOCK, "rate": 1}

    def locked(x: int) -> int:
        with LOCK:
            return x + holder["rate"]  # type: ignore[operator]

    found = fingerprint(locked)
    assert len(found.unfollowed) == 2
    assert all("_thread.lock" in line for line in found.unfollowed)
    assert any("holder['engine']" in line for line in found.unfollowed)
    holder["rate"] = 2
    assert fingerprint(locked).digest != found.digest


def test_a_user_object_with_a_lock_counts_by_all_its_other_parts() -> None:
    class Service:
        def __init__(self, rate: int) -> None:
            self.rate = rate
            self.lock = threading.Lock()

    def using(service: Service) -> Any:
        return lambda: service.rate

    assert fingerprint(using(Service(1))).digest == fingerprint(using(Service(1))).digest
    assert fingerprint(using(Service(1))).digest != fingerprint(using(Service(2))).digest


def test_what_a_partial_carries_must_be_encodable() -> None:
    with pytest.raises(UnhashableArgument, match="lock"):
        fingerprint(functools.partial(lookup, threading.Lock()))


def test_loggers_and_the_place_of_a_module_do_not_count() -> None:
    def noisy(x: int) -> int:
        LOGGER.info("%s %s %s", __name__, __file__, HERE)
        return x

    before = fingerprint(noisy)
    assert before.digest == fingerprint(cloudpickle.loads(cloudpickle.dumps(noisy))).digest


@pytest.mark.parametrize("name", ["eval", "exec", "globals", "__import__"])
def test_code_that_cannot_be_seen_is_listed(name: str) -> None:
    module = load(f"def f(x): return {name}(x)", "unseen")
    assert any(name in line for line in fingerprint(module.f).unfollowed)


def test_a_getattr_with_a_computed_name_is_listed_and_what_it_is_called_on_counts_whole() -> None:
    load("def one(x): return x\ndef other(x): return x\n", "chosen_from")
    module = load("import chosen_from\ndef f(x): return getattr(chosen_from, x)(1)\n", "choosing")
    before = fingerprint(module.f)
    assert any("getattr with a computed name" in line for line in before.unfollowed)
    load("def one(x): return x\ndef other(x): return x + 1\n", "chosen_from")
    again = load("import chosen_from\ndef f(x): return getattr(chosen_from, x)(1)\n", "choosing")
    assert fingerprint(again.f).digest != before.digest
    plain = load("def f(x): return getattr(x.y, 'real') + getattr(x, 'imag', 0)", "plain")
    assert fingerprint(plain.f).unfollowed == ()


# what is only written to


def test_a_list_that_is_only_appended_to_does_not_count() -> None:
    seen: list[int] = []
    names: set[str] = set()
    counts = collections.Counter()  # type: ignore[var-annotated]
    table: dict[str, int] = {}
    total = 0

    def traced(x: int) -> int:
        nonlocal total
        seen.append(max(x, 1))
        LOG.append(x)
        names.add(str(x))
        counts.update(a=x)
        counts["n"] += 1
        table["last"] = x
        total += 1
        return x

    before = fingerprint(traced).digest
    traced(1)
    traced(2)
    assert (seen, total, table) == ([1, 2], 2, {"last": 2})
    assert fingerprint(traced).digest == before


@pytest.mark.parametrize(
    "body",
    [
        "seen.append(x); return len(seen)",
        "return seen.append(x)",
        "y = seen.append(x); return seen",
        "seen.append(seen); return x",
        "seen.append(x); return [s for s in seen]",
        "return seen.pop()",
        "seen.extend(x); return (lambda: seen)()",
        "seen += [x]; return x",
        "return (seen.append(x), 1) if x else seen",
        "return seen.append(x) or x in seen",
        "for s in seen: return s",
    ],
)
def test_a_list_that_is_also_read_counts(body: str) -> None:
    module = load(f"seen = [0]\ndef f(x):\n    global seen\n    {body}\n", "reading")
    before = fingerprint(module.f).digest
    module.seen.append(1)
    assert fingerprint(module.f).digest != before


def test_a_counter_that_is_also_read_counts() -> None:
    module = load("n = 0\ndef f(x):\n    global n\n    n += 1\n    return n\n", "counting")
    before = fingerprint(module.f).digest
    module.f(1)
    assert fingerprint(module.f).digest != before


def test_a_helper_that_reads_what_the_function_writes_makes_it_count() -> None:
    module = load("seen = []\ndef g(): return len(seen)\ndef f(x):\n    seen.append(x)\n    return g()\n", "both")
    before = fingerprint(module.f).digest
    module.f(1)
    assert fingerprint(module.f).digest != before


def test_an_object_with_a_method_called_append_counts() -> None:
    module = load("class L(list): pass\nseen = L()\ndef f(x):\n    seen.append(x)\n    return x\n", "own_list")
    before = fingerprint(module.f).digest
    module.f(1)
    assert fingerprint(module.f).digest != before


def test_a_file_that_is_only_written_to_does_not_count_and_one_that_is_read_does(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"

    def writes(x: int) -> int:
        with log.open("a") as stream:
            stream.write("x")
        with open(log, "a") as stream:
            stream.write("x")
        log.write_text(str(x))
        return x

    def reads(x: int) -> str:
        return log.read_text()

    before = fingerprint(writes).digest
    writes(1)
    assert fingerprint(writes).digest == before
    read = fingerprint(reads).digest
    writes(2)
    assert fingerprint(reads).digest != read


def test_the_folder_that_the_code_lies_in_does_not_count(tmp_path: pathlib.Path) -> None:
    def reads(x: str) -> str:
        return (tmp_path / x).read_text()

    before = fingerprint(reads)
    (tmp_path / "new").write_text("x")
    assert fingerprint(reads).digest == before.digest
    assert any("directory" in line or "PosixPath" in line for line in before.unfollowed)


def test_a_global_that_a_class_body_reads_under_the_name_it_gives_counts() -> None:
    module = load("limit = 1\ndef f(x):\n    class A:\n        limit = limit\n    return A.limit\n", "shadowed")
    before = fingerprint(module.f).digest
    module.limit = 2
    assert fingerprint(module.f).digest != before


def test_an_import_within_that_cannot_be_done_counts_as_missing() -> None:
    module = load(
        "def f(x):\n    from . import sibling\n    import not_there\n    return sibling, not_there\n", "importing"
    )
    assert fingerprint(module.f) == fingerprint(module.f)


# kinds of callables


class Callable:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, x: int) -> int:
        return x + self.n

    def method(self, x: int) -> int:
        return x * self.n

    @classmethod
    def build(cls, n: int) -> Callable:
        return cls(n)


@contextlib.contextmanager
def managed() -> Any:
    yield LIMIT


LIMIT = 1


def uses_manager() -> Any:
    with managed() as limit:
        return limit


@functools.lru_cache
def remembered(x: int) -> int:
    return x + LIMIT


async def later(x: int) -> int:
    await asyncio.sleep(0)
    return x


CALLABLES = {
    "function": lookup,
    "lambda": lambda x: x,
    "other lambda": lambda x: x + 1,
    "closure": make(1),
    "partial": functools.partial(lookup, "a"),
    "other partial": functools.partial(lookup, "b"),
    "bound method": Callable(1).method,
    "bound method of another": Callable(2).method,
    "unbound method": Callable.method,
    "class method": Callable.build,
    "instance": Callable(1),
    "other instance": Callable(2),
    "class": Callable,
    "built-in": len,
    "other built-in": abs,
    "method of a built-in type": str.upper,
    "bound built-in": "abc".join,
    "other bound built-in": "abd".join,
    "compiled": math.sqrt,
    "ufunc": np.add,
    "other ufunc": np.subtract,
    "numpy function": np.sum,
    "numpy method": np.random.default_rng(1).normal,
    "other numpy method": np.random.default_rng(2).normal,
    "stdlib function": re.sub,
    "stdlib closure": operator.itemgetter(1),
    "other stdlib closure": operator.itemgetter(2),
    "attrgetter": operator.attrgetter("a"),
    "cached": remembered,
    "context manager": managed,
    "coroutine function": later,
    "vectorized": np.vectorize(lookup),
    "other vectorized": np.vectorize(later),
    "type": int,
    "chain": itertools.chain,
    "slot wrapper": int.__add__,
    "method wrapper": (1).__add__,
}


def test_each_kind_of_callable_has_a_fingerprint_of_its_own() -> None:
    digests = {name: fingerprint(fn).digest for name, fn in CALLABLES.items()}
    doubles = [(one, other) for one, other in itertools.combinations(digests, 2) if digests[one] == digests[other]]
    assert doubles == []
    assert {name: fingerprint(fn).digest for name, fn in CALLABLES.items()} == digests
    assert fingerprint(Callable(1)).digest == digests["instance"]
    assert fingerprint(Callable(1).method).digest == digests["bound method"]


@pytest.mark.parametrize("fn", [uses_manager, remembered, np.vectorize(remembered)])
def test_a_library_s_wrapper_lets_the_function_within_count(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(fn).digest
    monkeypatch.setitem(globals(), "LIMIT", 2)
    assert fingerprint(fn).digest != before


def test_a_ufunc_made_from_python_cannot_be_followed() -> None:
    made = np.frompyfunc(lookup, 1, 1)
    assert any("frompyfunc" in line or "ufunc" in line for line in fingerprint(lambda x: made(x)).unfollowed)
    with pytest.raises(UnhashableArgument, match="frompyfunc"):
        encode(made)


# classes


def test_a_class_passed_as_an_argument_counts_by_its_code() -> None:
    source = (
        "import abc, enum\nclass A(abc.ABC):\n    x = 1\n    @abc.abstractmethod\n    def f(self): ...\n"
        "class E(enum.Enum):\n    A = 1\n    def label(self): return self.name + '1'\n"
    )
    one, other = load(source, "classes"), load(source, "classes")
    assert digest_of(one.A) == digest_of(other.A)
    assert digest_of(one.E.A) == digest_of(other.E.A)
    isinstance(3, one.A)  # fills its registry
    assert digest_of(one.A) == digest_of(other.A)
    changed = load(source.replace("'1'", "'2'"), "classes")
    assert digest_of(changed.E.A) != digest_of(one.E.A)
    more = load(source.replace("A = 1\n", "A = 1\n    B = 2\n"), "classes")
    assert digest_of(more.E) != digest_of(one.E)


def test_a_pydantic_model_counts_by_its_fields_and_validators() -> None:
    source = """
        import pydantic
        class M(pydantic.BaseModel):
            x: int = pydantic.Field(1, gt=0)
            @pydantic.field_validator("x")
            def check(cls, value):
                return value + 1
        """
    same = [digest_of(load(source, "models").M(x=1)) for _ in range(2)]
    assert same[0] == same[1]
    for old, new in [
        ("gt=0", "gt=-1"),
        ("value + 1", "value"),
        ("x: int", "x: float"),
        ('("x")', '("x", mode="before")'),
    ]:
        assert digest_of(load(source.replace(old, new), "models").M(x=1)) != same[0], new


def test_annotations_of_a_class_count_because_libraries_read_them() -> None:
    one = load("class A:\n    x: int\n", "annotated")
    other = load("class A:\n    x: str\n", "annotated")
    assert digest_of(one.A) != digest_of(other.A)


WATCHED = """
import watched_helpers
from functools import lru_cache, partial
RATE = 2
TABLE = {"a": [1]}
TEXT = "t"
PAIR = (1, [2])
class Base:
    bias = 1
    def go(self): return self.bias
class Model(Base):
    table = [1]
    @property
    def half(self): return self.go() / 2
    @staticmethod
    def shift(x): return x
def make(n):
    def inner(x): return x + n
    return inner
added = make(1)
half = partial(watched_helpers.scale, factor=0.5)
@lru_cache
def remembered(x): return x + RATE
def default(x, y=[1], *, z=1): return x
MODEL = Model()
def f(x):
    from watched_helpers import late
    return (len(TABLE), RATE, TEXT, PAIR, MODEL.half, Model.shift(x), added(x), half(x), remembered(x), default(x),
            watched_helpers.scale(x, 2), late(x), absent(x) if x else 0)
"""


def make_other(n: int) -> Any:
    return lambda x: x - n


CHANGES: dict[str, Any] = {
    "a name bound again": lambda m: setattr(m, "RATE", 3),
    "bound to an equal object": lambda m: setattr(m, "TABLE", {"a": [1]}),
    "a list within a dictionary": lambda m: m.TABLE["a"].append(2),
    "a list within a tuple": lambda m: m.PAIR[1].append(2),
    "another type": lambda m: setattr(m, "TEXT", b"t"),
    "a method": lambda m: setattr(m.Base, "go", lambda self: 2),
    "a class attribute": lambda m: setattr(m.Base, "bias", 2),
    "a class attribute's content": lambda m: m.Model.table.append(2),
    "a new class attribute": lambda m: setattr(m.Model, "more", 1),
    "a class attribute gone": lambda m: delattr(m.Model, "shift"),
    "the bases": lambda m: setattr(m.Model, "__bases__", (m.Base, type("Other", (), {"x": 1}))),
    "an instance's state": lambda m: setattr(m.MODEL, "bias", 9),
    "a closure's cell": lambda m: setattr(m.added.__closure__[0], "cell_contents", 5),
    "an emptied cell": lambda m: delattr(m.added.__closure__[0], "cell_contents"),
    "a default's content": lambda m: m.default.__defaults__[0].append(2),
    "other defaults": lambda m: setattr(m.default, "__defaults__", ([3],)),
    "a keyword default": lambda m: m.default.__kwdefaults__.update(z=2),
    "new code": lambda m: setattr(m.added, "__code__", make_other(0).__code__),
    "a helper in another module": lambda m: setattr(m.watched_helpers, "scale", lambda x, factor: 0),
    "a helper imported within": lambda m: setattr(m.watched_helpers, "late", lambda x: 0),
    "a built-in shadowed": lambda m: setattr(m, "len", lambda x: 0),
    "a name that was missing": lambda m: setattr(m, "absent", lambda x: 0),
    "a name gone": lambda m: delattr(m, "TEXT"),
    "a wrapped function's global, to nothing": lambda m: delattr(m, "RATE"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_watched_and_what_is_read_anew_agree_after_every_change(change: str) -> None:
    load("def scale(x, factor): return x * factor\ndef late(x): return x\n", "watched_helpers")
    module = load(WATCHED, "watched")
    before = fingerprint(module.f).digest
    assert fingerprint(module.f).digest == before
    CHANGES[change](module)
    warm = fingerprint(module.f).digest
    _forget(module.f)
    assert warm == fingerprint(module.f).digest
    assert (warm == before) == (change == "bound to an equal object")


# what is kept


@pytest.mark.slow
def test_a_fingerprint_keeps_neither_the_function_nor_its_data_alive() -> None:
    class Data:
        pass

    data = Data()
    fn = make(data)
    helper = make(fn)
    fingerprint(helper)
    gone = [weakref.ref(data), weakref.ref(fn), weakref.ref(helper)]
    del data, fn, helper
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]


@pytest.mark.slow
def test_many_threads_may_ask_at_once() -> None:
    module = load("def g(x): return x\ndef f(x): return g(x)\n", "threads")
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(fingerprint(module.f).digest)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


@pytest.mark.slow
def test_parts_stay_small_for_a_function_that_reaches_much() -> None:
    lines = [f"LIMIT_{n} = {n}\ndef helper_number_{n}(x): return x + LIMIT_{n}\n" for n in range(300)]
    lines.append("def f(x): return " + " + ".join(f"helper_number_{n}(x)" for n in range(300)))
    found = fingerprint(load("".join(lines), "sprawling").f)
    assert sum(len(name) + len(digest) for part in found.components.values() for name, digest in part.items()) < 4000


def test_the_bound_of_a_type_variable_counts() -> None:
    source = "import typing\nclass A: n = {}\nT = typing.TypeVar('T', bound=A)\ndef f(x): return T.__bound__.n\n"
    found = [fingerprint(load(source.format(n), "bounded").f) for n in (1, 2)]
    assert found[0].digest != found[1].digest
    assert fingerprint(load(source.format(1), "bounded").f).digest == found[0].digest
