"""An episode stepped by hand is the episode that `rollout` runs, and another sentence arrives at the next chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.evaluate.point_robot import POINT, SIZE, PointEnv, PointPolicy
from wam.engine import load_policy
from wam.engine.policy import ActionChunk
from wam.evaluate.rollout import RunningEpisode, rollout
from wam.evaluate.sources import MetaWorldSource
from wam.play.episode import Snapshot, SteeredEpisode
from wam.robot.observation import Observation


@dataclass
class Listener(PointPolicy):
    """Remembers which sentences each call was given."""

    heard: list[set[str]] = field(default_factory=list)

    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        self.heard.append({look.instruction for look in observations})
        return super().act(observations)


def begin(policy: PointPolicy, task: str = "far", steps: int = 64, **options: bool) -> SteeredEpisode:
    running = RunningEpisode(PointEnv(task), steps, True, POINT, **options)
    return SteeredEpisode.begin(running, policy, 3, None)


def test_stepped_by_hand_it_is_the_same_episode() -> None:
    episode = begin(PointPolicy(dream=True), "near", 500)
    while not episode.over:
        episode.advance()
    steered, plain = episode.result(), rollout(PointEnv(), PointPolicy(dream=True), 3, record=True, embodiment=POINT)
    assert steered.success and plain.success and steered.steps == plain.steps
    for name in ("actions", "frames", "dreams", "states"):
        assert np.array_equal(getattr(steered, name), getattr(plain, name)), name
    assert steered.chunk_starts == plain.chunk_starts
    assert [plan.shape for plan in steered.plans] == [(8, 2)] * steered.chunks
    assert np.array_equal(steered.plans[0], plain.actions[:8])


def test_another_sentence_is_heard_at_the_next_chunk() -> None:
    policy = Listener()
    episode = begin(policy)
    for _ in range(11):
        episode.advance()
    episode.sentence = "Go home."
    assert not episode.show(Snapshot()).read
    for _ in range(10):
        episode.advance()
    own = "Reach the <red> dot."
    assert policy.heard == [{own}, {own}, {"Go home."}]
    assert episode.said == [(0, own), (16, "Go home.")]
    assert episode.show(Snapshot()).read
    assert policy.looks == [1, 4, 4]


@pytest.mark.slow
def test_a_real_model_acts_otherwise_under_another_sentence() -> None:
    policy = load_policy("nano-metaworld", decode_video=True, joint_pass=False)
    env = MetaWorldSource(embodiment=policy.embodiment)("drawer-open")
    taken = []
    for other in (None, "Close the drawer."):
        episode = SteeredEpisode.begin(RunningEpisode(env, 500, True, policy.embodiment), policy, 2_000_001, None)
        for step in range(24):
            if step == 12 and other is not None:
                episode.sentence = other
            episode.advance()
        taken.append(episode.result().actions)
        assert {"observe", "encode", "remember", "denoise", "act"} <= set(episode.show(Snapshot()).seconds[-1])
    env.close()
    plain, interrupted = taken
    assert np.array_equal(plain[:16], interrupted[:16])  # the chunk that was under way
    difference = np.abs(plain[16:] - interrupted[16:]).mean(axis=0)
    assert difference.max() > 0.1, difference


def test_a_snapshot_shows_the_dream_beside_what_happened_so_far() -> None:
    episode = begin(PointPolicy(dream=True))
    assert episode.show(Snapshot()).dream is None
    for _ in range(8 + 5):
        episode.advance()
    shown = episode.show(Snapshot(version=7))
    assert (shown.version, shown.step, shown.limit, shown.chunk, shown.done) == (7, 13, 32, 2, 5)
    assert shown.dream is not None and shown.dream[:, 0, 0, 0].tolist() == [20, 21, 22, 23]
    assert shown.real is not None and shown.real.shape == (2, SIZE, SIZE, 3)
    assert shown.foreseen is not None and np.array_equal(shown.foreseen, shown.dream[1])
    assert shown.present is not None and np.array_equal(shown.present, shown.real[-1])
    assert shown.sent is not None and shown.actions is not None
    assert np.array_equal(shown.sent[-5:], shown.actions[:5])
    assert len(shown.seconds) == 2
    assert shown.quality is not None and shown.quality.frozen > shown.quality.dreamed  # the point hardly moves


def test_a_snapshot_stays_as_it_was() -> None:
    episode = begin(PointPolicy(dream=True))
    for _ in range(3):
        episode.advance()
    shown = episode.show(Snapshot())
    before = [np.copy(part) for part in (shown.present, shown.real, shown.sent, shown.actions) if part is not None]
    for _ in range(20):
        episode.advance()
    after = [part for part in (shown.present, shown.real, shown.sent, shown.actions) if part is not None]
    assert len(before) == 4 and all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_past_success_the_policy_still_sees_every_look() -> None:
    policy = PointPolicy()
    episode = begin(policy, "near", 80, past_success=True)
    while not episode.over:
        episode.advance()
    assert episode.running.success and episode.running.steps == 40
    assert policy.looks == [1, 4, 4, 4, 4]


def test_nothing_to_report_before_the_first_chunk() -> None:
    with pytest.raises(ValueError, match="nothing has happened"):
        begin(PointPolicy()).result()
