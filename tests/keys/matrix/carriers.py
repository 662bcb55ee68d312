"""Ways in which code holds code or state, and what can change in each.

A carrier is the source of a module that defines `f(x)`. Marks in it are what changes: `<code>`,
`<constant>`, `<content>`, `<annotation>`, `<file>`, `<option>` and `<registration>`. `f(2)` must
return something else after each change, or the runner says that the cell proves nothing.
`$helper` is the name of the module beside it.
"""
# ruff: noqa: E501 - a table of sources reads better wide

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: What stands in place of each mark, before and after.
MARKS: Final[Mapping[str, tuple[str, str]]] = {
    "code": ("x + 1", "x + 2"),
    "constant": ("3", "4"),
    "content": ("[1, 2]", "[1, 5]"),
    "annotation": ("int", "float"),
    "file": ("one", "two"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """One way in which code holds code or state."""

    name: str
    source: str
    helper: str = ""  #: source of the module beside it
    data: str = ""  #: content of the file `data.txt` beside it
    swaps: Mapping[str, tuple[str, str]] = field(default_factory=dict)  #: marks of its own
    limits: Mapping[str, str] = field(default_factory=dict)  #: changes that cannot be seen: the way out
    needs: str = ""  #: a package without which it cannot run
    in_a_cell: str = ""  #: why it cannot stand in a notebook, if it cannot
    by_value: str = ""  #: why it cannot be pickled by value, if it cannot
    moves: str = ""  #: why its own run changes the key, where that is right

    @property
    def changes(self) -> tuple[str, ...]:
        """What can change in it."""
        text = self.source + self.helper + self.data
        return tuple(name for name in (*MARKS, *self.swaps) if f"<{name}>" in text)

    def files(self, changed: str | None) -> dict[str, str]:
        """The sources with every mark as before, but for the one that changed."""
        texts = {"subject.py": self.source, "helper.py": self.helper, "data.txt": self.data}
        for name, (before, after) in {**MARKS, **self.swaps}.items():
            value = after if name == changed else before
            texts = {file: text.replace(f"<{name}>", value) for file, text in texts.items()}
        return texts


_all: list[Carrier] = []


def _add(name: str, source: str, helper: str = "", **options: object) -> None:
    _all.append(Carrier(name=name, source=textwrap.dedent(source), helper=textwrap.dedent(helper), **options))  # type: ignore[arg-type]


# fmt: off
# functions

_add("global", "LIMIT = <constant>\nSTATE = <content>\ndef g(x): return <code>\ndef f(x): return g(x), LIMIT, STATE\n")
_add("module beside", "import $helper as other\ndef f(x): return other.g(x), other.LIMIT, other.STATE\n", "LIMIT = <constant>\nSTATE = <content>\ndef g(x): return <code>\n")
_add("imported name", "from $helper import LIMIT, STATE, g as h\ndef f(x): return h(x), LIMIT, STATE\n", "LIMIT = <constant>\nSTATE = <content>\ndef g(x): return <code>\n")
_add("star import", "from $helper import *\ndef f(x): return g(x), LIMIT, STATE\n", "LIMIT = <constant>\nSTATE = <content>\ndef g(x): return <code>\n")
_add("import in the body", "def f(x):\n    import $helper as other\n    from $helper import LIMIT\n    return other.g(x), LIMIT, other.STATE\n", "LIMIT = <constant>\nSTATE = <content>\ndef g(x): return <code>\n")
_add("import by a literal name", "import importlib\ndef f(x): return importlib.import_module('$helper').g(x)\n", "LIMIT = <constant>\ndef g(x): return <code>, LIMIT\n")
_add("module __getattr__", "import $helper\nother = $helper\ndef f(x): return other.anything(x)\n", "LIMIT = <constant>\ndef g(x): return <code>, LIMIT\ndef __getattr__(name):\n    if name[:2] == '__': raise AttributeError(name)\n    return g\n")
_add("module as a value", "import $helper as other\nPLUGINS = [other]\ndef f(x): return [p.g(x) for p in PLUGINS]\n", "LIMIT = <constant>\ndef g(x): return <code>, LIMIT\n")
_add("module in a class", "import $helper as other\nclass K:\n    backend = other\ndef f(x): return K.backend.g(x)\n", "LIMIT = <constant>\ndef g(x): return <code>, LIMIT\n")
_add("getattr by a literal name", "import $helper as other\ndef f(x): return getattr(other, 'g')(x)\n", "LIMIT = <constant>\ndef g(x): return <code>, LIMIT\n")
_add("closure", "def make():\n    scale = <constant>\n    state = <content>\n    def g(x): return <code>\n    def f(x): return g(x), scale, state\n    return f\nf = make()\n")
_add("default", "def g(x): return <code>\ndef f(x, g=g, scale=<constant>, *, state=<content>): return g(x), scale, state\n")
_add("lambda in a table", "TABLE = {'a': lambda x: <code>, 'b': lambda x: <constant>, 'c': lambda x, s=<content>: s}\ndef f(x): return [g(x) for g in TABLE.values()]\n")
_add("partial", "from functools import partial\ndef g(scale, state, x): return <code>, scale, state\nh = partial(g, <constant>, state=<content>)\ndef f(x): return h(x=x)\n")
_add("nested function", "def f(x):\n    def g(x):\n        def h(x): return <code>, <constant>\n        return h(x)\n    return g(x), [n for n in <content>]\n")
_add("comprehension", "LIMIT = <constant>\nSTATE = <content>\ndef g(x): return <code>\ndef f(x): return [g(x) for _ in (1,)], {LIMIT: n for n in STATE}, sum(n for n in STATE)\n")
_add("generator", "STATE = <content>\ndef g(x):\n    yield <code>\n    yield from STATE\n    yield <constant>\ndef f(x): return list(g(x))\n")
_add("coroutine", "import asyncio\nSTATE = <content>\nasync def g(x): return <code>, <constant>, STATE\nasync def f(x): return await g(x)\n")
_add("asynchronous generator", "import asyncio\nSTATE = <content>\nasync def g(x):\n    yield <code>\n    yield <constant>\n    yield STATE\nasync def f(x): return [n async for n in g(x)]\n")
_add("context manager", "from contextlib import contextmanager\nSTATE = <content>\n@contextmanager\ndef g(x): yield <code>, <constant>, STATE\ndef f(x):\n    with g(x) as n: return n\n")
_add("decorator with state", "import functools\ndef scaled(n, state):\n    def wrap(fn):\n        @functools.wraps(fn)\n        def inner(x): return fn(x), n, state\n        return inner\n    return wrap\n@scaled(<constant>, <content>)\ndef g(x): return <code>\ndef f(x): return g(x)\n")
_add("decorator class", "import functools\nclass Scaled:\n    def __init__(self, fn):\n        functools.update_wrapper(self, fn)\n        self.fn, self.n, self.state = fn, <constant>, <content>\n    def __call__(self, x): return self.fn(x), self.n, self.state\n@Scaled\ndef g(x): return <code>\ndef f(x): return g(x)\n")
_add("lying __wrapped__", "def harmless(x): return x\nSTATE = <content>\ndef g(x): return <code>, <constant>, STATE\ng.__wrapped__ = harmless\ndef f(x): return g(x)\n")
_add("lying __module__", "class K:\n    n = <constant>\n    state = <content>\n    def go(self, x): return <code>, self.n, self.state\nK.__module__ = 'json'\ndef f(x): return K().go(x)\n")
_add("lying __reduce__", "class K:\n    def __init__(self): self.n, self.state = <constant>, <content>\n    def go(self, x): return <code>, self.n, self.state\n    def __reduce__(self): return 'k'\nk = K()\ndef f(x): return k.go(x)\n", by_value="pickles by its name")
_add("function attribute", "def g(x): return <code>, g.n, g.state\ng.n, g.state = <constant>, <content>\ndef f(x): return g(x)\n")
_add("docstring that is read", "def g(x):\n    '<file>'\n    return x\ndef f(x): return g.__doc__\n")
_add("annotation that is read", "def g(x: <annotation>): return x\ndef f(x): return g.__annotations__['x'](x)\n")
_add("annotation read by a decorator", "import functools\ndef coerce(fn):\n    @functools.wraps(fn)\n    def inner(x): return fn.__annotations__['x'](fn(x))\n    return inner\n@coerce\ndef g(x: <annotation>): return <code>\ndef f(x): return g(x)\n")
_add("exec", "names = {}\nexec('def g(x): return <code>, <constant>', names)\ng = names['g']\ndef f(x): return g(x)\n")
_add("operator over the user's", "import operator\nclass K:\n    state = <content>\n    def go(self, x): return <code>, <constant>\ncall, get = operator.methodcaller('go', 2), operator.attrgetter('state')\ndef f(x): return call(K()), get(K())\n")
_add("lru_cache", "import functools\nSTATE = <content>\n@functools.lru_cache\ndef g(x): return <code>, <constant>, STATE\ndef f(x): return g(x)\n", by_value="pickles by its name")
_add("singledispatch", "from functools import singledispatch\nSTATE = <content>\n@singledispatch\ndef g(x): return x\n@g.register\ndef _(x: int): return <code>, <constant>, STATE\ndef f(x): return g(x)\n", by_value="its cache of weak references cannot be pickled")
_add("singledispatchmethod", "from functools import singledispatchmethod\nclass K:\n    state = <content>\n    @singledispatchmethod\n    def go(self, x): return x\n    @go.register\n    def _(self, x: int): return <code>, <constant>, self.state\ndef f(x): return K().go(x)\n", by_value="its cache of weak references cannot be pickled")
_add("pattern", "import re\nP = re.compile('<file>')\ndef f(x): return bool(P.match('one'))\n")
_add("numpy.vectorize", "import numpy as np\n@np.vectorize\ndef g(x): return <code>\nSTATE = np.array(<content>)\ndef f(x): return int(g(x)), STATE.tolist()\n")
_add("numpy.frompyfunc", "import numpy as np\ndef g(x): return <code>, <constant>\nu = np.frompyfunc(g, 1, 1)\ndef f(x): return u(x)\n", limits={"code": "make the ufunc inside the function", "constant": "make the ufunc inside the function"}, by_value="ufuncs pickle by their name")

# classes

_add("method", "class K:\n    state = <content>\n    def go(self, x): return <code>, <constant>, self.state\ndef f(x): return K().go(x)\n")
_add("bound method", "class K:\n    def __init__(self): self.n, self.state = <constant>, <content>\n    def go(self, x): return <code>, self.n, self.state\ngo = K().go\ndef f(x): return go(x)\n")
_add("instance", "class K:\n    def __init__(self, n, state): self.n, self.state = n, state\n    def __call__(self, x): return <code>, self.n, self.state\nk = K(<constant>, <content>)\ndef f(x): return k(x)\n")
_add("base class", "from $helper import Base\nclass K(Base): pass\ndef f(x): return K().go(x)\n", "class Base:\n    n = <constant>\n    state = <content>\n    def go(self, x): return <code>, self.n, self.state\n")
_add("super", "class A:\n    def go(self, x): return <code>, <constant>\nclass B:\n    state = <content>\n    def go(self, x): return x\nclass K(A, B):\n    def go(self, x): return super().go(x), self.state\ndef f(x): return K().go(x)\n")
_add("property", "class K:\n    state = <content>\n    @property\n    def n(self):\n        x = 2\n        return <code>, <constant>, self.state\ndef f(x): return K().n\n")
_add("cached_property", "import functools\nclass K:\n    state = <content>\n    @functools.cached_property\n    def n(self):\n        x = 2\n        return <code>, <constant>, self.state\ndef f(x): return K().n\n", by_value="its lock cannot be pickled")
_add("classmethod", "class K:\n    state = <content>\n    @classmethod\n    def go(cls, x): return <code>, cls.state\n    @staticmethod\n    def n(): return <constant>\ndef f(x): return K.go(x), K.n()\n")
_add("partialmethod", "from functools import partialmethod\nclass K:\n    def g(self, n, x, state): return <code>, n, state\n    go = partialmethod(g, <constant>, state=<content>)\ndef f(x): return K().go(x)\n")
_add("descriptor", "class D:\n    def __init__(self): self.n, self.state = <constant>, <content>\n    def __get__(self, instance, owner): return lambda x: (<code>, self.n, self.state)\nclass K:\n    go = D()\ndef f(x): return K().go(x)\n")
_add("__set_name__", "class D:\n    def __set_name__(self, owner, name): owner.n, owner.state = <constant>, <content>\nclass K:\n    d = D()\n    def go(self, x): return <code>, self.n, self.state\ndef f(x): return K().go(x)\n")
_add("metaclass", "class Meta(type):\n    state = <content>\n    def go(cls, x): return <code>, <constant>, cls.state\nclass K(metaclass=Meta): pass\ndef f(x): return K.go(x)\n")
_add("metaclass __call__", "class Meta(type):\n    def __call__(cls, x): return <code>, <constant>, cls.state\nclass K(metaclass=Meta):\n    state = <content>\ndef f(x): return K(x)\n")
_add("__init_subclass__", "class Base:\n    kinds = []\n    def __init_subclass__(cls, **options): Base.kinds.append((cls, options))\nclass K(Base, n=<constant>):\n    state = <content>\n    def go(self, x): return <code>\ndef f(x): return [(k().go(x), o, k.state) for k, o in Base.kinds]\n")
_add("__subclasses__", "class Base: pass\nclass K(Base):\n    state = <content>\n    def go(self, x): return <code>, <constant>\ndef f(x): return [(k().go(x), k.state) for k in Base.__subclasses__()]\n", by_value="a class knows its subclasses only where they were made")
_add("__class_getitem__", "class K:\n    state = <content>\n    def __class_getitem__(cls, x): return <code>, <constant>, cls.state\ndef f(x): return K[x]\n")
_add("__getattr__", "class K:\n    state = <content>\n    def __getattr__(self, name):\n        if name[:2] == '__': raise AttributeError(name)\n        x = 2\n        return <code>, <constant>\ndef f(x): return K().any, K.state\n")
_add("__getattribute__", "class K:\n    def __getattribute__(self, name):\n        x = 2\n        return <code>, <constant>, <content>\ndef f(x): return K().any\n")
_add("operators", "class K:\n    state = <content>\n    def __add__(self, x): return <code>, <constant>\n    def __iter__(self): return iter(self.state)\nk = K()\ndef f(x): return k + x, list(k)\n")
_add("exception", "class Bad(Exception):\n    state = <content>\n    def __str__(self):\n        x = 2\n        return str((<code>, <constant>, self.state))\ndef f(x):\n    try: raise Bad\n    except Bad as e: return str(e)\n")
_add("slots", "class K:\n    __slots__ = ('n', 'state')\n    def __init__(self, n, state): self.n, self.state = n, state\n    def go(self, x): return <code>, self.n, self.state\nk = K(<constant>, <content>)\ndef f(x): return k.go(x)\n")
_add("dataclass", "from dataclasses import dataclass, field\ndef make(): return <content>\n@dataclass\nclass K:\n    n: int = <constant>\n    state: list = field(default_factory=make)\n    def __post_init__(self):\n        x = self.n\n        self.m = <code>\ndef f(x):\n    k = K()\n    return k.n, k.state, k.m\n")
_add("dataclass by annotation", "from dataclasses import dataclass, fields\n@dataclass\nclass K:\n    n: <annotation> = 1\ndef f(x): return [k.type(x) for k in fields(K)]\n")
_add("make_dataclass", "import dataclasses\nK = dataclasses.make_dataclass('K', [('n', int, <constant>), ('m', object, tuple(<content>))])\ndef f(x): return K().n, K().m\n")
_add("types.new_class", "import types\nK = types.new_class('K', (), {}, lambda n: n.update(n=<constant>, state=<content>, go=lambda self, x: <code>))\ndef f(x): return K().go(x), K.n, K.state\n")
_add("three-argument type", "K = type('K', (), {'n': <constant>, 'state': <content>, 'go': lambda self, x: <code>})\ndef f(x): return K().go(x), K.n, K.state\n")
_add("NamedTuple", "from typing import NamedTuple\nclass K(NamedTuple):\n    n: int = <constant>\n    state: tuple = tuple(<content>)\n    def go(self, x): return <code>\ndef f(x): return K().go(x), K().n, K().state\n")
_add("Protocol", "from typing import Protocol\nclass P(Protocol):\n    state = <content>\n    def go(self, x): return <code>, <constant>\nclass K(P): pass\ndef f(x): return K().go(x), K.state\n")
_add("ABC.register", "import abc\nclass S(abc.ABC): pass\nclass Q: pass\n<registration>\ndef f(x): return isinstance(Q(), S)\n", swaps={"registration": ("", "S.register(Q)")}, by_value="a registration stays where it was made")
_add("__subclasshook__", "import abc\nclass S(abc.ABC):\n    @classmethod\n    def __subclasshook__(cls, other): return <constant> == 3\nclass Q: pass\ndef f(x): return isinstance(Q(), S)\n")
_add("registry", "KINDS = {}\ndef register(cls):\n    KINDS[cls.__name__] = cls\n    return cls\n@register\nclass K:\n    state = <content>\n    def go(self, x): return <code>, <constant>\ndef f(x): return [(k().go(x), k.state) for k in KINDS.values()]\n")
_add("registry beside", "import $helper as other\n@other.register\ndef g(x): return <code>, <constant>\ndef f(x): return [g(x) for g in other.KINDS]\n", "KINDS = []\ndef register(fn):\n    KINDS.append(fn)\n    return fn\n", by_value="a registration stays where it was made")
_add("match on a class", "class K:\n    __match_args__ = ('a', 'b')\n    def __init__(self, a, b): self.a, self.b = a, b\n    n = <constant>\ndef g(x): return <code>\ndef f(x):\n    match K(g(x), 2):\n        case K(a, b): return a, b, K.n\n")
_add("enum", "import enum\nclass E(enum.Enum):\n    A = <constant>\n    B = tuple(<content>)\n    def go(self, x): return <code>\ndef f(x): return E.A.value, E.B.value, E.A.go(x)\n")
_add("enum _missing_", "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\n    @classmethod\n    def _missing_(cls, value): return cls.A if <constant> == 3 else cls.B\ndef f(x): return E(9).name\n")
_add("enum _generate_next_value_", "import enum\nclass E(enum.Enum):\n    def _generate_next_value_(name, start, count, last): return <constant> + count\n    A = enum.auto()\ndef f(x): return E.A.value\n")
_add("flag boundary", "import enum\nclass E(enum.Flag, boundary=enum.<option>):\n    A = 1\ndef f(x):\n    try: return int(E(8).value)\n    except ValueError: return 'no'\n", swaps={"option": ("KEEP", "STRICT")})
_add("memo by hand", "MEMO = {1: <constant>}\nSTATE = <content>\ndef f(x):\n    if 5 not in MEMO: MEMO[5] = 0\n    return MEMO[1], STATE\n", moves="a memo by hand counts as it is: functools.cache is the way out")
_add("context variable", "import contextvars\nV = contextvars.ContextVar('V', default=<constant>)\ndef f(x): return V.get()\n", by_value="context variables cannot be pickled")
_add("context variable that is set", "import contextvars\nV = contextvars.ContextVar('V')\nV.set(<constant>)\ndef f(x): return V.get()\n", by_value="context variables cannot be pickled")
_add("thread-local", "import threading\nL = threading.local()\nL.n = <constant>\ndef f(x): return L.n\n", limits={"constant": "hand the value in as an argument"}, by_value="thread-locals cannot be pickled")
_add("weak references", "import weakref\nclass K:\n    n = <constant>\n    def go(self, x): return <code>\nk = K()\nW = weakref.ref(k)\ndef f(x): return W().go(x), W().n\n", by_value="weak references cannot be pickled")
_add("data frame", "import pandas as pd\nD = pd.DataFrame({'a': <content>, 'b': [1, <constant>]})\ndef f(x): return D.a.tolist(), D.b.tolist()\n")

# what stands outside

_add("file beside the module", "import pathlib\ndef f(x): return (pathlib.Path(__file__).parent / 'data.txt').read_text()\n", data="<file>", in_a_cell="a notebook has no __file__")
_add("file by an open call", "import os\ndef f(x):\n    with open(os.path.join(os.path.dirname(__file__), 'data.txt')) as file: return file.read()\n", data="<file>", in_a_cell="a notebook has no __file__")
_add("path in a global", "import pathlib\nAT = pathlib.Path(__file__).with_name('data.txt')\ndef f(x): return AT.read_text()\n", data="<file>")
_add("environment by a literal name", "import os\nos.environ['CACHENESS_MATRIX'] = '<option>'\ndef f(x): return os.environ['CACHENESS_MATRIX']\n", swaps={"option": ("1", "2")}, by_value="the environment stays where it was set")
_add("environment by getenv", "import os\nos.environ['CACHENESS_MATRIX'] = '<option>'\ndef f(x): return os.getenv('CACHENESS_MATRIX', '')\n", swaps={"option": ("1", "2")}, by_value="the environment stays where it was set")
_add("decimal context", "import decimal\ndecimal.getcontext().prec = <option>\ndef f(x): return str(decimal.Decimal(1) / 3)\n", swaps={"option": ("5", "9")}, limits={"option": "decimal.localcontext() inside the function"}, by_value="the context stays where it was set")
_add("library option", "import pandas as pd\npd.set_option('display.max_rows', <option>)\ndef f(x): return len(str(pd.Series(range(9))).split(chr(10)))\n", swaps={"option": ("4", "20")}, limits={"option": "pd.option_context() inside the function"}, by_value="options stay where they were set")
_add("computed getattr", "import $helper as other\nNAME = ''.join('g')\ndef f(x): return getattr(other, NAME)(x)\n", "def g(x): return <code>, <constant>\n", limits={"code": "a literal name, or a table of functions", "constant": "a literal name, or a table of functions"})
_add("eval", "LIMIT = <constant>\ndef f(x): return eval('LIMIT')\n", limits={"constant": "the name itself"}, by_value="names in a text are not taken along")
_add("entry point", "from importlib.metadata import entry_points\ndef f(x): return [e.load()(x) for e in entry_points(group='cacheness_matrix')]\n", "def g(x): return <code>, <constant>\n", limits={"code": "import the plug-in by name", "constant": "import the plug-in by name"}, by_value="entry points stay where they are installed")

# what libraries hold or make

_add("function put into a library's module", "import json\nSTATE = <content>\ndef own(x): return <code>, <constant>, STATE\njson.own = own\ndef f(x): return json.own(x)\n", by_value="a library's module stays where it was changed")
_add("method put into a library's class", "import fractions\ndef own(self, x): return <code>, <constant>\nfractions.Fraction.own = own\ndef f(x): return fractions.Fraction(1).own(x)\n", by_value="a library's class stays where it was changed")
_add("registration with a library's singledispatch", "import pkgutil\nclass K: pass\n@pkgutil.iter_importer_modules.register(K)\ndef _(k, prefix=''):\n    x = 2\n    return <code>, <constant>\ndef f(x): return pkgutil.iter_importer_modules(K())\n", by_value="a registration stays where it was made")
_add("copyreg", "import copy, copyreg\nclass K: pass\ndef make(n):\n    k = K()\n    x = 2\n    k.n = <code>, n\n    return k\ncopyreg.pickle(K, lambda k: (make, (<constant>,)))\ndef f(x): return copy.copy(K()).n\n", by_value="a registration stays where it was made")
_add("sqlite3 adapter", "import sqlite3\nclass V: pass\nsqlite3.register_adapter(V, lambda v: <constant>)\ndef f(x): return sqlite3.connect(':memory:').execute('select ?', (V(),)).fetchone()\n", by_value="a registration stays where it was made")
_add("codec", "import codecs\ndef find(name):\n    if name == 'cachenessmatrix': return codecs.CodecInfo(lambda t, e='': (t.encode(), len(t)), lambda b, e='': (str(<constant>), len(b)))\ncodecs.register(find)\ndef f(x): return codecs.decode(b'a', 'cachenessmatrix')\n", by_value="a registration stays where it was made")
_add("pandas accessor", "import pandas as pd\n@pd.api.extensions.register_dataframe_accessor('own')\nclass A:\n    def __init__(self, d): pass\n    def go(self, x): return <code>, <constant>\ndef f(x): return pd.DataFrame().own.go(x)\n", by_value="a registration stays where it was made")
_add("polars namespace", "import polars as pl\n@pl.api.register_dataframe_namespace('own')\nclass A:\n    def __init__(self, d): pass\n    def go(self, x): return <code>, <constant>\ndef f(x): return pl.DataFrame().own.go(x)\n", by_value="a registration stays where it was made")
_add("pandas apply", "import pandas as pd\ndef g(x): return <code>\ndef f(x): return pd.Series([x]).map(g).tolist(), pd.Series(<content>).agg(['sum']).tolist()\n")
_add("attrs", "import attrs\ndef conv(x): return <code>\n@attrs.define\nclass K:\n    n: int = <constant>\n    m: int = attrs.field(default=2, converter=conv)\n    state: list = attrs.field(factory=lambda: <content>)\ndef f(x): return K().n, K().m, K().state\n", needs="attrs")
_add("attrs inherited", "import attrs\n@attrs.define\nclass A:\n    n: int = 1\nclass K(A):\n    state = <content>\n    def go(self, x): return <code>, <constant>, self.state\nk = K()\ndef f(x): return k.go(x)\n", needs="attrs")
_add("pydantic", "import pydantic\nclass M(pydantic.BaseModel):\n    n: int = <constant>\n    state: list = pydantic.Field(default_factory=lambda: <content>)\n    m: int = 2\n    @pydantic.field_validator('m')\n    @classmethod\n    def check(cls, x): return <code>\ndef f(x):\n    k = M(m=2)\n    return k.n, k.state, k.m\n", needs="pydantic")
_add("pydantic private", "import pydantic\ndef make(): return <content>\nclass M(pydantic.BaseModel):\n    _n: int = <constant>\n    _state: list = pydantic.PrivateAttr(default_factory=make)\ndef f(x): return M()._n, M()._state\n", needs="pydantic")
_add("pydantic constraint", "import pydantic\nclass M(pydantic.BaseModel):\n    n: int = pydantic.Field(default=1, le=<constant>)\ndef f(x):\n    try: return M(n=4).n\n    except ValueError: return 'no'\n", needs="pydantic")
_add("wrapt.decorator", "import wrapt\n@wrapt.decorator\ndef scaled(fn, instance, args, kwargs): return fn(*args), <constant>\n@scaled\ndef g(x): return <code>\ndef f(x): return g(x)\n", needs="wrapt", by_value="proxies of wrapt cannot be pickled")
_add("wrapt.ObjectProxy", "import wrapt\nclass K:\n    n = <constant>\n    def go(self, x): return <code>\nP = wrapt.ObjectProxy(K())\ndef f(x): return P.go(x), P.n\n", needs="wrapt", by_value="proxies of wrapt cannot be pickled")
_add("toolz.curry", "import toolz\n@toolz.curry\ndef g(n, x): return <code>, n\nh = g(<constant>)\ndef f(x): return h(x)\n", needs="toolz", by_value="pickles by its name")
_add("toolz.compose", "import toolz\ndef g(x): return <code>\ndef h(x): return x, <constant>\np = toolz.compose(h, g)\ndef f(x): return p(x)\n", needs="toolz")
_add("cachetools.cached", "import cachetools\n@cachetools.cached({})\ndef g(x): return <code>, <constant>\ndef f(x): return g(x)\n", needs="cachetools")
_add("cachetools.cachedmethod", "import cachetools, operator\nclass K:\n    def __init__(self): self.c = {}\n    @cachetools.cachedmethod(operator.attrgetter('c'))\n    def go(self, x): return <code>, <constant>\ndef f(x): return K().go(x)\n", needs="cachetools", by_value="its descriptor cannot be unpickled")
_add("tenacity.retry", "import tenacity\n@tenacity.retry(stop=tenacity.stop_after_attempt(<constant>))\ndef g(x): return <code>\ndef f(x): return g(x), g.retry.stop.max_attempt_number\n", needs="tenacity")
_add("beartype", "import beartype\n@beartype.beartype\ndef g(x: int): return <code>, <constant>\ndef f(x): return g(x)\n", needs="beartype")
_add("joblib.Memory", "import joblib\nM = joblib.Memory(None, verbose=0)\n@M.cache\ndef g(x): return <code>, <constant>\ndef f(x): return g(x)\n", needs="joblib")
_add("joblib.delayed", "import joblib\ndef g(x): return <code>\nCALLS = [joblib.delayed(g)(2)]\ndef f(x): return [fn(*args) for fn, args, _ in CALLS]\n", needs="joblib")
_add("dask.delayed", "import dask\n@dask.delayed\ndef g(x): return <code>, <constant>\ndef f(x): return g(x).compute(scheduler='sync')\n", needs="dask")
_add("Prefect task", "from prefect import task\n@task\ndef g(x): return <code>, <constant>\ndef f(x): return g.fn(x)\n", needs="prefect")
_add("sqlalchemy declarative base", "import sqlalchemy as sa, sqlalchemy.orm as orm\nclass Mix:\n    def go(self, x): return <code>, <constant>\nBase = orm.declarative_base(cls=Mix)\nclass M(Base):\n    __tablename__ = 't'\n    a = sa.Column(sa.Integer, primary_key=True)\ndef f(x): return M().go(x)\n", needs="sqlalchemy", by_value="its registry cannot be pickled")
_add("numba.njit", "import numba\nLIMIT = <constant>\n@numba.njit\ndef g(x): return <code>\n@numba.njit\ndef h(x): return x + LIMIT\ndef f(x): return g(x), h(x)\n", needs="numba")
_add("msgspec.Struct", "import msgspec\nclass M(msgspec.Struct):\n    n: int = <constant>\n    state: list = msgspec.field(default_factory=lambda: <content>)\n    def go(self, x): return <code>\ndef f(x): return M().n, M().state, M().go(x)\n", needs="msgspec", by_value="cloudpickle makes its class without its fields")
_add("lazy_loader", "import lazy_loader, sys\n__getattr__, __dir__, __all__ = lazy_loader.attach('$helper', submodules=[])\nlazy = lazy_loader.load('$helper')\ndef f(x): return lazy.g(x)\n", "def g(x): return <code>, <constant>\n", needs="lazy_loader")
_add("sklearn FunctionTransformer", "from sklearn.preprocessing import FunctionTransformer\ndef g(x): return <code>\nT = FunctionTransformer(g, kw_args={})\ndef f(x): return T.func(x), T.get_params()['validate'] is <option>\n", swaps={"option": ("True", "False")}, needs="sklearn")

# fmt: on

CARRIERS: Final[tuple[Carrier, ...]] = tuple(_all)
