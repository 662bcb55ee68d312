"""Loggers below `cacheness`: each message is one line, whatever names and errors contain."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from cacheness.printable import printable


def logger_of(module: str) -> OneLineLogger:
    """The logger of a module, by its `__name__`."""
    return OneLineLogger(logging.getLogger(module))


class OneLineLogger(logging.LoggerAdapter[logging.Logger]):
    """Formats texts and errors so that they cannot end a line or control a terminal."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message; its arguments are made printable."""
        if self.isEnabledFor(level):
            # The frame of this method is not the caller's.
            super().log(level, msg, *map(_one_line, args), **{"stacklevel": 2, **kwargs})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Keep the fields that a call gives."""
        return msg, kwargs


def _one_line(value: object) -> object:
    return value if isinstance(value, int | float) else printable(f"{value}")
