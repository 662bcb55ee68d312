"""Encode torch's tensors: type, shape, gradient, attributes, and values on any device.

Neither the device nor the layout in memory counts: strides, sharing, views, lazy conjugates.
"""

from __future__ import annotations

from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]
from torch.utils import _python_dispatch  # type: ignore[import-not-found, unused-ignore]

from cacheness.keys.encode import Encoder, handles, handles_family
from cacheness.keys.error_paths import Unencodable
from cacheness.keys.owners import module_of
from cacheness.keys.values.attributes import add_attributes, held
from cacheness.keys.values.numpy import digest_of_values

_BY_ROW = (torch.sparse_csr, torch.sparse_bsr)
_BY_COLUMN = (torch.sparse_csc, torch.sparse_bsc)


@handles_family(lambda kind: issubclass(kind, torch.Tensor))
def _tensor(encoder: Encoder, value: torch.Tensor) -> None:
    if (start := encoder.enter(value)) < 0:
        return
    # A subclass may override how its values are read.
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - torch has no other name for it
        _refuse(value)
        kind = type(value)
        name = kind.__name__ if module_of(kind).partition(".")[0] == "torch" else kind
        encoder.tagged("tensor", name, str(value.dtype), tuple(value.shape), value.requires_grad, value.is_leaf)
        made_by = value.grad_fn
        encoder.tagged("history", None if made_by is None else type(made_by).__name__, getattr(value, "names", None))
        encoder.step(".grad", value.grad if value.is_leaf or value.retains_grad else None)
        # By place: their names are numbers that count up in each process.
        encoder.step("._backward_hooks", list((value._backward_hooks or {}).values()))  # noqa: SLF001 - nor for these
        _add_parts(encoder, value)
    encoder.leave(value, start)


def _refuse(value: torch.Tensor) -> None:
    if value.is_nested:
        raise Unencodable("a nested tensor: pass the list of its tensors")
    if value.is_quantized:
        raise Unencodable("a quantised tensor: pass its int_repr(), with scale and zero point")
    if value.is_meta:
        raise Unencodable("a tensor on the device `meta`, which has no values")
    if _is_simulated(value):
        raise Unencodable(f"a {type(value).__qualname__}, which answers for its values by itself")


def _is_simulated(value: torch.Tensor) -> bool:
    own = getattr(type(value), "__torch_dispatch__", None)
    plain = torch.Tensor.__torch_dispatch__
    return getattr(own, "__func__", own) is not getattr(plain, "__func__", plain) and not _wraps(value)


def _wraps(value: torch.Tensor) -> bool:
    return bool(_python_dispatch.is_traceable_wrapper_subclass(value))


def _add_parts(encoder: Encoder, value: torch.Tensor) -> None:
    attributes = held(value)
    if _wraps(value):
        names, context = value.__tensor_flatten__()
        encoder.step("", {name: getattr(value, name) for name in names})
        encoder.step("", context)
        attributes = {name: part for name, part in attributes.items() if name not in names}
    else:
        try:
            plain = value.detach()
            _add_values(encoder, plain if type(plain) is torch.Tensor else plain.as_subclass(torch.Tensor))
        except (NotImplementedError, RuntimeError) as error:
            raise Unencodable(f"a tensor of type {value.dtype} whose values torch does not give ({error})") from error
    add_attributes(encoder, value, attributes)


def _add_values(encoder: Encoder, value: torch.Tensor) -> None:
    layout = value.layout
    if layout is torch.sparse_coo:
        encoder.tagged("sparse", str(layout), value.is_coalesced(), value.sparse_dim(), value.dense_dim())
        parts = [value._indices(), value._values()]  # noqa: SLF001 - the public ones ask for no repeats
    elif layout in _BY_ROW:
        encoder.tagged("sparse", str(layout))
        parts = [value.crow_indices(), value.col_indices(), value.values()]
    elif layout in _BY_COLUMN:
        encoder.tagged("sparse", str(layout))
        parts = [value.ccol_indices(), value.row_indices(), value.values()]
    elif layout is torch.strided:
        encoder.out += _digest_of(value)
        return
    else:
        raise Unencodable(f"a tensor of layout {layout}: pass its to_dense()")
    for part in parts:
        encoder.add(tuple(part.shape))
        encoder.out += _digest_of(part)


def _digest_of(value: torch.Tensor) -> bytes:
    dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    try:
        return digest_of_values(dense.numpy())
    except TypeError:
        pass  # numpy has no such type
    try:
        wider: Any = torch.complex64 if dense.is_complex() else torch.float32
        if dense.is_floating_point() or dense.is_complex():
            return digest_of_values(dense.to(wider).numpy())  # exact, and any NaN is one value
    except (RuntimeError, NotImplementedError):
        pass  # some of the smallest types support only storage
    return digest_of_values(dense.reshape(-1).view(torch.uint8).numpy())


@handles(torch.dtype, torch.device)
def _type(encoder: Encoder, value: torch.dtype | torch.device) -> None:
    encoder.tagged("torch", type(value).__name__, str(value))
