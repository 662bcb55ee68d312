"""Parts of values that are views of much larger memory: pickled without the rest of it."""

from __future__ import annotations

import pickle
import sys
from typing import Any, Final

from cacheness.codecs.libraries import library
from cacheness.codecs.tensors import reduce_tensor

_SMALL: Final = 4096  #: bytes of shared memory that are not worth a copy
_ARROW: Final = ("Array", "ChunkedArray", "RecordBatch", "Table")


def may_share() -> bool:
    """Return True when a library is loaded whose values share memory."""
    return "torch" in sys.modules or "pyarrow" in sys.modules


def reduce_part(value: Any) -> Any:
    """What `reducer_override` of a pickler returns."""
    reduced = reduce_tensor(value)
    return _reduce_arrow(value) if reduced is NotImplemented else reduced


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
    # to_batches() leaves out a batch without rows.
    columns = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
    return columns[0] if kind == "Array" else pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _table_of(kind: str, value: Any) -> Any:
    pa = library("pyarrow")
    if kind == "Table":
        return value
    return pa.Table.from_batches([value]) if kind == "RecordBatch" else pa.table([value], names=[""])
