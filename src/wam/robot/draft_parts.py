"""From the names of a vector's dimensions to the parts of a robot: arms, grippers, and which of them is open when."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from wam.robot.embodiment import Part

GRIPPER = re.compile(r"grip|finger|jaw|(?<!end)(?<!end[_. -])effector|hand_open", re.IGNORECASE)
"""Names of a gripper's dimensions; an effector is one, but an *end* effector is where the arm ends."""
POSE = r"(^|[_.])(d?[xyz]|roll|pitch|yaw|[rqwd]?a?[xyzw]|quat\w*|axis\w*|rot\w*|pos\w*)(_?\d)?$"
KINDS = (
    ("gripper", GRIPPER),
    ("joints", re.compile(r"joint|shoulder|elbow|wrist|waist|forearm|motor|(^|_)j\d", re.IGNORECASE)),
    ("base", re.compile(r"base|wheel|linear_vel|angular_vel|(^|_)v[xy]$|omega", re.IGNORECASE)),
    ("head", re.compile(r"head|neck|torso", re.IGNORECASE)),
    ("end_effector", re.compile(POSE, re.IGNORECASE)),
)
SIDE = re.compile(r"(?:^|[_.])(left|right|robot\d|arm_?\d)(?:[_.]|$)", re.IGNORECASE)
UNNAMED = "arm"
FEW_VALUES = 3  # a command that only ever takes so many values opens and closes something
STILL = 1e-3
MIDDLE, TOGETHER = 0.3, 0.3

Values = npt.NDArray[np.floating]  # (T,)


@dataclass(frozen=True)
class Dimension:
    """Dimension `place` of a column, and the part that it seems to belong to."""

    column: str
    place: int
    name: str
    part: str


@dataclass(frozen=True)
class Gripper:
    """ends: (raw value when open, raw value when closed), or None where nothing can be said; remark: why."""

    ends: tuple[float, float] | None
    remark: str

    @classmethod
    def guess(cls, episodes: Sequence[Values], state: Gripper | None, states: Sequence[Values]) -> Gripper:
        """From the values (T,) of every episode: robots mostly begin with an open hand.

        state, states: the gripper's state where this is its command, and its values; they decide where a command
        begins in the middle.
        """
        values = np.concatenate(list(episodes)).astype(np.float64)
        low, high = (float(end) for end in np.quantile(values, (0.001, 0.999)))
        if high - low < STILL:
            return cls(None, "the gripper never moves, so nobody can say what is open; give [open, closed] if you know")
        low, high = (_snapped(end, high - low) for end in (low, high))
        first = float(np.median([rows[0] for rows in episodes]))
        place = (first - low) / (high - low)
        if min(place, 1 - place) < MIDDLE:
            ends = (low, high) if place < 0.5 else (high, low)
            return cls(ends, f"guess: [open, closed], since episodes begin at {first:.3g}")
        if state is not None and state.ends is not None:
            opened, closed = state.ends
            openness = (np.concatenate(list(states)).astype(np.float64) - closed) / (opened - closed)
            together = float(np.corrcoef(openness, values)[0, 1])
            if abs(together) > TOGETHER:
                ends = (high, low) if together > 0 else (low, high)
                return cls(
                    ends, f"guess: [open, closed], from its correlation {together:.2f} with how open the state is"
                )
        return cls(None, f"unclear what is open, since episodes begin at {first:.3g}; give [open, closed] if you know")


def dimensions(column: str, width: int, names: Sequence[str], last: Sequence[Values]) -> list[Dimension]:
    """The dimensions of one column, sorted into parts by their names.

    names: one each, or none.  last: values of the last dimension, by which an unnamed gripper is known.
    """
    if names:
        return [Dimension(column, i, name, _part(name)) for i, name in enumerate(_distinct(names))]
    stem = column.rpartition(".")[2]
    parts = [UNNAMED] * width
    values = np.unique(np.concatenate(last).round(3)) if last else np.zeros(0)
    if width > 1 and 1 < len(values) <= FEW_VALUES:
        parts[-1] = "gripper"
    return [Dimension(column, i, f"{stem}_{i}", part) for i, part in enumerate(parts)]


def parts_of(every: Sequence[Dimension], default: str) -> tuple[Part, ...]:
    """Neighbouring dimensions of one column and part become a part; a name that comes twice is numbered.

    default: the column that parts without a key come from.
    """
    runs = [(key, list(run)) for key, run in groupby(every, key=lambda d: (d.column, d.part))]
    names = _distinct([part for (_, part), _ in runs])
    return tuple(
        Part(name, tuple(d.name for d in run), key=None if column == default else column)
        for name, ((column, _), run) in zip(names, runs, strict=True)
    )


def _part(name: str) -> str:
    kind = next((kind for kind, pattern in KINDS if pattern.search(name)), UNNAMED)
    side = SIDE.search(name)
    if side is None or (kind == "gripper" and "finger" in name.lower()):  # both fingers are one gripper
        return kind
    return f"{side[1].lower()}_{kind}"


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that come more than once are numbered."""
    return list(_numbered(names))


def _numbered(names: Sequence[str]) -> Iterator[str]:
    often, seen = Counter(names), Counter[str]()
    for name in names:
        yield name if often[name] == 1 else f"{name}_{seen[name]}"
        seen[name] += 1


def _snapped(end: float, width: float) -> float:
    """Round numbers that a gripper's end is probably meant to be."""
    near = min((-1.0, 0.0, 1.0, 100.0, 255.0), key=lambda value: abs(value - end))
    return near if abs(near - end) < 0.05 * width else round(end, 4)
