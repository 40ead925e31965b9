"""Statistics agree with plain numpy over all rows."""

from dataclasses import replace

import numpy as np
import pytest

from tests.data.synthetic import EMBODIMENT
from wam.data.errors import NonFiniteError
from wam.data.stats import column_stats, image_stats, merge_stats, robot_statistics
from wam.robot.embodiment import Part

RNG = np.random.default_rng(0)


def test_columns() -> None:
    rows = RNG.normal(size=(200, 3)).astype(np.float32)
    stats = column_stats(rows)
    wide = rows.astype(float)
    np.testing.assert_allclose(stats["mean"], wide.mean(0))
    np.testing.assert_allclose(stats["std"], wide.std(0))
    np.testing.assert_allclose(stats["q99"], np.quantile(wide, 0.99, axis=0))
    assert stats["count"].tolist() == [200]


def test_a_column_of_single_values_has_shape_one() -> None:
    stats = column_stats(np.array([True, True, False, False]))
    assert stats["mean"].tolist() == [0.5]
    assert stats["max"].tolist() == [1.0]


def test_images_by_histogram() -> None:
    images = RNG.integers(3, 250, size=(20, 6, 8, 3)).astype(np.uint8)
    stats = image_stats(images)
    pixels = images.reshape(-1, 3) / 255
    assert stats["mean"].shape == (3, 1, 1)
    np.testing.assert_allclose(stats["mean"].ravel(), pixels.mean(0))
    np.testing.assert_allclose(stats["std"].ravel(), pixels.std(0))
    np.testing.assert_allclose(stats["min"].ravel(), pixels.min(0))
    np.testing.assert_allclose(stats["max"].ravel(), pixels.max(0))
    for key, share in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
        expected = np.quantile(pixels, share, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(stats[key].ravel(), expected)


def test_merging_parts_equals_the_whole() -> None:
    rows = RNG.normal(size=(300, 2)) * [1, 50] + [3, -7]
    merged = merge_stats([column_stats(rows[:40]), column_stats(rows[40:41]), column_stats(rows[41:])])
    whole = column_stats(rows)
    for key in ("mean", "std", "min", "max", "count"):
        np.testing.assert_allclose(merged[key], whole[key])


def test_what_scales_a_robot_is_taken_over_all_its_rows() -> None:
    pairs = [(RNG.normal(size=(n, 4)).astype(np.float32), RNG.uniform(-1, 1, size=(n, 4))) for n in (10, 20)]
    found = robot_statistics(EMBODIMENT, pairs)
    for moments, parts in zip((found.state, found.action), zip(*pairs, strict=True), strict=True):
        rows = np.concatenate(parts).astype(float)
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(moments.std, rows.std(0), rtol=1e-6)
        np.testing.assert_allclose(moments.q01, np.quantile(rows, 0.01, axis=0), rtol=1e-6)
    with pytest.raises(ValueError, match="'synthetic': no episode with actions"):
        robot_statistics(EMBODIMENT, [])


def test_relative_actions_are_scaled_by_their_distance_from_the_start_of_the_chunk() -> None:
    part = Part("arm", ("a", "b", "c", "d"))
    robot = replace(EMBODIMENT, state=(part,), action=(replace(part, relative=True),))
    state, action = RNG.normal(size=(2, 30, 4)).astype(np.float32)
    n = robot.actions_per_chunk
    differences = np.concatenate([action[t : t + n] - state[t] for t in range(30 - n + 1)]).astype(float)
    found = robot_statistics(robot, [(state, action)])
    np.testing.assert_allclose(found.action.std, differences.std(0), rtol=1e-5)


def test_values_that_are_no_numbers_are_refused() -> None:
    rows = RNG.normal(size=(10, 4))
    rows[6, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"action: .* row 6"):
        robot_statistics(EMBODIMENT, [(RNG.normal(size=(10, 4)), rows)])
