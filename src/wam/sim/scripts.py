"""Scripted experts for two-fingered hands: waypoints around a thing to be picked up, and a place to put it.

All hands go through the same waypoints in step. A script knows where things are, as no policy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[Any]  # float64 (3,)

GAIN = 10.0  # action per metre of distance; the controller moves 0.05 m per unit
TURN_GAIN = 2.0  # action per radian; the controller turns 0.5 rad per unit
ALIGNED = 0.1  # radians between the opening of the hand and where it should point
STALLED, STALLED_NEAR, STALLED_AFTER = 0.001, 0.05, 5  # metres per step, metres, steps: it touches something


@dataclass(frozen=True)
class Hand:
    """One hand and what it has to do with, in metres.

    opening: from one finger to the other.  thing: where to grasp.  along: direction in the plane in which the hand
    should open, None for any.  place: where the thing should go, None where it only has to be lifted.
    """

    position: Vector
    opening: Vector
    thing: Vector
    along: Vector | None = None
    place: Vector | None = None


@dataclass(frozen=True)
class Waypoint:
    """Where a hand goes next.

    anchor: "thing"; "grasp", where the hand was when it had closed; or "place", the place with the hand as far from
    the thing as when it had closed, at the height of `grasp` for the offset 0.
    rows: how many control steps it has to be there.  speed: largest command.
    """

    anchor: Literal["thing", "grasp", "place"]
    height: float
    closed: bool
    rows: int = 1
    tolerance: float = 0.02
    speed: float = 1.0
    timed: bool = False
    """Go on after `rows` steps wherever the hand is: fingers need time to close and open."""


def pick(lift: float, speed: float = 1.0) -> tuple[Waypoint, ...]:
    """Go above the thing, down to it, close, and lift it."""
    return (
        Waypoint("thing", 0.1, closed=False),
        Waypoint("thing", 0.0, closed=False, rows=2, tolerance=0.013),
        Waypoint("thing", 0.0, closed=True, rows=8, timed=True),
        Waypoint("grasp", lift, closed=True, speed=speed),
    )


def pick_and_place(lift: float, drop: float) -> tuple[Waypoint, ...]:
    """Pick the thing up, carry it over the place, lower it until the hand is `drop` above the place, and let go."""
    return (
        *pick(lift),
        Waypoint("place", lift, closed=True),
        Waypoint("place", drop, closed=True, speed=0.5),
        Waypoint("place", drop, closed=False, rows=6, timed=True),
        Waypoint("place", lift, closed=False),
    )


class Script:
    """Goes through waypoints, one state for all hands of an episode."""

    def __init__(self, waypoints: Sequence[Waypoint]) -> None:
        self._waypoints = tuple(waypoints)
        self._current = 0
        self._rows = 0
        self._grasps: list[tuple[Vector, Vector]] = []  # (hand, thing) when the hands had closed
        self._before: list[Vector] = []
        self._still = 0

    def action(self, hands: Sequence[Hand]) -> npt.NDArray[np.float32]:
        """float32 (7 hands,) in [-1, 1] for the present state, which must be asked for once per control step."""
        waypoint = self._waypoints[self._current]
        goals = [self._goal(waypoint, number, hand) for number, hand in enumerate(hands)]
        command = np.concatenate([_towards(waypoint, hand, goal) for hand, goal in zip(hands, goals, strict=True)])
        self._advance(waypoint, hands, goals)
        clipped: npt.NDArray[np.float32] = np.clip(command, -1.0, 1.0).astype(np.float32)
        return clipped

    def _goal(self, waypoint: Waypoint, number: int, hand: Hand) -> Vector:
        goal = hand.thing
        if waypoint.anchor != "thing":
            goal, thing = self._grasps[number]
            if waypoint.anchor == "place" and hand.place is not None:
                goal = np.array([*(hand.place[:2] + goal[:2] - thing[:2]), goal[2]])
        above: Vector = goal + np.array([0.0, 0.0, waypoint.height])
        return above

    def _advance(self, waypoint: Waypoint, hands: Sequence[Hand], goals: Sequence[Vector]) -> None:
        """Count the steps at this waypoint, and turn to the next one when they are enough."""
        positions = [hand.position for hand in hands]
        far = max(float(np.linalg.norm(goal - position)) for goal, position in zip(goals, positions, strict=True))
        moved = max((float(np.linalg.norm(a - b)) for a, b in zip(positions, self._before, strict=False)), default=1.0)
        self._before = positions
        self._still = self._still + 1 if moved < STALLED else 0
        stalled = self._still > STALLED_AFTER and far < STALLED_NEAR
        aligned = waypoint.closed or all(abs(_turn(hand)) < ALIGNED for hand in hands)
        self._rows += waypoint.timed or stalled or (far < waypoint.tolerance and aligned)
        if self._rows >= waypoint.rows and self._current < len(self._waypoints) - 1:
            self._current, self._rows, self._still = self._current + 1, 0, 0
            if self._waypoints[self._current].anchor == "grasp":
                self._grasps = [(hand.position.copy(), hand.thing.copy()) for hand in hands]


def _towards(waypoint: Waypoint, hand: Hand, goal: Vector) -> Vector:
    """(7,): straight to the goal, turning until the hand opens along the wanted direction."""
    command = np.zeros(7)
    command[:3] = np.clip(GAIN * (goal - hand.position), -waypoint.speed, waypoint.speed)
    command[5] = 0.0 if waypoint.closed else TURN_GAIN * _turn(hand)
    command[6] = 1.0 if waypoint.closed else -1.0
    return command


def _turn(hand: Hand) -> float:
    """Radians about the vertical from the hand's opening to the wanted one; which finger is where does not matter."""
    if hand.along is None:
        return 0.0
    wanted, present = (float(np.arctan2(v[1], v[0])) for v in (hand.along, hand.opening))
    return (wanted - present + np.pi / 2) % np.pi - np.pi / 2
