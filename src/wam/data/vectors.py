"""From the columns of a data set to the state and the action of a robot: which dimensions, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wam.data.errors import MissingColumnError
from wam.robot.embodiment import Part


@dataclass(frozen=True)
class PartPlace:
    """Where a part of the embodiment lies: dimensions `start` .. `end` - 1 of column `key`."""

    part: Part
    key: str
    start: int
    end: int


def places(parts: Sequence[Part], column: str) -> list[PartPlace]:
    """Of every part; without a start of its own, a part lies behind the one before it in the same column."""
    found: list[PartPlace] = []
    ends: dict[str, int] = {}
    for part in parts:
        key = part.key or column
        start = ends.get(key, 0) if part.start is None else part.start
        ends[key] = start + len(part.dims)
        found.append(PartPlace(part, key, start, ends[key]))
    return found


def columns_of(parts: Sequence[Part], column: str) -> set[str]:
    """Names of the columns that the parts come from."""
    return {place.key for place in places(parts, column)}


def gathered(columns: Mapping[str, np.ndarray], parts: Sequence[Part], column: str) -> np.ndarray:
    """The parts side by side, in the robot's order.

    Args:
        columns: name -> (T, D), or (T,) where D is 1.
        parts: of the state or the action.
        column: where parts without a key of their own lie.

    Returns:
        (T, S) or (T, A); (T, 0) without parts.

    Raises:
        MissingColumnError: a part reaches beyond the columns.
    """
    pieces = [np.zeros((len(next(iter(columns.values()))), 0), dtype=np.float32)]
    for place in places(parts, column):
        values = columns.get(place.key)
        values = None if values is None else values.reshape(len(values), -1)
        if values is None or place.end > values.shape[1]:
            there = "is not there" if values is None else f"has {values.shape[1]} dimensions"
            raise MissingColumnError(
                f"part {place.part.name!r} needs dimensions {place.start} to {place.end - 1} of column {place.key!r}, "
                f"which {there}; see `wam data lint --embodiment`"
            )
        pieces.append(values[:, place.start : place.end])
    return np.concatenate(pieces, axis=1)
