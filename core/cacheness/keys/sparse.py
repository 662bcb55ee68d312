"""How scipy's sparse arrays are encoded: format, shape, and the arrays they are made of."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp  # type: ignore[import-untyped]

from cacheness.keys.encode import Encoder, handles_family

_ARRAYS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "coords"),
    "dia": ("data", "offsets"),
}


@handles_family(lambda kind: issubclass(kind, (sp.sparray, sp.spmatrix)))
def _sparse(encoder: Encoder, value: Any) -> None:
    name, names = type(value).__name__, _ARRAYS.get(value.format)
    if names is None:
        names, value = _ARRAYS["coo"], value.tocoo()
    # Not its __dict__, which remembers whether somebody has looked if it is sorted.
    encoder.tagged("scipy sparse", name, value.shape, [getattr(value, name) for name in names])
