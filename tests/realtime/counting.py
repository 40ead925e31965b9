"""A policy whose actions tell where they come from, and a robot in virtual time that plays them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wam.realtime import Executor, Join, Request, Rest, SimulatedWorker, Timing, VirtualClock, switch

HOLD = Rest((-1.0, -1.0))
EAGER = Timing()


@dataclass(frozen=True)
class Answer:
    actions: np.ndarray


@dataclass
class Counting:
    """Action j of the answer to tick t is (t + j, number of the answer); `keeps` copies what is executing, as a model
    does that holds its prefix clean. Fails at the questions whose numbers are in `fails`."""

    count: int
    keeps: bool = False
    fails: tuple[int, ...] = ()
    requests: list[Request[int]] = field(default_factory=list)

    def __call__(self, request: Request[int]) -> Answer:
        number = len(self.requests)
        self.requests.append(request)
        if number in self.fails:
            raise RuntimeError(f"thought {number} failed")
        ticks = request.tick + np.arange(self.count, dtype=np.float32)
        actions = np.stack([ticks, np.full(self.count, number, np.float32)], axis=1)
        if self.keeps:
            given = len(request.executing[: self.count])
            actions[:given] = request.executing[:given]
        return Answer(actions)


@dataclass
class Played:
    """A run of the loop: what was played at each tick, when each answer was there, and who is responsible."""

    actions: np.ndarray  # (ticks, 2)
    arrivals: list[int]
    executor: Executor[int]
    policy: Counting


def play(
    policy: Counting,
    delays: Sequence[float],
    ticks: int,
    timing: Timing = EAGER,
    join: Join = switch,
    looks_every: int = 1,
) -> Played:
    """The clock counts in ticks, thought k takes `delays[k]` (the last one stays); looks are their own ticks."""
    clock = VirtualClock()
    arrivals: list[int] = []

    def delay(request: Request[int]) -> float:
        seconds = delays[min(len(arrivals), len(delays) - 1)]
        arrivals.append(math.ceil(clock.now() + seconds))
        return seconds

    executor = Executor(SimulatedWorker(policy, clock, delay), HOLD, timing, join)
    actions = []
    for tick in range(ticks):
        clock.wait_until(tick)
        actions.append(executor.act(tick, tick if tick % looks_every == 0 else None))
    return Played(np.stack(actions), arrivals, executor, policy)
