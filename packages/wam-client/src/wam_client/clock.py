"""The robot's clock, real or virtual, and the loop that follows it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, TypeVar

from wam_client.executor import Action, Executor

LookOut = TypeVar("LookOut", covariant=True)
Look = TypeVar("Look")


class Clock(Protocol):
    """Seconds, or whatever the caller counts in."""

    def now(self) -> float: ...

    def wait_until(self, moment: float) -> None:
        """Return at that moment; at once when it is past."""


class WallClock:
    """Seconds of real time."""

    def now(self) -> float:
        return time.monotonic()

    def wait_until(self, moment: float) -> None:
        time.sleep(max(0.0, moment - self.now()))


class VirtualClock:
    """Time passes only by waiting, so nothing that happens depends on the machine."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait_until(self, moment: float) -> None:
        self._now = max(self._now, moment)


class Robot(Protocol[LookOut]):
    """What the loop drives."""

    def look(self, tick: int) -> LookOut | None:
        """What the robot sees at the beginning of this tick, or None when it does not look now."""

    def execute(self, action: Action) -> bool:
        """Start this action and return; True ends the loop."""


@dataclass(frozen=True)
class Pace:
    """How well the loop kept its clock. ticks: executed.  late: of them begun more than a tenth of a period too late.
    worst: the largest lateness, in the clock's unit."""

    ticks: int
    late: int
    worst: float


def run(robot: Robot[Look], executor: Executor[Look], clock: Clock, period: float, ticks: int) -> Pace:
    """One action every `period`, for so many ticks or until the robot says that it is over.

    A tick that begins too late is not made up for: the next one follows a whole period later, since a robot must not
    be sent two actions at once.
    """
    due, late, worst, done = clock.now(), 0, 0.0, 0
    for tick in range(ticks):
        clock.wait_until(due)
        began = clock.now()
        late, worst = late + (began - due > period / 10), max(worst, began - due)
        over = robot.execute(executor.act(tick, robot.look(tick)))
        done = tick + 1
        if over:
            break
        due = max(due + period, began) if began - due <= period / 10 else began + period
    return Pace(done, late, worst)
