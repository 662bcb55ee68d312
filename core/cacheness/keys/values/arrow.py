"""Encode Arrow's arrays and tables by content, independent of chunks.

The buffers are hashed in place, chunk by chunk: validity, lengths and values each as one stream, so
that slices and chunks of equal content agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
from blake3 import blake3

from cacheness.keys.encode import Encoder, handles, handles_family
from cacheness.keys.encode import encode as _encode
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.owners import module_of
from cacheness.keys.values.files import add_path
from cacheness.keys.values.lazy_files import add_file_of, counted
from cacheness.keys.values.numpy import bytes_of

_FLOATS: Final = {pa.float16(): np.float16, pa.float32(): np.float32, pa.float64(): np.float64}


@handles(pa.ChunkedArray)
def _chunked(encoder: Encoder, value: pa.ChunkedArray) -> None:
    encoder.open("arrow chunked array", 2)
    add_chunks(encoder, value.chunks, value.type)


@handles_family(lambda kind: issubclass(kind, pa.Array))
def _array(encoder: Encoder, value: pa.Array) -> None:
    encoder.open("arrow array", 2)
    add_chunks(encoder, [value], value.type)


@handles_family(lambda kind: issubclass(kind, pa.Scalar))
def _scalar(encoder: Encoder, value: pa.Scalar) -> None:
    encoder.open("arrow scalar", 2)
    inner = value
    while isinstance(inner, pa.ExtensionScalar) and inner.is_valid:
        inner = inner.value
    encoder.add(value.type)
    array = pa.repeat(inner, 1) if inner.is_valid else pa.nulls(1)
    add_content(encoder, [array], array.type)


@handles(pa.Table, pa.RecordBatch)
def _table(encoder: Encoder, value: pa.Table | pa.RecordBatch) -> None:
    table = value if isinstance(value, pa.Table) else pa.Table.from_batches([value])
    encoder.tagged("arrow table" if table is value else "arrow batch", table.schema, table.num_rows)
    for column in table.columns:
        add_content(encoder, column.chunks, column.type)


@handles_family(lambda kind: issubclass(kind, pa.DataType))
def _type(encoder: Encoder, value: pa.DataType) -> None:
    if isinstance(value, pa.BaseExtensionType):
        # Its constructor's arguments: its repr may be only a name.
        made = value.__reduce__()[1]
        kind = type(value)
        encoder.tagged("arrow extension", value.extension_name, kind.__name__, value.storage_type, made)
        if module_of(kind).partition(".")[0] != "pyarrow":
            encoder.add(kind)
        return
    fields = _fields_of(value)
    encoder.tagged("arrow type", value.id, str(value), *fields, *(getattr(value, name, None) for name in _SAYS))


#: The attributes of a type besides its fields.
_SAYS: Final = ("list_size", "keys_sorted", "ordered", "mode", "type_codes")


def _fields_of(kind: pa.DataType) -> list[Any]:
    of = pa.types
    if of.is_struct(kind) or of.is_union(kind):
        return [kind.field(at) for at in range(kind.num_fields)]
    if of.is_map(kind):
        return [kind.key_field, kind.item_field]
    if of.is_dictionary(kind):
        return [kind.index_type, kind.value_type]
    if of.is_run_end_encoded(kind):
        return [kind.run_end_type, kind.value_type]
    return [kind.value_field] if hasattr(kind, "value_field") else []


@handles(pa.Field)
def _field(encoder: Encoder, value: pa.Field) -> None:
    encoder.tagged("arrow field", value.name, value.type, value.nullable, value.metadata)


@handles(pa.Schema)
def _schema(encoder: Encoder, value: pa.Schema) -> None:
    encoder.tagged("arrow schema", list(value), value.metadata)


@handles(pa.Buffer)
def _buffer(encoder: Encoder, value: pa.Buffer) -> None:
    encoder.open("arrow buffer", 1)
    encoder.blob(b"b", memoryview(value))


def add_chunks(encoder: Encoder, chunks: Sequence[pa.Array], kind: pa.DataType) -> None:
    """Append the type and the content of an array that comes in chunks."""
    encoder.add(kind)
    add_content(encoder, chunks, kind)


def add_content(encoder: Encoder, chunks: Sequence[pa.Array], kind: pa.DataType) -> None:
    """Append the content of an array whose type is encoded elsewhere."""
    try:
        encoder.out += _digest_of(chunks, kind)
    except pa.ArrowException as error:
        raise Unencodable(f"an Arrow array of type {kind} cannot be read ({error})") from error


def _digest_of(chunks: Sequence[pa.Array], kind: pa.DataType) -> bytes:
    chunks = [chunk for chunk in chunks if len(chunk)]
    masks = [_nulls(chunk) if chunk.null_count else None for chunk in chunks]
    parts = [b"%x" % sum(map(len, chunks)), _digest_of_masks(chunks, masks)]
    return blake3(_encode([*parts, *_content(chunks, masks, kind)])).digest()


def _digest_of_masks(chunks: Sequence[pa.Array], masks: Sequence[Any]) -> bytes:
    if all(mask is None for mask in masks):
        return b""
    hasher = blake3()
    for chunk, mask in zip(chunks, masks, strict=True):
        hasher.update(bytes_of(np.zeros(len(chunk), np.uint8) if mask is None else mask))
    return hasher.digest()


def _nulls(chunk: pa.Array) -> np.ndarray[Any, Any]:
    return np.asarray(pc.is_null(chunk).to_numpy(zero_copy_only=False))


def _content(  # noqa: C901, PLR0911, PLR0912 - one branch for each of Arrow's layouts
    chunks: Sequence[pa.Array], masks: Sequence[Any], kind: pa.DataType
) -> list[bytes]:
    of = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return [_digest_of([chunk.storage for chunk in chunks], kind.storage_type)]
    if of.is_null(kind):
        return []
    if of.is_dictionary(kind):
        return _dictionary(chunks, kind)
    if of.is_boolean(kind):
        chunks = [chunk.fill_null(False) if chunk.null_count else chunk for chunk in chunks]
        return [_digest_of_pieces(pc.cast(chunk, pa.uint8()).to_numpy() for chunk in chunks)]
    if of.is_string(kind) or of.is_large_string(kind) or of.is_binary(kind) or of.is_large_binary(kind):
        return _texts(chunks)
    if of.is_string_view(kind) or of.is_binary_view(kind):
        return _texts([pc.cast(c, pa.large_string() if of.is_string_view(kind) else pa.large_binary()) for c in chunks])
    if of.is_struct(kind):
        columns = [chunk.flatten() for chunk in chunks]
        return [_digest_of([column[at] for column in columns], kind.field(at).type) for at in range(kind.num_fields)]
    if of.is_fixed_size_list(kind):
        return [_digest_of([chunk.flatten() for chunk in chunks], kind.value_type)]
    if of.is_map(kind):
        kind = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        chunks = [chunk.cast(kind) for chunk in chunks]
    if of.is_list(kind) or of.is_large_list(kind):
        return _lists(chunks, masks, kind)
    if of.is_run_end_encoded(kind):
        return [_digest_of([pc.run_end_decode(chunk) for chunk in chunks], kind.value_type)]
    if of.is_primitive(kind) or of.is_decimal(kind) or of.is_fixed_size_binary(kind):
        pairs = zip(chunks, masks, strict=True)
        return [_digest_of_pieces(_values(chunk, mask, kind) for chunk, mask in pairs)]
    if of.is_union(kind):
        codes = [chunk.type_codes.to_numpy() for chunk in chunks]
        return [_digest_of_pieces(codes), _encode([value for chunk in chunks for value in chunk.to_pylist()])]
    return [_encode([value for chunk in chunks for value in chunk.to_pylist()])]


def _digest_of_pieces(pieces: Any) -> bytes:
    hasher = blake3()
    for piece in pieces:
        for at in range(0, len(piece), 1 << 17):
            hasher.update(bytes_of(piece[at : at + (1 << 17)]))
    return hasher.digest()


def _values(chunk: pa.Array, mask: Any, kind: pa.DataType) -> np.ndarray[Any, Any]:
    """Return values of a fixed width, with zeros for nulls."""
    width = kind.byte_width
    raw = np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
    if mask is not None:
        raw = raw.copy()
        raw.reshape(-1, width)[mask] = 0
    return raw.view(_FLOATS[kind]) if kind in _FLOATS else raw


def _texts(chunks: Sequence[pa.Array]) -> list[bytes]:
    lengths, data = blake3(), blake3()
    for chunk in chunks:
        offsets = _offsets(chunk)
        sizes = np.diff(offsets)
        if chunk.null_count and sizes[_nulls(chunk)].any():
            offsets = _offsets(chunk := chunk.fill_null(b"" if pa.types.is_binary(chunk.type) else ""))
            sizes = np.diff(offsets)
        lengths.update(bytes_of(sizes))
        if offsets[-1] > offsets[0]:
            data.update(memoryview(chunk.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
    return [lengths.digest(), data.digest()]


def _lists(chunks: Sequence[pa.Array], masks: Sequence[Any], kind: pa.DataType) -> list[bytes]:
    lengths = blake3()
    for chunk, mask in zip(chunks, masks, strict=True):
        sizes = np.diff(_offsets(chunk))
        if mask is not None:
            sizes[mask] = 0
        lengths.update(bytes_of(sizes))
    return [lengths.digest(), _digest_of([chunk.flatten() for chunk in chunks], kind.value_type)]


def _offsets(chunk: pa.Array) -> np.ndarray[Any, Any]:
    wide = (
        pa.types.is_large_string(chunk.type)
        or pa.types.is_large_binary(chunk.type)
        or pa.types.is_large_list(chunk.type)
    )
    offsets = np.frombuffer(chunk.buffers()[1], np.int64 if wide else np.int32)
    return offsets[chunk.offset : chunk.offset + len(chunk) + 1]


def _dictionary(chunks: Sequence[pa.Array], kind: pa.DataType) -> list[bytes]:
    if not chunks:
        return []
    chunks = pa.chunked_array(chunks).unify_dictionaries().chunks
    indices = [chunk.indices for chunk in chunks]
    return [_digest_of(indices, kind.index_type), _digest_of([chunks[0].dictionary], kind.value_type)]


# data sets, which are read when needed


def _is_dataset(kind: type) -> bool:
    return any(base.__module__.startswith("pyarrow._dataset") for base in kind.__mro__)


@handles_family(lambda kind: _is_dataset(kind) and any(base.__name__ == "Dataset" for base in kind.__mro__))
def _dataset(encoder: Encoder, value: Any) -> None:
    children = getattr(value, "children", None)
    if children is not None:
        encoder.tagged("arrow union", value.schema, list(children))
    elif hasattr(value, "files"):
        fragments = sorted(value.get_fragments(), key=lambda fragment: str(fragment.path))
        form = _options_in(value.format)
        encoder.tagged("arrow dataset", value.schema, form, str(value.partition_expression), fragments)
    else:
        encoder.tagged("arrow dataset", value.schema, value.to_table())


@handles_family(lambda kind: _is_dataset(kind) and any(base.__name__ == "Fragment" for base in kind.__mro__))
def _fragment(encoder: Encoder, value: Any) -> None:
    if getattr(value, "buffer", None) is not None or not hasattr(value, "path"):
        raise Unencodable("a fragment of an Arrow data set that is in memory")
    groups = [group.id for group in value.row_groups] if hasattr(value, "row_groups") else None
    encoder.tagged("arrow fragment", _options_in(value.format), str(value.partition_expression), groups)
    add_arrow_file(encoder, value.filesystem, value.path)


@handles_family(lambda kind: _is_dataset(kind) and any(base.__name__ == "Scanner" for base in kind.__mro__))
def _scanner(_: Encoder, value: Any) -> None:
    raise Unencodable(f"{type(value).__qualname__} reads a data set only once: pass the data set")


def _options_in(part: Any) -> Any:
    """Append a file format, or options of reading, as plain values: pickle's parts, without classes."""
    if isinstance(part, dict):
        return {name: _options_in(inner) for name, inner in part.items()}
    if isinstance(part, tuple | list):
        return [_options_in(inner) for inner in part]
    kind = type(part)
    if isinstance(part, type):
        return part.__name__
    if not kind.__module__.startswith("pyarrow") or not kind.__name__.endswith(("Format", "Options")):
        return part
    return kind.__name__, _options_in(part.__reduce_ex__(2)[1:])


def add_arrow_file(encoder: Encoder, system: Any, path: str) -> None:
    """Append the content of a file on a file system of Arrow."""
    handler: Any = getattr(system, "handler", None)
    if type(system).__name__ == "LocalFileSystem":
        add_path(encoder, path)
    elif hasattr(handler, "fs"):
        add_file_of(encoder, handler.fs, path)
    else:
        counted(encoder, path, lambda inner: inner.add(_arrow_content(system, path)))


def _arrow_content(system: Any, path: str) -> Any:
    try:
        with system.open_input_stream(path) as stream:
            tag = {name: data.decode() for name, data in (stream.metadata() or {}).items()}.get("ETag")
            if tag:
                return ("ETag", tag)
            hasher = blake3()
            while piece := stream.read(1 << 22):
                hasher.update(piece)
    except OSError as error:
        raise Unencodable(f"file {path} cannot be read ({error})") from error
    return hasher.digest()
