"""Make a frame of pandas whose numbers lie in the memory that was read.

Arrow's memory cannot be written to, so pyarrow copies numbers into pandas' blocks. The memory of a blob is writable and
belongs to its reader alone, so the blocks that are made here are arrays on it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cacheness.codecs.libraries import library
from cacheness.protocols import Buffer

if TYPE_CHECKING:
    import numpy as np

    _Array: TypeAlias = np.ndarray[Any, Any]

#: Bytes of a column, on average. A column of fewer is copied in less time than it is placed.
_WORTHWHILE: Final = 128 << 10
#: pandas warns of a frame with more than 100 blocks when a column is added.
_BLOCKS_AT_MOST: Final = 50
#: A frame keeps all of the memory. If less than this share of it is in use, copies take less space.
_LEAST_USED: Final = 0.7


def frame_on(table: Any, memory: Buffer) -> Any:
    """Return a table that lies in this memory as a frame on it; None if a copy is better."""
    pd, np = library("pandas"), library("numpy")
    # Before version 3, pandas has no public function for it.
    if pd.__version__.startswith("2.") or memoryview(memory).readonly:
        return None
    if table.nbytes < _WORTHWHILE * max(table.num_columns, 1):
        return None
    frame = table.to_pandas(split_blocks=True, use_threads=False)  # it copies nearly nothing
    blob = _BlobMemory(memory)
    index = _index_on(frame.index, blob)
    blocks: list[tuple[Any, list[int]]] = []
    found: dict[Any, list[tuple[int, int]]] = {}
    for position, dtype in enumerate(frame.dtypes):
        column = frame.iloc[:, position]
        if not isinstance(dtype, np.dtype):
            blocks.append((_extension_array(column, blob), [position]))
        elif (at := blob.offset_of(column.to_numpy())) is None:
            blocks.append((_own(column.to_numpy())[None, :], [position]))
        else:
            found.setdefault(dtype, []).append((position, at))
    blocks += _joined(found, len(frame), blob)
    if blob.used < _LEAST_USED * len(memory) or len(blocks) > _BLOCKS_AT_MOST:
        return None
    placed = [(values, np.array(positions)) for values, positions in blocks]
    return library("pandas.api.internals").create_dataframe_from_blocks(placed, index=index, columns=frame.columns)


class _BlobMemory:
    """The memory of a blob, and how much of it is in use."""

    def __init__(self, memory: Buffer) -> None:
        self._memory = memory
        self._start = _address(library("numpy").frombuffer(memory, "u1"))
        self.used = 0  #: bytes

    def offset_of(self, values: _Array) -> int | None:
        """Return where in the memory an array lies, and count it as used; None if it lies elsewhere."""
        at = _address(values) - self._start
        is_here = at >= 0 and at + values.nbytes <= len(self._memory)
        if not (is_here and values.flags.c_contiguous and values.flags.aligned):
            return None
        self.used += values.nbytes
        return at

    def writable(self, values: _Array) -> _Array:
        """Return a writable array with the same values: on this memory if they lie there, or else a copy."""
        at = self.offset_of(values)
        return values.copy() if at is None else self.block(values.dtype, [at], len(values))[0]

    def block(self, dtype: Any, offsets: list[int], rows: int) -> _Array:
        """Return columns at equal distances as one array. NumPy checks that it is within the memory."""
        step = offsets[1] - offsets[0] if len(offsets) > 1 else rows * dtype.itemsize
        strides = (step, dtype.itemsize)
        made: _Array = library("numpy").ndarray((len(offsets), rows), dtype, self._memory, offsets[0], strides)
        return made


def _address(values: _Array) -> int:
    address: int = values.__array_interface__["data"][0]
    return address


def _own(values: _Array) -> _Array:
    """Return the array that pyarrow made for this column. pandas returns a read-only view."""
    try:
        values.flags.writeable = True
    except ValueError:  # on other memory of Arrow
        return values.copy()
    return values


def _extension_array(column: Any, blob: _BlobMemory) -> Any:
    pd, dtype = library("pandas"), column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Categorical.from_codes(blob.writable(column.array.codes), dtype=dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return pd.array(blob.writable(column.array.view("i8")), dtype=dtype, copy=False)
    if isinstance(dtype, pd.StringDtype):
        blob.used += column.array.nbytes  # Arrow's: a write replaces the whole array
    return column.array


def _index_on(index: Any, blob: _BlobMemory) -> Any:
    """Return an index of numbers or times on memory that can be written to, as a series made of it shares it."""
    pd, np = library("pandas"), library("numpy")
    if type(index) not in {pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex} or not isinstance(index.dtype, np.dtype):
        return index
    return type(index)(blob.writable(index.to_numpy()), name=index.name, copy=False)


def _joined(found: dict[Any, list[tuple[int, int]]], rows: int, blob: _BlobMemory) -> list[tuple[_Array, list[int]]]:
    """Return blocks of columns that have one type and lie at equal distances: pandas is slower on many blocks."""
    blocks = []
    for dtype, columns in found.items():
        offsets = [at for _, at in columns]
        for run in _runs(offsets, rows * dtype.itemsize):
            block = blob.block(dtype, [offsets[number] for number in run], rows)
            blocks.append((block, [columns[number][0] for number in run]))
    return blocks


def _runs(offsets: list[int], size: int) -> list[range]:
    """Return ranges of offsets that have equal distances, of at least the size."""
    steps = [after - before for before, after in pairwise(offsets)]
    runs, start = [], 0
    for number, step in enumerate(steps, 1):
        if step < size or step != steps[start]:
            runs.append(range(start, number))
            start = number
    return [*runs, range(start, len(offsets))]
