"""Functions as they are before and after an edit; worker processes import nothing else for them."""

from __future__ import annotations

from typing import Any


class Unseen(list[str]):
    """Counts, and decides nothing."""

    def __cacheness_key__(self) -> str:
        return "a count"


ran = Unseen()


def edited(body: str, name: str = "clean", takes: str = "x") -> Any:
    """A function of the module `pipeline`, as it is after an edit."""
    scope: dict[str, Any] = {"__name__": "pipeline", "ran": ran}
    plain = name.rpartition(".")[2]
    exec(f"def {plain}({takes}):\n    ran.append('{name}')\n    {body}", scope)
    scope[plain].__qualname__ = name
    return scope[plain]
