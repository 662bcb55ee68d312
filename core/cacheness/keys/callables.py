"""How functions, classes and modules are encoded, and what is made of them.

The user's own are handed to `Encoder.reference`, which reads their code. A library's count by
its name and version, Python's by their names.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
from typing import Any

from cacheness.keys.bytecode import info_of
from cacheness.keys.encode import Encoder, handles, handles_family
from cacheness.keys.files import digest_of_file
from cacheness.keys.owners import Owner, module_of, owner_of, owner_of_class
from cacheness.keys.trace import Unencodable
from cacheness.keys.unordered import unordered


@handles(types.FunctionType)
def _function(encoder: Encoder, value: types.FunctionType) -> None:
    module = value.__globals__.get("__name__")
    owner = owner_of(module)
    if (
        hasattr(value, "registry")
        and hasattr(value, "dispatch")
        and value.__code__.co_qualname.startswith("singledispatch")
    ):
        encoder.tagged("singledispatch", unordered(value.registry))
    elif owner.kind == "user":
        encoder.reference(value)
    elif owner.kind == "ours" and hasattr(value, "__wrapped__"):
        encoder.add(value.__wrapped__)
    else:
        _foreign_function(encoder, value, owner, str(module))


def _foreign_function(encoder: Encoder, value: types.FunctionType, owner: Owner, module: str) -> None:
    name = value.__code__.co_qualname
    if "<" not in name and value.__closure__ is None:
        add_foreign(encoder, owner, module, name)
        return
    # A library made it here, perhaps around a function of the user's.
    if (start := encoder.enter(value)) >= 0:
        encoder.open("made function", 5)
        add_foreign(encoder, owner, module, name)
        encoder.add(info_of(value.__code__).digest)
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        encoder.add({name: contents for name, cell in cells for contents in _contents(cell)})
        encoder.add(value.__defaults__)
        encoder.add(value.__kwdefaults__)
        encoder.leave(value, start)


def _contents(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:
        return []  # not assigned yet


def add_foreign(encoder: Encoder, owner: Owner, module: str, name: str) -> None:
    """Append something of Python's or a library's by its name."""
    if owner.kind == "library":
        encoder.open("of", 2)
        encoder.library(owner.name, owner.version)
        encoder.add(f"{module}:{name}")
    else:
        encoder.tagged("of", owner.kind, f"{module}:{name}")


@handles_family(lambda kind: issubclass(kind, type))
def _class(encoder: Encoder, value: type) -> None:
    owner = owner_of_class(value)
    if owner.kind == "user":
        encoder.reference(value)
    else:
        add_foreign(encoder, owner, module_of(value), value.__qualname__)


@handles(types.ModuleType)
def _module(encoder: Encoder, value: types.ModuleType) -> None:
    owner = owner_of(value.__name__)
    if owner.kind == "user":
        encoder.reference(value)
    else:
        add_foreign(encoder, owner, value.__name__, "")


@handles(types.BuiltinFunctionType)
def _builtin(encoder: Encoder, value: types.BuiltinFunctionType) -> None:
    of = getattr(value, "__self__", None)
    if of is None or isinstance(of, types.ModuleType):
        _compiled(encoder, value.__module__ or "builtins", value.__qualname__)
    elif (start := encoder.enter(value)) >= 0:
        encoder.tagged("method", of, value.__name__)
        encoder.leave(value, start)


@handles(
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
def _descriptor(encoder: Encoder, value: Any) -> None:
    # The name is enough: a descriptor of the user's class is met within that class.
    encoder.tagged("descriptor", value.__objclass__.__qualname__, value.__name__)
    owner = owner_of_class(value.__objclass__)
    if owner.kind == "library":
        encoder.library(owner.name, owner.version)


def _compiled(encoder: Encoder, module: str, name: str) -> None:
    owner = owner_of(module)
    if owner.kind != "user":
        add_foreign(encoder, owner, module, name)
        return
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise Unencodable(f"{module}.{name} is compiled, and its module has no file")
    encoder.tagged("compiled", name, digest_of_file(file))


@handles(types.MethodType)
def _method(encoder: Encoder, value: types.MethodType) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("method", value.__self__, value.__func__)
        encoder.leave(value, start)


@handles(types.MethodWrapperType)
def _method_wrapper(encoder: Encoder, value: types.MethodWrapperType) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("method", value.__self__, value.__name__)
        encoder.leave(value, start)


@handles(functools.partial)
def _partial(encoder: Encoder, value: functools.partial[Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("partial", value.func, value.args, value.keywords)
        encoder.leave(value, start)


@handles(functools.partialmethod)
def _partialmethod(encoder: Encoder, value: functools.partialmethod[Any]) -> None:
    encoder.tagged("partialmethod", value.func, value.args, value.keywords)


@handles(functools.singledispatchmethod)
def _singledispatchmethod(encoder: Encoder, value: functools.singledispatchmethod[Any]) -> None:
    encoder.tagged("singledispatchmethod", value.dispatcher, value.func)


@handles(type(functools.lru_cache(len)))
def _lru_cache(encoder: Encoder, value: Any) -> None:
    encoder.tagged("lru_cache", value.__wrapped__)


@handles(functools.cached_property)
def _cached_property(encoder: Encoder, value: functools.cached_property[Any]) -> None:
    encoder.tagged("cached_property", value.func)


@handles(property)
def _property(encoder: Encoder, value: property) -> None:
    encoder.tagged("property", value.fget, value.fset, value.fdel)


@handles(staticmethod)
def _staticmethod(encoder: Encoder, value: staticmethod[Any, Any]) -> None:
    encoder.tagged("staticmethod", value.__func__)


@handles(classmethod)
def _classmethod(encoder: Encoder, value: classmethod[Any, Any, Any]) -> None:
    encoder.tagged("classmethod", value.__func__)


@handles(types.CodeType)
def _code(encoder: Encoder, value: types.CodeType) -> None:
    encoder.tagged("code object", info_of(value).digest)


@handles(dataclasses.Field)
def _field(encoder: Encoder, value: dataclasses.Field[Any]) -> None:
    names = ("name", "type", "default", "default_factory", "init", "repr", "hash", "compare", "kw_only", "metadata")
    encoder.tagged("field", *(getattr(value, name) for name in names))
