"""The loggers below `cacheness`: a message is one line, whatever names and errors say."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from cacheness.printable import printable


def logger_of(module: str) -> OneLineLogger:
    """The logger of a module, by its `__name__`."""
    return OneLineLogger(logging.getLogger(module))


class OneLineLogger(logging.LoggerAdapter[logging.Logger]):
    """Writes texts and errors so that they can neither end a line nor steer a terminal."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message; what it is made of is made printable."""
        if self.isEnabledFor(level):
            # The frame of this method is not the caller's.
            super().log(level, msg, *map(_one_line, args), **{"stacklevel": 2, **kwargs})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Keep the fields that a call gives."""
        return msg, kwargs


def _one_line(value: object) -> object:
    return value if isinstance(value, int | float) else printable(f"{value}")
