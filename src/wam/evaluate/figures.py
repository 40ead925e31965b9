"""Drawings for reports: inline SVG that takes its text colour from the page, so that it fits light and dark."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wam.evaluate.rollout import EpisodeResult
from wam.robot.embodiment import Embodiment

PLOT_LEFT, PLOT_RIGHT = (
    0.035,
    0.99,
)  # the axes' edges as fractions of the figure's width; the page puts its playhead there
LINE_COLOURS = ("#4c78a8", "#d6723b", "#3a9d6e", "#9c6ade", "#c44e78", "#8c7a3f", "#2f9db5")
_INK = "#010203"  # stands for the page's text colour until the SVG is written
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def action_plot(episode: EpisodeResult, embodiment: Embodiment, identity: str) -> str:
    """Every action dimension over the control steps, with the chunk boundaries: an `<svg>` element.

    identity: unique on the page; it keeps the ids inside several drawings apart.
    """
    names = embodiment.action_names
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": identity}):
        height = 0.45 + 0.95 * len(names)
        figure = Figure(figsize=(9.6, height))
        axes = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
        figure.subplots_adjust(
            left=PLOT_LEFT, right=PLOT_RIGHT, top=1 - 0.2 / height, bottom=0.42 / height, hspace=0.45
        )
        for index, axis in enumerate(axes):
            _draw_dimension(axis, episode, index, names[index])
        axes[-1].set_xlabel("control step", labelpad=2)
        return _svg(figure, identity)


def has_chunks(episode: EpisodeResult) -> bool:
    """Whether chunk boundaries are worth drawing: not for a policy that decides anew in every step."""
    return episode.chunks <= episode.steps // 2


def _draw_dimension(axis: matplotlib.axes.Axes, episode: EpisodeResult, index: int, name: str) -> None:
    """One row: dashed lines where the policy decided anew, steps because an action holds until the next one."""
    values = episode.actions[:, index]
    if has_chunks(episode):
        axis.vlines(
            episode.chunk_starts, *_limits(values), colors=_INK, linewidth=0.6, alpha=0.22, linestyles=(0, (2, 2))
        )
    axis.axhline(0.0, color=_INK, linewidth=0.6, alpha=0.25)
    axis.stairs(values, baseline=None, color=LINE_COLOURS[index % len(LINE_COLOURS)], linewidth=1.5)
    axis.set_xlim(0, max(episode.steps, 1))
    axis.set_ylim(*_limits(values))
    axis.text(0.0, 1.06, name, transform=axis.transAxes, va="bottom", ha="left", fontsize=9, alpha=0.75)
    axis.tick_params(length=2.5, width=0.6, labelsize=8.5)
    for spine in axis.spines.values():
        spine.set_linewidth(0.6)
        spine.set_alpha(0.5)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """[-1, 1] with some air, or more when the actions are larger."""
    reach = 1.15 * max(1.0, float(np.abs(values).max(initial=0.0)))
    return -reach, reach


def _svg(figure: Figure, identity: str) -> str:
    """The figure as an element that scales with its container; ids made unique, ink replaced by the page's."""
    target = io.StringIO()
    figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    text = target.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%" role="img" aria-label="actions over time"', text, count=1
    )
    text = re.sub(r'\bid="([^"]+)"', rf'id="{identity}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{identity}-", text)
    return text.replace(_INK, "currentColor")
