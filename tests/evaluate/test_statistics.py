"""Intervals against published tables, against scipy, and against simulation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest

from wam.evaluate.statistics import Estimate, mean, paired_difference, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(10, 10, 72.2, 100), (20, 20, 83.9, 100), (25, 50, 36.6, 63.4), (48, 50, 86.5, 98.9), (394, 500, 75.0, 82.2)],
)
def test_wilson_matches_tables(k: int, n: int, low: float, high: float) -> None:
    found = wilson(k, n)
    assert found.value == k / n
    assert (round(100 * found.low, 1), round(100 * found.high, 1)) == (low, high)


def test_wilson_matches_scipy() -> None:
    for n in (1, 7, 50):
        for k in range(n + 1):
            reference = binomtest(k, n).proportion_ci(0.9, method="wilson")
            found = wilson(k, n, confidence=0.9)
            assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(k, n)


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_paired_interval_matches_newcombe() -> None:
    """The table 36, 12, 2, 0 of Newcombe (1998): method 10 gives 0.0569 to 0.3404."""
    found = paired_difference(*outcomes(36, 12, 2, 0))
    assert found.difference.value == pytest.approx(0.2)
    assert (round(found.difference.low, 4), round(found.difference.high, 4)) == (0.0569, 0.3404)
    assert found.distinguishable


def test_paired_interval_with_positive_correlation_by_hand() -> None:
    """40, 10, 2, 48: phi with the continuity correction, (40 * 48 - 10 * 2 - 100 / 2) / sqrt(50 * 50 * 42 * 58)."""
    found = paired_difference(*outcomes(40, 10, 2, 48)).difference
    first, second = wilson(50, 100), wilson(42, 100)
    phi = 1850 / np.sqrt(50 * 50 * 42 * 58)
    left, right = first.value - first.low, second.high - second.value
    assert found.low == pytest.approx(0.08 - np.sqrt(left**2 - 2 * phi * left * right + right**2))
    left, right = first.high - first.value, second.value - second.low
    assert found.high == pytest.approx(0.08 + np.sqrt(left**2 - 2 * phi * left * right + right**2))


def test_mcnemar_by_hand() -> None:
    """12 against 2 discordant episodes: 2 (1 + 14 + 91) / 2^14."""
    found = paired_difference(*outcomes(36, 12, 2, 0))
    assert found.p_value == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert (found.only_a, found.only_b, found.n) == (12, 2, 50)


def test_no_difference_is_not_distinguishable() -> None:
    same = paired_difference(*outcomes(5, 0, 0, 5))
    assert same.difference.value == 0
    assert same.p_value == 1
    assert not same.distinguishable
    with pytest.raises(ValueError, match="same episodes"):
        paired_difference([True], [])


def test_swapping_policies_mirrors_the_difference() -> None:
    a, b = outcomes(20, 9, 4, 17)
    forth, back = paired_difference(a, b).difference, paired_difference(b, a).difference
    assert (forth.value, forth.low, forth.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_pairing_narrows_the_interval() -> None:
    """Policies that agree on most episodes are compared more sharply than by their rates alone."""
    agreeing = paired_difference(*outcomes(44, 6, 0, 50)).difference
    crossing = paired_difference(*outcomes(19, 31, 25, 25)).difference
    assert agreeing.value == pytest.approx(crossing.value)
    assert agreeing.high - agreeing.low < 0.6 * (crossing.high - crossing.low)


def bootstrap_mean(tasks: Sequence[Sequence[float]], samples: int = 10_000) -> Estimate:
    """Mean over tasks with a percentile bootstrap over the episodes within each task: another way to `mean`."""
    random = np.random.default_rng(0)
    drawn = [np.asarray(task)[random.integers(0, len(task), (samples, len(task)))].mean(axis=1) for task in tasks]
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return Estimate(float(np.mean([np.mean(task) for task in tasks])), float(low), float(high))


def test_mean_agrees_with_the_bootstrap_away_from_the_edges() -> None:
    random = np.random.default_rng(0)
    tasks = [random.random(50) < rate for rate in (0.3, 0.5, 0.7, 0.6)]
    analytic = mean([wilson(int(task.sum()), 50) for task in tasks])
    sampled = bootstrap_mean(tasks)
    assert analytic.value == pytest.approx(sampled.value)
    assert (analytic.low, analytic.high) == pytest.approx((sampled.low, sampled.high), abs=0.012)


def test_mean_stays_honest_where_the_bootstrap_collapses() -> None:
    perfect = [[True] * 50] * 10
    assert bootstrap_mean(perfect) == Estimate(1.0, 1.0, 1.0)
    assert 0.97 < mean([wilson(50, 50)] * 10).low < 0.99


def test_mean_of_groups_is_the_weighted_mean_of_tasks() -> None:
    easy, hard = [wilson(9, 10), wilson(8, 10)], [wilson(1, 10)]
    found = mean([mean(easy), mean(hard)])
    assert found.value == pytest.approx((0.85 + 0.1) / 2)
    below = np.sqrt(sum((0.25 * (e.value - e.low)) ** 2 for e in easy) + (0.5 * (hard[0].value - hard[0].low)) ** 2)
    assert found.low == pytest.approx(found.value - below)
    with pytest.raises(ValueError, match="at least one"):
        mean([])


def test_intervals_cover_the_truth() -> None:
    """Simulated: a 95 % interval that covers less than 92 % or always is wrong."""
    random = np.random.default_rng(1)
    rates, n, trials = np.array([0.95, 0.8, 0.4, 0.1]), 30, 250
    over_tasks = paired = 0
    for _ in range(trials):
        luck = random.random((len(rates), n))
        a = luck < rates[:, None]
        over_tasks += mean([wilson(int(k), n) for k in a.sum(axis=1)]).contains(float(rates.mean()))
        b = np.where(random.random((len(rates), n)) < 0.5, luck, random.random((len(rates), n))) < 0.8 * rates[:, None]
        differences = [paired_difference(x.tolist(), y.tolist()).difference for x, y in zip(a, b, strict=True)]
        paired += mean(differences).contains(float(0.2 * rates.mean()))
    assert 0.92 < over_tasks / trials < 1
    assert 0.92 < paired / trials < 1
