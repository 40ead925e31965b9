"""A wall shows every episode at its own moment, and how it ended once it has ended."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from tests.evaluate.point_robot import POINT, SIZE, PointEnv, PointPolicy
from wam.evaluate.rollout import EpisodeResult, rollout
from wam.evaluate.wall import wall, wall_mp4


def episode(task: str, seed: int = 3, record: bool = True) -> EpisodeResult:
    return rollout(PointEnv(task), PointPolicy(), seed, max_env_steps=41, record=record, embodiment=POINT)


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, picture.reshape(-1, 3).tolist()))


SOLVED, FAILED, RUNNING = (74, 190, 128), (200, 92, 80), (60, 60, 68)


def test_an_outcome_appears_when_its_episode_has_ended() -> None:
    short, long = episode("near"), episode("far")
    assert short.success and not long.success and short.steps < long.steps
    frames = list(wall([short, long], hold=3))
    assert len(frames) == 1 + -(-long.steps // 2) + 3
    ended = -(-short.steps // 2)  # the first look at or after its end
    assert SOLVED not in colours(frames[ended - 1]) and RUNNING in colours(frames[ended - 1])
    assert SOLVED in colours(frames[ended]) and FAILED not in colours(frames[-5])
    assert {SOLVED, FAILED} <= colours(frames[-1]) and RUNNING not in colours(frames[-1])


def test_every_tile_holds_its_own_pixels() -> None:
    result = episode("near")
    assert result.frames is not None
    first = next(wall([result]))
    tile = first[8 + 4 + 24 :][: 2 * SIZE, 8 + 4 :][:, : 2 * SIZE]
    assert np.array_equal(tile[::2, ::2], result.frames[0])


def test_a_task_that_was_not_learned_is_marked() -> None:
    plain, marked = (next(wall([episode("near")], unlearned=tasks)) for tasks in ((), ("near",)))
    assert not np.array_equal(plain, marked)


@pytest.mark.parametrize("count", [1, 10])
def test_the_film_plays(count: int) -> None:
    content = wall_mp4([episode("near", seed) for seed in range(count)], POINT.control_hz)
    with av.open(io.BytesIO(content)) as film:
        assert film.streams.video[0].average_rate == 5  # 10 Hz, a look every 2 steps
        assert sum(1 for _ in film.decode(video=0)) > 10


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        wall_mp4([], 10)
    with pytest.raises(ValueError, match="has no frames"):
        wall_mp4([episode("near", record=False)], 10)
