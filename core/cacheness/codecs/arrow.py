"""Encode tables and data frames as Arrow IPC files, which any reader of Feather opens.

Only values that come back unchanged are accepted. Pickle encodes the rest (objects, MultiIndex,
attrs, frequencies, byte-swapped numbers, …), and also shares memory with the frame.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cacheness import forks
from cacheness.codecs.libraries import attempt, installed, library
from cacheness.errors import CodecError
from cacheness.protocols import Buffer, Codec

if TYPE_CHECKING:
    from cacheness.codecs.tables import Conversion

#: For each type its conversion: the module of this package, which is loaded with the first such value, and its name.
_CONVERSIONS: Final[Mapping[str, tuple[str, str]]] = {
    "pandas.DataFrame": ("pandas", "FRAME"),
    "polars.DataFrame": ("polars", "FRAME"),
    "polars.Series": ("polars", "SERIES"),
    "pyarrow.Table": ("tables", "TABLE"),
    "pyarrow.RecordBatch": ("tables", "BATCH"),
    "pyarrow.ChunkedArray": ("tables", "CHUNKED_ARRAY"),
}
_NAMES: Final = frozenset(kind.partition(".")[2] for kind in _CONVERSIONS)


def _module(name: str) -> Any:
    with forks.no_fork():  # a child forked during a thread's import could never import that module
        return importlib.import_module(f"cacheness.codecs.{name}")


def _conversion(kind: str) -> Conversion:
    module, name = _CONVERSIONS[kind]
    found: Conversion = getattr(_module(module), name)
    return found


class ArrowCodec:
    """Data frames of pandas and polars; tables, batches and chunked arrays of pyarrow."""

    name = "arrow"
    safe = True

    def __init__(self, *, validates: bool = True) -> None:
        self._validates = validates  #: the settings of a read; a write always stores the index

    def accepts(self, value: Any) -> bool:
        """Accept values that Arrow describes in full. Checks types and indexes, never the cells."""
        kind = _kind(value)
        return kind is not None and installed("pyarrow") and _conversion(kind).fits(value)

    def encode(self, value: Any) -> list[Buffer]:
        """Return one IPC file, as buffers that are the columns' memory."""
        kind = _kind(value)
        if kind is None:
            raise CodecError(f"a {type(value).__qualname__} is no table")
        return attempt(lambda table: _write(_conversion(kind).to_arrow(table), kind), value)

    def decode(self, data: Buffer) -> Any:
        """Return the value. It uses the memory of `data`, where pandas can: see `pandas_blocks`."""
        try:
            return attempt(self._read, data)
        except CodecError as error:
            raise CodecError(f"a stored table cannot be read here ({error})") from error.__cause__

    def _read(self, data: Buffer) -> Any:
        pa = library("pyarrow")
        table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
        if self._validates:
            # Arrow follows offsets without checks. A signature proves the writer, and not that the offsets are valid.
            table.validate(full=True)
        table, kind = _module("tables").unlabelled(table)
        if kind not in _CONVERSIONS:
            raise CodecError(f"it holds {kind or 'nothing'!r}, which is unknown to this version")
        return _conversion(kind).from_arrow(table, data)


class _BufferFile:
    """A file that keeps the buffers it is given, without copying them."""

    closed = False

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def write(self, buffer: Any) -> None:
        self.buffers.append(memoryview(buffer).cast("B"))

    def flush(self) -> None:
        pass


def _kind(value: Any) -> str | None:
    """Return the conversion for this value; imports nothing."""
    name = type(value).__name__
    if name not in _NAMES:  # as most values
        return None
    for kind in _CONVERSIONS:
        module, _, type_name = kind.partition(".")
        if type_name == name and type(value) is getattr(sys.modules.get(module), name, None):
            return kind
    return None


def _write(table: Any, kind: str) -> list[Buffer]:
    pa = library("pyarrow")
    table = _module("tables").labelled(table, kind)
    sink = _BufferFile()
    with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), table.schema) as writer:
        writer.write(table)
    return sink.buffers


_conforms: type[Codec] = ArrowCodec
