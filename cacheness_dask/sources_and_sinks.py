"""Recognise what a graph reads and writes: sources, sinks, and objects without content.

A *source* counts by the content behind it: a file, an open-file description, a row group. A *sink*
has effects outside of Dask, so it runs every time. An object that is neither, and has no value (a
handle, a lock, a future), is refused with the reason.
"""

from __future__ import annotations

import io
import os
import stat
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

from cacheness.errors import UnhashableArgument
from cacheness.keys import Inputs, register
from cacheness.keys.code.writers import effects_of
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.values.files import digest_of_file
from cacheness.references import has_reference
from cacheness_dask.encoding import NotCacheable
from cacheness_dask.reasons import HANDLE, LEAVES, NOTHING, SINK
from cacheness_dask.remote import asking_once, version_of

FileState = tuple[int, ...]
#: Only within `noting_files`: the state of each file when it was first read, and the digest of its content.
_read: ContextVar[dict[str, FileState]] = ContextVar("cacheness_dask_files")
_digests: ContextVar[dict[str, bytes]] = ContextVar("cacheness_dask_digests")
#: Where the files behind a source are recorded.
noted: ContextVar[Inputs | None] = ContextVar("cacheness_dask_noted", default=None)

_sources: dict[type, Callable[[Any], Any]] = {}
_sinks: set[Any] = set()
_stateful: set[Any] = set()

#: Functions and callable classes of Dask that write. A name is module:qualified name.
_SINKS: Final = frozenset(
    {
        "dask.array.core:store_chunk",
        "dask.array.core:load_store_chunk",
        "dask.bag.core:_to_textfiles_chunk",
        "dask.bag.avro:_write_avro_part",
        "dask.bytes.utils:write_block_to_file",
        "dask.dataframe.io.csv:_write_csv",
        "dask.dataframe.io.hdf:_pd_to_hdf",
        "dask.dataframe.io.json:write_json_partition",
        "dask.dataframe.io.orc.core:ToORCFunctionWrapper",
        "dask.dataframe.io.parquet.core:ToParquetFunctionWrapper",
        "dask.dataframe.io.sql:_to_sql_chunk",
        "numpy:save",
        "numpy:savez",
        "numpy:savez_compressed",
        "numpy:savetxt",
        "pickle:dump",
        "json:dump",
    }
)
#: They write their first argument into their second.
_STORE_CHUNK: Final = frozenset({"dask.array.core:store_chunk", "dask.array.core:load_store_chunk"})
#: Methods that write, called through `operator.methodcaller`, Dask's own, or a bound method.
_SINK_METHODS: Final = frozenset(
    {"to_csv", "to_parquet", "to_feather", "to_hdf", "to_sql", "to_zarr", "to_netcdf", "to_excel", "to_pickle"}
)

#: What a user can do about an argument without content: no function is decorated here, and no key is given.
WAYS_OUT_OF_HANDLES: Final = (
    "Make it inside of the task, or define what counts of its type (cacheness_dask.register_source(type, identity))"
)
#: Types without content, by the module that defines them (and its submodules).
_HANDLES: Final = {
    "_io": "an open file",
    "_thread": "a lock",
    "threading": "a lock or thread",
    "multiprocessing": "a lock or process",
    "_multiprocessing": "a lock or process",
    "asyncio": "an asyncio object",
    "_asyncio": "an asyncio object",
    "concurrent.futures": "a future or executor",
    "socket": "a socket",
    "_socket": "a socket",
    "ssl": "a socket",
    "sqlite3": "a database connection",
    "sqlalchemy.engine": "a database connection",
    "sqlalchemy.orm": "a database session",
    "psycopg": "a database connection",
    "subprocess": "a process",
    "queue": "a queue",
    "tempfile": "a temporary file",
    "distributed": "an object that lives on the cluster",
    "fsspec.spec": "an open remote file",
    "fsspec.implementations": "an open file",
    "tables": "an open HDF5 file",
    "tiledb": "an open TileDB array",
    "rasterio": "an open raster file",
    "pyarrow._parquet": "an open Parquet file",
    "dask.array.core:_IOArray": "an open file",
}
#: The same, for types that count in an argument by what one reads through them, and are no value as a result.
_READERS: Final = {
    "h5py": "an open HDF5 file",
    "h5netcdf": "an open NetCDF file",
    "netCDF4": "an open NetCDF file",
    "zarr": "a Zarr array, group or store",
    "icechunk": "an Icechunk store",
    "xarray.backends": "an open file of xarray",
}
#: They contain what was written to them, and are values as results.
_BUFFERS: Final = (io.BytesIO, io.StringIO)
_RESULT_TYPES: Final = {
    "numpy.memmap": "an array that is mapped from a file",
    "partd.core.Interface": "what a shuffle writes to",
}
_HANDLE_TYPES: Final = {
    "dask.utils.SerializableLock": "a lock",
    "pyarrow.lib.NativeFile": "an open file",
    "pyarrow.lib.PythonFile": "an open file",
    "fsspec.core.OpenFiles": "open files",
    "_random.Random": "a random number generator",
}
_LAZY_BUILTINS: Final[tuple[type, ...]] = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    type(iter([])),
    type(iter(())),
    type(iter({})),
    type(iter(set())),
    map,
    filter,
    zip,
    enumerate,
    reversed,
)


#: Types whose instances occur inside other objects, where only the core's encoder sees them. Types
#: with encoders there, such as the handles of fsspec, Zarr and HDF5, are not listed: there is one
#: rule for those.
_NESTED: Final = (
    ("dask.utils", "SerializableLock"),
    ("distributed.client", "Client"),
    ("distributed.client", "Future"),
)
_guarded: set[tuple[str, str]] = set()


def guard_nested() -> None:
    """Register sources and handles of the imported libraries with the core's encoder."""
    for module, name in _NESTED:
        kind = getattr(sys.modules.get(module), name, None)  # another thread may be importing the module
        if kind is not None and (module, name) not in _guarded:
            _guarded.add((module, name))
            register(kind, _identity_within)


def _identity_within(value: Any) -> Any:
    try:
        return identity_of_source(value)
    except NotCacheable as refusal:
        raise UnhashableArgument(f"{refusal}. It is inside of another argument") from None


def register_source(type_: type, identity: Callable[[Any], Any]) -> None:
    """Let objects of a type count by an identity, such as an ETag or a version, because their content can change.

    Args:
        type_: the type.
        identity: called with an object; returns what counts.
    """
    _sources[type_] = identity
    register(type_, identity)  # inside another object, only the core's encoder sees it


def register_sink(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run every task that calls a function, and everything downstream of it, every time. Also a decorator.

    Dask's own writers (`to_parquet`, `to_csv`, `store`, …) are registered.

    Args:
        function: the function, which writes outside of the graph.

    Returns:
        The function.
    """
    _sinks.add(_identity_of(function))
    return function


def register_stateful(thing: Any) -> Any:
    """Never cache a task that calls a function, or has an object of a class as argument. Also a decorator.

    It is for functions that depend on more than their arguments: a clock, a service, a database.

    Args:
        thing: the function or class.

    Returns:
        The same.
    """
    _stateful.add(thing if isinstance(thing, type) else _identity_of(thing))
    return thing


def refuse_function(func: Any) -> str:
    """Return why a task that calls `func` must always run; "" if there is no reason."""
    name = _identity_of(func)
    method = getattr(func, "method", None) or getattr(func, "__name__", "")
    if name in _SINKS or name in _sinks or _identity_of(type(func)) in _SINKS or _identity_of(type(func)) in _sinks:
        return f"{SINK} {name} writes its input somewhere, so it runs every time"
    if isinstance(method, str) and method in _SINK_METHODS:
        return f"{SINK} {method} writes its input somewhere, so it runs every time"
    if left := effects_of(func).left:
        return f"{LEAVES} {left}, which is neither an argument nor in its result"
    if name in _stateful or isinstance(func, _stateful_types()):
        return f"{name} is registered as stateful"
    return ""


def is_storing(func: Any) -> bool:
    """Return True when this is Dask's own writer of chunks."""
    return _identity_of(func) in _STORE_CHUNK


def target_of(node: Any) -> Any:
    """Return the target of Dask's own writer of chunks, as its task names it; None for any other task."""
    if not is_storing(node.func):
        return None
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("out")


def identity_of_source(value: Any) -> Any:
    """Return the identity of the content behind a source, or None if the value is no source.

    Raises NotCacheable for a handle, a lock, a future: any object whose content cannot be read.
    """
    kind = type(value)
    handler = _by_type.get(kind) or _classify(kind)
    return None if handler is _plain else handler(value)


def file_at(path: str) -> bytes | None:
    """Return the digest of a file's content, None if `path` names no regular file on this machine."""
    if not note_file(path):
        return None
    # The blocks of one large file all name it: it is read once per graph.
    digests = _digests.get({})
    known = digests.get(path)
    if known is None:
        try:
            known = digests[path] = digest_of_file(path)
        except Unencodable as error:
            raise NotCacheable(str(error)) from error
    if (inputs := noted.get()) is not None:
        inputs.count(path, known, partial(digest_of_file, path))
    return known


def note_file(path: str) -> bool:
    """Record the state of a file whose content is about to count. Return False if it is no regular file."""
    state = state_of(path)
    if state is not None:
        _read.get({}).setdefault(path, state)
    return state is not None


def state_of(path: str) -> FileState | None:
    """Return what changes when a file does: size, time of change, inode. None if it is no regular file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    state = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)
    return state if stat.S_ISREG(found.st_mode) else None


@contextmanager
def noting_files() -> Iterator[dict[str, FileState]]:
    """Collect the files whose content counts in the fingerprints made inside of the block."""
    read: dict[str, FileState] = {}
    states, digests = _read.set(read), _digests.set({})
    try:
        with asking_once():
            yield read
    finally:
        _read.reset(states)
        _digests.reset(digests)
        for path, state in read.items():  # of a graph inside of another one's argument
            _read.get({}).setdefault(path, state)


def remote_file(filesystem: Any, path: str) -> Any:
    """Return the identity of the content of a file on an fsspec filesystem."""
    if "LocalFileSystem" in type(filesystem).__name__:
        local = file_at(filesystem._strip_protocol(path))  # noqa: SLF001  public in all but name
        if local is None:
            raise NotCacheable(f"{path} cannot be read here, so its content is unknown")
        return local
    return version_of(filesystem, path)


def _identity_of(func: Any) -> str:
    if isinstance(func, partial):
        return _identity_of(func.func)
    if not hasattr(func, "__qualname__"):
        func = type(func)
    return f"{getattr(func, '__module__', '')}:{func.__qualname__}"


def _stateful_types() -> tuple[type, ...]:
    return tuple(t for t in _stateful if isinstance(t, type))


def why_not(value: Any) -> str:
    """Return why a result cannot be stored as a value; "" if it can."""
    if value is None:
        return f"{NOTHING} it represents a result that does not exist"
    if what := handle_in(value):
        return f"{HANDLE} {what}"
    if has_reference(value):
        return f"{HANDLE} a Ref to another result: return its .value"
    return f"{HANDLE} it can be read only once" if isinstance(value, (Iterator, Awaitable)) else ""


def handle_in(value: Any) -> str:
    """Return which kind of handle a result is, or contains in a list, tuple or dictionary; "" for none."""
    waiting, left = [value], _MOST_PARTS
    while waiting and left:
        left -= 1
        part = waiting.pop()
        if type(part) in (list, tuple, set):
            waiting += list(part)[:left]
        elif type(part) is dict:
            waiting += list(part.values())[:left]
        elif what := _what_handle(type(part)):
            return what
    return ""


def _what_handle(kind: type) -> str:
    if kind not in _kinds:
        bases = [base for base in kind.__mro__ if base not in _sources]
        types_ = _HANDLE_TYPES | _RESULT_TYPES
        found = (types_.get(f"{base.__module__}.{base.__qualname__}") or _handle_of(base) for base in bases)
        known = "" if issubclass(kind, _BUFFERS) else next(filter(None, found), "")
        _kinds[kind] = known or ("an iterator" if issubclass(kind, _LAZY_BUILTINS) else "")
    return _kinds[kind]


#: Parts of a result that are checked.
_MOST_PARTS: Final = 1000
_kinds: dict[type, str] = {}


def _plain(_: Any) -> Any:
    return None


_by_type: dict[type, Callable[[Any], Any]] = {}


def _classify(kind: type) -> Callable[[Any], Any]:
    handler = _handler_for(kind)
    if not _registered(kind):  # may be registered later
        _by_type[kind] = handler
    return handler


def _registered(kind: type) -> bool:
    return any(base in _sources or base in _stateful for base in kind.__mro__)


def _handler_for(kind: type) -> Callable[[Any], Any]:
    for base in kind.__mro__:
        if base in _sources:
            return _sources[base]
        if base in _stateful:
            return partial(_refuse, "an object that is registered as stateful")
    for base in kind.__mro__:
        full = f"{base.__module__}.{base.__qualname__}"
        if full in _KNOWN_SOURCES:
            return _KNOWN_SOURCES[full]
        if what := _HANDLE_TYPES.get(full) or _handle_in(base):
            return partial(_refuse, what)
    return partial(_refuse, "an iterator, which can be read only once") if issubclass(kind, _LAZY_BUILTINS) else _plain


def _handle_in(base: type) -> str:
    """Return which kind of handle a class is, by the module that defines it; "" for none."""
    known = (_HANDLES[module] for module in _parents(base.__module__) if module in _HANDLES)
    return "" if _is_description(base) else next(known, "")


def _handle_of(base: type) -> str:
    """Return the same for a result."""
    known = (_READERS[module] for module in _parents(base.__module__) if module in _READERS)
    return _handle_in(base) or ("" if _is_description(base) else next(known, ""))


def _is_description(base: type) -> bool:
    # A filesystem is a place, without content; so are records and exceptions.
    return base.__name__.endswith("FileSystem") or issubclass(base, Exception)


def _refuse(what: str, value: Any) -> Any:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise NotCacheable(f"argument is {what} ({kind}). {WAYS_OUT_OF_HANDLES}")


def _parents(module: str) -> Iterator[str]:
    while module:
        yield module
        module = module.rpartition(".")[0]


def _open_file(value: Any) -> Any:
    where = [value.mode, value.compression, value.encoding, value.errors, value.newline]
    if "r" not in value.mode:
        raise NotCacheable("argument is a file opened for writing")
    return [where, remote_file(value.fs, value.path)]


def _arrow_fragment(value: Any) -> Any:
    fragment = value.fragment
    path, filesystem = fragment.path, value._filesystem or fragment.filesystem  # noqa: SLF001  there is no other way to it
    if fragment.buffer is not None:
        raise NotCacheable("argument is a Parquet fragment in memory")
    return [_arrow_file(filesystem, path), str(fragment.partition_expression), fragment.format.default_extname]


def _arrow_file(filesystem: Any, path: str) -> Any:
    if type(filesystem).__name__ == "LocalFileSystem":
        local = file_at(path)
        if local is None:
            raise NotCacheable(f"{path} cannot be read here, so its content is unknown")
        return local
    return version_of(filesystem, path)


_KNOWN_SOURCES: Final[dict[str, Callable[[Any], Any]]] = {
    "fsspec.core.OpenFile": _open_file,
    "dask.dataframe.dask_expr.io.parquet.FragmentWrapper": _arrow_fragment,
}
