"""Small plots of states and actions as inline SVG: lines over time, bands for where most values of the data set lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 108, 64, 12, 8, 20
PLOT_LEFT, PLOT_RIGHT = LEFT / WIDTH, 1 - RIGHT / WIDTH
"""The axes' edges as shares of the width: a page puts its playhead there."""
COLOURS = ("#4c78a8", "#d6723b", "#3a9d6e", "#9c6ade", "#c44e78", "#8c7a3f", "#2f9db5", "#77797d")
MOST_POINTS = 600
TEXT = 'font-size="11" fill="currentColor" opacity=".75"'


@dataclass(frozen=True)
class Band:
    """Quantiles of one dimension over the data set."""

    q01: float
    q10: float
    q90: float
    q99: float

    @classmethod
    def of(cls, values: np.ndarray) -> Band:
        return cls(*np.quantile(values, (0.01, 0.1, 0.9, 0.99)).tolist())


def plot(name: str, lines: Mapping[str, np.ndarray], fps: float, band: Band | None = None, colour: int = 0) -> str:
    """One dimension: a line (T,) per episode over its time; the longest fills the width.

    fps: rows per second. band: drawn behind the lines. colour: of the first line, a number of `COLOURS`.
    A broken line is where values are not finite.
    """
    values = np.concatenate([line[np.isfinite(line)] for line in lines.values()])
    low, high = _limits(values, band)
    longest = max((len(line) for line in lines.values()), default=1)

    def x(row: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * row / max(longest - 1, 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [_box(y, band.q01, band.q99), _box(y, band.q10, band.q90)] if band is not None else []
    for index, (label, line) in enumerate(lines.items()):
        ink = COLOURS[(colour + index) % len(COLOURS)]
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{ink}" stroke-width="1.4"><title>{escape(label)}</title>'
            "</polyline>"
            for points in _strokes(line, x, y)
        ]
    ticks = "".join(
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" {TEXT}>{_short(value, high - low)}</text>'
        for value in sorted({float(values.min()), float(values.max())} if len(values) else ())
    )
    ticks += "".join(
        f'<text x="{x(row):.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}" {TEXT}>{row / fps:.3g} s</text>'
        for row, anchor in ((0, "start"), ((longest - 1) / 2, "middle"), (longest - 1, "end"))
    )
    axis = f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="currentColor" opacity=".3"/>'
    return (
        f'<h4>{escape(name)}</h4><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" '
        f'aria-label="{escape(name)} over time">{"".join(parts)}{axis}{ticks}</svg>'
    )


def legend(labels: Sequence[str]) -> str:
    """Colours of the lines, and what the bands mean."""
    entries = [
        f'<span class="chip"><b style="color:{COLOURS[i % len(COLOURS)]}">&#9644;</b> {escape(label)}</span>'
        for i, label in enumerate(labels)
    ]
    entries.append('<span class="chip">shaded: 1 to 99 % and 10 to 90 % of all values in the data set</span>')
    return f'<div class="chips">{"".join(entries)}</div>'


def _limits(values: np.ndarray, band: Band | None) -> tuple[float, float]:
    """What the axis spans; never empty."""
    ends = [*([values.min(), values.max()] if len(values) else [0.0]), *([band.q01, band.q99] if band else [])]
    low, high = float(min(ends)), float(max(ends))
    air = 0.06 * (high - low) or 0.5
    return low - air, high + air


def _short(value: float, span: float) -> str:
    """A number for an axis: what is nothing beside the axis is 0."""
    return "0" if abs(value) < 1e-4 * span else f"{value:.3g}"


def _box(y: Callable[[float], float], low: float, high: float) -> str:
    height = max(y(low) - y(high), 1.0)
    return (
        f'<rect x="{LEFT}" y="{y(high):.1f}" width="{WIDTH - LEFT - RIGHT}" height="{height:.1f}" fill="currentColor" '
        'opacity=".07"/>'
    )


def _strokes(line: np.ndarray, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """Coordinates of the finite stretches of a line, thinned to what a page can show."""
    step = 1 + len(line) // MOST_POINTS
    strokes: list[list[str]] = [[]]
    for row in range(0, len(line), step):
        if np.isfinite(line[row]):
            strokes[-1].append(f"{x(row):.1f},{y(float(line[row])):.1f}")
        elif strokes[-1]:
            strokes.append([])
    return [" ".join(stroke) for stroke in strokes if stroke]
