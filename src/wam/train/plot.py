"""The picture of a run: what it learned over time, and where it stands at the end.

Above, over minutes of training: the losses on training and held-out episodes, and the error of imagined actions beside
policies that hold. Below, of the last validation: losses per noise level beside those of the first one, and errors per
dimension. A panel whose numbers the log does not have is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from wam.data.files import write_atomic
from wam.evaluate.figures import LINE_COLOURS
from wam.train.trackers import VALIDATION, read_rows

Row = dict[str, Any]
TRAINING, INK = "#b9bec7", "#3d4350"
_SMOOTH = 0.02  # share of the run that the bold training line averages over
_COLUMNS = 3
_STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "grid.color": "#e6e8ec",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
}


@dataclass(frozen=True)
class Log:
    """A log.jsonl, sorted: rows of training, and rows of validations."""

    training: list[Row]
    checks: list[Row]

    @classmethod
    def read(cls, path: Path) -> Log:
        rows = read_rows(path)
        return cls([row for row in rows if "action" in row], [row for row in rows if VALIDATION in row])

    @cached_property
    def scored(self) -> list[Row]:
        """Validations that say something of each data set; older logs have others."""
        return [row for row in self.checks if {"data", "embodiments"} <= set(row[VALIDATION])]

    def data(self, check: int) -> dict[str, Row]:
        """The data sets of a validation by name."""
        found: dict[str, Row] = self.scored[check][VALIDATION]["data"]
        return found


def plot_losses(log: Path, image: Path) -> None:
    """Draw a run's log.jsonl as a PNG."""
    run = Log.read(log)
    panels = _panels(run)
    rows = max(1, -(-len(panels) // _COLUMNS))
    with rc_context(_STYLE):
        figure = Figure(figsize=(13.5, 0.5 + 3.7 * rows), layout="constrained")
        figure.suptitle(_headline(run, log), x=0.01, ha="left", fontsize=11, color=INK)
        axes = np.atleast_1d(figure.subplots(rows, min(_COLUMNS, max(1, len(panels))))).flatten()
        for axis, draw in zip(axes, panels, strict=False):
            draw(axis)
        for axis in axes[len(panels) :]:
            axis.remove()
        write_atomic(image, lambda path: figure.savefig(path, dpi=110, format="png"))


def _panels(run: Log) -> list[Callable[[Axes], None]]:
    """What this log has the numbers for, in order."""
    panels: list[Callable[[Axes], None]] = [
        lambda axis, name=name: _draw_loss(axis, run, name)  # type: ignore[misc]
        for name in ("video", "action")
        if any(row[name] > 0 for row in run.training)
    ]
    last = run.data(-1).values() if run.scored else []
    if any("action_error" in score for score in last):
        panels.append(lambda axis: _draw_errors(axis, run))
    panels += [
        lambda axis, name=name: _draw_levels(axis, run, name)  # type: ignore[misc]
        for name in ("video", "action")
        if any(score.get(f"{name}_at") for score in last)
    ]
    if any("action_error" in score for score in last):
        panels.append(lambda axis: _draw_dimensions(axis, run.data(-1)))
    return panels


def _headline(run: Log, log: Path) -> str:
    rows = [*run.training[-1:], *run.checks[-1:]]
    if not rows:
        return f"{log}: nothing yet"
    last = max(rows, key=lambda row: int(row["step"]))
    return f"{log.resolve().parent.name}: {last['step']} steps, {last['seconds'] / 60:.1f} min"


# -------------------------------------------------------------------------------- over time


def _draw_loss(axis: Axes, run: Log, name: str) -> None:
    """Loss of one modality: training, raw and smoothed, and each data set's held-out episodes."""
    minutes, values = _minutes(run.training), np.array([row[name] for row in run.training])
    axis.plot(minutes, values, color=TRAINING, lw=0.7)
    axis.plot(minutes, _smoothed(values), color=INK, lw=1.6, label="training")
    names = list(run.data(-1)) if run.scored else []
    held_out = {
        "held out" if len(names) == 1 else f"held out: {data}": [
            (row["seconds"] / 60, row[VALIDATION]["data"].get(data, {}).get(name)) for row in run.scored
        ]
        for data in names
    } or {"held out": [(row["seconds"] / 60, row[VALIDATION].get(name)) for row in run.checks]}
    for colour, (label, points) in zip(cycle(LINE_COLOURS), held_out.items(), strict=False):
        _draw_line(axis, points, colour, label)
    axis.set(title=f"{name} loss", xlabel="minutes", yscale="log")
    checked = [value for points in held_out.values() for _, value in points if value]
    highest = 1.3 * max([float(np.quantile(values, 0.98)), *checked])  # the first steps would squeeze all others
    axis.set_ylim(top=min(highest, axis.get_ylim()[1]))
    low, high = axis.get_ylim()
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if high > 5 * low else tuple(range(2, 10))))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.legend()


def _draw_errors(axis: Axes, run: Log) -> None:
    """Error of imagined actions of each robot, and of those who hold."""
    robots = [name for name, score in _robots(run, -1).items() if "action_error" in score]
    several = len(robots) > 1
    for place, robot in enumerate(robots):
        scores = [(row["seconds"] / 60, row[VALIDATION]["embodiments"].get(robot, {})) for row in run.scored]
        final = scores[-1][1]
        shown = [_best(final["action_error"])] if several else list(final["action_error"])
        for shade, steps in enumerate(shown):
            points = [(at, score.get("action_error", {}).get(steps)) for at, score in scores]
            label = f"{robot}, {_steps(steps)}" if several else _steps(steps)
            _draw_line(axis, points, LINE_COLOURS[(place + shade) % len(LINE_COLOURS)], label)
        colour = LINE_COLOURS[place % len(LINE_COLOURS)] if several else INK
        for hold, line in (("hold_last", "--"), ("hold_mean", ":")):
            name = hold.replace("hold_", "hold the ") + " action"
            axis.axhline(final[hold], color=colour, ls=line, lw=1.1, label=None if place else name)
    axis.set(title="action error, open loop", xlabel="minutes", ylabel="standard deviations")
    _begin_at_zero(axis)
    axis.set_xlim(left=0)
    axis.legend()


# -------------------------------------------------------------------------------- at the end


def _draw_levels(axis: Axes, run: Log, name: str) -> None:
    """Loss over noise level, of the first validation (faint) and the last one."""
    first, last = run.data(0), run.data(-1)
    shown = [data for data, score in last.items() if score.get(f"{name}_at")]
    for colour, data in zip(cycle(LINE_COLOURS), shown, strict=False):
        label = data if len(shown) > 1 else _after(run.scored[-1])
        if len(run.scored) > 1 and data in first:
            early = None if len(shown) > 1 else _after(run.scored[0])
            _draw_curve(axis, first[data].get(f"{name}_at", {}), colour, early, alpha=0.35)
        _draw_curve(axis, last[data][f"{name}_at"], colour, label)
        alone = last[data].get(f"{name}_at_video_noise", {})
        _draw_curve(axis, alone, colour, "video at pure noise" if data == shown[0] and alone else None, ls="--")
    axis.set(title=f"{name} loss per noise level", xlabel="noise level  (0 clean, 1 noise)")
    _begin_at_zero(axis)
    axis.legend(title=f"faint: {_after(run.scored[0])}" if len(shown) > 1 and len(run.scored) > 1 else None)


def _draw_dimensions(axis: Axes, data: dict[str, Row]) -> None:
    """Error of every dimension of the action, beside those who hold: a line of dots each."""
    acting = {name: score for name, score in data.items() if "action_error" in score}
    labels: list[str] = []
    for colour, (name, score) in zip(cycle(LINE_COLOURS), acting.items(), strict=False):
        steps = _best(score["action_error"])
        errors = score["action_error"][steps]["dims"]
        places = np.arange(len(labels), len(labels) + len(errors))
        first = not labels
        axis.plot(list(errors.values()), places, "o", color=colour, ms=6, label=f"{name}, {_steps(steps)}")
        for hold, marker in (("hold_last", "|"), ("hold_mean", "x")):
            title = hold.replace("hold_", "hold the ") + " action" if first else None
            axis.plot(list(score[hold]["dims"].values()), places, marker, color=INK, ms=7, ls="none", label=title)
        labels += list(errors)
    axis.set_yticks(range(len(labels)), labels, fontsize=min(9.0, 150 / len(labels)))
    axis.invert_yaxis()
    axis.set(title="action error per dimension", xlabel="standard deviations")
    axis.set_xlim(left=0)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)


# -------------------------------------------------------------------------------- strokes


def _draw_line(axis: Axes, points: Sequence[tuple[float, float | None]], colour: str, label: str) -> None:
    """Those points that are there."""
    known = [(x, y) for x, y in points if y]
    if known:
        axis.plot(*zip(*known, strict=True), "o-", color=colour, ms=3.5, lw=1.4, label=label)


def _draw_curve(
    axis: Axes, by_level: dict[str, float], colour: str, label: str | None, alpha: float = 1.0, ls: str = "-"
) -> None:
    points = sorted((float(level), value) for level, value in by_level.items())
    if points:
        axis.plot(*zip(*points, strict=True), "o", ls=ls, color=colour, ms=3.5, lw=1.4, alpha=alpha, label=label)


def _begin_at_zero(axis: Axes) -> None:
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])


def _after(row: Row) -> str:
    minutes = row["seconds"] / 60
    return f"after {minutes:.0f} min" if minutes >= 10 else f"after {minutes:.1f} min"


def _minutes(rows: Sequence[Row]) -> np.ndarray:
    return np.array([row["seconds"] / 60 for row in rows])


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean over `_SMOOTH` of the run around each value, of fewer at its beginning and end."""
    half = round(_SMOOTH * len(values) / 2)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, places[::-1]))  # as far to the left as to the right
    starts, ends = places - reach, places + reach + 1
    smooth: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return smooth


def _robots(run: Log, check: int) -> dict[str, Row]:
    found: dict[str, Row] = run.scored[check][VALIDATION]["embodiments"]
    return found


def _best(errors: dict[str, Any]) -> str:
    """The number of network calls with the smallest error."""
    return min(
        errors, key=lambda steps: float(errors[steps]["all"] if isinstance(errors[steps], dict) else errors[steps])
    )


def _steps(count: str) -> str:
    return f"{count} step" if count == "1" else f"{count} steps"
