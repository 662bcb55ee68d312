"""Find parameters that a function passes to code that writes files, which no audit hook sees.

Libraries written in C open files by themselves, so their functions are known by name. The search
finds a name in the same call, as in `frame.write_parquet(target)`, `numpy.save(folder / "a",
array)`.
"""

from __future__ import annotations

import dis
import functools
import inspect
import operator
import os
import re
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, TypeGuard
from weakref import WeakKeyDictionary

from cacheness.keys.code.instructions import instructions_of
from cacheness.keys.inputs import paths_in
from cacheness.keys.owners import owner_of
from cacheness.keys.values.attributes import ABSENT, wrapped_by
from cacheness.lazy_dataclass import dataclass

#: Depth to which helpers are followed that only pass a name on.
_DEEPEST: Final = 5
#: Steps in which the mode is searched after `open`.
_LONGEST_CALL: Final = 40
#: Methods and functions that create or change the file that one of their arguments names.
WRITERS: Final = frozenset(
    {
        *("to_csv", "to_parquet", "to_feather", "to_orc", "to_hdf", "to_sql", "to_zarr", "to_netcdf", "to_excel"),
        *("to_pickle", "to_json", "to_file", "to_stata", "to_html", "to_markdown", "to_textfiles", "to_avro"),
        *("write_csv", "write_parquet", "write_ipc", "write_ndjson", "write_json", "write_excel", "write_avro"),
        *("sink_csv", "sink_parquet", "sink_ipc", "sink_ndjson", "write_delta", "write_database", "write_deltalake"),
        *("write_text", "write_bytes", "write_table", "write_dataset", "write_feather", "write_image", "write_html"),
        *("save", "savez", "savez_compressed", "savetxt", "savefig", "imsave", "imwrite", "save_model", "save_file"),
        *("save_pretrained", "ParquetWriter", "makedirs", "mkdir", "extractall", "unpack_archive", "urlretrieve"),
        *("download_file", "fget_object", "get_file", "dump", "tofile"),
    }
)
#: They write too, from the standard library, where an audit hook sees it; strings and frames have
#: methods of these names.
_REPLACERS: Final = frozenset(
    {
        *("copy", "copy2", "copyfile", "copytree", "move", "replace", "rename", "renames", "touch"),
        *("link", "symlink", "hardlink_to", "symlink_to"),
    }
)
#: They create or change a file if their mode allows it.
_OPENERS: Final = frozenset(
    {"open", "ZipFile", "TarFile", "GzipFile", "BZ2File", "LZMAFile", "FileIO", "memmap", "open_memmap"}
)
#: So do these of h5py, netCDF4 and pandas; other classes of these names take no mode: `Dataset({"t": ("x", …)})`.
_CLASSES: Final = frozenset({"File", "Dataset", "HDFStore"})
#: Those of them that open the file in C, so that no hook sees it.
_UNSEEN: Final = frozenset(
    {
        *("to_parquet", "to_feather", "to_orc", "to_hdf", "to_netcdf", "to_file", "write_table", "write_dataset"),
        *("write_csv", "write_parquet", "write_ipc", "write_ndjson", "write_avro", "write_feather", "write_deltalake"),
        *("sink_csv", "sink_parquet", "sink_ipc", "sink_ndjson", "write_delta", "imwrite", "ParquetWriter"),
        *("save_model", "save_file", "File", "Dataset", "HDFStore"),
    }
)
#: Names of parameters that take the file of such a call.
_TARGETS: Final = frozenset(
    {
        *("path", "path_or_buf", "path_or_buffer", "filepath", "file", "filename", "fname", "f", "name", "where"),
        *("target", "uri", "table_or_uri", "base_dir", "dest", "sink", "store"),
    }
)
#: Functions that create a file in memory, or a temporary one.
_PASSING: Final = frozenset(
    {
        *("BytesIO", "StringIO", "BufferOutputStream", "FixedSizeBufferWriter", "MockOutputStream"),
        *("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory", "mkstemp", "mkdtemp"),
    }
)
#: Methods of paths, whose object is the path.
_OF_PATHS: Final = frozenset({"write_text", "write_bytes", "mkdir", "touch", "open"})
_MODE: Final = re.compile("(?=.*[wx])[wxbt+]{1,3}([:|][a-z0-9]*)?")
_IDLE: Final = frozenset({"CACHE", "NOP", "EXTENDED_ARG", "PUSH_NULL", "PRECALL"})
#: They make a path from a path.
_PATHS: Final = frozenset(
    {"os", "path", "pathlib", "join", "Path", "str", "fspath", "abspath", "expanduser", "resolve", "joinpath", "parent"}
)
_PATHS_TOO: Final = frozenset({"with_suffix", "with_name", "with_stem", "absolute", "format", "name", "stem"})
_GLOBALS: Final = ("LOAD_GLOBAL", "LOAD_NAME")
_ATTRIBUTES: Final = ("LOAD_ATTR", "LOAD_METHOD")
_LOCALS: Final = ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE")
_STEPS: Final = (
    *("LOAD_CONST", "PUSH_NULL", "BUILD_", "FORMAT_", "KW_NAMES", "BINARY_OP", "PRECALL", "CALL", "NOP", "CACHE"),
    *("EXTENDED_ARG", "COPY_FREE_VARS", "RESUME", "CONVERT_VALUE"),
)
_BEFORE: Final = ("PUSH_NULL", "NOP", "CACHE", "EXTENDED_ARG")
_ENDS: Final = ("STORE_", "POP_TOP", "RETURN_", "POP_JUMP", "JUMP", "FOR_ITER", "RAISE")


def writes_to(function: Callable[..., Any] | None) -> frozenset[str]:
    """The parameters, and other local names, that a function passes to code that writes."""
    fn = unwrapped(function)
    return frozenset(_handed(fn, _DEEPEST)) if isinstance(fn, types.FunctionType) else frozenset()


def _handed(fn: types.FunctionType, depth: int) -> set[str]:
    found: set[str] = set()
    sources: dict[str, set[str]] = {}
    for code in _codes(fn.__code__):
        steps = instructions_of(code).raw
        begin = 0
        for at, step in enumerate(steps):
            if step.opname in (*_GLOBALS, *_ATTRIBUTES) and step.argval in WRITERS:
                found |= _names(steps, at + 1)[0]
            elif step.opname in _GLOBALS and depth:
                found |= _by_helper(fn.__globals__.get(step.argval), _plain_arguments(steps, at + 1), depth - 1)
            if step.opname.startswith(_ENDS):
                if step.opname in ("STORE_FAST", "STORE_DEREF"):
                    names, end = _names(steps, begin)
                    if end >= at:
                        sources.setdefault(str(step.argval), set()).update(names)
                begin = at + 1
    waiting = list(found)
    while waiting:
        new = sources.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def _by_helper(helper: Any, arguments: Sequence[str], depth: int) -> set[str]:
    """Return which positional arguments of a user's function it passes to code that writes."""
    helper = unwrapped(helper)
    if not arguments or not isinstance(helper, types.FunctionType) or owner_of(helper.__module__).kind != "user":
        return set()
    handed = _handed(helper, depth)
    return {
        name for name, parameter in zip(arguments, helper.__code__.co_varnames, strict=False) if parameter in handed
    }


def _plain_arguments(steps: Sequence[dis.Instruction], at: int) -> list[str]:
    """Return the names with which a call begins, each a separate argument."""
    found: list[str] = []
    while steps[at].opname in _BEFORE or steps[at].opname.startswith(_LOCALS):
        if steps[at].opname not in _BEFORE:
            found += steps[at].argval if isinstance(steps[at].argval, tuple) else [str(steps[at].argval)]
        at += 1
    # The last may be only the start of an argument: `save(table, out.name)`.
    return found if steps[at].opname.startswith(("CALL", "PRECALL", "LOAD_CONST", "KW_NAMES")) else found[:-1]


def _names(steps: Sequence[dis.Instruction], at: int) -> tuple[set[str], int]:
    """Return local names loaded from here on, while only paths are made from them; and where that ends."""
    found: set[str] = set()
    while at < len(steps):
        step = steps[at]
        if step.opname.startswith(_LOCALS):
            found.update(step.argval if isinstance(step.argval, tuple) else (str(step.argval),))
        elif step.opname in (*_GLOBALS, *_ATTRIBUTES):
            if step.argval not in _PATHS and step.argval not in _PATHS_TOO:
                break
        elif not step.opname.startswith(_STEPS):
            break
        at += 1
    return found, at


@dataclass(frozen=True, slots=True)
class Effects:
    """What a function's code shows about the files that it writes."""

    writes: bool  #: it names something that creates or replaces files
    left: str  #: a constant path that it writes to and does not return; "" if none
    unseen: str = ""  #: a call, invisible to hooks, that writes to a file not named by an argument alone; "" if none
    hands_on: str = ""  #: a call that writes to a file named by an argument


_NONE: Final = Effects(False, "")
_PLAIN: Final = frozenset({type(None), str, bytes, int, float, bool, list, tuple, dict, set, types.ModuleType})
_effects: WeakKeyDictionary[types.FunctionType, Effects] = WeakKeyDictionary()


def effects_of(function: Any, arguments: Sequence[Any] = ()) -> Effects:
    """Return the effects of a user's function, and of the helpers, classes and methods that it names.

    Args:
        function: the function.
        arguments: its arguments: methods of the user's objects among these are read, too.
    """
    fn = unwrapped(function)
    if isinstance(fn, operator.methodcaller):
        reduced: Any = fn.__reduce__()  # keyword arguments are bound in a partial, with the method's name
        name = reduced[0].args[0] if isinstance(reduced[0], functools.partial) else reduced[1][0]
        return _sum(_methods(type(value), {name}) for value in arguments[:1])
    if not _is_users(fn):
        return _NONE
    known = _effects.get(fn)
    if known is None:
        known = _effects[fn] = _read(fn, _DEEPEST)
    kinds = {type(value) for value in (*arguments, getattr(function, "__self__", None))} - _PLAIN
    return _sum([known, *(_methods(kind, set(fn.__code__.co_names)) for kind in kinds)]) if kinds else known


def _is_users(fn: Any) -> TypeGuard[types.FunctionType]:
    return isinstance(fn, types.FunctionType) and owner_of(fn.__module__).kind == "user"


def _methods(kind: type, names: set[str]) -> Effects:
    """Return the effects of a user's class: methods that code with these names calls, and those that they call."""
    if owner_of(kind.__module__).kind != "user":
        return _NONE
    found: list[Effects] = []
    waiting, read = ["__init__", "__post_init__", "__call__", *names], set[str]()
    while waiting:
        name = waiting.pop()
        method = unwrapped(inspect.getattr_static(kind, name, None)) if name not in read else None
        read.add(name)
        if _is_users(method):
            found.append(effects_of(method))
            waiting += method.__code__.co_names
    return _sum(found)


def _sum(effects: Iterable[Effects]) -> Effects:
    total = _NONE
    for one in effects:
        total = Effects(
            total.writes or one.writes,
            total.left or one.left,
            total.unseen or one.unseen,
            total.hands_on or one.hands_on,
        )
    return total


def _read(fn: types.FunctionType, depth: int) -> Effects:
    found: list[Effects] = []
    for code in _codes(fn.__code__):
        steps = [step for step in instructions_of(code).raw if step.opname not in _IDLE]
        for at, step in enumerate(steps):
            if step.opname not in (*_GLOBALS, *_ATTRIBUTES):
                continue
            opens = (step.argval in _OPENERS and _mode_after(steps, at)) or (
                step.argval in _CLASSES and _is_with_mode(steps, at)
            )
            if opens or step.argval in WRITERS or step.argval in _REPLACERS:
                left = "" if step.argval in _REPLACERS else _path_left(fn, steps, at)
                found.append(Effects(True, left, *_unseen(step.argval in _UNSEEN and step.argval, code, steps, at)))
            elif depth and step.opname in _GLOBALS:
                helper = unwrapped(fn.__globals__.get(step.argval))
                if isinstance(helper, type):
                    found.append(_methods(helper, set(fn.__code__.co_names)))
                elif _is_users(helper):
                    inner = _read(helper, depth - 1)
                    unseen, hands_on = _unseen(inner.hands_on, code, steps, at)
                    found.append(Effects(inner.writes, inner.left, inner.unseen or unseen, hands_on))
    return _sum(found)


def _unseen(
    writer: str | Literal[False], code: types.CodeType, steps: Sequence[dis.Instruction], at: int
) -> tuple[str, str]:
    """Return writers in a call whose file is named by more than an argument, and those named by an argument alone."""
    given, end = _arguments(steps, at)
    keywords = next((code.co_consts[step.arg or 0] for step in given if step.opname == "KW_NAMES"), ())
    if end is not None and end.opname.startswith("CALL_KW"):
        keywords, given = given[-1].argval, given[:-1]
    by_place = (end.arg or 0) - len(keywords) if end is not None and "_EX" not in end.opname else 1
    if not writer or not given or (by_place <= 0 and _TARGETS.isdisjoint(keywords)):
        return "", ""
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    passing = _passing(steps)
    is_made = given[0].opname == "LOAD_CONST" and isinstance(given[0].argval, str)
    for step in given:
        if step.opname.startswith(_LOCALS):
            names = step.argval if isinstance(step.argval, tuple) else (str(step.argval),)
            if not passing.isdisjoint(names):
                return "", ""
            is_made = is_made or any(name not in parameters for name in names)
        elif step.argval in _PASSING:
            return "", ""
        elif step.opname not in ("LOAD_CONST", "KW_NAMES"):
            is_made = True
    return (writer, "") if is_made else ("", writer)


def _arguments(steps: Sequence[dis.Instruction], at: int) -> tuple[Sequence[dis.Instruction], dis.Instruction | None]:
    """Return the steps that make the arguments of the call that begins here, and the call itself."""
    for end, step in enumerate(steps[at + 1 : at + _LONGEST_CALL], at + 1):
        if step.opname.startswith("CALL") and _begin(step) <= _begin(steps[at]):
            return steps[at + 1 : end], step
    return (), None


def _passing(steps: Sequence[dis.Instruction]) -> set[str]:
    """Return local names of files in memory, and of temporary ones."""
    found: set[str] = set()
    makes = stores = False
    for step in steps:
        makes = step.argval in _PASSING or (makes and not (stores and not step.opname.startswith("STORE")))
        stores = step.opname.startswith("STORE")
        if makes and step.opname.startswith(("STORE_FAST", "STORE_DEREF")):
            found |= set(step.argval) if isinstance(step.argval, tuple) else {str(step.argval)}
        elif step.opname.startswith(_ENDS) and not stores:
            makes = False
    return found


def _mode_after(steps: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when a call of `open` creates or replaces a file, as far as its mode is a constant."""
    for step in steps[at + 1 : at + _LONGEST_CALL]:
        # A call that begins later is inside its arguments: `open(join(folder, name), "w")`.
        if step.opname.startswith("STORE") or (step.opname.startswith("CALL") and _begin(step) <= _begin(steps[at])):
            return False
        if step.opname == "LOAD_CONST" and isinstance(step.argval, str) and _MODE.fullmatch(step.argval):
            return True
    return False


def _is_with_mode(steps: Sequence[dis.Instruction], at: int) -> bool:
    """Return True when a class is called with a writing mode, and not with containers."""
    given, _ = _arguments(steps, at)
    return any(step.argval in ("w", "w-") for step in given if step.opname == "LOAD_CONST") and not any(
        step.opname.startswith(("BUILD_MAP", "BUILD_TUPLE", "BUILD_LIST", "BUILD_CONST")) for step in given
    )


def _begin(step: dis.Instruction) -> tuple[int, int]:
    """Return an instruction's position in the source; the same for all if Python has no positions."""
    places = step.positions
    return (0, 0) if places is None else (places.lineno or 0, places.col_offset or 0)


def _path_left(fn: types.FunctionType, steps: Sequence[dis.Instruction], at: int) -> str:
    """Return the constant path in a call that occurs nowhere else in the function, and so is not returned."""
    following = steps[at + 1 : at + 2]
    before = steps[max(at - 2, 0) : at]
    beside = [*following, *(before if steps[at].opname in _ATTRIBUTES and steps[at].argval in _OF_PATHS else ())]
    for step in beside:
        value = fn.__globals__.get(step.argval) if step.opname in _GLOBALS else step.argval
        if step.opname not in ("LOAD_CONST", *_GLOBALS) or not isinstance(value, str | os.PathLike):
            continue
        path = os.fsdecode(os.fspath(value))
        uses = sum(other.argval is step.argval or other.argval == step.argval for other in steps)
        if paths_in(path) and uses == 1:
            return path
    return ""


def unwrapped(thing: Any) -> Any:
    """Return the function inside partials, methods and decorators."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if isinstance(thing, (types.MethodType, staticmethod, classmethod)):
        thing = thing.__func__
    seen: list[Any] = []
    while callable(thing) and all(thing is not other for other in seen):
        seen.append(thing)
        wrapped = wrapped_by(thing)
        thing = thing if wrapped is ABSENT else wrapped
    return thing


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)
