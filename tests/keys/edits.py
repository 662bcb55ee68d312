"""A function, edited in many ways. Each edit says whether the fingerprint must change."""
# ruff: noqa: E501 - a table of edits reads better wide

from __future__ import annotations

import os
import sys
import textwrap
import types
from typing import NamedTuple

BASE = '''
import math
from dataclasses import dataclass
from functools import partial, singledispatch, wraps

import user_helpers
from user_helpers import normalise

THRESHOLD = 0.5
WEIGHTS = {"a": 1, "b": [1, 2]}
NAMES = frozenset({"x", "y", "z"})


@dataclass
class Settings:
    depth: int = 3
    name: str = "n"

    def scaled(self):
        return self.depth * 10


class Base:
    factor = 2

    def apply(self, x):
        return x * self.factor


class Model(Base):
    bias = 1

    def predict(self, x):
        return self.apply(x) + self.bias

    @property
    def half(self):
        return self.bias / 2

    @staticmethod
    def shift(x):
        return x + 1


SETTINGS = Settings()
MODEL = Model()


def traced(fn):
    @wraps(fn)
    def wrapper(*args):
        return fn(*args) + 0

    return wrapper


@traced
def decorated(x):
    return x * 3


def make(n):
    def inner(x):
        return x + n

    return inner


add_two = make(2)
halved = partial(user_helpers.scale, factor=0.5)


@singledispatch
def kind(x):
    return "other"


@kind.register
def _(x: int):
    return "int"


def odd(n):
    return n != 0 and even(n - 1)


def even(n):
    return n == 0 or odd(n - 1)


def clean(x, power=2, *, offset=0):
    """Clean a number."""
    # the comment
    total = 0
    for item in [x, x + 1]:
        if item > THRESHOLD:
            total += normalise(item)
        total += 1
    squares = [v**power for v in range(3)]
    try:
        total += WEIGHTS["a"]
        total += math.floor(2.5)
    except KeyError:
        total = -1
    late = lambda v: v + 1
    from user_helpers import imported_late

    return (
        total
        + sum(squares)
        + MODEL.predict(x)
        + SETTINGS.scaled()
        + decorated(x)
        + add_two(x)
        + halved(x)
        + len(kind(x))
        + even(4)
        + late(offset)
        + imported_late(x)
        + ("x" in NAMES and x in {"p", "q", "r"})
    )
'''

HELPERS = """
import json

LIMIT = 10


def normalise(x):
    return clip(x) / LIMIT


def clip(x):
    return min(x, 100)


def scale(x, factor):
    return x * factor


def imported_late(x):
    return x - 1


def unrelated(x):
    return json.dumps(x)
"""


class Edit(NamedTuple):
    name: str
    old: str
    new: str
    in_helpers: bool = False


MISSES = [
    Edit("a dictionary in another order", '{"a": 1, "b": [1, 2]}', '{"b": [1, 2], "a": 1}'),
    Edit("a constant in the body", "total = 0\n", "total = 1\n"),
    Edit("an operator", "v**power", "v+power"),
    Edit("a comparison", "item > THRESHOLD", "item >= THRESHOLD"),
    Edit("the type of a constant", "total = 0\n", "total = 0.0\n"),
    Edit("the sign of zero", "return x * 3", "return x * 3 + -0.0"),
    Edit("a statement moved out of an if", "        total += 1\n", "            total += 1\n"),
    Edit(
        "a statement moved out of a try",
        "        total += math.floor(2.5)\n    except KeyError:\n        total = -1\n",
        "    except KeyError:\n        total = -1\n    total += math.floor(2.5)\n",
    ),
    Edit("which exception is caught", "except KeyError", "except IndexError"),
    Edit("a default", "power=2", "power=3"),
    Edit("a keyword default", "offset=0", "offset=1"),
    Edit("a parameter becomes keyword-only", "x, power=2, *,", "x, *, power=2,"),
    Edit("a global number", "THRESHOLD = 0.5", "THRESHOLD = 0.6"),
    Edit("a nested global value", "[1, 2]", "[1, 3]"),
    Edit("a global set", '"y", "z"', '"y", "w"'),
    Edit(
        "a name bound to another helper",
        "from user_helpers import normalise",
        "from user_helpers import clip as normalise",
    ),
    Edit("a helper", "clip(x) / LIMIT", "clip(x) * LIMIT", True),
    Edit("a helper of a helper", "min(x, 100)", "min(x, 101)", True),
    Edit("a global of a helper", "LIMIT = 10", "LIMIT = 11", True),
    Edit("a helper imported inside", "return x - 1", "return x - 2", True),
    Edit("a helper inside a partial", "return x * factor", "return x / factor", True),
    Edit("a partial's argument", "factor=0.5", "factor=0.25"),
    Edit("a method", "self.apply(x) + self.bias", "self.apply(x) - self.bias"),
    Edit("a method of a base class", "return x * self.factor", "return x + self.factor"),
    Edit("a class attribute", "bias = 1", "bias = 2"),
    Edit("a base's class attribute", "factor = 2", "factor = 3"),
    Edit("a property", "self.bias / 2", "self.bias / 3"),
    Edit("a static method", "    def shift(x):\n        return x + 1", "    def shift(x):\n        return x + 2"),
    Edit("the base classes", "class Model(Base)", "class Model(Base, dict)"),
    Edit("a dataclass default", "depth: int = 3", "depth: int = 4"),
    Edit("a dataclass method", "self.depth * 10", "self.depth * 11"),
    Edit("an instance's state", "SETTINGS = Settings()", "SETTINGS = Settings(name='m')"),
    Edit("a decorator's wrapper", "fn(*args) + 0", "fn(*args) + 1"),
    Edit("a decorated function", "return x * 3", "return x * 4"),
    Edit("a decorator removed", "@traced\ndef decorated", "def decorated"),
    Edit("a closure's value", "make(2)", "make(3)"),
    Edit("a closure's code", "return x + n", "return x - n"),
    Edit("a dispatched function", 'return "int"', 'return "integer"'),
    Edit("the type that is dispatched on", "def _(x: int)", "def _(x: str)"),
    Edit("one of two that call each other", "n == 0 or", "n == 1 or"),
    Edit("a lambda", "lambda v: v + 1", "lambda v: v + 2"),
    Edit("a comprehension", "range(3)", "range(4)"),
    Edit("two helpers swapped", "+ decorated(x)\n        + add_two(x)", "+ add_two(x)\n        + decorated(x)"),
]

HITS = [
    Edit("a comment", "# the comment", "# another\n    # comment"),
    Edit("the docstring", '"""Clean a number."""', '"""Clean a number,\n\n    thoroughly."""'),
    Edit("no docstring", '    """Clean a number."""\n', ""),
    Edit("blank lines", "    total = 0\n", "\n\n    total = 0\n\n"),
    Edit("a class's docstring", "class Model(Base):\n", 'class Model(Base):\n    """A model."""\n\n'),
    Edit("a method's docstring", "    def predict(self, x):\n", '    def predict(self, x):\n        """Predict."""\n'),
    Edit(
        "brackets and line breaks",
        "for item in [x, x + 1]:",
        "for item in [\n        x,\n        x\n        + 1,\n    ]:",
    ),
    Edit("the lines above", "import math\n", "import math\n\n# a long\n# story\n"),
    Edit("quotes", 'WEIGHTS["a"]', "WEIGHTS['a']"),
    Edit("a set in another order", '{"x", "y", "z"}', '{"z", "x", "y"}'),
    Edit("a function that is not called", "return json.dumps(x)", "return json.loads(x)", True),
    Edit("an import that is not used", "import json\n", "import json\nimport csv\n", True),
    Edit("a function more", "def odd(n)", "def bystander():\n    return 1\n\n\ndef odd(n)"),
    Edit(
        "methods in another order",
        "    def predict(self, x):\n        return self.apply(x) + self.bias\n\n    @property\n    def half(self):\n        return self.bias / 2\n",
        "    @property\n    def half(self):\n        return self.bias / 2\n\n    def predict(self, x):\n        return self.apply(x) + self.bias\n",
    ),
    Edit("a number spelt otherwise", "min(x, 100)", "min(x, 0x64)", True),
    Edit("an argument's annotation", "def clean(x, power=2", "def clean(x: float, power: int = 2"),
    Edit("a pass", "    total = 0\n", "    pass\n    total = 0\n"),
    Edit("a folded constant", "total = -1\n", "total = 0 - 1\n"),
]


def load(source: str, name: str, folder: str | os.PathLike[str] = "/somewhere") -> types.ModuleType:
    """Run a module's source as if it had been imported from a file."""
    module = types.ModuleType(name)
    module.__file__ = os.path.join(folder, f"{name}.py")
    sys.modules[name] = module
    exec(compile(textwrap.dedent(source), module.__file__, "exec"), vars(module))
    return module


def load_both(edit: Edit | None = None) -> types.ModuleType:
    """The function's module, with an edit made to it or to its helpers."""
    base, helpers = BASE, HELPERS
    if edit is not None:
        text = helpers if edit.in_helpers else base
        assert edit.old in text, edit.name
        text = text.replace(edit.old, edit.new)
        base, helpers = (base, text) if edit.in_helpers else (text, helpers)
    load(helpers, "user_helpers")
    return load(base, "user_module")
