"""Several sessions on one engine: each gets what it would get alone, whoever else is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.engine.robots import looks, tiny_engine
from tests.models import TINY

from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.engine.session import Session
from wam.engine.step_cache import ErrorBound, StepCache
from wam.flow.sampler import Given, Sampler
from wam.model.attention import ANCHOR
from wam.robot.observation import Observation
from wam.world_action_model import WorldActionConfig

TWO_FRAMES = replace(
    TINY,
    transformer=replace(TINY.transformer, frames_per_chunk=2, actions_per_chunk=8, in_channels=8),
    embodiments=(replace(TINY.embodiments[0], frames_per_chunk=2, actions_per_chunk=8),),
    see_previous=True,
)


class Robot:
    """A session and what its robot sees: its own pictures and sentence, a new sentence after three steps."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.session, self.seed, self.steps = engine.open(seed), seed, 0
        self.looks = engine.execute // engine.video_stride

    def look(self) -> list[Observation]:
        words = "push the button" if self.steps < 3 else "open the long drawer"
        self.steps += 1
        count = 1 if self.steps == 1 else self.looks
        return looks(count, seed=100 * self.seed + self.steps, instruction=words + " now" * self.seed)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        (EngineConfig(Sampler(steps=2)), TINY),
        (EngineConfig(Sampler(steps=2, guidance=2.0), decode_video=True), TINY),
        (EngineConfig(Sampler(guidance=2.0), joint_pass=False), TINY),
        (EngineConfig(memory="none", execute=2), TINY),
        (EngineConfig(Sampler(steps=3, solver="unipc")), TWO_FRAMES),
        (EngineConfig(), replace(TINY, dream=False)),
        (EngineConfig(Sampler(steps=8), step_cache=StepCache(ErrorBound(0.3))), TINY),
    ],
    ids=[
        "plain",
        "guided",
        "remembered apart",
        "without memory",
        "two frames per chunk",
        "actions alone",
        "step cache",
    ],
)
def test_together_is_alone(config: EngineConfig, model: WorldActionConfig) -> None:
    """Three robots that start one after the other."""
    engine, other = tiny_engine(config, model), tiny_engine(config, model)
    group, alone = ([Robot(made, seed) for seed in range(3)] for made in (engine, other))
    for step in range(6):
        ready = [robot for robot in group if robot.seed <= step]
        chunks = engine.steps([robot.session for robot in ready], [robot.look() for robot in ready])
        for robot, chunk in zip(ready, chunks, strict=True):
            twin = alone[robot.seed]
            expected = other.step(twin.session, twin.look())
            assert np.allclose(chunk.actions, expected.actions, atol=2e-4), f"step {step}, robot {robot.seed}"
            if config.decode_video:
                assert chunk.dream is not None and expected.dream is not None
                assert np.abs(chunk.dream.astype(int) - expected.dream).max() <= 1
    assert [robot.session.chunk for robot in group] == [robot.session.chunk for robot in alone]


@pytest.mark.parametrize("model", [TINY, TWO_FRAMES, replace(TINY, dream=False)])
def test_remembering_in_the_first_step_changes_nothing(model: WorldActionConfig) -> None:
    answers = {}
    for joint in (True, False):
        engine = tiny_engine(
            EngineConfig(Sampler(steps=2, guidance=2.0 if model.dream else 1.0), joint_pass=joint), model
        )
        robot = Robot(engine, 0)
        answers[joint] = [engine.step(robot.session, robot.look()).actions for _ in range(6)]
        kept = robot.session.remembered.cache
        answers[joint].append(kept.keys[:, :, :, : kept.kept])
    for one, other in zip(answers[True], answers[False], strict=True):
        assert np.allclose(one, other, atol=2e-4)


def test_different_robots_get_different_chunks() -> None:
    """Otherwise the test above could not fail."""
    engine = tiny_engine()
    robots = [Robot(engine, seed) for seed in range(2)]
    first, second = engine.steps([r.session for r in robots], [r.look() for r in robots])
    assert not np.allclose(first.actions, second.actions, atol=1e-2)


def test_what_is_being_executed_comes_first_and_steers_the_rest() -> None:
    """Three robots with prefixes of 0, 1 and 3 actions in one step."""
    prefixes = [None, np.array([[0.2, -0.4]]), np.array([[0.1, 1.0], [0.0, 2.0], [0.3, 0.3]])]
    answers = {}
    for together in (True, False):
        engine = tiny_engine(EngineConfig(Sampler(steps=2)))
        sessions = [engine.open(7) for _ in prefixes]
        if together:
            chunks = engine.steps(sessions, [looks(1)] * 3, prefixes)
        else:
            chunks = [
                engine.step(session, looks(1), prefix) for session, prefix in zip(sessions, prefixes, strict=True)
            ]
        answers[together] = [chunk.actions for chunk in chunks]
    for one, other in zip(answers[True], answers[False], strict=True):
        assert np.allclose(one, other, atol=1e-4)
    free, short, long = answers[True]
    assert np.array_equal(short[:1], prefixes[1].astype(np.float32)) and np.array_equal(
        long[:3], prefixes[2].astype(np.float32)
    )
    assert not np.allclose(free[1:], short[1:], atol=1e-3)
    with pytest.raises(ValueError, match=r"executing: found shape \(4, 2\), expected \(n, 2\) with n < 4"):
        engine.step(sessions[0], looks(4), np.zeros((4, 2)))


def test_imagining_changes_nothing_but_the_noise() -> None:
    """An engine that has imagined in between acts as one that has not, given the same noise."""
    answers = []
    for imagines in (True, False):
        engine = tiny_engine()
        session = engine.open(1)
        engine.step(session, looks(1))
        if imagines:
            action = torch.full((1, 4, 2), 0.3)
            seen = engine.imagine([session], Given(action=action), Sampler(steps=2))
            assert torch.equal(seen.action, action) and seen.video is not None
            assert engine.decode([session], seen.video).shape == (1, 4, 32, 32, 3)
        session.generator.manual_seed(9)
        answers.append(engine.step(session, looks(4, seed=3)).actions)
    assert np.array_equal(*answers)


def test_one_bad_look_stops_the_step_before_anything_has_changed() -> None:
    engine = tiny_engine()
    sessions = [engine.open(seed) for seed in range(2)]
    engine.steps(sessions, [looks(1), looks(1)])
    before = [(session.chunk, session.generator.get_state()) for session in sessions]
    with pytest.raises(ValueError, match="found 3 observations"):
        engine.steps(sessions, [looks(4), looks(3)])
    for session, (chunk, noise) in zip(sessions, before, strict=True):
        assert session.chunk == chunk and torch.equal(session.generator.get_state(), noise)
    with pytest.raises(ValueError, match="at least one observation"):
        engine.step(sessions[0], [])
    with pytest.raises(ValueError, match="the same session twice"):
        engine.steps([sessions[0]] * 2, [looks(4), looks(4)])


def test_a_session_is_bounded() -> None:
    """What it holds after the memory is full is as large as ever."""
    engine, sizes = tiny_engine(), []
    session = engine.open(0)
    for call in range(8):
        engine.step(session, looks(1 if call == 0 else 4, seed=call))
        sizes.append(held(session))
    assert len(set(sizes[3:])) == 1 and session.chunk == 6
    assert session.remembered.cache.chunk[0].unique().tolist() == [ANCHOR, 5, 6]


def held(session: Session) -> int:
    """Numbers in all tensors that a session refers to."""
    latents = [session.anchor, session.state, *(latents for _, latents in session.recent)]
    own = sum(tensor.numel() for tensor in latents if tensor is not None)
    return own + session.encoder_state.previous_frame.numel() + session.remembered.cache.keys.numel()


def test_contradictions_are_named() -> None:
    with pytest.raises(ValueError, match="execute=0"):
        tiny_engine(EngineConfig(memory="none", execute=0))
    with pytest.raises(ValueError, match="guidance=2: it guides the video, .* trained on actions alone"):
        tiny_engine(EngineConfig(Sampler(guidance=2.0)), replace(TINY, dream=False))
