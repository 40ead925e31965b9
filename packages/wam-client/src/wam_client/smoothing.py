"""From one chunk to the next without a jerk: blend the overlap, and filter as the paper does.

The paper (arXiv 2602.15922, appendix D.3) doubles a chunk's rate by cubic interpolation, applies a Savitzky-Golay
filter (window 21, order 3), and takes every other sample. Both are written out in numpy, since a robot's computer need
not have scipy; the tests hold them against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Actions = npt.NDArray[np.float32]  # (n, A)


def cubic_spline(values: npt.NDArray[np.floating], at: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Values (n, A) at 0, 1, ... n - 1 -> the smooth curve through them at other places (m,), (m, A); n >= 3.

    Pieces of third degree with continuous second derivatives; at the second and at the last but one value the third
    derivative is continuous, too ("not a knot").
    """
    y = np.asarray(values, dtype=np.float64)
    count, step = len(y), np.diff(y, axis=0)
    matrix, right = np.zeros((count, count)), np.zeros_like(y)  # of the slopes at the values
    for i in range(1, count - 1):
        matrix[i, i - 1 : i + 2] = 1, 4, 1
        right[i] = 3 * (step[i - 1] + step[i])
    if count == 3:  # one parabola: both pieces without a third derivative
        matrix[0, :2], right[0] = 1, 2 * step[0]
        matrix[2, 1:], right[2] = 1, 2 * step[1]
    else:
        matrix[0, [0, 2]], right[0] = (1, -1), 2 * (step[0] - step[1])
        matrix[-1, [-3, -1]], right[-1] = (1, -1), 2 * (step[-2] - step[-1])
    slope = np.linalg.solve(matrix, right)
    piece = np.clip(np.floor(at).astype(int), 0, count - 2)
    t = (np.asarray(at, dtype=np.float64) - piece)[:, None]
    rise, begin, end = step[piece], slope[piece], slope[piece + 1]
    curve: npt.NDArray[np.float64] = y[piece] + t * (
        begin + t * (3 * rise - 2 * begin - end + t * (begin + end - 2 * rise))
    )
    return curve


def savitzky_golay(values: npt.NDArray[np.floating], window: int, order: int) -> npt.NDArray[np.float64]:
    """Values (n, A) -> (n, A): each as the polynomial of this order says that fits the window (odd) around it best.

    Near the two ends, where no window fits, as the polynomial of the first or the last window says.
    """
    half = window // 2
    powers = np.vander(np.linspace(-1, 1, window), order + 1)
    fitted = powers @ np.linalg.pinv(powers)  # (window, window): values of a window -> values of its polynomial
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(values, dtype=np.float64), window, axis=0)
    middle = windows @ fitted[half]
    smooth: npt.NDArray[np.float64] = np.concatenate(
        [fitted[:half] @ windows[0].T, middle, fitted[half + 1 :] @ windows[-1].T]
    )
    return smooth


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
        dense: npt.NDArray[np.floating] = actions
        if self.upsample > 1:
            dense = cubic_spline(actions, np.arange(length) / self.upsample)
        smooth = savitzky_golay(dense, window, self.order)
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
    """How a new chunk takes over (`wam_client.executor.Join`): filtered, then faded in.

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
