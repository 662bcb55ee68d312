"""Run as a script: how many times its own size a value needs while it is stored, and while it is read."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from cacheness.codecs.arrow import ArrowCodec
from cacheness.codecs.compression import compress, decompress
from cacheness.codecs.numpy import NumpyCodec
from cacheness.codecs.pickle import PickleCodec
from cacheness.results.signing import digest_buffers

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RANDOM = np.random.default_rng(1)


def floats(n: int) -> np.ndarray:
    return RANDOM.random(n)


def frame(n: int) -> pd.DataFrame:
    return pd.DataFrame({name: floats(n // 4) for name in "abcd"})


VALUES: dict[str, tuple[Any, Callable[[int], Any]]] = {
    "numpy": (NumpyCodec(), floats),
    "numpy, compressible": (NumpyCodec(), lambda n: np.arange(n) // 1000),
    "numpy, half compressible": (NumpyCodec(), lambda n: np.where(np.arange(n) % 4096 < 2048, floats(n), 0.0)),
    "arrow": (ArrowCodec(), lambda n: pa.table({"a": floats(n // 2), "b": floats(n // 2)})),
    "polars": (ArrowCodec(), lambda n: pl.DataFrame({"a": floats(n // 2), "b": floats(n // 2)})),
    "pandas": (ArrowCodec(), frame),
    "pandas, turned": (ArrowCodec(), lambda n: pd.DataFrame(floats(n).reshape(-1, 4), columns=list("abcd"))),
    "pandas, by pickle": (PickleCodec(), lambda n: frame(n).set_index(pd.date_range("2026", periods=n // 4, freq="s"))),
    "pickled arrays": (PickleCodec(), lambda n: {"a": floats(n // 2), "b": [floats(n // 2)]}),
    "pickled bytes": (PickleCodec(), lambda n: [RANDOM.bytes(n * 8)]),
}


def resident(what: str) -> int:
    return 1024 * int(re.search(rf"{what}:\s+(\d+)", STATUS.read_text())[1])


def store(codec: Any, value: Any, path: Path) -> tuple[int, str]:
    raw = codec.encode(value)
    stored, suffix = compress(raw)
    digest_buffers(stored)
    with path.open("wb") as file:
        file.writelines(stored)
    return sum(map(len, raw)), suffix


def read(codec: Any, path: Path, raw_size: int, suffix: str) -> Any:
    data = np.empty(path.stat().st_size, np.uint8).data
    with path.open("rb") as file:
        file.readinto(data)
    digest_buffers([data])
    return codec.decode(decompress(data, codec.name + suffix, raw_size))


# The value is part of the bill, both ways.
def measure(name: str, path: Path, count: int) -> tuple[float, float]:
    codec, make = VALUES[name]
    before = resident("VmRSS")
    value = make(count)
    CLEAR.write_text("5")  # forget the peak so far
    raw_size, suffix = store(codec, value, path)
    storing = resident("VmHWM") - before
    del value
    before = resident("VmRSS")
    CLEAR.write_text("5")
    read(codec, path, raw_size, suffix)
    return storing / (8 * count), (resident("VmHWM") - before) / (8 * count)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        measure(sys.argv[1], Path(folder) / "warm", 1 << 16)
        print(*measure(sys.argv[1], Path(folder) / "blob", int(sys.argv[2])))
