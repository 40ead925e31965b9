"""Every session sees whole chunks of its own grid, and starts anew when one is incomplete."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.realtime.counting import HOLD, Answer
from wam.realtime import Executor, Phases, Request, SimulatedWorker, Timing, VirtualClock


class Recorder:
    """A session that writes down what it is asked."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        self.looks: list[list[int]] = []
        self.fails = False

    def reset(self, seed: int) -> None:
        self.seeds.append(seed)

    def act(self, observations: Sequence[int], executing: np.ndarray) -> Answer:
        self.looks.append(list(observations))
        if self.fails:
            raise RuntimeError("no camera")
        return Answer(np.zeros((8, 2), np.float32))


def drive(count: int, delays: Sequence[float], ticks: int, fails: range = range(0)) -> tuple[list[Recorder], Phases]:
    sessions = [Recorder() for _ in range(count)]
    phases: Phases[int] = Phases(sessions, chunk=8, stride=2)
    phases.reset(7)
    clock, asked = VirtualClock(), iter([*delays, *[delays[-1]] * ticks])
    executor = Executor(SimulatedWorker(phases, clock, lambda request: next(asked)), HOLD, Timing(every=phases.every))
    for tick in range(ticks):
        clock.wait_until(tick)
        for session in sessions:
            session.fails = tick in fails
        executor.act(tick, tick if tick % 2 == 0 else None)
    return sessions, phases


@pytest.mark.parametrize("delay", [0, 3, 4])
def test_sessions_take_turns_and_see_whole_chunks(delay: float) -> None:
    (first, second), _ = drive(2, [delay], 29)
    assert first.looks == [[0], [2, 4, 6, 8], [10, 12, 14, 16], [18, 20, 22, 24]]
    assert second.looks == [[4], [6, 8, 10, 12], [14, 16, 18, 20], [22, 24, 26, 28]]
    assert len(first.seeds) == len(second.seeds) == 1
    assert first.seeds == [7]  # the episode's own, as in the synchronous loop
    assert second.seeds != first.seeds


def test_one_session_is_the_synchronous_cadence() -> None:
    (only,), phases = drive(1, [0], 20)
    assert phases.every == 8
    assert only.looks == [[0], [2, 4, 6, 8], [10, 12, 14, 16]]


def test_a_session_that_was_passed_over_starts_anew() -> None:
    """A thought of 9 ticks takes the place of two others."""
    (first, second), _ = drive(2, [0, 0, 0, 9, 0], 40)
    assert second.looks[1] == [6, 8, 10, 12]  # asked at 12, answered at 21
    assert first.looks[2:] == [[24], [26, 28, 30, 32]]  # 16 was passed over
    assert second.looks[2] == [14, 16, 18, 20]  # from the mailbox, at 21, with all looks that it needs
    assert len(first.seeds) == 2
    assert first.seeds[0] != first.seeds[1]


def test_a_session_that_failed_starts_anew() -> None:
    (first, second), _ = drive(2, [0], 33, fails=range(8, 9))
    assert first.looks == [[0], [2, 4, 6, 8], [16], [18, 20, 22, 24], [26, 28, 30, 32]]
    assert second.looks[1] == [6, 8, 10, 12]


def test_reset_forgets() -> None:
    (first, second), phases = drive(2, [0], 13)
    phases.reset(8)
    phases(Request(0, ((0, 100),), np.zeros((0, 2), np.float32)))
    assert first.looks[-1] == [100]
    assert first.seeds[-1] == 8


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="3 sessions cannot share a chunk of 8"):
        Phases([Recorder()] * 3, 8, 2)
    with pytest.raises(ValueError, match="no multiple of the 3 ticks"):
        Phases([Recorder()], 8, 3)
