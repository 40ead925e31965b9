"""Intervals for success rates: one task, a mean over tasks, and the paired difference of two policies.

Three rules hold everywhere. A rate is k/n with a Wilson interval. A mean over tasks weighs every task alike and gets
its interval from the intervals of its tasks (MOVER: the distances to the limits add in quadrature), because a bootstrap
collapses to a point when tasks are saturated at 0 or 1. A difference is taken on the same initial states.

    Wilson      E. B. Wilson, JASA 22 (1927)
    paired      R. G. Newcombe, Statistics in Medicine 17 (1998) 2635-2650, method 10
    MOVER       G. Y. Zou, A. Donner, Statistics in Medicine 27 (2008) 1693-1702
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest, norm


@dataclass(frozen=True)
class Estimate:
    """A number with the limits of its confidence interval (95 % unless said otherwise)."""

    value: float
    low: float
    high: float

    def contains(self, number: float) -> bool:
        return self.low <= number <= self.high

    def percent(self) -> str:
        """For people: `82.0 % [75.1, 87.3]`."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class PairedDifference:
    """Success of policy A minus success of policy B on the same episodes.

    only_a, only_b: episodes that only A, or only B, solved; p_value: McNemar's exact two-sided test on those.
    """

    difference: Estimate
    n: int
    only_a: int
    only_b: int
    p_value: float

    @property
    def distinguishable(self) -> bool:
        return not self.difference.contains(0.0)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Success rate k/n with its Wilson score interval.

    Raises ValueError when n is 0 or k is not in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"a success rate needs 0 <= successes <= n and n >= 1; found successes={successes}, n={n}")
    z = float(norm.ppf(0.5 + confidence / 2))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Estimate(rate, low, high)


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, each weighing the same, with the MOVER interval.

    `mean([wilson(...) per task])` is the mean over tasks; `mean([mean(...) per group])` the mean over groups. Works for
    differences too. The tasks are taken as given: the interval speaks about other episodes of these tasks, not about
    other tasks. Raises ValueError when there is nothing to average.
    """
    if not estimates:
        raise ValueError("a mean needs at least one estimate; found none")
    count = len(estimates)
    value = sum(e.value for e in estimates) / count
    below = math.sqrt(sum((e.value - e.low) ** 2 for e in estimates)) / count
    above = math.sqrt(sum((e.high - e.value) ** 2 for e in estimates)) / count
    return Estimate(value, value - below, value + above)


def paired_difference(a: Sequence[bool], b: Sequence[bool], confidence: float = 0.95) -> PairedDifference:
    """Success rate of A minus that of B, episode i of both starting from the same state.

    The interval is Newcombe's paired score interval (method 10), the p value McNemar's exact test.
    Raises ValueError when the two have different lengths or are empty.
    """
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"a paired difference needs the same episodes on both sides; found {len(a)} and {len(b)}")
    n = len(a)
    both = sum(x and y for x, y in zip(a, b, strict=True))
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    first, second = wilson(both + only_a, n, confidence), wilson(both + only_b, n, confidence)
    phi = _paired_correlation(both, only_a, only_b, n - both - only_a - only_b)
    value = (only_a - only_b) / n
    below = _combined(first.value - first.low, second.high - second.value, phi)
    above = _combined(first.high - first.value, second.value - second.low, phi)
    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return PairedDifference(Estimate(value, value - below, value + above), n, only_a, only_b, p_value)


def _paired_correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Newcombe's phi: correlation of the two outcomes, with his continuity correction when it is positive."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    cross = float(both * neither - only_a * only_b)
    if cross > 0:
        cross = max(cross - (both + only_a + only_b + neither) / 2, 0.0)
    return cross / math.sqrt(margins)


def _combined(left: float, right: float, phi: float) -> float:
    return math.sqrt(max(left * left - 2 * phi * left * right + right * right, 0.0))
