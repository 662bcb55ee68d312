"""Decide whose code a module is: Python's, an installed library's, ours, or the user's.

A library's code counts by name and version; the user's is read. Code is the user's if it was not
installed from an index: outside site-packages, or in a distribution with a direct_url.json (PEP
610: editable, a local path, a repository), because teams install their code at a version that never
changes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import site
import sys
import sysconfig
import types
import weakref
from collections.abc import Mapping
from functools import cache, lru_cache, partial
from typing import Any, Final, Literal, NamedTuple, cast


class Owner(NamedTuple):
    """The owner of a module's code."""

    kind: Literal["python", "library", "ours", "user"]
    name: str = ""  #: of the distribution
    version: str = ""


PYTHON: Final = Owner("python")
OURS: Final = Owner("ours")
USER: Final = Owner("user")

_OUR_PACKAGES: Final = frozenset({"cacheness", "cacheness_dask", "cacheness_prefect"})
_owners: dict[str, Owner] = {}
_users_modules: dict[str, bool] = {}
_class_owners: dict[int, tuple[weakref.ref[type], Owner]] = {}
_user_names: set[str] = set()
HEAP_TYPE: Final = 1 << 9
LAZY_IMPORT: Final[type | None] = getattr(types, "LazyImportType", None)  #: of Python 3.15
_COMPILED_MEMBERS: Final = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)


def add_user_code(*names: str) -> None:
    """Let the code of these distributions or modules count in keys, although they were installed from an index.

    Args:
        names: names of distributions or modules.
    """
    _user_names.update(_normalised(name) for name in names)
    _owners.clear()
    _users_modules.clear()
    _class_owners.clear()


def owner_of(module: str | None) -> Owner:
    """Return the owner of the module of this name. A module that cannot be found is the user's."""
    if module is None:
        return USER
    owner = _owners.get(module)
    if owner is None:
        owner = _owners[module] = _find_owner(module)
    return owner


def is_users_module(name: str) -> bool:
    """Like `owner_of`, but a package decides for its modules: there are thousands, and each would be searched."""
    known = _users_modules.get(name)
    if known is not None:
        return known
    package = name.partition(".")[0]
    if not names_of_module(sys.modules.get(package)).get("__file__"):
        return owner_of(name).kind == "user"
    is_users = _users_modules[name] = owner_of(package).kind == "user"
    return is_users


def owner_of_class(cls: type) -> Owner:
    """Return the owner of a class. One that names a library's module, and is not in it, was created by the user."""
    key = id(cls)
    known = _class_owners.get(key)
    if known is not None and known[0]() is cls:
        return known[1]
    module = module_of(cls)
    owner = owner_of(module)
    if owner.kind in ("python", "library") and not _is_held_class(cls, module, owner) and not is_compiled(cls):
        owner = USER
    _class_owners[key] = (weakref.ref(cls, partial(_class_owners.pop, key)), owner)
    return owner


def _is_held_class(cls: type, module: str, owner: Owner) -> bool:
    """Return True when a class is in the module that it names, or in the same library's module that its methods name.

    A library may expose a class in a module that is loaded only on access: `numpy.rec.recarray`.
    """
    if is_held(cls, module, cls.__qualname__):
        return True
    if module in sys.modules:
        return False
    methods = [member for member in vars(cls).values() if isinstance(member, types.FunctionType)]
    names = {str(method.__globals__.get("__name__")) for method in methods}
    return any(owner_of(name) == owner and is_held(cls, name, cls.__qualname__) for name in names)


def is_held(thing: Any, module: str, name: str) -> bool:
    """Return True when a module really has an object under its qualified name."""
    place: Any = sys.modules.get(module)
    for part in name.split("."):
        if not isinstance(place, (types.ModuleType, type)):
            return False
        place = vars(place).get(part)  # `getattr` might trigger an import
    return _unwrapped(place) is thing


def _unwrapped(place: Any) -> Any:
    return place.__func__ if isinstance(place, (staticmethod, classmethod)) else place


def is_compiled(cls: type) -> bool:
    """Return True when a class was written in C, or compiled to it: its methods are not Python functions."""
    if not cls.__flags__ & HEAP_TYPE:
        return True
    namespace = vars(cls)
    makes = namespace.get("__new__")
    return getattr(makes, "__self__", None) is cls or any(
        type(member) in _COMPILED_MEMBERS and member.__objclass__ is cls for member in namespace.values()
    )


def module_of(cls: type) -> str:
    """Return the name of a class's module. Compiled classes may hide it behind that of their instances."""
    module = cls.__module__
    return module if isinstance(module, str) else "builtins"


def name_of_module(module: types.ModuleType) -> str:
    """Return the name of a module, without loading a lazy one."""
    return str(names_of_module(module).get("__name__") or getattr(module, "__name__", ""))


def names_of_module(module: object) -> Mapping[str, Any]:
    """Return a module's contents by name, or those of its replacement in `sys.modules`; a lazy one is not loaded."""
    # Not isinstance: libraries of cffi, which cryptography uses, claim the class of modules.
    if issubclass(type(module), types.ModuleType):
        return cast(
            "Mapping[str, Any]", types.ModuleType.__getattribute__(cast("types.ModuleType", module), "__dict__")
        )
    return getattr(module, "__dict__", {})


def is_not_loaded(module: Any) -> bool:
    """Return True when `importlib.util.LazyLoader` loads this module on first access, even of its class."""
    kind = type(module)
    return kind.__name__ == "_LazyModule" and kind.__module__ == "importlib.util"


def is_imported_lazily(value: Any) -> bool:
    """Return True when a module's global is a lazy import of Python 3.15, performed on first use."""
    kind = type(value)
    if LAZY_IMPORT is not None:
        return kind is LAZY_IMPORT
    # Before that version only a stand-in for the type has its name and is resolved the same way.
    return kind.__name__ == "LazyImportType" and callable(getattr(kind, "resolve", None))


def _find_owner(module: str) -> Owner:
    top = module.partition(".")[0]
    if top in _OUR_PACKAGES:
        return OURS
    if top in ("__main__", "__mp_main__") or _named(module):
        return USER
    if module in sys.builtin_module_names or top.startswith("_cython_"):  # types that compiled modules share
        return PYTHON
    file = _file_of(module) or _file_of(top)
    if file is None:
        return PYTHON if top in sys.stdlib_module_names else USER
    return _owner_of_file(os.path.abspath(file), top)


def _named(module: str) -> bool:
    parts = _normalised(module).split(".")
    return any(".".join(parts[:n]) in _user_names for n in range(1, len(parts) + 1))


def _file_of(module: str) -> str | None:
    loaded = sys.modules.get(module)
    if loaded is not None:
        names = names_of_module(loaded)
        file = names.get("__file__")
        paths = list(names.get("__path__", ()))
        return file or (paths[0] if paths else None)
    if "." in module:
        return None  # a search would import its parents
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    return spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), None)


def _owner_of_file(file: str, top: str) -> Owner:
    for directory in _site_directories():
        if file.startswith(directory + os.sep):
            return _owner_in_site(directory, file[len(directory) + 1 :].replace(os.sep, "/"), top)
    if any(file.startswith(directory + os.sep) for directory in _python_directories()):
        return PYTHON
    return _owner_beside(file, top)


def _owner_beside(file: str, top: str) -> Owner:
    """Return the distributions that list a file outside site-packages: `pip install --target` leaves a RECORD there."""
    directory = os.path.dirname(file)
    while True:
        within = file[len(directory) :].lstrip(os.sep).replace(os.sep, "/")
        for info in _infos_in(directory):
            if _lists_file(os.path.join(directory, info), within, top):
                return _owner_by(directory, info)
        parent = os.path.dirname(directory)
        if parent == directory:
            return USER
        directory = parent


def _infos_in(directory: str) -> list[str]:
    try:
        return sorted(n for n in os.listdir(directory) if n.endswith(".dist-info"))
    except OSError:
        return []  # within an archive, or not readable


def _site_directories() -> list[str]:
    return _site_directories_for(tuple(sys.path))


@lru_cache(maxsize=1)
def _site_directories_for(path: tuple[str, ...]) -> list[str]:
    found = [*site.getsitepackages(), site.getusersitepackages()]
    found += [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found += [p for p in path if os.path.basename(p) in ("site-packages", "dist-packages")]
    return _with_real_paths(found)


@cache
def _python_directories() -> list[str]:
    return _with_real_paths([sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")])


def _with_real_paths(directories: list[str]) -> list[str]:
    return list(dict.fromkeys(p for d in directories for p in (os.path.abspath(d), os.path.realpath(d))))


def _owner_in_site(directory: str, file: str, top: str) -> Owner:
    wanted = _normalised(top)
    infos = sorted(n for n in os.listdir(directory) if n.endswith((".dist-info", ".egg-info")))
    # First the distribution of the same name, then those with a short list, then those with long lists of files.
    infos.sort(key=lambda info: _normalised(info.partition("-")[0]) != wanted)
    for says_so in (_lists_file_if_namesake, _lists_top_level, _lists_file):
        for info in infos:
            if says_so(os.path.join(directory, info), file, top):
                return _owner_by(directory, info)
    return USER


def _owner_by(directory: str, info: str) -> Owner:
    stem = info.rpartition(".")[0]
    name, _, version = stem.partition("-")
    where = os.path.join(directory, info)
    # Conda writes a direct_url.json into everything it builds.
    local = os.path.exists(os.path.join(where, "direct_url.json")) and "conda" not in _read(where, "INSTALLER")
    if local or _named(name):
        return USER
    return Owner("library", _normalised(name), version)


def _lists_file_if_namesake(info: str, file: str, top: str) -> bool:
    return _normalised(os.path.basename(info).partition("-")[0]) == _normalised(top) and _lists_file(info, file, top)


def _lists_top_level(info: str, file: str, top: str) -> bool:
    if top not in _read(info, "top_level.txt").split():
        return False
    # Several distributions may share a top-level name; the list of files decides, if there is one.
    return not _read(info, "RECORD") or _lists_file(info, file, top)


def _lists_file(info: str, file: str, _: str) -> bool:
    record = _read(info, "RECORD")
    return record.startswith(file + ",") or f"\n{file}," in record


def _read(directory: str, name: str) -> str:
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _normalised(name: str) -> str:
    return re.sub(r"[-_]+", "-", name).lower()
