from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cacheness.buffers import LARGE, allocate, read_into


@pytest.mark.parametrize("size", [0, 100, LARGE - 1, LARGE, LARGE + 4097])
@pytest.mark.parametrize("has_numpy", [True, False])
def test_a_file_is_read_into_memory_of_exactly_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, has_numpy: bool
) -> None:
    if not has_numpy:
        monkeypatch.delitem(sys.modules, "numpy", raising=False)
    content = os.urandom(size)
    path = tmp_path / "blob"
    path.write_bytes(content)
    with path.open("rb") as file:
        buffer = allocate(size)
        assert read_into(buffer, file.fileno()) == size
    view = memoryview(buffer)
    assert (view.nbytes, view.format, view.readonly) == (size, "B", False)
    assert view == content
    path.write_bytes(bytes(size))
    assert view == content
    if size:
        view[-1] = view[-1] ^ 1
        assert view != content
