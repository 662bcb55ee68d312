"""What Arrow's own types need to become a table, and to come back from one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cacheness.codecs.libraries import library
from cacheness.lazy_dataclass import dataclass

_LABEL: Final = b"cacheness"


@dataclass(frozen=True, slots=True)
class Conversion:
    """How one type of value travels as an Arrow table."""

    fits: Callable[[Any], bool]  #: whether it comes back exactly as it was
    to_arrow: Callable[[Any], Any]
    from_arrow: Callable[[Any], Any]


def labelled(table: Any, kind: str) -> Any:
    """The table with a note in its schema of what it stands for."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _LABEL: kind.encode()})


def unlabelled(table: Any) -> tuple[Any, str]:
    """The table as it was, and the note."""
    metadata = dict(table.schema.metadata or {})
    kind = metadata.pop(_LABEL, b"").decode()
    return table.replace_schema_metadata(metadata or None), kind


def _table_fits(table: Any) -> bool:
    # A table that was read from one of our blobs by other means carries our note; it would not come back with it.
    ours = _LABEL in (table.schema.metadata or {})
    return not ours and all(_column_fits(table.column(i)) for i in range(table.num_columns))


def _column_fits(column: Any) -> bool:
    return _type_fits(column.type, chunks=getattr(column, "num_chunks", 1))


def _type_fits(kind: Any, chunks: int) -> bool:
    pa = library("pyarrow")
    if isinstance(kind, pa.BaseExtensionType):
        return False  # a process that has not registered it reads the storage instead
    if pa.types.is_dictionary(kind):
        return chunks < 2 and _type_fits(kind.value_type, chunks)  # a file has one dictionary for each column
    return all(_type_fits(kind.field(i).type, chunks) for i in range(kind.num_fields))


def _batch_fits(batch: Any) -> bool:
    return batch.num_columns > 0 and _table_fits(batch)


def _only_batch(table: Any) -> Any:
    # to_batches() leaves out a batch without rows.
    columns = [column.chunk(0) for column in table.columns]
    return library("pyarrow").RecordBatch.from_arrays(columns, schema=table.schema)


def _validated(value: Any) -> Any:
    """What anybody's code may have made of any memory: readers follow its offsets without looking."""
    value.validate(full=True)
    return value


def _unchanged(value: Any) -> Any:
    return value


TABLE: Final = Conversion(_table_fits, _validated, _unchanged)
BATCH: Final = Conversion(_batch_fits, _validated, _only_batch)
CHUNKED_ARRAY: Final = Conversion(
    _column_fits, lambda array: library("pyarrow").table([_validated(array)], names=[""]), lambda table: table.column(0)
)
