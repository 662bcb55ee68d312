"""Functions for the command line to explain."""

from datetime import date
from enum import StrEnum
from pathlib import Path


class Colour(StrEnum):
    RED = "#f00"
    BLUE = "#00f"


def double(x):
    return 2 * x


def typed(path: Path | None, day: date, colour: Colour, name: str, number: int):
    return f"{path} {day} {colour.value} {name} {number}"
