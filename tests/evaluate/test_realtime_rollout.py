"""Episodes in which the world does not wait: the same as waiting ones without delay, and on time with one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from tests.engine.robots import looks, tiny_engine
from tests.evaluate.point_robot import POINT, SIZE, PointEnv, PointPolicy, PointSource
from tests.models import EMBODIMENT
from wam.engine import WamPolicy
from wam.engine.policy import ActionChunk
from wam.engine.session import Session
from wam.evaluate.provenance import Provenance
from wam.evaluate.realtime_rollout import RealTime
from wam.evaluate.results import ResultFolder
from wam.evaluate.rollout import EpisodeResult, rollout
from wam.evaluate.runner import Episode, Setup, run_episodes
from wam.evaluate.summary import markdown, summarise
from wam.realtime import Rest
from wam.robot.observation import Observation

STILL = RealTime(delay=0.0, rest=Rest((0.0, 0.0)))


def play(how: RealTime, policy: PointPolicy, task: str = "far", seed: int = 5, **more: object) -> EpisodeResult:
    more = {"max_env_steps": 96, **more}
    return how(PointEnv(task), policy, seed, embodiment=POINT, **more)  # type: ignore[arg-type]


def test_a_robot_rests_in_its_own_units() -> None:
    """Two numbers for the point, whose first chunk arrives late; the Sawyer's four would be refused."""
    for delay in (0.0, 0.5):
        own = play(RealTime(delay=delay), PointPolicy(), "far")
        told = play(RealTime(delay=delay, rest=Rest((0.0, 0.0))), PointPolicy(), "far")
        np.testing.assert_array_equal(own.actions, told.actions)


@dataclass
class Told(PointPolicy):
    """Is told what is being executed, and begins with it."""

    prefixes: list[np.ndarray] = field(default_factory=list)

    def act(self, observations: Sequence[Observation], executing: np.ndarray | None = None) -> ActionChunk:
        chunk = super().act(observations)
        if executing is not None:
            self.prefixes.append(executing)
            chunk.actions[: len(executing)] = executing
        return chunk


class Broken(PointPolicy):
    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        if len(self.looks) == 2:
            raise RuntimeError("out of memory")
        return super().act(observations)


@pytest.mark.parametrize("task", ["near", "far"])
def test_without_delay_and_once_per_chunk_it_is_the_synchronous_loop(task: str) -> None:
    waiting = rollout(PointEnv(task), PointPolicy(dream=True), 5, max_env_steps=96, record=True, embodiment=POINT)
    asynchronous = play(replace(STILL, every=8), PointPolicy(dream=True), task, record=True)
    for name in ("success", "steps", "chunk_starts", "frame_steps", "instruction"):
        assert getattr(asynchronous, name) == getattr(waiting, name)
    for name in ("actions", "frames", "dreams"):
        assert np.array_equal(getattr(asynchronous, name), getattr(waiting, name))
    assert waiting.clock == {}
    assert asynchronous.clock["missed"] == asynchronous.clock["waiting"] == 0


@pytest.mark.parametrize(("delay", "ticks"), [(0.0, 0), (1 / 6, 2), (1 / 3, 3), (0.5, 4)])
@pytest.mark.parametrize("every", [4, 2])
def test_no_tick_is_missed_while_a_thought_takes_up_to_half_a_chunk(delay: float, ticks: int, every: int) -> None:
    result = play(replace(STILL, delay=delay, every=every), PointPolicy())
    assert result.steps == result.clock["ticks"] == 48
    assert result.clock["missed"] == result.clock["stale"] == result.clock["failed"] == 0
    assert result.clock["waiting"] == ticks
    if every == 4:  # more often than a thought takes, looks wait for a tick or two before they are thought about
        assert (result.clock["late"], result.clock["delay"]) == (0, ticks)
    assert not result.actions[:ticks].any()
    assert result.actions[ticks:].any(axis=1).all()


def test_misses_are_counted_and_nothing_breaks() -> None:
    result = play(replace(STILL, delay=0.9), PointPolicy())
    assert result.steps == 48
    assert result.clock["missed"] > 0


def test_an_episode_repeats_and_does_not_depend_on_the_machine() -> None:
    class Slow(PointPolicy):
        def act(self, observations: Sequence[Observation]) -> ActionChunk:
            time.sleep(0.01)
            return super().act(observations)

    how = replace(STILL, delay=1 / 3, blend=2, smooth=True)
    first, again = play(how, PointPolicy()), play(how, Slow())
    assert np.array_equal(first.actions, again.actions)
    assert not np.array_equal(first.actions, play(STILL, PointPolicy()).actions)


def test_the_point_still_arrives() -> None:
    arrived = [play(replace(STILL, delay=1 / 3), PointPolicy(noise=0.1), "near", seed).success for seed in range(20)]
    assert sum(arrived) >= 18


def test_the_measured_delay_is_that_of_this_machine() -> None:
    class Slow(PointPolicy):
        def act(self, observations: Sequence[Observation]) -> ActionChunk:
            time.sleep(0.25)  # between 2 and 3 ticks at 10 Hz
            return super().act(observations)

    result = play(replace(STILL, delay=None), Slow(), max_env_steps=24)
    assert result.clock["waiting"] >= 3
    assert result.clock["delay"] >= 3


def test_a_policy_is_told_what_is_executed_meanwhile() -> None:
    policy = Told()
    result = play(replace(STILL, delay=1 / 3, prefix=True), policy)
    starts = [start for start in result.chunk_starts if start > 0]  # at first the robot stands still
    assert len(policy.prefixes) == len(starts) >= 8
    for start, prefix in zip(starts, policy.prefixes, strict=True):
        assert prefix.shape == (3, 2)
        assert np.array_equal(result.actions[start : start + 3], prefix[: 48 - start])


def test_sessions_see_whole_chunks() -> None:
    policy = PointPolicy()
    play(replace(STILL, delay=1 / 3), policy)
    assert policy.looks[:5] == [1, 1, 4, 4, 4]
    assert len(policy.seeds) == len(set(policy.seeds)) == 2


def test_films_show_what_was_imagined_for_the_moment() -> None:
    result = play(replace(STILL, delay=1 / 3), PointPolicy(dream=True), record=True)
    assert result.frames is not None
    assert result.dreams is not None
    assert result.frames.shape == result.dreams.shape == (25, SIZE, SIZE, 3)
    later = {step: dream[0, 0, 0] for step, dream in zip(result.frame_steps, result.dreams, strict=True)}
    assert [later[step] for step in (8, 10)] == [21, 22]  # of the second chunk, which began at 4
    assert [later[step] for step in (12, 14)] == [31, 32]  # from tick 11 on the third one plays, which began at 8


def test_mistakes_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        play(replace(STILL, delay=1 / 3), Broken())
    with pytest.raises(ValueError, match=r"every=3: a policy that executes 8 steps can be asked every \[1, 2, 4, 8\]"):
        play(replace(STILL, every=3), PointPolicy())
    with pytest.raises(ValueError, match="delay is -0.1"):
        RealTime(delay=-0.1)
    with pytest.raises(ValueError, match="max_env_steps is 1"):
        play(STILL, PointPolicy(), max_env_steps=1)


def test_result_folders_tell_how_the_clock_was_kept(tmp_path: Path) -> None:
    setup = Setup(PointEnv, PointSource(), 96, POINT, replace(STILL, delay=1 / 3))
    plan = [Episode("far", seed) for seed in range(3)]
    records = run_episodes(plan, setup, tmp_path, {"realtime": {"delay": 1 / 3}})
    assert [record.clock["ticks"] for record in records] == [48] * 3
    assert ResultFolder(tmp_path).episodes() == records
    found = summarise(records, {}, {"policy": "point"}, Provenance("wam eval", "unknown", "a machine", "2026"))
    assert found.timing.clock["ticks"] == 144
    assert "144 ticks, 9 of them before a first chunk, 0 missed" in markdown(found)


class Waver:
    """An environment for the tiny model of other tests, never solved: a picture per step, a state that adds up."""

    task, action_repeat = "wave", 1

    def reset(self, seed: int) -> Observation:
        self.seed, self.steps, self.state = seed, 0, np.zeros(3, np.float32)
        return self.observe()

    def step(self, action: np.ndarray) -> bool:
        self.steps, self.state = self.steps + 1, self.state + np.pad(action, (0, 1)).astype(np.float32)
        return False

    def observe(self) -> Observation:
        return replace(looks(1, self.seed + self.steps)[0], state=self.state)

    def close(self) -> None:
        pass


def test_a_world_action_model_takes_turns_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions on one engine, each with a memory of its own; what is executing comes first in every chunk."""
    engine, calls = tiny_engine(), []
    step = engine.step

    def watched(session: Session, seen: Sequence[Observation], executing: np.ndarray | None = None) -> ActionChunk:
        chunk = step(session, seen, executing)
        calls.append((session, len(seen), 0 if executing is None else len(executing)))
        if executing is not None:
            assert np.array_equal(chunk.actions[: len(executing)], executing)
        return chunk

    monkeypatch.setattr(engine, "step", watched)
    policy = WamPolicy(engine)
    untouched = policy.session
    how = RealTime(delay=1 / 3, prefix=True, rest=Rest((0.0, 0.0)))
    result = how(Waver(), policy, 3, max_env_steps=24, embodiment=EMBODIMENT)
    assert result.clock["missed"] == 0
    assert policy.session is untouched
    first, second = calls[0][0], calls[1][0]
    assert [session for session, _, _ in calls] == [first, second] * (len(calls) // 2)
    assert [seen for _, seen, _ in calls] == [1, 1] + [4] * (len(calls) - 2)
    assert [executing for _, _, executing in calls] == [0] + [2] * (len(calls) - 1)
    again = how(Waver(), WamPolicy(tiny_engine()), 3, max_env_steps=24, embodiment=EMBODIMENT)
    assert np.array_equal(again.actions, result.actions)
