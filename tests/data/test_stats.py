"""Statistics agree with plain numpy over all rows."""

from pathlib import Path

import numpy as np
import pytest

from wam.data.errors import MissingFileError, NonFiniteError
from wam.data.stats import NormalizationStats, column_stats, image_stats, merge_stats, normalization_stats

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


def test_normalization_is_saved_and_loaded(tmp_path: Path) -> None:
    states = [RNG.normal(size=(n, 4)).astype(np.float32) for n in (10, 20)]
    actions = [RNG.uniform(-1, 1, size=(n, 3)).astype(np.float32) for n in (10, 20)]
    stats = normalization_stats(states, actions)
    assert stats.action.count == 30
    np.testing.assert_allclose(stats.action.q01, np.quantile(np.concatenate(actions).astype(float), 0.01, axis=0))
    stats.save(tmp_path / "normalization.json")
    assert NormalizationStats.load(tmp_path / "normalization.json") == stats
    with pytest.raises(MissingFileError, match="normalisation statistics"):
        NormalizationStats.load(tmp_path / "other.json")


def test_values_that_are_no_numbers_are_refused() -> None:
    rows = RNG.normal(size=(10, 2))
    rows[6, 1] = np.inf
    with pytest.raises(NonFiniteError, match=r"action: .* row 6"):
        normalization_stats([RNG.normal(size=(10, 2))], [rows])
