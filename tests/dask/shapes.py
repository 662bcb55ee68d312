"""A library's column that Arrow does not know: shapes with a reference system, and an index for speed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


class ShapeType(pd.api.extensions.ExtensionDtype):
    name = "shape"
    type = tuple

    @classmethod
    def construct_array_type(cls) -> Any:
        return Shapes


class Shapes(pd.api.extensions.ExtensionArray):
    dtype = ShapeType()  # type: ignore[assignment]

    def __init__(self, corners: Sequence[Any], system: str = "") -> None:
        self.corners = np.empty(len(corners), object)
        self.corners[:] = corners
        self.system = system
        self.index: Any = None

    def lookup(self) -> Any:
        """An index that is kept, and that no pickle is told of."""
        if self.index is None:
            self.index = iter(self.corners)
        return self.index

    def __getstate__(self) -> tuple[Any, str]:
        return self.corners, self.system

    def __setstate__(self, state: tuple[Any, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __getitem__(self, at: Any) -> Any:
        found = self.corners[at]
        return Shapes(found, self.system) if isinstance(found, np.ndarray) else found

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def nbytes(self) -> int:
        return self.corners.nbytes

    def isna(self) -> Any:
        return np.array([corner is None for corner in self.corners], bool)

    def copy(self) -> Shapes:
        return Shapes(self.corners.copy(), self.system)

    def take(self, indices: Any, *, allow_fill: bool = False, fill_value: Any = None) -> Shapes:
        return Shapes([None if allow_fill and at < 0 else self.corners[at] for at in indices], self.system)

    @classmethod
    def _from_sequence(cls, scalars: Any, *, dtype: Any = None, copy: bool = False) -> Shapes:
        return cls(list(scalars))

    @classmethod
    def _concat_same_type(cls, to_concat: Sequence[Shapes]) -> Shapes:
        return cls([corner for part in to_concat for corner in part.corners], to_concat[0].system)


def field(start: int, system: str = "") -> pd.DataFrame:
    """A frame with three shapes."""
    return pd.DataFrame({"n": range(3), "shape": Shapes([(start + n, n) for n in range(3)], system)})
