"""How xarray's datasets and arrays are encoded: dimensions, values, coordinates and attributes."""

from __future__ import annotations

import xarray as xr

from cacheness.keys.encode import Encoder, handles


@handles(xr.Dataset)
def _dataset(encoder: Encoder, value: xr.Dataset) -> None:
    encoder.tagged("Dataset", dict(value.variables), set(value.coords), value.attrs)


@handles(xr.DataArray)
def _array(encoder: Encoder, value: xr.DataArray) -> None:
    coordinates = {name: coordinate.variable for name, coordinate in value.coords.items()}
    encoder.tagged("DataArray", value.name, value.variable, coordinates)


@handles(xr.Variable, xr.IndexVariable)
def _variable(encoder: Encoder, value: xr.Variable) -> None:
    # Not how it was stored in the file that it came from (`encoding`).
    encoder.tagged("Variable", value.dims, value.attrs, value.data)
