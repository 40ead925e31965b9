"""From one chunk to the next without a jerk: blend the overlap, and filter as the paper does.

The paper (arXiv 2602.15922, appendix D.3) doubles a chunk's rate by cubic interpolation, applies a Savitzky-Golay
filter (window 21, order 3), and takes every other sample. Needs numpy and scipy, and nothing of wam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.signal import savgol_filter

Actions = npt.NDArray[np.float32]  # (n, A)


@dataclass(frozen=True)
class SavitzkyGolay:
    """The filter of the paper. window: samples at the higher rate, odd.  upsample: how many times the rate."""

    window: int = 21
    order: int = 3
    upsample: int = 2

    def __post_init__(self) -> None:
        if self.window % 2 == 0 or self.order < 0 or self.upsample < 1 or self.window <= self.order:
            raise ValueError(f"{self}: expected an odd window above the order, and an upsampling of at least 1")

    def __call__(self, actions: Actions) -> Actions:
        """(n, A) -> (n, A). Chunks that are shorter than the window get the longest window that fits them.

        Polynomials up to the order stay as they are (up to cubics by default); two actions or fewer do, too.
        """
        count = len(actions)
        length = (count - 1) * self.upsample + 1
        window = min(self.window, length - 1 + length % 2)
        if count < 3 or window <= self.order:
            return actions
        dense = actions
        if self.upsample > 1:
            dense = CubicSpline(np.arange(count), actions)(np.arange(length) / self.upsample)
        smooth = savgol_filter(dense, window, self.order, axis=0)
        return np.asarray(smooth[:: self.upsample], dtype=np.float32)


def blend(old: Actions, new: Actions, ticks: int) -> Actions:
    """Fade from `old` to `new` over the first ticks, (m, A); the first is mostly old, and after `ticks` all is new.

    Only as far as both reach. 0 ticks: switch at once.
    """
    count = min(ticks, len(old), len(new))
    weight = (np.arange(1, count + 1, dtype=np.float32) / (ticks + 1))[:, None]
    return np.concatenate([(1 - weight) * old[:count] + weight * new[:count], new[count:]])


@dataclass(frozen=True)
class SmoothJoin:
    """How a new chunk takes over (`wam.realtime.executor.Join`): filtered, then faded in.

    The filter sees what was really played at the chunk's first ticks, so that the seam is smooth, too.
    blend: ticks to fade over.  filter: None = as the policy said.  discrete: dimensions that are neither filtered nor
    faded (grippers).
    """

    blend: int = 0
    filter: SavitzkyGolay | None = None
    discrete: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.blend < 0:
            raise ValueError(f"blend is {self.blend}; expected 0 ticks or more")

    def __call__(self, past: Actions, old: Actions, new: Actions) -> Actions:
        """past (p, A): played already at ticks of the new chunk.  old (o, A), new (m, A): from now on. -> (m, A)."""
        joined = new
        if self.filter is not None:
            joined = self.filter(np.concatenate([past, new]))[len(past) :]
        joined = blend(old, joined, self.blend)
        exact = list(self.discrete)
        joined = joined.copy()
        joined[:, exact] = new[:, exact]
        return joined
