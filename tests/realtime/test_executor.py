"""The executor in virtual time: one action per tick, each at its own tick, and every miss counted."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.realtime.counting import HOLD, Answer, Counting, play
from wam.realtime import Executor, Request, Rest, SimulatedWorker, Thought, Timing, VirtualClock
from wam_client.executor import DelayEstimate

CONTINUE = Timing(coast=1.0, patience=10**6)
delays = st.lists(st.floats(0, 30), min_size=1, max_size=40)


# ---------------------------------------------------------------- a policy in time


@settings(max_examples=100, deadline=None)
@given(st.integers(3, 24), st.integers(1, 8), delays)
def test_no_tick_is_missed_while_an_answer_comes_before_the_chunk_before_it_ends(chunk, every, times) -> None:
    """So at every delay up to a third of a chunk, if thoughts are at most two thirds of a chunk apart."""
    every = min(every, 2 * chunk // 3)
    third = chunk / 3
    played = play(Counting(chunk), [min(time, math.floor(third)) for time in times], 5 * chunk, Timing(every=every))
    report = played.executor.report
    assert report.missed == report.failed == report.stale == 0
    start = report.waiting
    assert start == math.floor(third) if times[0] >= third else start <= third
    assert np.all(played.actions[:start] == -1)
    assert np.all(played.actions[start:, 0] >= np.arange(5 * chunk - start))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 24), st.integers(1, 8), delays)
def test_what_is_played_was_planned_for_that_tick_and_misses_are_counted_when_they_happen(chunk, every, times) -> None:
    """Against the definition, tick by tick: the newest answer that is there, if it reaches this tick."""
    ticks = 60
    played = play(Counting(chunk), times, ticks, Timing(every=every, coast=1.0, patience=10**6))
    requests, arrivals = played.policy.requests, played.arrivals
    starts = [max(request.tick, arrivals[0]) for request in requests]  # the robot stands still until the first answer
    useful = [k for k in range(len(requests)) if arrivals[k] < starts[k] + chunk]
    missed = waiting = 0
    for tick, (planned_for, number) in enumerate(played.actions):
        newest = max((k for k in useful if arrivals[k] <= tick), default=None)
        if newest is None:
            waiting += 1
            assert (planned_for, number) == (-1, -1)
        elif tick < starts[newest] + chunk:
            assert number == newest
            assert planned_for - requests[newest].tick == tick - starts[newest]
        else:
            missed += 1
            assert np.array_equal(played.actions[tick], played.actions[tick - 1])
    report = played.executor.report
    assert (report.ticks, report.waiting, report.missed) == (ticks, waiting, missed)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 24), st.integers(1, 8), delays, st.floats(0, 1))
def test_every_tick_gets_one_finite_action_whatever_happens(chunk, every, times, coast) -> None:
    policy = Counting(chunk, fails=tuple(range(0, 40, 3)))
    played = play(policy, times, 60, Timing(every=every, coast=coast))
    assert played.actions.shape == (60, 2)
    assert np.isfinite(played.actions).all()
    report = played.executor.report
    assert report.ticks == 60
    answered = report.thoughts + report.failed
    assert len(policy.requests) - 1 <= answered <= len(policy.requests)
    assert report.failed == len([number for number in policy.fails if number < answered])


def test_without_delay_it_is_the_synchronous_loop() -> None:
    played = play(Counting(8), [0.0], 32, Timing(every=8))
    assert np.array_equal(played.actions[:, 0], np.arange(32))
    assert np.array_equal(played.actions[:, 1], np.arange(32) // 8)
    assert played.executor.report.waiting == 0


# ---------------------------------------------------------------- what is told about the actions that are executing


@settings(max_examples=100, deadline=None)
@given(st.integers(6, 24), delays, st.integers(0, 5))
def test_what_was_announced_is_what_is_played_unless_the_answer_is_late(chunk, times, first) -> None:
    """Until a newer answer takes over, which knows what it takes over from."""
    times, timing = [min(time, chunk // 3) for time in times], Timing(every=2, first_delay=first)
    played = play(Counting(chunk, keeps=True), times, 5 * chunk, timing)
    late, ends = 0, [*played.arrivals[1:], len(played.actions)]
    for request, arrival, end in zip(played.policy.requests, played.arrivals, ends, strict=True):
        start = max(request.tick, played.arrivals[0])  # the robot stands still until the first answer
        announced = request.executing[: max(0, min(end, len(played.actions)) - start)]
        if arrival - start > len(request.executing):
            late += arrival < len(played.actions)
        else:
            assert np.array_equal(played.actions[start:][: len(announced)], announced)
    assert played.executor.report.late == late


def test_the_prefix_is_as_long_as_the_measured_delay_and_lateness_is_counted() -> None:
    played = play(Counting(12, keeps=True), [1, 2, 2, 2, 5, 1], 60, Timing(every=4))
    lengths = [len(request.executing) for request in played.policy.requests]
    assert lengths[:7] == [0, 1, 2, 2, 2, 5, 5]
    assert played.executor.report.late == 2  # the second thought, for the first was faster, and the fifth
    assert played.executor.report.delay == 5


def test_a_slow_first_thought_is_soon_forgotten() -> None:
    estimate = DelayEstimate(Timing(first_delay=3))
    assert estimate.ticks == 3
    estimate.add(40)
    assert estimate.ticks == 40
    estimate.add(2)
    assert estimate.ticks == 2


@given(st.lists(st.integers(0, 50), min_size=2, max_size=60), st.floats(0, 1), st.integers(1, 40))
def test_the_estimate_covers_its_share_of_the_recent_delays(ticks, quantile, window) -> None:
    estimate = DelayEstimate(Timing(quantile=quantile, window=window))
    for tick in ticks:
        estimate.add(tick)
    recent = ticks[1:][-window:]
    assert estimate.ticks in recent
    assert sum(tick <= estimate.ticks for tick in recent) >= quantile * (len(recent) - 1)


# ---------------------------------------------------------------- standing still, slowing down, going on


def test_a_robot_that_stands_still_skips_nothing() -> None:
    """It waits for the first chunk and plays all of it; a late one goes on where the robot stopped."""
    played = play(Counting(8), [3, 10, 2], 15, Timing(every=4))
    assert played.actions[:3, 0].tolist() == [-1] * 3
    assert played.actions[3:11, 0].tolist() == list(range(8))  # all of the first chunk
    asked = played.policy.requests[1].tick
    assert asked == 4
    assert played.actions[11:14, 0].tolist() == [-1] * 3  # the second one is there at tick 14
    assert played.actions[14, 0] == asked + 7  # 10 ticks over, at 3 of which it stood still
    assert (played.executor.report.waiting, played.executor.report.missed) == (3, 3)


def test_nor_does_one_whose_look_had_to_wait() -> None:
    """The look of tick 4 is thought about from tick 5 on; the robot stood still at 4, and acts at 5 and 6."""
    played = play(Counting(4), [5, 2], 8, Timing(every=4))
    assert [request.tick for request in played.policy.requests] == [0, 4]
    assert played.actions[:, 0].tolist() == [-1] * 5 + [0, 1] + [4 + 2]


@pytest.mark.parametrize(("coast", "expected"), [(0.0, [0, 0, 0]), (0.5, [4, 2, 1]), (1.0, [8, 8, 8])])
def test_hold_slow_down_or_go_on(coast: float, expected: list[float]) -> None:
    """The first dimension is a speed, the second a position that stays."""

    class Once:
        """Answers the first question at once, and never again."""

        busy, answers = False, 0

        def submit(self, request: Request[int]) -> None:
            self.request, self.busy = request, True

        def poll(self) -> Thought[int] | None:
            if not self.busy or self.answers:
                return None
            self.busy, self.answers = False, 1
            return Thought(self.request, Answer(np.array([[8.0, 5.0]])))

    executor = Executor(Once(), Rest((0.0, 0.0), keep=(1,)), Timing(coast=coast, patience=3))
    actions = np.stack([executor.act(tick, tick) for tick in range(6)])
    assert actions[0].tolist() == [8, 5]
    assert actions[1:4].tolist() == [[speed, 5] for speed in expected]
    assert actions[4:].tolist() == [[0, 5], [0, 5]]  # patience is over
    assert executor.report.missed == 5


# ---------------------------------------------------------------- when thinking fails


def test_a_failure_is_reported_the_chunk_played_to_its_end_and_then_the_robot_holds(caplog) -> None:
    policy = Counting(6, fails=(1, 2))
    with caplog.at_level(logging.ERROR):
        played = play(policy, [1], 24, Timing(every=4, coast=1.0))
    report = played.executor.report
    assert report.failed == 2
    assert "thought 1 failed" in caplog.text
    assert played.executor.error is None  # the next thought succeeded
    assert played.actions[1:7, 0].tolist() == list(range(6))
    assert played.actions[7:13, 0].tolist() == [-1] * 6  # held, although it may coast otherwise
    assert played.actions[13, 1] == 3


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((4, 3)), r"found shape \(4, 3\), expected \(N, 2\)"),
        (np.zeros((0, 2)), r"found shape \(0, 2\)"),
        (np.full((4, 2), np.nan), "not finite"),
    ],
)
def test_an_unusable_answer_is_a_failure(actions: np.ndarray, message: str) -> None:
    clock = VirtualClock()
    executor = Executor(SimulatedWorker(lambda request: Answer(actions), clock, lambda request: 0.0), HOLD)
    assert executor.act(0, 0).tolist() == [-1, -1]
    with pytest.raises(ValueError, match=message):
        raise executor.error or AssertionError("no error was kept")


def test_an_answer_after_the_end_of_its_chunk_is_dropped() -> None:
    played = play(Counting(4), [0, 9, 0], 30, CONTINUE)
    report = played.executor.report
    assert report.stale == 1
    assert 1 not in played.actions[:, 1]


def test_ticks_come_one_after_the_other() -> None:
    clock = VirtualClock()
    executor = Executor(SimulatedWorker(Counting(4), clock, lambda request: 0.0), HOLD)
    executor.act(0, 0)
    for wrong in (0, 2):
        with pytest.raises(ValueError, match=f"tick {wrong}: expected 1"):
            executor.act(wrong, wrong)


def test_looks_arrive_once_each_and_in_order() -> None:
    played = play(Counting(12), [2.5], 60, Timing(every=6), looks_every=3)
    seen = [look for request in played.policy.requests for look in request.looks]
    assert seen == [(tick, tick) for tick in range(0, 55, 3)]
    assert [request.tick for request in played.policy.requests] == list(range(0, 60, 6))


@pytest.mark.parametrize("wrong", [{"every": 0}, {"quantile": 1.5}, {"coast": -0.1}, {"window": 0}, {"patience": -1}])
def test_impossible_timing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Timing(**wrong)  # type: ignore[arg-type]
