"""Every lossless rung gives the numbers of the naive loop, alone and on top of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.engine.robots import looks, tiny_engine
from wam.bench.naive import NaiveLoop, Undone
from wam.bench.rungs import Step, Way, climb, naive, rungs
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
