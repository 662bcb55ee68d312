"""Encode scipy's sparse arrays: format, shape, and their component arrays."""

from __future__ import annotations

from typing import Any

import scipy.sparse as sp  # type: ignore[import-untyped]

from cacheness.keys.encode import Encoder, handles_family
from cacheness.keys.owners import module_of
from cacheness.keys.values.attributes import add_attributes, held

_ARRAYS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "coords"),
    "dia": ("data", "offsets"),
}


@handles_family(lambda kind: issubclass(kind, (sp.sparray, sp.spmatrix)))
def _sparse(encoder: Encoder, value: Any) -> None:
    # The name of a scipy type is enough: the version does not decide what a matrix contains.
    kind = type(value)
    name = kind.__name__ if module_of(kind).partition(".")[0] == "scipy" else kind
    beside = {} if name is not kind else {name: part for name, part in held(value).items() if not name.startswith("_")}
    names, shown = _ARRAYS.get(value.format), value.maxprint
    if names is None:
        names, value = _ARRAYS["coo"], value.tocoo()
    # Not its __dict__, which stores whether it was found to be sorted.
    encoder.tagged("scipy sparse", name, value.shape, [getattr(value, part) for part in names], shown)
    add_attributes(encoder, value, {n: part for n, part in beside.items() if n not in names})
