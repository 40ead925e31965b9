"""One network, several questions: what is given stays, what is not asked stays noise, and the robot notices nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from tests.engine.robots import looks, tiny_engine
from tests.models import TINY

from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.engine.modes import Future, Mode, WorldModel, unfamiliar
from wam.engine.session import Session
from wam.flow.noise import NoiseConfig
from wam.flow.sampler import Imagined, Sampler

FOUR = EngineConfig(Sampler(steps=4))


def begun(engine: Engine, chunks: int = 2, seed: int = 0) -> Session:
    """A robot's session that has seen an anchor and some chunks."""
    session = engine.open(seed)
    for chunk in range(chunks + 1):
        engine.watch(session, looks(4 if chunk else 1, seed=chunk))
    return session


def world(config: EngineConfig = FOUR, seed: int = 0) -> WorldModel:
    engine = tiny_engine(config)
    return WorldModel(engine, begun(engine, seed=seed))


def test_watching_is_a_step_without_its_answer() -> None:
    answers = []
    for watches in (True, False):
        engine = tiny_engine(FOUR)
        session = engine.open(3)
        for count in (1, 4, 4):
            if watches:
                engine.watch(session, looks(count, seed=count))
            else:
                engine.step(session, looks(count, seed=count))
        session.generator.manual_seed(9)
        answers.append(engine.step(session, looks(4, seed=7)).actions)
    assert np.allclose(answers[0], answers[1], atol=1e-5)


def test_the_policy_is_what_a_step_answers() -> None:
    engine = tiny_engine(FOUR)
    session, twin = begun(engine), begun(engine, chunks=1)
    expected = engine.step(twin, looks(4, seed=2)).actions
    found = WorldModel(engine, session).policy().actions
    assert found is not None and np.allclose(found, expected, atol=1e-5)


def test_given_parts_are_untouched() -> None:
    asked = world()
    actions = np.arange(8, dtype=np.float32).reshape(4, 2) / 10
    seen = asked.forward(actions)
    assert seen.actions is not None and np.array_equal(seen.actions, actions) and seen.video is not None
    labelled = asked.inverse(seen.video)
    assert labelled.video is not None and torch.equal(labelled.video, seen.video) and labelled.actions is not None


def test_modes_that_leave_something_out_say_so() -> None:
    asked = world()
    assert asked.video().actions is None and asked.action_only().video is None
    half = asked.policy(Sampler(steps=2, video_final=0.5))
    assert half.video is not None and half.sigma == 0.5 and half.actions is not None
    with pytest.raises(ValueError, match="a denoised video is needed, found one with noise of sigma 0.5"):
        asked.suppose(half)
    with pytest.raises(ValueError, match="0 of 1 futures have a video"):
        asked.pictures([asked.action_only()])


def test_action_only_is_the_policy_whose_video_stays_noise() -> None:
    fast = world().action_only().actions
    slow = world().policy(Sampler(steps=4, video_final=1.0)).actions
    other = world().policy().actions
    assert fast is not None and slow is not None and other is not None
    assert np.allclose(fast, slow, atol=1e-5) and not np.allclose(fast, other, atol=1e-3)


def test_forward_depends_on_the_actions_and_on_no_noise_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Video mode does depend on it: action tokens at sigma 1 are tokens, which noisy video attends to."""
    asked, drawn = world(), world().engine.model.noise(torch.Generator().manual_seed(1))

    def with_actions(value: float) -> None:
        noise = Imagined(drawn.video, torch.full_like(drawn.action, value))
        monkeypatch.setattr(asked.engine.model, "noise", lambda generator: noise)

    videos: dict[str, list[torch.Tensor]] = {"forward": [], "video": []}
    for value in (0.0, 2.0):
        with_actions(value)
        videos["forward"].append(_video(asked.forward(np.zeros((4, 2)))))
        videos["video"].append(_video(asked.video()))
    assert _close(videos["forward"], 1e-5) and not _close(videos["video"], 1e-3)
    assert not torch.allclose(videos["forward"][0], _video(asked.forward(np.ones((4, 2)))), atol=1e-3)


def test_inverse_depends_on_the_video_and_on_no_noise_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, drawn = world(), world().engine.model.noise(torch.Generator().manual_seed(1))
    dreamed, answers = _video(asked.policy()), []
    for value in (0.0, 2.0):
        assert drawn.video is not None
        noise = Imagined(torch.full_like(drawn.video, value), drawn.action)
        monkeypatch.setattr(asked.engine.model, "noise", lambda generator, noise=noise: noise)
        answers.append(asked.inverse(dreamed).actions)
    changed = asked.inverse(dreamed + 1.0).actions
    assert answers[0] is not None and answers[1] is not None and changed is not None
    assert np.allclose(answers[0], answers[1], atol=1e-5) and not np.allclose(answers[0], changed, atol=1e-3)


def test_a_rolled_out_world_leaves_the_robots_session_as_it_was() -> None:
    """Imagined chunks fill the copy's whole memory; the robot then acts as its twin that nobody asked."""
    engine, other = tiny_engine(FOUR), tiny_engine(FOUR)
    session, twin = begun(engine), begun(other)
    asked, futures = WorldModel(engine, session), []
    for chunk in range(3):
        futures.append(asked.forward(np.full((4, 2), chunk / 4)))
        asked.suppose(futures[-1])
    assert asked.session.chunk == session.chunk + 3 == 4
    assert asked.session.remembered.cache.chunk[0].unique().tolist() == [-1, 3, 4]  # type: ignore[no-untyped-call]
    assert asked.pictures(futures).shape == (12, 32, 32, 3)
    found, expected = engine.step(session, looks(4, seed=5)), other.step(twin, looks(4, seed=5))
    assert np.allclose(found.actions, expected.actions, atol=1e-5)


def test_what_was_imagined_is_remembered_as_if_it_had_been_seen() -> None:
    """Supposing exactly what then happened is seeing it."""
    real, supposed = world(), world()
    happened, state = looks(4, seed=8), looks(4, seed=8)[-1].state
    supposed.suppose(Future(supposed.latents(happened), None), state)
    real.see(happened)
    for asked in (real, supposed):
        asked.session.generator.manual_seed(4)
    a, b = real.policy(), supposed.policy()
    assert a.actions is not None and b.actions is not None and np.allclose(a.actions, b.actions, atol=1e-5)
    assert torch.allclose(_video(a), _video(b), atol=1e-5)


def test_imagined_frames_enter_no_robots_memory() -> None:
    engine = tiny_engine(FOUR)
    session = begun(engine)
    asked = WorldModel(engine, session)
    future = asked.policy()
    with pytest.raises(ValueError, match="imaginary session alone"):
        engine.suppose(session, _video(future), session.present)
    asked.suppose(future)
    with pytest.raises(ValueError, match="were imagined, so real ones cannot follow"):
        asked.see(looks(4))
    with pytest.raises(ValueError, match="were imagined"):
        asked.latents(looks(4))


def test_pictures_follow_the_last_real_look() -> None:
    """Decoded in one stream, and from what was seen last, not from where the copy was made."""
    asked = world()
    asked.see(looks(4, seed=6))
    first = asked.policy()
    expected = asked.engine.decode([asked.session], _video(first))[0]
    asked.suppose(first)
    found = asked.pictures([first])
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_actions_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"actions: found shape \(3, 2\), a chunk has \(4, 2\)"):
        world().forward(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="not finite"):
        world().forward(np.full((4, 2), np.nan))


def test_a_model_without_video_answers_with_actions_alone() -> None:
    engine = tiny_engine(FOUR, replace(TINY, dream=False))
    asked = WorldModel(engine, begun(engine))
    policy = asked.policy()
    assert policy.video is None and policy.actions is not None and asked.action_only().actions is not None
    asks: list[Callable[[], Future]] = [
        asked.video,
        lambda: asked.forward(np.zeros((4, 2))),
        lambda: asked.inverse(torch.zeros(1, 4, 1, 4, 4)),
    ]
    for ask in asks:
        with pytest.raises(ValueError, match="trained on actions alone"):
            ask()


def test_what_a_model_has_not_learned_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = tiny_engine(FOUR, replace(TINY, noise=NoiseConfig(mode="coupled", video_at_noise=0.4)))
    asked = WorldModel(engine, begun(engine))
    with caplog.at_level(logging.WARNING):
        asked.policy(), asked.action_only()
        assert not caplog.records
        asked.forward(np.zeros((4, 2))), asked.forward(np.ones((4, 2)))
    assert [record.message[:15] for record in caplog.records] == ["mode 'forward':"]


@pytest.mark.parametrize(
    ("noise", "learned"),
    [
        (NoiseConfig("decoupled"), {"policy", "video", "forward", "inverse", "action-only"}),
        (NoiseConfig("coupled"), {"policy"}),
        (NoiseConfig("coupled", video_at_noise=0.4), {"policy", "action-only"}),
        (NoiseConfig("flash"), {"action-only"}),
    ],
)
def test_what_each_noise_mode_teaches(noise: NoiseConfig, learned: set[str]) -> None:
    assert {mode for mode in get_args(Mode) if unfamiliar(noise, mode) is None} == learned


def test_a_video_that_stops_halfway_leaves_the_shared_levels() -> None:
    noise = NoiseConfig("coupled", video_at_noise=0.4)
    assert unfamiliar(noise, "policy") is None and unfamiliar(noise, "policy", 1.0) is None
    assert "pairs (1 .. 0.5, s)" in (unfamiliar(noise, "policy", 0.5) or "")
    assert unfamiliar(NoiseConfig("coupled"), "policy", 1.0) and not unfamiliar(NoiseConfig(), "policy", 0.5)


def _close(videos: list[torch.Tensor], atol: float) -> bool:
    return torch.allclose(videos[0], videos[1], atol=atol)


def _video(future: Future) -> torch.Tensor:
    assert future.video is not None
    return future.video


def test_guidance_is_that_of_the_question() -> None:
    """An engine that remembers with and without the sentence can be asked with any guidance, also with none."""
    guided, plain = EngineConfig(Sampler(steps=2, guidance=3.0)), EngineConfig(Sampler(steps=2))
    answers = {scale: _video(world(guided).policy(Sampler(steps=2, guidance=scale))) for scale in (1.0, 3.0, 9.0)}
    assert not _close([answers[1.0], answers[3.0]], 1e-3) and not _close([answers[3.0], answers[9.0]], 1e-3)
    assert _close([answers[1.0], _video(world(plain).policy())], 1e-5)
    assert _close([answers[3.0], _video(world(guided).policy())], 0.0)
    with pytest.raises(ValueError, match="guidance=3: this engine remembers nothing without the prompt"):
        world(plain).policy(Sampler(steps=2, guidance=3.0))


def test_what_stays_noise_needs_no_solver() -> None:
    asked = world(EngineConfig(Sampler(steps=2, solver="unipc")))
    assert asked.action_only().actions is not None and asked.video().video is not None
