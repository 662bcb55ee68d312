"""A `dataclass` like the standard library's, whose fields and methods are created on first use.

Generating and compiling them takes two fifths of the time in which a new process imports this
package, and it uses a third of the classes.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414
else:

    def dataclass(
        wanted: type | None = None,
        /,
        *,
        eq: bool = True,
        order: bool = False,
        frozen: bool = False,
        slots: bool = False,
        **options: Any,
    ) -> Any:
        """As in the standard library."""
        # What is generated together; that attributes are in slots decides none but the second.
        making = ["__init__", *["__setattr__", "__delattr__"] * frozen, *_DESCRIBING]
        # How an object is pickled whose attributes cannot be set.
        pickling = ["__getstate__", "__setstate__"] * (frozen and slots)
        comparing = ["__repr__", *["__eq__"] * eq, *["__hash__"] * (eq and frozen)]
        comparing += ["__lt__", "__le__", "__gt__", "__ge__"] * order

        def decorated(cls: type) -> type:
            if any("__dataclass_fields__" in vars(base) for base in cls.__mro__):
                raise TypeError(f"{cls.__name__} inherits from a dataclass, whose methods may not be made yet")
            body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}

            def with_methods(**those: bool) -> type:
                make = dataclasses.dataclass(frozen=frozen, **those, **options)
                return make(type(cls)(cls.__name__, cls.__bases__, dict(body)))

            light = _with_slots(cls, body) if slots else _without_declarations(cls)
            for group, make in (
                (making, partial(with_methods, repr=False, eq=False)),
                (pickling, partial(with_methods, init=False, repr=False, eq=False, slots=True)),
                (comparing, partial(with_methods, init=False, eq=eq, order=order)),
            ):
                names = [name for name in group if body.get(name) is None]
                for name in names:
                    setattr(light, name, _Later(light, name, names, make))
            if eq and not frozen and "__hash__" not in body:
                light.__hash__ = None
            return light

        return decorated if wanted is None else decorated(wanted)


#: What `dataclasses` sets in each class.
_DESCRIBING: Final = (
    "__dataclass_fields__",
    "__dataclass_params__",
    "__match_args__",
    *["__replace__"] * (sys.version_info >= (3, 13)),
)


def _fields(cls: type) -> list[str]:
    described = {name: str(kind).removeprefix("typing.") for name, kind in cls.__annotations__.items()}
    return [name for name, kind in described.items() if not kind.startswith("ClassVar")]


def _with_slots(cls: type, body: dict[str, Any]) -> type:
    """Return the class with a slot for each field, which cannot have a default in the class too."""
    fields = _fields(cls)
    body = {name: value for name, value in body.items() if name not in fields}
    slotted = type(cls)(cls.__name__, cls.__bases__, body | {"__slots__": tuple(fields)})
    slotted.__qualname__ = cls.__qualname__
    return slotted


def _without_declarations(cls: type) -> type:
    """Return the class with the default of each `field(…)` in its place."""
    for name in _fields(cls):
        declared = vars(cls).get(name)
        if isinstance(declared, dataclasses.Field):
            if declared.default is dataclasses.MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, declared.default)
    return cls


class _Later:
    """Replaces an attribute until it is looked up, by a call or by inspection; then creates those of its group."""

    def __init__(self, cls: type, name: str, names: list[str], make: Callable[[], type]) -> None:
        self._cls, self._name, self._names, self._make = cls, name, names, make

    def __get__(self, instance: object, owner: type) -> Any:
        made = vars(self._make())
        # No lock, which a forked child could inherit locked: two threads create the same.
        for name in self._names:
            setattr(self._cls, name, made[name])
        found = made[self._name]
        return found.__get__(instance, owner) if hasattr(found, "__get__") else found  # also correct for super()
