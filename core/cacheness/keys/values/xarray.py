"""Encode xarray's datasets and arrays: dimensions, values, coordinates and attributes."""

from __future__ import annotations

from typing import Any

import xarray as xr

from cacheness.keys.encode import Encoder, handles
from cacheness.keys.owners import module_of


@handles(xr.Dataset)
def _dataset(encoder: Encoder, value: xr.Dataset) -> None:
    encoder.tagged("Dataset", dict(value.variables), set(value.coords), value.attrs, _indexes_of(value))


@handles(xr.DataArray)
def _array(encoder: Encoder, value: xr.DataArray) -> None:
    coordinates = {name: coordinate.variable for name, coordinate in value.coords.items()}
    encoder.tagged("DataArray", value.name, value.variable, coordinates, _indexes_of(value))


@handles(xr.Variable, xr.IndexVariable)
def _variable(encoder: Encoder, value: xr.Variable) -> None:
    # Without its storage in the original file (`encoding`).
    encoder.tagged("Variable", type(value).__name__, value.dims, value.attrs, value.data)


def _indexes_of(value: xr.Dataset | xr.DataArray) -> dict[Any, Any]:
    """Coordinates for look-ups: xarray's indexes by their type, others by all their attributes."""
    return {
        name: type(index).__name__ if module_of(type(index)).partition(".")[0] == "xarray" else index
        for name, index in value.xindexes.items()
    }
