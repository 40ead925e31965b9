"""A robot's state and action are taken from the columns and dimensions that its file names."""

from dataclasses import replace

import numpy as np
import pytest

from tests.data.synthetic import EMBODIMENT
from wam.data.errors import MissingColumnError
from wam.data.latent_cache import LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.vectors import gathered, places
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec
from wam.robot.embodiment import Part

ALL = EpisodeSelection(split="all")


def test_parts_follow_each_other_in_their_own_column() -> None:
    parts = (Part("a", ("x", "y")), Part("b", ("z",), key="other"), Part("c", ("w",)), Part("d", ("v",), start=0))
    found = [(place.key, place.start, place.end) for place in places(parts, "state")]
    assert found == [("state", 0, 2), ("other", 0, 1), ("state", 2, 3), ("state", 0, 1)]
    columns = {"state": np.arange(12).reshape(3, 4), "other": np.array([7, 8, 9])}
    assert gathered(columns, parts, "state").tolist() == [[0, 1, 7, 2, 0], [4, 5, 8, 6, 4], [8, 9, 9, 10, 8]]
    assert gathered(columns, (), "state").shape == (3, 0)


def test_windows_hold_the_robots_dimensions_in_its_order(dataset: LeRobotDataset, cache: LatentCache) -> None:
    plain = WindowSource(dataset, cache, WindowSpec(), ALL)
    chosen = replace(
        EMBODIMENT,
        state=(Part("grip", ("grip",), start=3), Part("place", ("x", "y"), start=0)),
        action=(Part("second", ("a", "b"), key="action", start=2), Part("seen", ("x",), key="observation.state")),
    )
    source = WindowSource(dataset, cache, WindowSpec(), ALL, robot=chosen)
    whole, taken = (one.collate(one.windows(np.arange(9), np.random.default_rng(0))) for one in (plain, source))
    np.testing.assert_array_equal(taken.state, whole.state[..., [3, 0, 1]])
    np.testing.assert_array_equal(taken.action[..., :2], whole.action[..., 2:])
    np.testing.assert_array_equal(taken.action[:, :: WindowSpec().actions_per_chunk, 2], whole.state[..., 0])


def test_video_alone_needs_no_columns(dataset: LeRobotDataset, cache: LatentCache) -> None:
    people = replace(EMBODIMENT, state=(), action=())
    batch = WindowSource(dataset, cache, WindowSpec(), ALL, robot=people)
    window = batch.collate(batch.windows(np.arange(2), np.random.default_rng(0)))
    assert window.state.shape[-1] == window.action.shape[-1] == 0
    assert window.video.abs().sum() > 0


def test_dimensions_that_are_not_there_are_named(dataset: LeRobotDataset, cache: LatentCache) -> None:
    for part, named in (
        (
            Part("arm", ("x",), start=4),
            r"part 'arm' needs dimensions 4 to 4 of column .action., which has 4",
        ),
        (Part("arm", ("x", "y"), key="next.success"), "column 'next.success', which has 1 dimensions"),
    ):
        with pytest.raises(MissingColumnError, match=named):
            WindowSource(dataset, cache, WindowSpec(), ALL, robot=replace(EMBODIMENT, action=(part,)))
    with pytest.raises(MissingColumnError, match="no column 'absent'"):
        robot = replace(EMBODIMENT, state=(Part("arm", ("x",), key="absent"),))
        WindowSource(dataset, cache, WindowSpec(), ALL, robot=robot)
