"""Encode frames, series and expressions of polars: names, types, values through Arrow, plans."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import polars as pl

from cacheness.keys.encode import Encoder, handles, handles_family
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.values.arrow import add_chunks
from cacheness.keys.values.files import File, add_path, local_path
from cacheness.keys.values.objects import instance


@handles(pl.DataFrame)
def _frame(encoder: Encoder, value: pl.DataFrame) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("polars frame", value.height, value.columns)
        for column in value.iter_columns():
            encoder.step(f"[{column.name!r}]", column)
        encoder.leave(value, start)


@handles(pl.Series)
def _series(encoder: Encoder, value: pl.Series) -> None:
    encoder.tagged("polars series", value.name, value.dtype)
    if value.dtype == pl.Object:
        encoder.step("", value.to_list())
    else:
        array = value.to_arrow()
        add_chunks(encoder, [array], array.type)


@handles_family(lambda kind: issubclass(kind, pl.DataType) or kind is type(pl.DataType))
def _type(encoder: Encoder, value: pl.DataType) -> None:
    encoder.tagged("polars type", str(value))


@handles(pl.LazyFrame)
def _lazy(encoder: Encoder, value: pl.LazyFrame) -> None:
    plan = _plan_of(lambda: value.serialize(format="json"))
    files = list(_sources_in(plan))
    encoder.open("polars lazy frame", 1 + len(files))
    _add_plan(encoder, value, plan)
    for path in files:
        local = local_path(path)
        if local is None or any(c in local for c in "*?["):
            encoder.add(File(path))
        else:
            add_path(encoder, local)


@handles_family(lambda kind: issubclass(kind, pl.Expr))
def _expression(encoder: Encoder, value: pl.Expr) -> None:
    # A large literal takes long to convert to text.
    if _PICKLE.search(value.__getstate__()):
        _add_plan(encoder, value, _plan_of(lambda: value.meta.serialize(format="json")))
    else:
        instance(encoder, value)


#: The start of a pickle, also if bytes above 127 are each escaped.
_PICKLE: Final = re.compile(rb"\x80[\4\5]\xcc?\x95")
#: Before it, polars writes which pickle library made it, and in which Python.
_FUNCTION: Final = re.compile(rb"[\0\1]%b(?=\x80[\4\5]\x95)" % re.escape(bytes(sys.version_info[1:3])))
#: Before that, polars' data about a function of columns: an array of four.
_HEAD: Final = b"PLPYFN\x94"
#: Parts of a plan that contain data, in which bytes are the user's.
_DATA: Final = frozenset({"df", "Literal", "sources"})


def _add_plan(encoder: Encoder, value: Any, plan: Any) -> None:
    """Append a frame or an expression; functions of Python in it count by their code, and the rest by its plan."""
    functions: list[Any] = []
    rest = _without_functions(plan, functions)
    if not functions:
        instance(encoder, value)
    elif (start := encoder.enter(value)) >= 0:
        encoder.tagged("polars plan", type(value), json.dumps(rest), functions)
        encoder.leave(value, start)


def _without_functions(plan: Any, functions: list[Any]) -> Any:
    if isinstance(plan, dict):
        return {name: part if name in _DATA else _without_functions(part, functions) for name, part in plan.items()}
    if not isinstance(plan, list):
        return plan
    if not plan or not all(type(part) is int and 0 <= part < 256 for part in plan):
        return [_without_functions(part, functions) for part in plan]
    content = bytes(plan)
    found = _FUNCTION.search(content)
    if found is None:
        if _PICKLE.search(content):
            raise Unencodable("a function of Python's in an expression of polars, which cannot be seen")
        return plan
    rest = io.BytesIO(content[found.end() :])
    functions.append(pickle.load(rest))  # polars wrote it just now, in this process
    return [list(_without_memo(content[: found.start()])), list(rest.read())]


def _without_memo(head: bytes) -> bytes:
    # Polars writes the requested type, the column that resulted when it ran, and two flags.
    if not head.startswith(_HEAD):
        return head
    try:
        asked = _end_of_value(head, len(_HEAD))
        return head[:asked] + head[_end_of_value(head, asked) :]
    except IndexError:
        return head


#: Markers of MessagePack before a value of a known length, with that length.
_FIXED: Final = {0xCC: 1, 0xD0: 1, 0xCD: 2, 0xD1: 2, 0xCA: 4, 0xCE: 4, 0xD2: 4, 0xCB: 8, 0xCF: 8, 0xD3: 8}
#: Markers before the length of a text or of bytes, of an array, of a map, with the length of that number.
_TEXTS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS: Final = {0xDC: 2, 0xDD: 4}
_MAPS: Final = {0xDE: 2, 0xDF: 4}


def _end_of_value(data: bytes, at: int) -> int:
    """Return where a value of MessagePack ends."""
    kind, at = data[at], at + 1
    size = _TEXTS.get(kind) or _ARRAYS.get(kind) or _MAPS.get(kind) or 0
    count, at = int.from_bytes(data[at : at + size]), at + size
    if kind in _TEXTS:
        return at + count
    if 0xA0 <= kind < 0xC0:
        return at + kind - 0xA0
    if 0x80 <= kind < 0xA0:
        count = 2 * (kind - 0x80) if kind < 0x90 else kind - 0x90
    elif kind in _MAPS:
        count *= 2
    for _ in range(count):
        at = _end_of_value(data, at)
    return at + _FIXED.get(kind, 0)


def _plan_of(serialize: Callable[[], str]) -> Any:
    try:
        with warnings.catch_warnings():
            # The binary form is internal to polars; what is read from it is checked.
            warnings.simplefilter("ignore")
            return json.loads(serialize())
    except (pl.exceptions.PolarsError, TypeError, ValueError, NotImplementedError) as error:
        raise Unencodable(f"a lazy frame or an expression whose plan cannot be read ({error})") from error


def _sources_in(plan: Any) -> Iterator[str]:
    """Return the files that a plan reads."""
    if isinstance(plan, list):
        for part in plan:
            yield from _sources_in(part)
    elif isinstance(plan, dict):
        if "PythonScan" in plan:
            raise Unencodable("a lazy frame that reads by a function of Python's: collect it first")
        for name, part in plan.items():
            if name == "Scan" and isinstance(part, dict):
                yield from _paths_of(part.get("sources"))
            yield from _sources_in(part)


def _paths_of(sources: Any) -> Iterator[str]:
    paths = sources.get("Paths") if isinstance(sources, dict) else None
    if paths is None:
        if isinstance(sources, dict) and "Buffers" in sources:
            return  # bytes in memory, which are part of the plan
        raise Unencodable("a lazy frame whose files cannot be seen: collect it first")
    for path in paths:
        text = _text_of(path)
        if not isinstance(text, str):
            raise Unencodable(f"a lazy frame that reads {path!r:.80}, whose content cannot be seen")
        yield text


def _text_of(path: Any) -> Any:
    if not isinstance(path, dict):
        return path
    cloud = path.get("Cloud")  # of polars 1, as "Local"
    return path.get("inner") or path.get("Local") or (cloud.get("uri") if isinstance(cloud, dict) else None)
