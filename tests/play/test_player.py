"""The thread: commands are obeyed, nobody waits, and a scene that breaks is not the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from tests.evaluate.point_robot import POINT, PointEnv, PointPolicy
from wam.evaluate.rollout import rollout
from wam.play.episode import Snapshot, SteeredEpisode
from wam.play.player import Player, Stage

FAST = 1000.0


class OneThreadEnv(PointEnv):
    """A simulator that notices when another thread touches it, as those with a graphics context do."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.thread, self.closed = threading.current_thread(), False

    def observe(self):
        assert threading.current_thread() is self.thread
        return super().observe()

    def close(self) -> None:
        assert threading.current_thread() is self.thread
        self.closed = True


class Studio:
    """A player and what came of it."""

    def __init__(self, speed: float = FAST) -> None:
        self.finished: list[SteeredEpisode] = []
        self.envs: list[OneThreadEnv] = []
        stage = Stage(self.open, POINT, lambda number: number + 3, 64, self.finished.append)
        self.player = Player(PointPolicy(dream=True), stage, speed=speed)

    def open(self, task: str) -> OneThreadEnv:
        self.envs.append(OneThreadEnv(task))
        return self.envs[-1]

    def wait(self, until: Callable[[Snapshot], bool], seconds: float = 10.0) -> Snapshot:
        end = time.monotonic() + seconds
        while not until(shown := self.player.snapshot()):
            assert time.monotonic() < end, f"still {shown}"
            time.sleep(0.002)
        return shown

    def phase(self, name: str) -> Snapshot:
        return self.wait(lambda shown: shown.phase == name)


@pytest.fixture
def studio() -> Iterator[Studio]:
    studio = Studio()
    yield studio
    studio.player.close()


def test_an_episode_from_choice_to_end(studio: Studio) -> None:
    studio.player.choose("near", 2)
    ready = studio.phase("ready")
    assert (ready.task, ready.number, ready.step, ready.sentence) == ("near", 2, 0, "Reach the <red> dot.")
    assert ready.present is not None and ready.dream is None
    studio.player.start()
    over = studio.phase("over")
    assert over.success and over.chunk >= 1
    result = studio.finished[0].result()
    plain = rollout(PointEnv("near"), PointPolicy(), 5, max_env_steps=64, embodiment=POINT)
    assert np.array_equal(result.actions, plain.actions)


def test_pause_stops_and_one_chunk_ends_with_the_chunk(studio: Studio) -> None:
    studio.player.choose("far")
    studio.player.one_chunk()
    paused = studio.phase("paused")
    assert (paused.step, paused.chunk, paused.done) == (8, 1, 8)
    assert paused.real is not None and paused.dream is not None and len(paused.real) == len(paused.dream)
    time.sleep(0.05)
    assert studio.player.snapshot() is studio.player.snapshot() and studio.player.snapshot().step == 8
    studio.player.one_chunk()
    assert studio.wait(lambda shown: shown.step == 16 and shown.phase == "paused").chunk == 2


def test_reset_gives_the_same_start_and_tells_of_what_was_interrupted(studio: Studio) -> None:
    studio.player.choose("far")
    first = studio.phase("ready").present
    studio.player.one_chunk()
    studio.phase("paused")
    studio.player.reset()
    again = studio.phase("ready")
    assert again.step == again.chunk == 0
    assert np.array_equal(first, again.present)
    assert [len(episode.running.plans) for episode in studio.finished] == [1]


def test_a_sentence_interrupts_and_stays_until_another_scene_is_chosen(studio: Studio) -> None:
    studio.player.choose("far")
    studio.player.one_chunk()
    studio.phase("paused")
    studio.player.say("Go home.")
    assert not studio.wait(lambda shown: shown.sentence == "Go home.").read
    studio.player.one_chunk()
    assert studio.wait(lambda shown: shown.step == 16).read
    studio.player.reset()
    assert studio.wait(lambda shown: shown.step == 0).sentence == "Go home."
    studio.player.choose("far")
    assert studio.wait(lambda shown: shown.sentence != "Go home.").sentence in ("", "Reach the <red> dot.")


def test_the_clock_is_kept() -> None:
    studio = Studio(speed=5.0)  # 10 Hz at five times its speed: 50 steps per second
    studio.player.choose("far")
    studio.phase("ready")
    began = time.monotonic()
    studio.player.start()
    studio.wait(lambda shown: shown.step == 16)
    assert 15 / 50 <= time.monotonic() - began < 3
    studio.player.set_speed(FAST)
    studio.phase("over")
    studio.player.close()
    with pytest.raises(ValueError, match="speed is 0"):
        studio.player.set_speed(0)


def test_nobody_waits_for_a_slow_model() -> None:
    began, release = threading.Event(), threading.Event()

    class Slow(PointPolicy):
        def act(self, observations):
            began.set()
            assert release.wait(10)
            return super().act(observations)

    player = Player(Slow(), Stage(PointEnv, POINT), speed=FAST)
    player.choose("far")
    player.start()
    assert began.wait(10)  # the model thinks, and goes on thinking until it is released
    start = time.monotonic()
    player.say("Go home.")
    player.pause()
    assert player.snapshot().phase == "running"
    assert time.monotonic() - start < 1
    release.set()
    end = time.monotonic() + 10
    while (shown := player.snapshot()).phase != "paused":
        assert time.monotonic() < end
    assert shown.sentence == "Go home." and shown.step == 1
    player.close()


def test_what_breaks_is_shown_and_another_scene_goes_on(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, logger="wam.play.player"):
        studio.player.choose("broken")
        failed = studio.phase("failed")
        assert failed.error == "RuntimeError: this simulator does not start" and failed.task == "broken"
        studio.player.start()  # nothing to start
        studio.player.choose("near")
        assert studio.phase("ready").error == ""
        studio.player.start()
        assert studio.phase("over").success


def test_scenes_are_closed_in_their_own_thread() -> None:
    studio = Studio()
    for task in ("near", "near", "far"):
        studio.player.choose(task)
        studio.wait(partial(lambda wanted, shown: shown.task == wanted and shown.phase == "ready", task))
    studio.player.close()
    assert [env.task for env in studio.envs] == ["near", "far"]
    assert all(env.closed for env in studio.envs)
