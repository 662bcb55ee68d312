"""Counters that only add up and that nothing reads do not count; whatever may be seen of one lets it count."""
# ruff: noqa: E501 - tables of sources; wide lines read better here

from __future__ import annotations

import pytest

from cacheness.keys.code.fingerprint import fingerprint
from tests.keys.edits import load

_OBJECT = "class Meter:\n    n = 0\n    def read(self, x):\n        <body>\nmeter = Meter()\n"
_CALL = "def f(x): return meter.read(x)\n"


def _meter(body: str, rest: str = _CALL) -> str:
    return _OBJECT.replace("<body>", "\n        ".join(body.split("; "))) + rest


UNREAD: dict[str, str] = {
    "a counter of calls": _meter("self.n += 1; return x"),
    "seconds": "import time\n" + _meter("start = time.perf_counter(); self.n += time.perf_counter() - start; return x"),
    "a sum, spelt out": _meter("self.n = self.n + len(str(x)); return x"),
    "counted from outside": _meter("return x", "def f(x):\n    meter.n += 1\n    return meter.read(x)\n"),
    "set back, too": _meter("self.n += 1; return x", _CALL + "def reset():\n    meter.n = 0\n"),
    "an object in a closure": "class Meter:\n    def __init__(self): self.n = 0\n    def read(self, x):\n        self.n += 1\n        return x\ndef make():\n    meter = Meter()\n    def f(x): return meter.read(x)\n    return f\nf = make()\n",
    "counted in a method of a base class": "class Base:\n    n = 0\n    def count(self): self.n += 1\nclass Meter(Base):\n    def read(self, x):\n        self.count()\n        return x\nmeter = Meter()\n"
    + _CALL,
    "a table by literal names": "SPENT = {}\ndef f(x):\n    SPENT['f'] = SPENT.get('f', 0) + len(str(x))\n    return x\n",
    "a table by arguments": "SEEN = {}\ndef f(x):\n    SEEN[x] = SEEN.get(x, 0) + 1\n    return x\n",
    "an item, spelt out": "SEEN = {'f': 0}\ndef f(x):\n    SEEN['f'] = SEEN['f'] + 1\n    return x\n",
    "an item and an expression": "SEEN = [0, 0]\ndef f(x):\n    SEEN[1] += len(str(x)) - 1\n    return x\n",
    "a global and an expression": "n = 0\ndef f(x):\n    global n\n    n += len(str(x)) * 2\n    return x\n",
    "a table that makes its zeros": "import collections\nSEEN = collections.defaultdict(int)\ndef f(x):\n    SEEN[x] += 1\n    return x\n",
}
SEEN: dict[str, str] = {
    "returned": _meter("self.n += 1; return self.n"),
    "the object returned": _meter("self.n += 1; return x", "def f(x):\n    meter.read(x)\n    return meter\n"),
    "the object returned by a method": _meter("self.n += 1; return self"),
    "the object printed": _meter("self.n += 1; return f'{self}'"),
    "all attributes": _meter("self.n += 1; return vars(self)"),
    "the dictionary of attributes": _meter("self.n += 1; return dict(self.__dict__)"),
    "by getattr": _meter("self.n += 1; return x", "def f(x):\n    meter.read(x)\n    return getattr(meter, 'n')\n"),
    "by a helper": _meter(
        "self.n += 1; return x", "def g(o): return o.n\ndef f(x):\n    meter.read(x)\n    return g(meter)\n"
    ),
    "a method handed about": _meter("self.n += 1; return x", "def f(x):\n    meter.read(x)\n    return meter.read\n"),
    "another name": _meter("self.n += 1; return x", "other = meter\ndef f(x):\n    meter.read(x)\n    return other\n"),
    "a list of it": _meter("self.n += 1; return x", "all = [meter]\ndef f(x):\n    meter.read(x)\n    return all\n"),
    "an inner function": _meter("self.n += 1; return lambda: self"),
    "a part that leads back": _meter(
        "self.n += 1; return self.part",
        "class Part: pass\nmeter.part = Part()\nmeter.part.whole = meter\ndef f(x): return meter.read(x).whole\n",
    ),
    "something else than a sum": _meter("self.n = x; return x"),
    "a product": "class Meter:\n    n = 1\n    def read(self, x):\n        self.n *= 2\n        return x\nmeter = Meter()\n"
    + _CALL,
    "a property": "class Meter:\n    seen = 0\n    n = property(lambda self: 0, lambda self, v: setattr(self, 'seen', self.seen + 1))\n    def read(self, x):\n        self.n += 1\n        return self.seen\nmeter = Meter()\n"
    + _CALL,
    "a hook": "class Meter:\n    seen = 0\n    n = 0\n    def __setattr__(self, name, value): vars(self)['seen'] = self.seen + 1\n    def read(self, x):\n        self.n += 1\n        return self.seen\nmeter = Meter()\n"
    + _CALL,
    "a class of a library's": "class Meter(dict):\n    n = 0\n    def read(self, x):\n        self.n += 1\n        return x\nmeter = Meter()\ndef f(x): return meter.read(x)\n",
    "how many items": "SEEN = {}\ndef f(x):\n    SEEN[x] = SEEN.get(x, 0) + 1\n    return len(SEEN)\n",
    "one item into another": "SEEN = {}\ndef f(x):\n    SEEN['b'] = SEEN.get('a', 0) + 1\n    SEEN['a'] = SEEN.get('b', 0) + 1\n    return x\n",
    "a sum that is also returned": "SEEN = {}\ndef f(x):\n    SEEN[x] = y = SEEN.get(x, 0) + 1\n    return y\n",
    "an item that is missing": "SEEN = {}\ndef f(x):\n    try: SEEN[x] += 1\n    except KeyError: SEEN[x] = 1\n    else: return 'again'\n",
    "a table of texts": "SEEN = {1: ''}\ndef f(x):\n    SEEN[1] = SEEN[1] + str(x)\n    return x\n",
}


@pytest.mark.parametrize("name", UNREAD)
def test_a_counter_that_nothing_reads_does_not_count(name: str) -> None:
    fn = load(UNREAD[name], "counted").f
    before = fingerprint(fn).digest
    for _ in range(2):
        fn(1)
        assert fingerprint(fn).digest == before
    assert fingerprint(load(UNREAD[name], "counted").f).digest == before


@pytest.mark.parametrize("name", SEEN)
def test_what_may_be_seen_of_a_counter_counts(name: str) -> None:
    fn = load(SEEN[name], "counted").f
    before = fingerprint(fn).digest
    fn(1)
    assert fingerprint(fn).digest != before


def test_another_attribute_of_an_object_with_a_counter_counts() -> None:
    module = load(_meter("self.n += 1; return x + self.rate", _CALL + "meter.rate = 1\n"), "counted")
    before = fingerprint(module.f).digest
    module.meter.rate = 2
    assert fingerprint(module.f).digest != before


def test_a_reader_that_comes_later_lets_a_counter_count() -> None:
    module = load(_meter("self.n += 1; return g(x)", "def g(x): return x\n" + _CALL), "counted")
    before = fingerprint(module.f).digest
    exec("def g(x): return meter.n\n", vars(module))
    assert fingerprint(module.f).digest != before
    seen = fingerprint(module.f).digest
    module.f(1)
    assert fingerprint(module.f).digest != seen
