"""Guidance in one pass over two rows is guidance in two passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.robots import looks, tiny_engine

from wam.engine.config import EngineConfig
from wam.engine.guidance import split
from wam.engine.step_cache import FixedSteps, StepCache
from wam.flow.sampler import Sampler
from wam.model.transformer import Velocity

GUIDED = Sampler(steps=3, guidance=3.0)


def actions(config: EngineConfig, sessions: int = 1, steps: int = 4) -> np.ndarray:
    """Of robots that start one after the other, with an action prefix for every second one."""
    engine, out = tiny_engine(config), []
    opened = [engine.open(seed) for seed in range(sessions)]
    for step in range(steps):
        ready = opened[: step + 1]
        seen = [looks(1 if s.anchor is None else 4, 10 * step + i, "go" + " on" * i) for i, s in enumerate(ready)]
        prefixes = [None if i % 2 == 0 else np.full((2, 2), 0.1) for i in range(len(ready))]
        out += [chunk.actions for chunk in engine.steps(ready, seen, prefixes)]
    return np.array(out)


@pytest.mark.parametrize("sessions", [1, 3])
@pytest.mark.parametrize("joint", [True, False], ids=["joint", "apart"])
def test_batched_is_sequential(sessions: int, joint: bool) -> None:
    one, other = (
        actions(EngineConfig(GUIDED, joint_pass=joint, guidance_mode=mode), sessions)
        for mode in ("batched", "sequential")
    )
    assert np.allclose(one, other, atol=1e-4)
    assert not np.allclose(one, actions(EngineConfig(Sampler(steps=3)), sessions), atol=1e-2)  # and it does something


def test_split_asks_both_at_once_and_takes_the_actions_of_the_prompt() -> None:
    order = []

    class Elsewhere:
        def begin(self, inputs: Any) -> Any:
            order.append("begin")
            return self.wait

        def wait(self) -> torch.Tensor:
            order.append("wait")
            return torch.ones(1)

    def here(step: int, inputs: Any) -> Velocity:
        order.append("here")
        return Velocity(torch.full((1,), 3.0), torch.full((1,), 7.0))

    answer = split(here, Elsewhere(), 2.0)(0, None)  # type: ignore[arg-type]
    assert order == ["begin", "here", "wait"]
    assert answer.video is not None and answer.video.item() == 5.0
    assert answer.action is not None and answer.action.item() == 7.0


def test_an_engine_with_a_step_cache_asks_the_network_less() -> None:
    """All steps: nothing changes. Some: something does, and less is computed."""
    sampler, calls = Sampler(steps=8), {}
    answers = {}
    for name, cache in (
        ("none", None),
        ("all", StepCache(FixedSteps(tuple(range(8))))),
        ("half", StepCache(FixedSteps((0, 1, 4, 7)))),
    ):
        engine = tiny_engine(EngineConfig(sampler, step_cache=cache))
        count: list[int] = []
        engine.model.transformer.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        session = engine.open(0)
        for step in range(3):
            answers[name] = engine.step(session, looks(4 if step else 1, step)).actions
        calls[name] = len(count)
    assert np.array_equal(answers["none"], answers["all"]) and calls == {"none": 24, "all": 24, "half": 12}
    assert np.abs(answers["half"] - answers["none"]).max() > 0


def test_split_needs_a_partner() -> None:
    with pytest.raises(ValueError, match="go together"):
        tiny_engine(EngineConfig(GUIDED, guidance_mode="split"))
