"""Our dataclasses are those of the standard library, whichever method is used first."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
import textwrap
from typing import ClassVar

import pytest

import cacheness
from cacheness import lazy_dataclass
from cacheness.lazy_dataclass import _Later

OPTIONS = (
    {},
    {"frozen": True},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True, "slots": True, "kw_only": True},
    {"frozen": True, "slots": True, "eq": False},
    {"frozen": True, "slots": True, "order": True},
)


class Plain:
    """A class as both decorators get it."""

    a: int
    b: str = "b"
    c: list[int] = dataclasses.field(default_factory=list, compare=False)
    d: int = dataclasses.field(default=3, repr=False)
    unit: ClassVar[str] = "s"

    def shown(self) -> str:
        return f"{self.a} {self.b}"


class WithItsOwn:  # noqa: PLW1641
    """A class that says some methods itself."""

    a: int
    b: int = 2

    def __repr__(self) -> str:
        return "mine"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.a == other.a


def made(decorator, template, **options):
    body = {name: value for name, value in vars(template).items() if name not in ("__dict__", "__weakref__")}
    cls = type(template.__name__, (), dict(body))
    cls = decorator(**options)(cls) if options else decorator(cls)
    globals()[cls.__name__] = cls  # where pickle looks for it
    return cls


def outcome(work, *args):
    try:
        return work(*args)
    except Exception as error:  # noqa: BLE001
        return type(error)


USES = {
    "makes": lambda c: [c(a=1).shown() if hasattr(c, "shown") else c(a=1).b, c(a=1, b="x").b],
    "makes by place": lambda c: outcome(lambda: c(1, "x").b),
    "refuses": lambda c: [outcome(c), outcome(lambda: c(a=1, e=2))],
    "equals": lambda c: [c(a=1) == c(a=1), c(a=1) == c(a=2), c(a=1) != c(a=1), c(a=1) == 1],
    "hashes": lambda c: [outcome(lambda a, b: hash(a) == hash(b), c(a=1), c(a=1)), c.__hash__ is None],
    "orders": lambda c: [outcome(lambda: c(a=1) < c(a=2)), outcome(lambda: max([c(a=2), c(a=1)]).a)],
    "shows": lambda c: repr(c(a=1)).rpartition(".")[2],
    "sets": lambda c: outcome(setattr, c(a=1), "a", 2),
    "deletes": lambda c: outcome(delattr, c(a=1), "a"),
    "pickles": lambda c: outcome(lambda: pickle.loads(pickle.dumps(c(a=5))).a),
    "copies": lambda c: [copy.copy(c(a=5)).a, copy.deepcopy(c(a=5)).a],
    "replaces": lambda c: [dataclasses.replace(c(a=5), b="y").b, dataclasses.asdict(c(a=5))],
    "is inspected": lambda c: [str(inspect.signature(c)), [f.name for f in dataclasses.fields(c)], c.__match_args__],
    "has defaults": lambda c: [isinstance(getattr(c, n, None), str | int) for n in ("a", "b", "c", "d", "unit")],
    "has slots": lambda c: [getattr(c, "__slots__", None), c.__doc__, hasattr(c(a=1), "__dict__")],
}


@pytest.mark.parametrize("template", [Plain, WithItsOwn])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_class_is_the_same_whichever_way_it_is_used_first(options, template) -> None:
    for first in USES:
        found = []
        for decorator in (lazy_dataclass.dataclass, dataclasses.dataclass):
            cls = made(decorator, template, **options)
            found.append([USES[use](cls) for use in (first, *USES)])
        assert found[0] == found[1], first
    globals()[template.__name__] = template


def test_every_class_of_the_package_can_be_used() -> None:
    names = (m.name for m in pkgutil.walk_packages(cacheness.__path__, "cacheness."))
    left = ("cacheness.__main__", "cacheness.metadata.migrations.", "cacheness.keys.values.", "cacheness.testing.")
    for module in [importlib.import_module(name) for name in names if not name.startswith(left)]:
        for cls in [value for value in vars(module).values() if isinstance(value, type)]:
            if dataclasses.is_dataclass(cls):
                assert len(inspect.signature(cls).parameters) >= len([f for f in dataclasses.fields(cls) if f.init])
                later = [name for name, value in vars(cls).items() if isinstance(value, _Later)]
                assert all(callable(getattr(cls, name)) for name in ("__repr__", "__eq__", *later))
            assert not any(isinstance(value, _Later) for value in vars(cls).values())


def test_a_class_that_inherits_is_refused() -> None:
    base = made(lazy_dataclass.dataclass, Plain)
    with pytest.raises(TypeError, match="inherits"):
        lazy_dataclass.dataclass()(type("Child", (base,), {}))
    globals()["Plain"] = Plain


def test_methods_are_not_made_before_they_are_used() -> None:
    program = """
        from cacheness.lazy_dataclass import _Later
        from cacheness.records import Activity, Where
        Where("namespace")
        names = ("__init__", "__dataclass_fields__")
        print(*(isinstance(vars(cls)[name], _Later) for cls in (Activity, Where) for name in names))
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["True", "True", "False", "False"]
