"""Encode tensors of torch as .npy; types that NumPy lacks as bytes, with the name of torch's type.

A tensor takes the space of its elements. torch's pickle stores the whole memory of which a tensor
is a view, and cannot read every type that it writes.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from cacheness.codecs.libraries import attempt
from cacheness.codecs.numpy import NumpyCodec
from cacheness.errors import CodecError
from cacheness.protocols import Buffer, Codec

if TYPE_CHECKING:
    import numpy as np

_PREFIX: Final = "torch."
#: Bytes of an element -> a type of the same width that torch can copy.
_WIDTHS: Final = {1: "uint8", 2: "int16", 4: "int32", 8: "int64", 16: "complex128"}
_arrays: Final = NumpyCodec()


class TensorCodec:
    """Encodes plain tensors on the CPU, in C or Fortran order, without gradients."""

    name = "tensor"
    safe = True

    def accepts(self, value: Any) -> bool:
        """Accept plain tensors; pickle encodes the others, and tensors inside other values."""
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or not _is_plain(value):
            return False
        if value.requires_grad or value.__dict__ or value.is_conj() or value.is_neg():
            return False
        return bool(value.is_contiguous()) or _is_fortran(value)

    def encode(self, value: Any) -> list[Buffer]:
        """Return an array on the tensor's memory."""
        return attempt(lambda tensor: _arrays.encode(_array_of(tensor)), value)

    def decode(self, data: Buffer) -> Any:
        """Return a tensor on the memory of `data`."""
        array = _arrays.decode(data)
        names = array.dtype.names or ("",)
        name, shape = names[0], array.shape
        if len(names) != 1 or not name.startswith(_PREFIX):
            raise CodecError(f"this is an array of {array.dtype}, and no tensor")
        strides = tuple(step // array.dtype.itemsize for step in array.strides)
        memory = array.reshape(-1, order="A").view("u1")
        return attempt(lambda memory: rebuild_tensor(memory, name, shape, strides), memory)


def reduce_tensor(value: Any) -> Any:
    """Reduce a tensor to its elements, without the rest of the memory of which it is a view."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return NotImplemented
    if type(value) not in {torch.Tensor, torch.nn.Parameter} or not _is_plain(value):
        return NotImplemented
    own = _dense(value.detach().resolve_conj().resolve_neg())
    more = {
        "requires_grad": value.requires_grad,
        "is_parameter": type(value) is torch.nn.Parameter,
        "attributes": value.__dict__,
    }
    memory = pickle.PickleBuffer(_memory_of(own))
    return rebuild_tensor, (memory, str(value.dtype), tuple(value.shape), own.stride(), more)


def rebuild_tensor(
    memory: Any,
    dtype: str,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    more: Mapping[str, Any] | None = None,
) -> Any:
    """Make a tensor on writable memory. Stored pickles name this function: it never moves."""
    torch = _torch()
    kind = getattr(torch, dtype.removeprefix(_PREFIX), None)
    if not isinstance(kind, torch.dtype):
        raise CodecError(f"this version of torch has no type {dtype}")
    tensor = _bytes_on(memory, kind.itemsize).view(kind).as_strided(shape, strides)
    if more:
        needs = more["requires_grad"]
        tensor = torch.nn.Parameter(tensor, needs) if more["is_parameter"] else tensor.requires_grad_(needs)
        tensor.__dict__.update(more["attributes"])
    return tensor


def _torch() -> Any:
    try:
        import torch  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise CodecError(f"reading this tensor needs torch, which cannot be imported: {error}") from error
    return torch


def _is_plain(value: Any) -> bool:
    torch = sys.modules["torch"]
    if value.layout is not torch.strided or value.device.type != "cpu":
        return False
    if value.is_quantized or value.is_nested or value.dtype.itemsize not in _WIDTHS:
        return False
    is_named = any(getattr(value, "names", None) or ())
    return not value._backward_hooks and not is_named and _has_memory(value)  # noqa: SLF001 - torch has no other name


def _has_memory(value: Any) -> bool:
    """Return True when torch exposes the memory: not for tensors of other libraries or of transformations."""
    try:
        return bool(value.numel() == 0 or value.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):
        return False


def _is_fortran(value: Any) -> bool:
    return bool(value.permute(*reversed(range(value.ndim))).is_contiguous())


def _dense(value: Any) -> Any:
    """Return the tensor, or a copy without gaps and repeats, in the same memory order if it has one."""
    torch = sys.modules["torch"]
    extent = 1 + sum((size - 1) * stride for size, stride in zip(value.shape, value.stride(), strict=True))
    if value.numel() in {0, extent}:
        return value
    # As plain numbers: torch cannot copy types smaller than a byte, and warns about half a complex number.
    plain = value.view(getattr(torch, _WIDTHS[value.dtype.itemsize]))
    return torch.clone(plain, memory_format=torch.preserve_format).view(value.dtype)


def _memory_of(value: Any) -> Any:
    """Return the bytes of a tensor without gaps, in their memory order."""
    torch = sys.modules["torch"]
    size = value.numel() * value.dtype.itemsize
    if not size:
        return b""
    flat = torch.empty(0, dtype=torch.uint8)
    flat.set_(value.untyped_storage(), value.storage_offset() * value.dtype.itemsize, (size,), (1,))
    return flat.numpy()


def _array_of(value: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    memory = np.frombuffer(_memory_of(value), np.uint8) if value.numel() else np.empty(0, np.uint8)
    dtype = np.dtype([(str(value.dtype), _type_beside(value))])
    flat = memory.view(dtype)
    return flat.reshape(tuple(value.shape), order="C" if value.is_contiguous() else "F")


def _type_beside(value: Any) -> np.dtype[Any]:
    """Return NumPy's type of the elements, or bytes."""
    try:
        found: np.dtype[Any] = value.numpy().dtype
    except TypeError:
        import numpy as np

        return np.dtype(f"V{value.dtype.itemsize}")
    return found


def _bytes_on(memory: Any, width: int) -> Any:
    import numpy as np
    import torch

    if not memoryview(memory).nbytes:
        return torch.empty(0, dtype=torch.uint8)
    array = np.frombuffer(memory, np.uint8)
    if not array.flags.writeable or array.ctypes.data % width:
        array = array.copy()
    return torch.from_numpy(array)


_conforms: type[Codec] = TensorCodec
