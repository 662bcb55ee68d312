"""How torch's tensors are encoded: type, shape, and values wherever they are."""

from __future__ import annotations

import torch  # type: ignore[import-not-found, unused-ignore]

from cacheness.keys.arrays import digest_of_values
from cacheness.keys.encode import Encoder, handles
from cacheness.keys.trace import Unencodable


@handles(torch.Tensor, torch.nn.Parameter)
def _tensor(encoder: Encoder, value: torch.Tensor) -> None:
    # The device does not count: the same values on another are the same argument.
    if value.layout is not torch.strided:
        raise Unencodable(f"a tensor of layout {value.layout}")
    dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    encoder.tagged("tensor", type(value).__name__, str(value.dtype), tuple(value.shape), value.requires_grad)
    # Numpy has no bfloat16.
    encoder.out += digest_of_values((dense.view(torch.int16) if dense.dtype is torch.bfloat16 else dense).numpy())


@handles(torch.dtype, torch.device)
def _type(encoder: Encoder, value: torch.dtype | torch.device) -> None:
    encoder.tagged("torch", type(value).__name__, str(value))
