"""Every lossless rung gives the numbers of the naive loop, alone and on top of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from tests.engine.robots import looks, tiny_engine
from tests.models import EMBODIMENT
from wam.bench import ladder
from wam.bench.naive import NaiveLoop, Undone
from wam.bench.rungs import Rung, Step, Way, climb, naive, rungs
from wam.engine.engine import Actions, Engine
from wam.robot.observation import Observation

START = naive(steps=5, guidance=2.5)
EPISODE = [looks(1 if step == 0 else 4, seed=step) for step in range(6)]


def decide(way: Way, episode: Sequence[Sequence[Observation]] = EPISODE, seed: int = 3) -> Actions:
    engine: Engine = tiny_engine(way.config)
    if way.undone != Undone():
        loop = NaiveLoop(engine, way.undone, episode[:-1], seed)
        first, again = loop.prepare(episode[-1])(), loop.prepare(episode[-1])()
        assert np.array_equal(first, again)
        return first
    session = engine.open(seed)
    for before in episode[:-1]:
        engine.watch(session, before)
    return engine.step(session, episode[-1]).actions


LOSSLESS = [step for step in climb(START, [rung for rung in rungs() if rung.lossless and rung.climbs]) if step.rung]


@pytest.mark.parametrize(
    "step",
    [pytest.param(s, marks=pytest.mark.slow) if s.name == "compile" else s for s in LOSSLESS],
    ids=[s.name for s in LOSSLESS],
)
def test_lossless_rungs_are(step: Step) -> None:
    expected = decide(START)
    for way in (step.alone, step.cumulative):
        if way is not None:
            assert np.allclose(decide(way), expected, atol=5e-4)
    assert step.cumulative is not None and step.cumulative != START


def test_the_test_above_can_fail() -> None:
    """Another past, another seed, another guidance: other actions."""
    expected = decide(START)
    other_past = [looks(1 if step == 0 else 4, seed=step + (step == 3)) for step in range(6)]
    for changed in (decide(START, other_past), decide(START, seed=4), decide(naive(5, 4.0))):
        assert np.abs(changed - expected).max() > 1e-3


def test_climbing() -> None:
    steps = climb(naive(), rungs())
    assert steps[0].name == "naive" and steps[0].alone == steps[0].cumulative == naive()
    top = [step.cumulative for step in steps if step.cumulative is not None][-1]
    assert top.undone == Undone() and top.config.sampler.steps == 1 and top.config.sampler.guidance == 1.0
    assert top.config.joint_pass and top.config.step_cache is None and top.weights == "float32"
    on_cuda = climb(naive(), rungs(cuda=True))
    assert [step.name for step in on_cuda if step.cumulative and step.cumulative.weights == "bf16"][0] == "bf16"
    one_step = next(step for step in steps if step.name == "one step")
    assert one_step.alone is not None and one_step.alone.undone == naive().undone


class Garage:
    """Ways that take so many seconds of its clock, by their weights; "fp8" cannot run."""

    device = "cpu"
    seconds: Mapping[str, float] = {"float32": 2.0, "int8": 0.5, "nvfp4": 16.0}

    def __init__(self) -> None:
        self.now = 0.0

    def ready(self, way: Way, episode: object, seed: int) -> Ready:
        if way.weights not in self.seconds:
            raise ValueError("no such machine")
        return Ready(self, way)


@dataclass
class Ready:
    garage: Garage
    way: Way

    def prepare(self) -> Callable[[], Actions]:
        return self.decide

    def decide(self) -> Actions:
        self.garage.now += self.garage.seconds[self.way.weights]
        return np.zeros((1, EMBODIMENT.action_dim))


def test_ways_take_turns_and_one_that_cannot_run_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    garage, seen = Garage(), list[int]()
    monkeypatch.setitem(ladder.CLOCKS, "wall", lambda: garage.now)  # type: ignore[arg-type]
    steps = [Step(None, Way(), Way())]
    for weights in ("int8", "fp8", "nvfp4"):
        way = Way(weights=weights)  # type: ignore[arg-type]
        steps.append(Step(Rung(weights, lambda start: start, lossless=False), way, None))
    rows = ladder.measure(garage, steps, [EPISODE], EMBODIMENT, rounds=2, on_decision=lambda done, _: seen.append(done))  # type: ignore[arg-type]
    assert [row.speedup_alone for row in rows] == [1.0, 4.0, None, 0.125]
    assert rows[2].failure == "no such machine"
    assert seen == list(range(4 + 2 * 3)), "the first decisions, which warm up and compile, are counted too"
