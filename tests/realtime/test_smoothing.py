"""The filter is the paper's, leaves smooth motion alone, and takes the jerk out of a seam."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.signal import savgol_filter

from tests.realtime.counting import Counting, play
from wam.realtime import Timing
from wam_client.smoothing import SavitzkyGolay, SmoothJoin, blend, cubic_spline, savitzky_golay

SIZES = (1, 2, 3, 4, 8, 11, 24, 48)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


@pytest.mark.parametrize("count", SIZES)
def test_a_cubic_motion_stays_as_it_is(count: int) -> None:
    t = np.linspace(-1, 1, count)[:, None]
    motion = (1 + 2 * t - t**2 + 3 * t**3 * np.array([1.0, 0.5, -2.0])).astype(np.float32)
    assert np.allclose(SavitzkyGolay()(motion), motion, atol=1e-5)


@pytest.mark.parametrize("count", SIZES)
def test_shapes_stay_and_noise_shrinks(count: int) -> None:
    smooth = SavitzkyGolay()(noise(count))
    assert smooth.shape == (count, 3)
    assert smooth.dtype == np.float32
    if count >= 8:
        assert np.square(np.diff(smooth, 3, axis=0)).mean() < 0.3 * np.square(np.diff(noise(count), 3, axis=0)).mean()


def test_it_is_the_filter_of_the_paper() -> None:
    actions = noise(48)
    dense = CubicSpline(np.arange(48), actions)(np.arange(95) / 2)
    assert np.allclose(SavitzkyGolay()(actions), savgol_filter(dense, 21, 3, axis=0)[::2], atol=1e-6)


@pytest.mark.parametrize("count", [3, 4, 5, 9, 30])
def test_the_spline_is_scipys(count: int) -> None:
    values, at = noise(count), np.random.default_rng(1).uniform(0, count - 1, 50)
    at = np.concatenate([at, np.arange(count)])
    assert np.allclose(cubic_spline(values, at), CubicSpline(np.arange(count), values.astype(float))(at), atol=1e-10)


@pytest.mark.parametrize(("window", "order"), [(3, 0), (5, 2), (5, 3), (21, 3), (21, 6)])
def test_the_filter_is_scipys(window: int, order: int) -> None:
    for count in (window, window + 1, 50):
        values = noise(count).astype(float)
        expected = savgol_filter(values, window, order, axis=0)
        assert np.allclose(savitzky_golay(values, window, order), expected, atol=1e-10)


def test_blending_fades_from_old_to_new() -> None:
    old, new = np.zeros((3, 1), np.float32), np.ones((5, 1), np.float32)
    assert blend(old, new, 0).tolist() == new.tolist()
    assert np.allclose(blend(old, new, 3)[:, 0], [0.25, 0.5, 0.75, 1, 1])
    assert np.allclose(blend(old[:1], new, 3)[:, 0], [0.25, 1, 1, 1, 1])  # no further than both reach
    assert np.allclose(blend(old[:0], new, 3), new)
    assert np.allclose(blend(old, new[:2], 3)[:, 0], [0.25, 0.5])
    assert np.allclose(blend(new, new, 3), new)


def test_grippers_switch_at_once() -> None:
    join = SmoothJoin(blend=4, filter=SavitzkyGolay(), discrete=(2,))
    past, old, new = noise(3, 1), noise(5, 2), noise(9, 3)
    joined = join(past, old, new)
    assert np.array_equal(joined[:, 2], new[:, 2])
    assert not np.allclose(joined[:, :2], new[:, :2])
    assert np.array_equal(SmoothJoin()(past, old, new), new)


def test_the_seam_is_smooth_in_the_executor_and_alignment_stays() -> None:
    """Chunks disagree by one in the second dimension; joined, no step between ticks is that large."""
    plain, joined = (
        play(Counting(12), [3], 60, Timing(every=6), join).actions
        for join in (SmoothJoin(), SmoothJoin(blend=3, filter=SavitzkyGolay()))
    )
    assert np.abs(np.diff(plain[4:, 1])).max() == 1
    assert np.abs(np.diff(joined[4:, 1])).max() < 0.5
    assert np.abs(joined[30:, 0] - plain[30:, 0]).max() < 1e-2  # they agree here, but for the first chunk's late start


@pytest.mark.parametrize("wrong", [{"window": 20}, {"window": 3}, {"upsample": 0}, {"order": -1}])
def test_impossible_filters_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="odd window"):
        SavitzkyGolay(**wrong)
    with pytest.raises(ValueError, match="blend is -1"):
        SmoothJoin(blend=-1)
