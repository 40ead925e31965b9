"""Real threads and real time: the robot's loop is never blocked, and what a thought raises is an answer."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.realtime.counting import HOLD, Answer, Counting
from wam.realtime import Executor, Request, SimulatedWorker, ThreadWorker, Timing, VirtualClock, WallClock, run

QUESTION: Request[int] = Request(0, ((0, 0),), np.zeros((0, 2), np.float32))


class Bench:
    """A robot that writes down what it is told, and may be slow at one tick."""

    def __init__(self, clock: VirtualClock | WallClock, slow: dict[int, float] | None = None) -> None:
        self.clock, self.slow = clock, slow or {}
        self.began: list[float] = []
        self.actions: list[np.ndarray] = []

    def look(self, tick: int) -> int:
        self.began.append(self.clock.now())
        return tick

    def execute(self, action: np.ndarray) -> bool:
        self.clock.wait_until(self.clock.now() + self.slow.get(len(self.actions), 0.0))
        self.actions.append(action)
        return bool(action[0] == 90)


def test_a_thought_that_never_ends_does_not_stop_the_robot() -> None:
    forever = threading.Event()

    def think(request: Request[int]) -> Answer:
        forever.wait()
        return Answer(np.zeros((4, 2), np.float32))

    with ThreadWorker(think) as worker:
        executor = Executor(worker, HOLD)
        actions = [executor.act(tick, tick) for tick in range(1000)]
        assert executor.report.waiting == 1000
        assert all(action.tolist() == [-1, -1] for action in actions)
        forever.set()


def test_a_thread_answers_every_question_once_and_in_order() -> None:
    policy = Counting(4, fails=(1,))
    with ThreadWorker(policy) as worker:
        for tick in range(3):
            worker.submit(Request(tick, ((tick, tick),), QUESTION.executing))
            assert worker.busy
            with pytest.raises(RuntimeError, match="still busy"):
                worker.submit(QUESTION)
            while (thought := worker.poll()) is None:
                time.sleep(0.001)
            assert not worker.busy
            assert worker.poll() is None
            assert thought.request.tick == tick
            assert isinstance(thought.answer, RuntimeError if tick == 1 else Answer)


def test_the_loop_in_real_time() -> None:
    """200 ticks per second, thoughts of 10 ms: what is played was planned, and nobody waits for anybody."""

    def think(request: Request[int]) -> Answer:
        time.sleep(0.01)
        return policy(request)

    policy, clock = Counting(100), WallClock()
    bench = Bench(clock)
    with ThreadWorker(think) as worker:
        executor = Executor(worker, HOLD, Timing(every=5))
        began = clock.now()
        pace = run(bench, executor, clock, 0.005, 80)
        seconds = clock.now() - began
    assert seconds >= 79 * 0.005
    assert pace.ticks == len(bench.actions) == executor.report.ticks == 80
    report = executor.report
    assert report.missed == report.failed == 0  # half a second of plan is always in store
    assert report.thoughts >= 2
    late_start = report.waiting
    ahead = np.array(bench.actions)[late_start:, 0] - np.arange(late_start, 80)
    assert np.all((ahead == 0) | (ahead == -late_start))  # the first chunk began when it arrived


def test_the_loop_ends_when_the_robot_says_so() -> None:
    clock = VirtualClock()
    executor = Executor(SimulatedWorker(Counting(100), clock, lambda request: 0.0), HOLD, Timing(every=50))
    assert run(Bench(clock), executor, clock, 1.0, 1000).ticks == 91


def test_a_slow_tick_is_not_made_up_for_by_two_actions_at_once() -> None:
    clock = VirtualClock()
    bench = Bench(clock, slow={3: 2.5})
    executor = Executor(SimulatedWorker(Counting(8), clock, lambda request: 0.0), HOLD)
    pace = run(bench, executor, clock, 1.0, 8)
    assert np.diff(bench.began).tolist() == [1, 1, 1, 2.5, 1, 1, 1]
    assert (pace.late, pace.worst) == (1, 1.5)


def test_virtual_time_never_goes_back() -> None:
    clock = VirtualClock()
    clock.wait_until(3.0)
    clock.wait_until(1.0)
    assert clock.now() == 3.0
    worker = SimulatedWorker(Counting(4), clock, lambda request: 2.0)
    worker.submit(QUESTION)
    assert worker.poll() is None
    with pytest.raises(RuntimeError, match="still busy"):
        worker.submit(QUESTION)
    clock.wait_until(5.0)
    assert worker.poll() is not None
