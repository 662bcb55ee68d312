"""A `dataclass` like the standard library's, whose methods are created on first use.

Generating and compiling them takes a third of the time in which a new process imports this package,
and it uses a fifth of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

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
        # The methods that are generated together; that attributes are in slots decides none but the last.
        making = ["__init__", *["__setattr__", "__delattr__"] * frozen]
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

            light = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, **options)(cls)
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


class _Later:
    """Replaces a method until it is looked up, by a call or by inspection; then creates all generated methods."""

    def __init__(self, cls: type, name: str, names: list[str], make: Callable[[], type]) -> None:
        self._cls, self._name, self._names, self._make = cls, name, names, make

    def __get__(self, instance: object, owner: type) -> Any:
        made = vars(self._make())
        # No lock, which a forked child could inherit locked: two threads create the same.
        for name in self._names:
            setattr(self._cls, name, made[name])
        return made[self._name].__get__(instance, owner)  # also correct for super()
