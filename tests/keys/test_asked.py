"""What counts only where reachable code reads it, and what the user put into classes and registries of others."""
# ruff: noqa: E501 - tables of sources; wide lines read better here

from __future__ import annotations

import copyreg
import decimal
import fractions
import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from cacheness.keys.code import additions
from cacheness.keys.code.fingerprint import fingerprint
from tests.keys.edits import load

#: A source with `<it>`, and what stands there before and after.
READ: dict[str, tuple[str, str, str]] = {
    "help of a command": ("import inspect\ndef g(): '<it>'\ndef f(x): return inspect.getdoc(g)\n", "a", "b"),
    "docstring of a class": ("class K: '<it>'\ndef f(x): return K.__doc__\n", "a", "b"),
    "docstring of the module": ("'<it>'\ndef f(x): return __doc__\n", "a", "b"),
    "docstring of an inner function": ("def f(x):\n    def g(): '<it>'\n    return g.__doc__\n", "a", "b"),
    "docstring by getattr": ("def g(): '<it>'\ndef f(x): return getattr(g, '__doc__')\n", "a", "b"),
    "signature": (
        "import inspect\ndef g(x: <it>): return x\ndef f(x): return str(inspect.signature(g))\n",
        "int",
        "str",
    ),
    "type hints that are texts": (
        "from __future__ import annotations\nimport typing\nclass K: n = <it>\ndef g(x: K): return x\ndef f(x): return typing.get_type_hints(g)['x'].n\n",
        "1",
        "2",
    ),
    "mark on a function": ("def g(x): return x\ng.order = <it>\ndef f(x): return getattr(g, 'order', 0)\n", "1", "2"),
    "mark that appears": ("def g(x): return x\n<it>\ndef f(x): return hasattr(g, 'task')\n", "", "g.task = True"),
    "all marks": ("def g(x): return x\ng.order = <it>\ndef f(x): return vars(g)\n", "1", "2"),
    "subclasses of subclasses": (
        "class A: pass\nclass B(A): pass\nclass C(B): n = <it>\ndef f(x): return [c.n for b in A.__subclasses__() for c in b.__subclasses__()]\n",
        "1",
        "2",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_read_counts(name: str) -> None:
    source, before, after = READ[name]
    first = fingerprint(load(source.replace("<it>", before), "asked").f).digest
    assert fingerprint(load(source.replace("<it>", after), "asked").f).digest != first
    assert fingerprint(load(source.replace("<it>", before), "asked").f).digest == first


def test_what_nobody_reads_does_not_count() -> None:
    source = "class A: '<it>'\nclass B(A): n = <n>\ndef g(x: <t>):\n    '<it>'\n    return A\ng.order = <n>\ndef f(x): return g(x)\n"
    one, two = (
        source.replace("<it>", text).replace("<n>", str(len(text))).replace("<t>", kind)
        for text, kind in (("a", "int"), ("ab", "str"))
    )
    assert fingerprint(load(one, "asked").f).digest == fingerprint(load(two, "asked").f).digest


def test_an_attribute_that_only_counts_calls_does_not_count() -> None:
    fn = load("def f(x):\n    f.calls += 1\n    return x\nf.calls = 0\n", "asked").f
    before = fingerprint(fn).digest
    fn(1)
    assert fingerprint(fn).digest == before


def test_a_function_gets_an_attribute_after_its_first_call() -> None:
    module = load("def g(x): return x\ndef f(x): return getattr(g, 'order', 0)\n", "asked")
    before = fingerprint(module.f).digest
    module.g.order = 3
    assert fingerprint(module.f).digest != before


ADDED: dict[str, str] = {
    "method of a class in C": "import fractions\nfractions.Fraction.twice = lambda self: <it>\ndef f(x): return x.twice()\n",
    "property": "import json\njson.JSONDecoder.own = property(lambda self: <it>)\ndef f(x): return json.JSONDecoder().own\n",
    "method that a library had": "import json\nold = json.JSONEncoder.default\njson.JSONEncoder.default = lambda self, o: <it>\ndef f(x): return json.JSONEncoder.default(None, x)\n",
    "reducer": "import copy, copyreg\nclass K: pass\ncopyreg.pickle(K, lambda k: (str, (<it>,)))\ndef f(x): return copy.deepcopy(x)\n",
    "adapter": "import sqlite3\nclass V: pass\nsqlite3.register_adapter(V, lambda v: <it>)\ndef f(x, db): return db.execute('select ?', (x,)).fetchone()\n",
    "converter": "import sqlite3\nsqlite3.register_converter('own', lambda v: <it>)\ndef f(x, db): return db.execute('select a').fetchall()\n",
    "subclass of a library's": "import json\nclass K(json.JSONEncoder): n = <it>\ndef f(x): return [k.n for k in json.JSONEncoder.__subclasses__()]\n",
}


@pytest.fixture
def others_restored() -> Iterator[None]:
    """Take out again what a test puts into Python."""
    default, reducers = json.JSONEncoder.default, dict(copyreg.dispatch_table)
    kept: list[tuple[Any, Any]] = [(table, dict(table)) for table in (sqlite3.adapters, sqlite3.converters)]
    yield
    json.JSONEncoder.default = default  # type: ignore[method-assign]
    for cls, name in ((fractions.Fraction, "twice"), (json.JSONDecoder, "own")):
        if name in vars(cls):
            delattr(cls, name)
    for table, content in [*kept, (copyreg.dispatch_table, reducers)]:
        table.clear()
        table.update(content)


@pytest.mark.slow
@pytest.mark.usefixtures("others_restored")
@pytest.mark.parametrize("name", ADDED)
def test_what_was_put_into_others_counts(name: str) -> None:
    first, second, same = (
        fingerprint(load(ADDED[name].replace("<it>", value), f"asked_{len(name)}_{number}").f).digest
        for number, value in enumerate(("1", "2", "2"))
    )
    assert first != second
    # A class of another module stands beside the earlier ones; all else takes their place.
    assert (second == same) == ("class " not in ADDED[name])


def test_a_context_that_was_changed_is_listed() -> None:
    source = "from decimal import Decimal\ndef f(x): return Decimal(1) / x\n"
    assert fingerprint(load(source, "asked").f).unfollowed == ()
    with decimal.localcontext() as context:
        context.prec = 7
        assert any("prec is 7" in line for line in fingerprint(load(source, "asked").f).incomplete)


class _Passes(list[Any]):
    """Counts how often it is read from its start."""

    def __init__(self, items: list[Any]) -> None:
        super().__init__(items)
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        self.count += 1
        return super().__iter__()


def test_the_loaded_classes_are_read_once_however_many_functions_have_new_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    helpers = "\n".join(f"def helper_{n}(x): return x.read_only_here_{n}" for n in range(5))
    calls = ", ".join(f"helper_{n}(x)" for n in range(5))
    fn = load(f"{helpers}\ndef f(x): return [{calls}]\n", "many_names").f
    additions.version_of_additions()
    passes = _Passes(additions._classes.all)
    monkeypatch.setattr(additions._classes, "all", passes)
    fingerprint(fn)
    assert passes.count == 1
    fingerprint(fn)
    assert passes.count == 1
