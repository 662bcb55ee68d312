"""Convert Arrow's types to a table and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cacheness.codecs.libraries import library
from cacheness.lazy_dataclass import dataclass
from cacheness.protocols import Buffer

_LABEL: Final = b"cacheness"


@dataclass(frozen=True, slots=True)
class Conversion:
    """The conversion between one type of value and an Arrow table."""

    fits: Callable[[Any], bool]  #: whether it comes back unchanged
    to_arrow: Callable[[Any], Any]
    from_arrow: Callable[[Any, Buffer], Any]  #: of the table, and the memory in which it lies


def labelled(table: Any, kind: str) -> Any:
    """Return the table with a note in its schema about its original type."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _LABEL: kind.encode()})


def unlabelled(table: Any) -> tuple[Any, str]:
    """Return the original table, and the note."""
    metadata = dict(table.schema.metadata or {})
    kind = metadata.pop(_LABEL, b"").decode()
    return table.replace_schema_metadata(metadata or None), kind


def _table_fits(table: Any) -> bool:
    # A table that was read from one of our blobs by another program has our note, which decoding would remove.
    ours = _LABEL in (table.schema.metadata or {})
    return not ours and all(_column_fits(table.column(i)) for i in range(table.num_columns))


def _column_fits(column: Any) -> bool:
    return _type_fits(column.type, chunks=getattr(column, "num_chunks", 1))


def _type_fits(kind: Any, chunks: int) -> bool:
    pa = library("pyarrow")
    if isinstance(kind, pa.BaseExtensionType):
        return False  # a process without this registered type reads the storage type instead
    if pa.types.is_dictionary(kind):
        return chunks < 2 and _type_fits(kind.value_type, chunks)  # a file has one dictionary per column
    return all(_type_fits(kind.field(i).type, chunks) for i in range(kind.num_fields))


def _batch_fits(batch: Any) -> bool:
    return batch.num_columns > 0 and _table_fits(batch)


def _only_batch(table: Any, _: Buffer) -> Any:
    # to_batches() skips a batch without rows.
    columns = [column.chunk(0) for column in table.columns]
    return library("pyarrow").RecordBatch.from_arrays(columns, schema=table.schema)


def _validated(value: Any) -> Any:
    """Arrays whose offsets another program may have set: Arrow's readers follow offsets without checks."""
    value.validate(full=True)
    return value


def _unchanged(value: Any, _: Buffer) -> Any:
    return value


TABLE: Final = Conversion(_table_fits, _validated, _unchanged)
BATCH: Final = Conversion(_batch_fits, _validated, _only_batch)
CHUNKED_ARRAY: Final = Conversion(
    _column_fits,
    lambda array: library("pyarrow").table([_validated(array)], names=[""]),
    lambda table, _: table.column(0),
)
