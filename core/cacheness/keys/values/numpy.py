"""Encode numpy's arrays and scalars, scipy's sparse arrays and torch's tensors.

An array is its type, shape and values in C order, whatever its layout in memory. Values are hashed
in place; only non-contiguous ones are copied, a piece at a time.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
from blake3 import blake3

from cacheness.keys.encode import Encoder, handles, handles_family, reads_names
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.values.attributes import add_attributes, held

#: Bytes that are hashed, and copied if needed, at a time.
_PIECE: Final = 1 << 20
#: Texts that are encoded at a time.
_TEXTS: Final = 1 << 16
#: With so few numbers, setting numpy's flags would take longer than a check of each.
_FEW: Final = 4096
#: Extended precision: 63 bits of a fraction, in ten of sixteen bytes.
_EXTENDED: Final = 63
_PADDED: Final = 16


@handles(np.ndarray)
def _array(encoder: Encoder, value: np.ndarray[Any, Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.open("ndarray", 3)
        add_array(encoder, value)
        encoder.leave(value, start)


@handles(np.memmap)
def _memory_map(encoder: Encoder, value: np.memmap[Any, Any]) -> None:
    # Not the name of its file: the content counts.
    encoder.open("memmap", 3)
    add_array(encoder, value)


def add_array(encoder: Encoder, value: np.ndarray[Any, Any]) -> None:
    """Append the type, the shape and the values of an array."""
    encoder.add(value.dtype)
    encoder.out += b"(%x:%b" % (value.ndim, b"".join([b"i%x;" % size for size in value.shape]))
    if value.dtype.hasobject and value.dtype.fields is None:
        add_objects(encoder, value.ravel(order="C").tolist())
    elif value.dtype.hasobject or value.dtype.kind == "T":
        encoder.step("", value.ravel(order="C").tolist())
    else:
        encoder.out += digest_of_values(value)


def add_objects(encoder: Encoder, values: list[Any]) -> None:
    """Append many objects: text in bulk, all others one by one with their places."""
    encoder.spend(len(values))
    texts = values
    others: list[Any] = []
    if set(map(type, values)) - {str}:
        others = [(at, value) for at, value in enumerate(values) if type(value) is not str]
        texts = [value if type(value) is str else "" for value in values]
    encoder.step("", others)
    encoder.out += _digest_of_texts(texts)


def _digest_of_texts(texts: list[str]) -> bytes:
    lengths, data = blake3(), blake3()
    for at in range(0, len(texts), _TEXTS):
        sizes, joined = _joined(texts[at : at + _TEXTS])
        lengths.update(bytes_of(sizes))
        data.update(joined)
    return blake3(lengths.digest() + data.digest()).digest()


def _joined(texts: list[str]) -> tuple[np.ndarray[Any, Any], Any]:
    """Append the sizes of texts, and their bytes one after the other. Arrow is faster if it is loaded already."""
    arrow = sys.modules.get("pyarrow")
    if arrow is not None:
        try:
            array = arrow.array(texts, type=arrow.large_string())
            _, offsets, data = array.buffers()
            return np.diff(np.frombuffer(offsets, "<i8")[: len(texts) + 1]), memoryview(data or b"")
        except UnicodeEncodeError:
            pass  # a lone surrogate is valid text in Python, and not in Arrow
    pieces = [text.encode("utf-8", "surrogatepass") for text in texts]
    return np.fromiter(map(len, pieces), "<i8", len(pieces)), b"".join(pieces)


@handles_family(lambda kind: issubclass(kind, np.dtype))
def _dtype(encoder: Encoder, value: np.dtype[Any]) -> None:
    if value.isbuiltin == 1 and value.metadata is None and value.kind in "biufc":
        known = _plain.get(value.num)
        if known is None:
            start = len(encoder.out)
            encoder.tagged("dtype", value.str, *_name_of(value))
            known = _plain[value.num] = bytes(encoder.out[start:])
        else:
            encoder.out += known
        return
    metadata = None if value.metadata is None else dict(value.metadata)
    if metadata:
        encoder.open("noted dtype", 2)
        encoder.step(".metadata", metadata)
    if value.fields is not None:
        fields = [(name, *value.fields[name]) for name in value.names or ()]
        name = f"{value.type.__module__}.{value.type.__qualname__}"
        encoder.tagged("struct dtype", fields, value.itemsize, value.isalignedstruct, name)
    elif value.subdtype is not None:
        encoder.tagged("sub dtype", *value.subdtype)
    elif value.kind == "T":
        missing = [value.na_object] if hasattr(value, "na_object") else []
        encoder.tagged("dtype", type(value).__name__, value.coerce, missing)  # type: ignore[attr-defined]
    else:
        # Written with its byte order, for machines with another one.
        encoder.tagged("dtype", value.str, *_name_of(value))


#: Encodings of numpy's types by their number, which distinguishes `long` and `longlong`.
_plain: dict[int, bytes] = {}


def _name_of(dtype: np.dtype[Any]) -> list[str]:
    """Return the name of a type if its format string is ambiguous: int4 and float8 are both `V1`."""
    kind = dtype.type
    is_usual = np.dtype(dtype.str).type is kind and kind.__module__ == "numpy"
    return [] if is_usual else [f"{kind.__module__}.{kind.__qualname__}"]


@handles(np.str_)
@reads_names
def _text(encoder: Encoder, value: np.str_) -> None:
    encoder.open("numpy text", 1)
    encoder.add(str(value))  # the members of an array of file names


@handles_family(lambda kind: issubclass(kind, np.generic))
def _scalar(encoder: Encoder, value: np.generic) -> None:
    kind = type(value)
    if kind is not value.dtype.type:
        encoder.open("numpy subclass", 3)
        encoder.add(kind)
        add_attributes(encoder, value, held(value))
    encoder.open("numpy scalar", 2)
    encoder.add(value.dtype)
    if value.dtype.hasobject:
        encoder.step("", value.item())
    elif value.dtype.fields is not None or value.dtype.char in "gG":
        encoder.out += digest_of_values(np.asarray(value))  # this leaves out bytes between the fields
    else:
        encoder.blob(b"b", _without_odd_nans(np.asarray(value)).tobytes())


@handles_family(lambda kind: issubclass(kind, np.ma.MaskedArray))
def _masked(encoder: Encoder, value: np.ma.MaskedArray[Any, Any]) -> None:
    if value is np.ma.masked:  # there is a mask, whose fill value numpy does not return
        encoder.tagged("masked")
        return
    # Values under the mask count too: `.data` shows them.
    if (start := encoder.enter(value)) >= 0:
        mask = None if value.mask is np.ma.nomask else np.asarray(value.mask)
        base = None if value.baseclass is np.ndarray else value.baseclass
        encoder.tagged("masked array", mask, np.asarray(value.fill_value), bool(value.hardmask), base)
        if type(value) is not np.ma.MaskedArray:
            encoder.open("numpy subclass", 2)
            encoder.add(type(value))
        add_attributes(encoder, value, _beside_mask(value))
        add_array(encoder, np.ma.getdata(value, subok=False))
        encoder.leave(value, start)


def _beside_mask(value: np.ma.MaskedArray[Any, Any]) -> dict[str, Any]:
    beside = {name: part for name, part in held(value).items() if name not in _MASKING}
    return {**beside, **getattr(value, "_optinfo", {})}


#: Where numpy stores an array's mask, and its original data.
_MASKING: Final = frozenset(
    {"_mask", "_fill_value", "_hardmask", "_sharedmask", "_baseclass", "_isfield", "_optinfo", "_basedict"}
)


@handles_family(lambda kind: issubclass(kind, np.ndarray))
def _array_subclass(encoder: Encoder, value: np.ndarray[Any, Any]) -> None:
    if (start := encoder.enter(value)) >= 0:
        encoder.tagged("array subclass", type(value))
        add_attributes(encoder, value, held(value))
        add_array(encoder, np.asarray(value))
        encoder.leave(value, start)


@handles(np.ufunc)
def _ufunc(encoder: Encoder, value: np.ufunc) -> None:
    if value.__name__.endswith("(vectorized)"):
        raise Unencodable(f"{value.__name__} hides the function that np.frompyfunc was given")
    encoder.tagged("ufunc", value.__name__, value.types)
    encoder.library("numpy", np.__version__)


def digest_of_values(value: np.ndarray[Any, Any]) -> bytes:
    """Return BLAKE3 over the values in C order."""
    # One thread: pieces that fit the cache are too small to share, and workers have their threads.
    hasher = blake3()
    if value.dtype.fields is not None:
        # Field by field: between them may be bytes that belong to no value.
        for name in value.dtype.names or ():
            hasher.update(digest_of_values(value[name]))
    elif value.nbytes <= _PIECE:
        hasher.update(bytes_of(np.ascontiguousarray(value)))
    elif value.flags.c_contiguous:
        flat = value.reshape(-1)
        step = max(_PIECE // max(value.itemsize, 1), 1)
        for at in range(0, flat.size, step):
            hasher.update(bytes_of(flat[at : at + step]))
    else:
        _update_in_pieces(hasher, value)
    return hasher.digest()


def _update_in_pieces(hasher: Any, value: np.ndarray[Any, Any]) -> None:
    """Hash values in C order that have another order in memory, without a full copy."""
    if value.nbytes <= _PIECE or value.ndim == 0:
        hasher.update(bytes_of(np.ascontiguousarray(value)))
        return
    rows = max(_PIECE // max(value.nbytes // max(len(value), 1), 1), 1)
    for at in range(0, len(value), rows):
        piece = value[at : at + rows]
        if len(piece) == 1:
            _update_in_pieces(hasher, piece[0])
        else:
            hasher.update(bytes_of(np.ascontiguousarray(piece)))


def bytes_of(piece: np.ndarray[Any, Any]) -> memoryview:
    """Return the bytes of a contiguous array that belong to its values."""
    if piece.dtype.char in "gG" and np.finfo(piece.dtype).nmant == _EXTENDED:
        piece = _without_odd_nans(piece).reshape(-1, 1).view(np.uint8).reshape(-1, _PADDED)[:, :10].copy()
    flat: Any = _without_odd_nans(piece).reshape(-1).view(np.uint8)
    return memoryview(flat)


def _without_odd_nans(piece: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Map all bit patterns of NaN to one. Takes contiguous arrays."""
    if piece.dtype.kind not in "fc" or not piece.size:
        return piece
    floats = piece.reshape(-1).view(piece.real.dtype)
    if floats.size < _FEW:
        if not np.isnan(floats).any():
            return piece
    else:
        with np.errstate(all="ignore"):
            # The maximum is faster than a check of each, and is NaN if one of them is.
            if not np.isnan(floats.max()):
                return piece
    floats = floats.copy()
    floats[np.isnan(floats)] = np.nan
    return floats
