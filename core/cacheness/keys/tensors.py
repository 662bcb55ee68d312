"""How torch's tensors are encoded: type, shape, and values wherever they are."""

from __future__ import annotations

import torch  # type: ignore[import-not-found, unused-ignore]

from cacheness.keys.arrays import digest_of_values
from cacheness.keys.encode import Encoder, handles


@handles(torch.Tensor, torch.nn.Parameter)
def _tensor(encoder: Encoder, value: torch.Tensor) -> None:
    # The device does not count: the same values on another are the same argument.
    dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    encoder.tagged("tensor", type(value).__name__, str(value.dtype), tuple(value.shape), value.requires_grad)
    encoder.out += digest_of_values(dense.reshape(-1).view(torch.uint8).numpy())


@handles(torch.dtype, torch.device)
def _type(encoder: Encoder, value: torch.dtype | torch.device) -> None:
    encoder.tagged("torch", type(value).__name__, str(value))
