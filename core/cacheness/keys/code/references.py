"""List the values that a function, class or module of the user's refers to, in a fixed order."""

from __future__ import annotations

import abc
import builtins
import enum
import importlib
import importlib.util
import inspect
import os
import sys
import types
import typing
from _abc import _get_dump  # type: ignore[import-not-found] # the only list of what was registered
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from cacheness.keys.code.additions import has_users
from cacheness.keys.code.bytecode import CodeInfo, Import, Name, info_of
from cacheness.keys.code.callables import add_foreign
from cacheness.keys.code.counters import Counting, counting
from cacheness.keys.code.environment import (
    AllVariables,
    FilesBeside,
    FolderByName,
    NotLookedAt,
    environment_read_by,
    files_in,
    is_among,
    is_environment,
    names_files,
    opens,
    places_of,
    settings_of,
    variables_of,
    writes,
)
from cacheness.keys.code.introspection import parts_asked_of
from cacheness.keys.code.settings_classes import sources_of_settings
from cacheness.keys.code.sources import is_module
from cacheness.keys.code.texts import texts_of
from cacheness.keys.code.write_only import only_written, places_in
from cacheness.keys.encode import Encoder, handles
from cacheness.keys.error_paths import FAILURES, Harmless, brief_of
from cacheness.keys.owners import is_imported_lazily, is_not_loaded, name_of_module, names_of_module, owner_of
from cacheness.keys.values.clients import is_of_sqlalchemy

#: Attributes that give a class's place, repeat other attributes, or differ between processes.
_GENERATED: Final = frozenset(
    {
        "__module__",
        "__qualname__",
        "__doc__",
        "__dict__",
        "__weakref__",
        "__firstlineno__",
        "__static_attributes__",
        "__abstractmethods__",
        "__annotations_cache__",
        "_abc_impl",
        "__slotnames__",
    }
)
_OF_ANNOTATIONS: Final = frozenset({"__annotations__", "__annotate_func__", "__annotate__"})
#: Tables that an enum keeps of its members, which are encoded themselves. Hooks and boundaries are not among them.
_OF_ENUM: Final = frozenset(
    {
        "_member_names_",
        "_member_map_",
        "_value2member_map_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_hashable_values_",
    }
)
_OF_CLASS: Final = ("name", "metaclass", "bases", "members", "model", "registered", "kept by the metaclass")
_DESCRIPTORS: Final = (types.GetSetDescriptorType, types.MemberDescriptorType)
#: What pydantic stores about a model's decorated methods besides their code.
_DECORATORS: Final = (
    "validators",
    "field_validators",
    "root_validators",
    "field_serializers",
    "model_serializers",
    "model_validators",
    "computed_fields",
)
#: Functions that run code that is not visible, by module and name.
_UNSEEN: Final = frozenset(
    {
        *(("builtins", name) for name in ("eval", "exec", "__import__", "globals", "compile")),
        *(("importlib", "import_module"), ("pkgutil", "resolve_name"), ("sys", "modules")),
        *(("runpy", "run_path"), ("runpy", "run_module"), ("importlib.util", "module_from_spec")),
        *((module, name) for module in ("pickle", "_pickle", "cloudpickle", "dill") for name in ("load", "loads")),
        *(("marshal", "loads"), ("joblib", "load"), ("ctypes", "CDLL"), ("importlib.metadata", "entry_points")),
    }
)
_OTHER_GLOBALS: Final = frozenset({"f_globals", "f_locals", "f_builtins", "__globals__"})
#: Those of them that read a file: it counts if it is an argument.
_READING: Final = frozenset({"load", "loads"})


class _UnboundName:
    """Replaces a name without a value, so far."""


@handles(_UnboundName)
def _missing(encoder: Encoder, _: _UnboundName) -> None:
    encoder.tagged("missing")


class _Broken:
    """Replaces a module of the user's whose import failed; the function may never reach it."""

    def __init__(self, name: str, error: BaseException) -> None:
        self.name, self.reason = name, brief_of(error)


@handles(_Broken)
def _broken(encoder: Encoder, value: _Broken) -> None:
    encoder.tagged("missing")
    encoder.note(f"import of {value.name} failed ({value.reason})")


class _Folder:
    """Replaces a folder of which only the files named in the code count."""

    def __init__(self, path: os.PathLike[str]) -> None:
        self.path = path


@handles(_Folder)
def _folder(encoder: Encoder, value: _Folder) -> None:
    encoder.tagged("folder")
    encoder.note(f"other files in {os.fspath(value.path)}")


class _Written:
    """Replaces a value that is only written to."""


@handles(_Written)
def _written(encoder: Encoder, _: _Written) -> None:
    encoder.tagged("written")


class _Tally:
    """Replaces a table of numbers that are only incremented, if that needs an existing number."""

    def __init__(self, places: Any) -> None:
        self.places = places


@handles(_Tally)
def _tally(encoder: Encoder, value: _Tally) -> None:
    encoder.tagged("tally", value.places)


class _NotLoaded:
    """Replaces a library's module that is loaded on first use: it counts as it will after loading."""

    def __init__(self, name: str) -> None:
        self.name = name


@handles(_NotLoaded)
def _not_loaded(encoder: Encoder, value: _NotLoaded) -> None:
    add_foreign(encoder, owner_of(value.name), value.name, "")


class _Elsewhere:
    """Replaces a module of Python or a library, which need not be imported for this."""

    def __init__(self, name: str) -> None:
        self.name = name


@handles(_Elsewhere)
def _elsewhere(encoder: Encoder, value: _Elsewhere) -> None:
    owner = owner_of(value.name)
    encoder.tagged("import", owner.kind, value.name)
    if owner.kind == "library":
        encoder.library(owner.name, owner.version)


MISSING: Final = _UnboundName()
WRITTEN: Final = _Written()
_modules_elsewhere: dict[str, _Elsewhere] = {}


def name_of(thing: Any) -> str:
    """Return a readable name: module and qualified name."""
    if isinstance(thing, types.ModuleType):
        return module_name(thing.__name__, getattr(thing, "__file__", None))
    if isinstance(thing, types.FunctionType):
        module = module_name(thing.__globals__.get("__name__"), thing.__globals__.get("__file__"))
        name = thing.__code__.co_qualname
    else:
        loaded = sys.modules.get(thing.__module__)
        module = module_name(thing.__module__, getattr(loaded, "__file__", None))
        name = thing.__qualname__
    return f"{module}.{name}" if module else name


def module_name(name: str | None, file: str | None) -> str:
    """Return the name of a module, or of its file if the module's name only shows how it was started."""
    if name and not name.startswith("__"):
        return name
    if file:
        return os.path.splitext(os.path.basename(file))[0]
    return "__main__" if name else ""  # a notebook, a prompt, `python -c`


def full_name(thing: Any) -> str:
    """Return the module and the qualified name of a callable, joined by a colon."""
    if not hasattr(thing, "__qualname__"):
        thing = type(thing)
    module = getattr(thing, "__module__", None)
    known = getattr(thing, "__globals__", None) or getattr(sys.modules.get(module or ""), "__dict__", {})
    place = module_name(module, known.get("__file__"))
    return f"{place}:{thing.__qualname__}" if place else str(thing.__qualname__)


class Parts(NamedTuple):
    """The parts of a function, class or module: its own, what it refers to, and what code reads of it."""

    labels: list[str]  #: of the values, one by one
    values: list[Any]
    depending: list[str] | None  #: labels of a function that depend on the names that reachable code reads; else None
    has_files: bool  #: files of a function's module may count


def parts_of(thing: Any, asked: Collection[str] = ()) -> Parts:
    """Return the parts of a function, class or module.

    Some parts count only if reachable code reads them: `asked` holds the names that it reads.
    """
    if not isinstance(thing, types.FunctionType):
        return Parts(labels_of(thing, asked), values_of(thing, asked), None, False)
    named = _named_by(thing)
    places, variables, settings = places_of(thing, named), variables_of(thing, asked), settings_of(thing) or ()
    values = _values_of_function(thing, asked, named, places, [*variables, *settings])
    more, counters = parts_asked_of(thing, asked), _counters_in(thing, asked)
    info, texts, has_files = info_of(thing.__code__), texts_of(thing.__code__), any(places)
    files, environment = _label_of_files(asked, has_files), [f"environment {variable.name}" for variable in variables]
    labels = [
        *("code", "defaults", "keyword defaults", *(f"closure {name}" for name in thing.__code__.co_freevars)),
        *(f"global {'.'.join((name.name, *name.attributes))}" for name in info.names),
        *files,
        *environment,
        *(f"option {setting.name}" for setting in settings),
        *(f"import {'.'.join((i.module, *i.attributes))}" for i in info.imports),
        *(f"global {name.name}" for name in texts.names),
        *(f"import {module}" for module in texts.modules),
        *more,
    ]
    depending = [*files, *environment, *more]
    values += more.values()
    if counters:
        labels.append("counters")
        depending.append("counters")
        values = _with_counters(thing, values, counters)
    return Parts(labels, values, depending, has_files)


def is_labelled_so(thing: Any, parts: Parts, asked: Collection[str]) -> bool:
    """Return True when these labels of an object are right also if reachable code reads these names."""
    if parts.depending is None:
        return labels_of(thing, asked) == parts.labels
    return parts.depending == [
        *_label_of_files(asked, parts.has_files),
        *(f"environment {variable.name}" for variable in variables_of(thing, asked)),
        *parts_asked_of(thing, asked),
        *(["counters"] if _counters_in(thing, asked) else []),
    ]


def _label_of_files(asked: Collection[str], has_files: bool) -> list[str]:
    # The label differs if other code names files, and changed labels cause the values to be read again.
    return ["files named here or elsewhere" if names_files(asked) else "files beside"] if has_files else []


def labels_of(thing: Any, asked: Collection[str] = ()) -> list[str]:
    """Return the labels for `values_of` a class or module."""
    more = parts_asked_of(thing, asked)
    if isinstance(thing, types.ModuleType):
        return [*_names_in_module(thing), "name", "type", *more]
    settings = ["environment of settings"] if sources_of_settings(thing) else []
    return [*_OF_CLASS, *_names_in_class(thing), *settings, *more]


def first_name_in(fn: types.FunctionType) -> int:
    """Return the index of the first global name among a function's values."""
    return 3 + len(fn.__code__.co_freevars)


def is_reached(label: str) -> bool:
    """Return True when a label names something that a function refers to, and not a part of it."""
    return label.startswith(
        ("closure ", "global ", "import ", "environment ", "option ", "files ", "attribute ", "addition ")
    )


def place_of_value(owner: str, label: str) -> str:
    """Return a readable name for what a function refers to: `module.NAME`, or which closure."""
    kind, _, name = label.partition(" ")
    if kind == "closure":
        return f"{owner}: {name}"
    if kind == "attribute":
        return f"{owner}.{name}"
    if kind in ("environment", "option", "files"):
        return f"{owner}: {label}"
    module = owner.rpartition(".<locals>")[0] or owner
    return f"{module.rpartition('.')[0]}.{name}" if kind == "global" else name


def values_of(thing: Any, asked: Collection[str] = ()) -> list[Any]:
    """Return the values of the parts of a function, class or module."""
    values = [*_values_of(thing, asked), *parts_asked_of(thing, asked).values()]
    counters = _counters_in(thing, asked)
    return _with_counters(thing, values, counters) if counters else values


def _with_counters(fn: types.FunctionType, values: list[Any], counters: Mapping[str, Counting]) -> list[Any]:
    """Return a function's values without the counters in them, and which these are."""
    names = (*fn.__code__.co_freevars, *(name.name for name in info_of(fn.__code__).names))
    values[3 : 3 + len(names)] = [counters.get(name, value) for name, value in zip(names, values[3:], strict=False)]
    return [*values, {name: found.names for name, found in counters.items()}]


def _counters_in(thing: Any, asked: Collection[str]) -> dict[str, Counting]:
    """Return the objects, by name, that a function refers to and whose counters do not count."""
    if not isinstance(thing, types.FunctionType):
        return {}
    return counting(thing, dict(zip(thing.__code__.co_freevars, closure_of(thing), strict=True)), asked)


def _values_of(thing: Any, asked: Collection[str]) -> list[Any]:
    if isinstance(thing, types.FunctionType):
        named = _named_by(thing)
        outside = [*variables_of(thing, asked), *(settings_of(thing) or ())]
        return _values_of_function(thing, asked, named, places_of(thing, named), outside)
    if isinstance(thing, types.ModuleType):
        held = vars(thing)
        values = [_global(held, name) if name in held else _attribute(thing, name) for name in _names_in_module(thing)]
        return [*values, thing.__name__, type(thing)]
    return _values_of_class(thing)


def unseen_in(thing: Any) -> list[str]:
    """Return calls through which a function may run code that is not visible."""
    if not isinstance(thing, types.FunctionType):
        return []
    info = info_of(thing.__code__)
    found = {".".join((n.name, *n.attributes)): n for n in info.names if _is_unseen(n, thing.__globals__)}
    lines = [f"calls {name}" if _decides(name, info) else Harmless(f"calls {name}") for name in found]
    for wanted in info.imports:
        if (wanted.module, *wanted.attributes[:1]) in _UNSEEN:
            line = "calls " + ".".join((wanted.module, *wanted.attributes))
            lines.append(line if _decides(wanted.attributes[0], info) else Harmless(line))
    uses = info.uses.get("getattr", frozenset())
    if "hidden" in uses:
        lines.append("calls getattr with a computed name")
    elif "computed" in uses:
        lines.append(Harmless("calls getattr with a computed name"))
    texts = texts_of(thing.__code__)
    if names := sorted(texts.words & _OTHER_GLOBALS):
        lines.append(f"takes globals by {names[0]}")
    environment = environment_read_by(thing)
    if "computed" in environment:
        lines.append("reads environment variables by a computed name")
    elif "all" in environment:
        lines.append(Harmless("passes all environment variables on"))
    if settings_of(thing) == []:
        lines.append("reads options of Dask by a computed name")
    place = name_of(thing)
    return [type(line)(f"{place}: {line}") for line in dict.fromkeys(lines)]


def _decides(name: str, info: CodeInfo) -> bool:
    """Return True when a call that cannot be followed can decide a result: targets in literal texts are followed."""
    return name.rpartition(".")[2] not in _READING and not info.called.get(name, False)


def _is_unseen(name: Name, names: dict[str, Any]) -> bool:
    value = _global(names, name.name)
    if value is MISSING:
        return ("builtins", name.name) in _UNSEEN
    for attribute in name.attributes:
        if not isinstance(value, types.ModuleType):
            break
        if (name_of_module(value), attribute) in _UNSEEN:
            return True
        value = names_of_module(value).get(attribute)
    if not isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return False
    return (value.__module__, value.__name__) in _UNSEEN


def closure_of(fn: types.FunctionType) -> list[Any]:
    """Return the values of the variables that a function closes over, except those it only writes to."""
    uses = info_of(fn.__code__).uses
    values = []
    for variable, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            value = MISSING  # not assigned yet
        values.append(_as_used(value, uses.get(variable)))
    return values


def _as_used(value: Any, kinds: frozenset[str] | None) -> Any:
    """Return what counts of a value that is used in these ways."""
    if not only_written(value, kinds):
        return value
    places = places_in(value, kinds)
    return WRITTEN if places is None else _Tally(places)


def _named_by(fn: types.FunctionType) -> list[Any]:
    """Return the parts of a function, its closure, and the values of its global names."""
    info = info_of(fn.__code__)
    values: list[Any] = [fn.__code__, fn.__defaults__, fn.__kwdefaults__, *closure_of(fn)]
    names = fn.__globals__
    for name in info.names:
        value = _global(names, name.name)
        if value is MISSING:
            value = getattr(builtins, name.name, MISSING)
        elif name.attributes and isinstance(value, types.ModuleType):
            value = _through_modules(value, name.attributes)
        if is_environment(value):
            value = AllVariables()
        if is_not_loaded(value) and owner_of(name_of_module(value)).kind != "user":
            value = _NotLoaded(name_of_module(value))
        values.append(_as_used(value, info.uses.get(name.name)))
    return values


def _values_of_function(
    fn: types.FunctionType,
    asked: Collection[str],
    values: list[Any],
    places: tuple[list[str], list[str]],
    outside: Sequence[Any],
) -> list[Any]:
    """Return the values of a function: those that it names, files at these places, what is outside, what it imports."""
    info, names = info_of(fn.__code__), fn.__globals__
    folders, files = places
    if folders or files:
        beside = files_in(folders, files, fn, asked)
        reads = bool(beside.files) and not writes(fn.__code__)
        # A folder whose files count by the names in the code is fully visible.
        values = [_folder_as_used(v, fn, beside, reads=reads) if is_among(folders, v) else v for v in values]
        values.append(beside if reads else NotLookedAt(beside.files) if beside.files else None)
    values = [*values, *outside, *(_imported(wanted, names) for wanted in info.imports)]
    texts = texts_of(fn.__code__)
    values += [_global(names, name.name) for name in texts.names]
    return values + [_named_in_text(module) for module in texts.modules]


def _folder_as_used(value: Any, fn: types.FunctionType, beside: FilesBeside, *, reads: bool) -> Any:
    """Return what counts of a folder among the values that a function names."""
    if type(value) is not str:
        return _Folder(value) if reads else value
    is_named = any(path.startswith(value + os.sep) for path in beside.files.values())
    return value if is_named or not opens(fn.__code__) or writes(fn.__code__) else FolderByName(value)


def _named_in_text(module: str) -> Any:
    """Return the user's module that a text may name; most texts name none."""
    try:
        is_there = module in sys.modules or is_module(module)
    except FAILURES:
        is_there = False
    return _imported(Import(module, 0), {}) if is_there else MISSING


def _through_modules(value: Any, attributes: tuple[str, ...]) -> Any:
    """Follow attributes of modules to an object of the user's; otherwise return the library's module."""
    library: Any = None
    for attribute in attributes:
        if not isinstance(value, types.ModuleType):
            break
        if library is None and owner_of(name_of_module(value)).kind == "user":
            value = _attribute(value, attribute)
        else:
            library = library or value
            value = names_of_module(value).get(attribute)  # `getattr` might trigger an import
    return value if library is None or has_users(value) else library


def _attribute(module: types.ModuleType, name: str) -> Any:
    try:
        return getattr(module, name, MISSING)
    except FAILURES:
        return MISSING


def _imported(wanted: Import, names: dict[str, Any]) -> Any:
    module = wanted.module
    if wanted.level:
        try:
            module = importlib.util.resolve_name("." * wanted.level + module, names.get("__package__") or "")
        except ImportError:
            return MISSING
    if owner_of(module).kind != "user":
        return _modules_elsewhere.setdefault(module, _Elsewhere(module))
    found = _import(module)
    if wanted.attributes[:1] == ("*",) or type(found) is _Broken:
        return found
    value = _through_modules(found, wanted.attributes)
    return _import(f"{module}.{wanted.attributes[0]}") if value is MISSING else value


def _import(module: str) -> Any:
    # The function would import it too; and its key must be the same before and after its first run.
    loaded = sys.modules.get(module)
    if loaded is not None:
        return loaded
    try:
        return importlib.import_module(module)
    except FAILURES as error:
        return _Broken(module, error)


def _names_in_module(module: types.ModuleType) -> list[str]:
    announced = _announced_by(module)  # reading one may add others
    return sorted({n for n in vars(module) if n[:2] != "__" or n == "__getattr__"} | announced)


def _announced_by(module: types.ModuleType) -> set[str]:
    """Return the names that a module's `__getattr__` provides, as far as `__all__` lists them."""
    if "__getattr__" not in vars(module):
        return set()
    listed = vars(module).get("__all__")
    names = listed if isinstance(listed, (list, tuple)) else ()
    return {n for n in names if isinstance(n, str) and n[:2] != "__" and _attribute(module, n) is not MISSING}


def _global(names: Mapping[str, Any], name: str) -> Any:
    """Return the value of a global name; a lazy import is performed."""
    value = names.get(name, MISSING)
    if not is_imported_lazily(value):
        return value
    try:
        return value.resolve()
    except FAILURES as error:
        return _Broken(name, error)


def _names_in_class(cls: type) -> list[str]:
    names = [n for n in vars(cls) if n not in _GENERATED]
    if "__init__" in names and _is_protocols_init(cls):
        names.remove("__init__")
    # Reading annotations of a class without any creates an empty dictionary or, on Python 3.14, None for a function.
    names = [n for n in names if n not in _OF_ANNOTATIONS or vars(cls)[n]]
    if "_sa_registry" in dir(cls):
        names = [n for n in names if not is_of_sqlalchemy(vars(cls)[n])]
    if isinstance(cls, enum.EnumMeta):
        return [n for n in names if n not in _OF_ENUM and n not in cls.__members__]
    if "__pydantic_fields__" in vars(cls):
        return [n for n in names if not _is_pydantic_s(n, vars(cls)[n])]
    return names


def _is_protocols_init(cls: type) -> bool:
    """Return True when the first instance of a Protocol's subclass set the `__init__` that it inherits."""
    if typing.Protocol not in cls.__mro__:
        return False
    inits = [vars(base).get("__init__") for base in cls.__mro__]
    of_protocol = vars(typing)["_no_init_or_replace_init"]
    real = [init for init in inits[1:] if init is not None and init is not of_protocol]
    return inits[0] is of_protocol or inits[0] is real[0]


def _is_pydantic_s(name: str, value: Any) -> bool:
    """Return True when pydantic created an attribute of a model; a function under such a name is the user's hook."""
    if isinstance(value, (types.FunctionType, classmethod, staticmethod)):
        return False
    return name.startswith("__pydantic_") or name in ("__signature__", "__class_vars__")


def _values_of_class(cls: type) -> list[Any]:
    members: list[tuple[str, Any]] | None = None
    if isinstance(cls, enum.EnumMeta):
        members = [(name, cls[name].value) for name in cls.__members__]
    namespace = vars(cls)
    values = [
        cls.__qualname__,
        type(cls),
        cls.__bases__,
        members,
        _model_of(cls),
        _registered_with(cls),
        _kept_for(cls),
    ]
    values += [namespace[name] for name in _names_in_class(cls)]
    sources = sources_of_settings(cls)
    return [*values, sources] if sources else values


def _registered_with(cls: type) -> Any:
    """Return classes that were registered with an abstract class."""
    if not isinstance(cls, abc.ABCMeta):
        return None
    found = (ref() for ref in _get_dump(cls)[0])
    return {one for one in found if one is not None} or None


def _kept_for(cls: type) -> Any:
    """Return what a metaclass written in C stores about a class: msgspec's defaults and options."""
    found = {}
    for meta in inspect.getmro(type(cls)):
        if meta is type:
            break
        for name, member in vars(meta).items():
            if isinstance(member, _DESCRIPTORS) and name not in _GENERATED and name != "__signature__":
                with suppress(*FAILURES):
                    found[name] = member.__get__(cls, meta)
    return found or None


def _model_of(cls: type) -> Any:
    """Return pydantic's validation rules, taken from the attributes that it generates."""
    fields = vars(cls).get("__pydantic_fields__")
    if fields is None:
        return None
    decorators = vars(cls).get("__pydantic_decorators__")
    found = {kind: {n: d.info for n, d in getattr(decorators, kind, {}).items()} for kind in _DECORATORS}
    return {"fields": dict(fields), "decorators": found}
