from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.codecs.peak_memory import VALUES

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("peak_memory.py")
IS_PANDAS_3 = not pd.__version__.startswith("2.")
COUNT = 4 << 20  #: floats, 32 MiB


def bound(name: str, *, reading: bool) -> float:
    stays = reading and IS_PANDAS_3 and name in {"pandas", "pandas, turned"}
    copies = name == "pickled bytes" or (name.startswith("pandas") and not stays)
    return 2.2 if copies else 1.3


@pytest.mark.parametrize("name", VALUES)
def test_storing_and_reading_need_little_more_than_the_value_itself(name: str) -> None:
    command = [sys.executable, str(SCRIPT), name, str(COUNT)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    storing, reading = map(float, said.split())
    assert 0.9 < storing <= bound(name, reading=False)
    assert 0.9 < reading <= bound(name, reading=True)
