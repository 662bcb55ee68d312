"""How values become bytes, and come back: a module for each kind. A new codec is named here.

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

#: The same where who signs entries may run code here anyhow, so that tables need no second look.
TRUSTING_CODECS: Final[tuple[Codec, ...]] = (NumpyCodec(), ArrowCodec(validates=False), TensorCodec(), PickleCodec())
