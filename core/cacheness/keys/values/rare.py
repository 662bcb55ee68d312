"""Encode values of modules of Python's library that take long to import, and that few programs use."""

from __future__ import annotations

import decimal
import fractions
import pickle
import uuid
import zoneinfo

from cacheness.keys.encode import Encoder, handles
from cacheness.keys.error_paths import Unencodable


@handles(decimal.Decimal)
def _decimal(encoder: Encoder, value: decimal.Decimal) -> None:
    encoder.tagged("Decimal", str(value).replace("e", "E"))  # which of them is a setting of the context


@handles(fractions.Fraction)
def _fraction(encoder: Encoder, value: fractions.Fraction) -> None:
    encoder.tagged("Fraction", value.numerator, value.denominator)


@handles(uuid.UUID)
def _uuid(encoder: Encoder, value: uuid.UUID) -> None:
    safe = value.is_safe
    encoder.tagged("UUID", value.bytes, *(() if safe is uuid.SafeUUID.unknown else (safe.value,)))


@handles(zoneinfo.ZoneInfo)
def _zone(encoder: Encoder, value: zoneinfo.ZoneInfo) -> None:
    try:
        value.__reduce__()
    except pickle.PicklingError as error:
        raise Unencodable("a ZoneInfo made from a file, whose content cannot be seen") from error
    encoder.tagged("zone", value.key)
