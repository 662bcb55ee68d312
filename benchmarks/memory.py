"""How much memory this process holds, and has held at most."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes now."""
    return _of("VmRSS")


def peak() -> int:
    """The most bytes since `forget_peak`."""
    return _of("VmHWM")


def forget_peak() -> None:
    """Reset the peak."""
    _CLEAR.write_text("5")


def _of(what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", _STATUS.read_text())
    return 1024 * int(found[1]) if found else 0
