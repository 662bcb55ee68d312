"""Pickle parts of values that plain pickle would change, or store with much more memory than they use."""

from __future__ import annotations

import collections
import copyreg
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from cacheness.codecs.libraries import library
from cacheness.codecs.tensors import reduce_tensor

_SMALL: Final = 4096  #: bytes of shared memory; below this a copy is not worthwhile
_ARROW: Final = ("Array", "ChunkedArray", "RecordBatch", "Table")


def may_share() -> bool:
    """Return True when a library is loaded whose values share memory."""
    return "torch" in sys.modules or "pyarrow" in sys.modules


def reduce_part(value: Any) -> Any:
    """Reduce a value, for `reducer_override` of a pickler."""
    reduced = reduce_tensor(value)
    return _reduce_arrow(value) if reduced is NotImplemented else reduced


def reducers() -> dict[type, Callable[[Any], Any]]:
    """The `dispatch_table` of a pickler."""
    table = copyreg.dispatch_table.copy()
    table.update(_OWN)
    if numpy := sys.modules.get("numpy"):
        table[numpy.ma.MaskedArray] = _reduce_masked
    return table


def _reduce_view(value: memoryview) -> Any:
    memory: Any = value if value.c_contiguous else value.tobytes()
    if not value.readonly and memory is not value:
        memory = bytearray(memory)
    about = (value.format, value.shape or (), value.readonly)
    rebuild_view(pickle.PickleBuffer(memory).raw(), *about)  # raises where Python cannot make such a view of bytes
    return rebuild_view, (pickle.PickleBuffer(memory), *about)


def rebuild_view(memory: Any, format_: str, shape: tuple[int, ...], readonly: bool) -> memoryview:
    """Read a memoryview. Stored pickles name this function: it never moves."""
    view = memoryview(memory)
    if (view.format, view.shape) != (format_, shape):
        view = view.cast(format_, shape)  # type: ignore[call-overload]
    return view.toreadonly() if readonly else view


def _refuse(value: Any) -> NoReturn:
    raise TypeError(f"{type(value).__name__} would be read back as another type")


def _reduce_file(value: io.TextIOWrapper) -> Any:
    for name in ("stdout", "stderr"):
        if value is getattr(sys, name):
            return getattr, (sys, name)
    return _refuse(value)


#: cloudpickle would store a view and a file as their content; pickle, iterators of these as those of lists.
_OWN: Final[dict[type, Callable[[Any], Any]]] = {
    memoryview: _reduce_view,
    io.TextIOWrapper: _reduce_file,
    **{
        type(make()): _refuse
        for container in (dict[str, int](), collections.OrderedDict[str, int]())
        for view in (container.keys(), container.values(), container.items())
        for make in (view.__iter__, view.__reversed__)
    },
    type(iter(set())): _refuse,
}


def _reduce_masked(value: Any) -> Any:
    # numpy's pickles lose that a mask is hard, and create a mask for an array that has none.
    reduced = value.__reduce__()
    has_none = value.mask is sys.modules["numpy"].ma.nomask
    return (rebuild_masked, (*reduced, value.hardmask, has_none)) if value.hardmask or has_none else reduced


def rebuild_masked(make: Callable[..., Any], given: tuple[Any, ...], state: Any, hard: bool, has_none: bool) -> Any:
    """Read a masked array. Stored pickles name this function: it never moves."""
    value = make(*given)
    value.__setstate__(state)
    if has_none:
        value.shrink_mask()
    return value.harden_mask() if hard else value


def _reduce_arrow(value: Any) -> Any:
    pa = sys.modules.get("pyarrow")
    kind = next((name for name in _ARROW if pa and isinstance(value, getattr(pa, name, ()))), "")
    if not kind or value.get_total_buffer_size() <= 2 * value.nbytes + _SMALL:
        return NotImplemented
    table = _table_of(kind, value)
    sink = library("pyarrow").BufferOutputStream()
    with library("pyarrow").ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return rebuild_arrow, (kind, pickle.PickleBuffer(sink.getvalue()))


def rebuild_arrow(kind: str, memory: Any) -> Any:
    """Read an Arrow value. Stored pickles name this function: it never moves."""
    pa = library("pyarrow")
    table = pa.ipc.open_stream(pa.py_buffer(memory)).read_all()
    if kind == "Table":
        return table
    if kind == "ChunkedArray":
        return table.column(0)
    # to_batches() skips a batch without rows.
    columns = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
    return columns[0] if kind == "Array" else pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _table_of(kind: str, value: Any) -> Any:
    pa = library("pyarrow")
    if kind == "Table":
        return value
    return pa.Table.from_batches([value]) if kind == "RecordBatch" else pa.table([value], names=[""])
