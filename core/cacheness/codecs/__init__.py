"""Encode values as bytes and decode them: one module per kind of value. A new codec is listed here.

In order of preference: the first that accepts a value encodes it, and the last accepts everything.
"""

from __future__ import annotations

from typing import Final

from cacheness.codecs.arrow import ArrowCodec
from cacheness.codecs.numpy import NumpyCodec
from cacheness.codecs.pickle import PickleCodec
from cacheness.codecs.tensors import TensorCodec
from cacheness.protocols import Codec

CODECS: Final[tuple[Codec, ...]] = (NumpyCodec(), ArrowCodec(), TensorCodec(), PickleCodec())

#: The same list for readers that let signers run code here: tables need no second check.
TRUSTING_CODECS: Final[tuple[Codec, ...]] = (NumpyCodec(), ArrowCodec(validates=False), TensorCodec(), PickleCodec())
