"""Find users' code inside libraries: functions in modules, methods in classes, entries in registries."""

from __future__ import annotations

import abc
import copyreg
import encodings
import functools
import gc
import sys
import types
import weakref
from _abc import _get_dump  # type: ignore[import-not-found] # the only list of what was registered
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import field
from itertools import islice
from typing import Any, Final

from cacheness.keys.error_paths import FAILURES
from cacheness.keys.owners import is_users_module, module_of, owner_of, owner_of_class
from cacheness.lazy_dataclass import dataclass

#: Entries of a library's registry that are checked.
_MOST: Final = 1000
#: Depth to which a library's object is searched: a descriptor, what it wraps, what that closes over.
_DEEPEST: Final = 4
_HOLDERS: Final = (functools.partial, property, staticmethod, classmethod, types.MethodType, type(functools.cache(len)))
_PARTS: Final = ("__wrapped__", "func", "__func__", "fget")


def has_users(value: Any, depth: int = _DEEPEST) -> bool:
    """Return True when an object found in a library is the user's, or refers to something of the user's."""
    if isinstance(value, types.FunctionType):
        if owner_of(value.__globals__.get("__name__")).kind == "user":
            return True
        return depth > 0 and any(has_users(inner, depth - 1) for inner in _within_function(value))
    if isinstance(value, type):
        return owner_of_class(value).kind == "user"
    if isinstance(value, types.ModuleType) or type(value) in _PLAIN:
        return False
    if owner_of_class(type(value)).kind == "user":
        return True
    return depth > 0 and any(has_users(inner, depth - 1) for inner in _within(value))


_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, types.BuiltinFunctionType})


def _within_function(fn: types.FunctionType) -> Iterable[Any]:
    for cell in fn.__closure__ or ():
        with suppress(ValueError):  # not assigned yet
            yield cell.cell_contents


def _within(value: Any) -> Iterable[Any]:
    """Return the contents of a library's object, as far as they are visible without running code."""
    if isinstance(value, Mapping):
        return islice(dict.values(value), _MOST) if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple, set, frozenset)):
        return islice(value, _MOST)
    if isinstance(value, _HOLDERS):
        return [getattr(value, name, None) for name in _PARTS]
    try:
        return list(object.__getattribute__(value, "__dict__").values())
    except FAILURES:
        return ()


# contents of classes and registries of libraries or Python, found by a name in the code

#: By called function, the registries of Python that it reads.
_COPIES: Final = frozenset(
    {"copy", "deepcopy", "dump", "dumps", "Pickler", "__reduce__", "__reduce_ex__", "replace", "submit", "map"}
)
_STATEMENTS: Final = frozenset(
    {"execute", "executemany", "executescript", "adapt", "fetchone", "fetchall", "fetchmany", "to_sql"}
    | {"read_sql", "read_sql_query", "read_sql_table", "connect"}
)
_ENCODES: Final = frozenset({"encode", "decode", "open", "lookup", "getreader", "getwriter"})
_ASKS_CLASSES: Final = frozenset({"isinstance", "issubclass"})
_MEMBERS: Final = (types.FunctionType, property, staticmethod, classmethod, functools.cached_property)
#: Attributes of these types are not code, or are C code.
_SKIPPED: Final = frozenset(
    {
        *(type(None), bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, types.ModuleType),
        *(types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType),
        *(types.ClassMethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType),
        *(types.MappingProxyType, type(abc.ABC.__dict__["_abc_impl"]), types.GenericAlias, types.CodeType),
    }
)


@dataclass(slots=True)
class _Classes:
    """Classes of others to which the user's modules may have added something, as of the last scan."""

    sizes: tuple[int, int] = (0, 0)
    users: tuple[int, int, int] = (0, 0, 0)
    version: int = 0
    all: list[weakref.ref[type]] = field(default_factory=list)
    having: dict[str, list[type]] = field(default_factory=dict)  #: by the name of the addition
    registered: dict[str, list[type]] = field(default_factory=dict)  #: abstract classes by their names
    bases: dict[str, list[type]] = field(default_factory=dict)  #: classes with subclasses of the user's


_classes: Final = _Classes()
_SUBCLASSES: Final[Callable[[type], list[type]]] = type.__subclasses__
_BASES: Final = type.__dict__["__bases__"].__get__


def version_of_additions() -> int:
    """Return a number that grows when the user's modules may have added something to classes of others."""
    # Only the user's code adds anything, and that code arrives with a module, a definition or a notebook's cell.
    names = vars(sys.modules["__main__"])
    sizes = len(sys.modules), len(names)
    if _classes.sizes != sizes:
        modules = sum(map(is_users_module, list(sys.modules)))
        # `isinstance` would load a lazily imported module.
        defined = sum(issubclass(type(value), (types.FunctionType, type)) for value in list(names.values()))
        users = modules, defined, len(names.get("In", ()))
        if _classes.users != users:
            _walk()
        _classes.sizes, _classes.users = sizes, users
    return _classes.version


def _walk() -> None:
    found: list[weakref.ref[type]] = []
    registered: dict[str, list[type]] = {}
    bases: dict[str, list[type]] = {}
    waiting: list[type] = [object]
    seen: dict[int, Any] = {id(object): object}  # a metaclass may define equality and hash
    while waiting:
        cls = waiting.pop()
        module = module_of(cls)
        if is_users_module(module):
            if module in sys.modules:
                for base in _BASES(cls):
                    _list_once(bases, base)
        else:
            found.append(weakref.ref(cls))
            if isinstance(cls, abc.ABCMeta) and _users_registered(cls):
                registered.setdefault(cls.__name__, []).append(cls)
        for below in _SUBCLASSES(cls):
            if id(below) not in seen:
                seen[id(below)] = below
                waiting.append(below)
    _classes.all, _classes.having = found, {}
    _classes.registered, _classes.bases = registered, bases
    _classes.version += 1


def _list_once(bases: dict[str, list[type]], base: type) -> None:
    if base is object or is_users_module(module_of(base)):
        return
    listed = bases.setdefault(base.__name__, [])
    if not any(base is other for other in listed):
        listed.append(base)


def _having(words: Collection[str]) -> dict[str, list[type]]:
    """Return the classes of others to which the user added something, by the addition's name."""
    having = _classes.having
    new = frozenset(words).difference(having)
    if new:
        found: dict[str, list[type]] = {word: [] for word in new}
        for cls in (cls for ref in _classes.all if (cls := ref()) is not None):  # its metaclass may define truth
            namespace: Any = type.__getattribute__(cls, "__dict__")
            if new.isdisjoint(namespace):
                continue
            for word in namespace.keys() & new:
                if type(namespace[word]) not in _SKIPPED and _is_addition(namespace[word]):
                    found[word].append(cls)
        having.update(found)  # in one step, because another thread may read it
    return {word: having[word] for word in words if having[word]}


def _is_addition(value: Any) -> bool:
    """Return True when a class's attribute is, or wraps, a function or class of the user's modules."""
    if isinstance(value, (types.FunctionType, type)):
        return _is_users(value)
    if isinstance(value, _MEMBERS):
        return any(_is_users(getattr(value, name, None)) for name in _PARTS)
    try:
        return any(map(_is_users, object.__getattribute__(value, "__dict__").values()))
    except FAILURES:
        return False


def _is_users(value: Any) -> bool:
    if isinstance(value, types.FunctionType):
        module = value.__globals__.get("__name__")
    else:
        module = module_of(value) if isinstance(value, type) else None
    return module in sys.modules and is_users_module(module)


def users_subclasses(cls: type) -> list[type]:
    """Return the direct subclasses that are the user's, in their order of creation."""
    below: list[type] = type.__subclasses__(cls)
    return [found for found in below if _is_users(found)]


def _users_registered(cls: type) -> set[type]:
    registered: Iterable[Any] = _get_dump(cls)[0]
    return {found for ref in registered if (found := ref()) is not None and _is_users(found)}


def look_for(words: Collection[str]) -> None:
    """Look for additions with these names at once: each pass over the classes of a process takes milliseconds."""
    version_of_additions()
    _having(words)


def additions_to(words: Collection[str]) -> dict[str, Any]:
    """Return what the user added where code that reads these names may reach it, by a readable name."""
    version_of_additions()
    found: dict[str, Any] = {}
    for word, classes in _having(words).items():
        for cls in classes:
            value = vars(cls).get(word)
            if _is_addition(value):
                found[f"{_name_of(cls)}.{word}"] = value
    if not _ASKS_CLASSES.isdisjoint(words):
        for name in _classes.registered.keys() & words:
            found |= {f"{_name_of(cls)}.register": _users_registered(cls) for cls in _classes.registered[name]}
    if "__subclasses__" in words:
        for name in _classes.bases.keys() & words:
            found |= {f"{_name_of(cls)}.__subclasses__": users_subclasses(cls) for cls in _classes.bases[name]}
    for name, registry in _registries_for(words):
        found |= {name: registry} if registry else {}
    return dict(sorted(found.items()))


def _name_of(cls: type) -> str:
    return f"{module_of(cls)}.{cls.__qualname__}"


def _registries_for(words: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Registries of Python that the user extended: the class or name gives their entries."""
    if not _COPIES.isdisjoint(words):
        yield "copyreg.dispatch_table", _users_in(copyreg.dispatch_table)
    database = sys.modules.get("sqlite3")
    if database is not None and not _STATEMENTS.isdisjoint(words):
        yield "sqlite3.adapters", _users_in(vars(database).get("adapters", {}))
        yield "sqlite3.converters", _users_in(vars(database).get("converters", {}))
    if not _ENCODES.isdisjoint(words):
        yield "codecs.register", [search for search in _codec_searches()[1:] if has_users(search)]


def _users_in(registry: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return [item for item in list(registry.items()) if has_users(item[1])]


@functools.cache
def _codec_searches() -> list[Any]:
    """The interpreter's list of functions that find codecs, which no name refers to."""
    is_frozen = gc.get_freeze_count() > 0
    if is_frozen:
        gc.unfreeze()  # objects that a server froze before its fork are skipped
    try:
        lists = [held for held in gc.get_referrers(encodings.search_function) if type(held) is list]
    finally:
        if is_frozen:
            gc.freeze()
    return next((held for held in lists if held[:1] == [encodings.search_function]), [])
