"""Climb the ladder: how long a chunk takes on every rung, and how far its actions are from the naive ones.

All ways decide about the same moments of the same episodes, with the same noise. They take turns, round by round, so
that whatever else the machine does meets all of them, and a speed-up is the median over rounds of the ratio within one.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wam.bench.naive import Looks
from wam.bench.rungs import Garage, Ready, Step, Way, synchronise
from wam.data.files import write_atomic
from wam.robot.embodiment import Embodiment

logger = logging.getLogger(__name__)

Clock = Literal["wall", "cpu"]
CLOCKS: Mapping[Clock, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Row:
    """One rung. A number that was not measured is None.

    ms_median: of a chunk, cumulative; alone for a rung that does not climb.
    speedup_alone, speedup_cumulative: times faster than the naive way.
    action_error_std: root mean square distance of the actions from the naive ones, in standard deviations of each
    action dimension, cumulative (or alone, as above).
    success_k, success_n: episodes solved with all rungs up to this one, of how many.
    """

    name: str
    ms_median: float | None
    speedup_alone: float | None
    speedup_cumulative: float | None
    action_error_std: float | None
    success_k: int | None = None
    success_n: int | None = None
    lossless: bool = False
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The seven published columns."""
        names = ("name", "ms_median", "speedup_alone", "speedup_cumulative", "action_error_std")
        return {name: getattr(self, name) for name in (*names, "success_k", "success_n")}


@dataclass
class _Measured:
    """One way, over all rounds. seconds: by round.  actions: (N, A) by episode, in robot units."""

    ready: list[Ready]
    seconds: list[float]
    actions: dict[int, np.ndarray]


def measure(
    garage: Garage,
    steps: Sequence[Step],
    episodes: Sequence[Sequence[Looks]],
    robot: Embodiment,
    *,
    rounds: int = 6,
    clock: Clock = "wall",
    on_decision: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Time every way of every step. rounds: at least one per episode. clock: "cpu" where others disturb.

    A way that this machine cannot run is left out, with the reason in `Row.failure`.
    """
    rounds = max(rounds, len(episodes))
    chosen = list(dict.fromkeys(way for step in steps for way in (step.alone, step.cumulative) if way is not None))
    total = (1 + rounds) * len(chosen)
    ways, failures = _get_ready(garage, chosen, episodes, lambda done: on_decision(done, total))
    for turn in range(rounds):
        for place, way in enumerate(ways.values()):
            on_decision(len(chosen) + turn * len(ways) + place, len(chosen) + rounds * len(ways))
            _run(way, turn, len(episodes), garage.device, clock)
    assert robot.statistics is not None  # a trained robot has them
    std = np.array(robot.statistics.action.std, dtype=np.float64)
    return [_row(step, ways, failures, std) for step in steps]


def _get_ready(
    garage: Garage, chosen: Sequence[Way], episodes: Sequence[Sequence[Looks]], on_way: Callable[[int], None]
) -> tuple[dict[Way, _Measured], dict[Way, str]]:
    """Every way with one decision behind it, which warms up and compiles; and why the others are left out."""
    ways: dict[Way, _Measured] = {}
    failures: dict[Way, str] = {}
    for place, way in enumerate(chosen):
        on_way(place)
        try:
            ready = [garage.ready(way, episode, seed) for seed, episode in enumerate(episodes)]
            ready[0].prepare()()
        except (ValueError, ImportError, RuntimeError) as error:
            failures[way] = str(error).splitlines()[0]
            logger.warning("%s cannot run here: %s", way.weights, failures[way])
            continue
        ways[way] = _Measured(ready, [], {})
    return ways, failures


def _run(way: _Measured, turn: int, episodes: int, device: str, clock: Clock) -> None:
    number = turn % episodes
    decide = way.ready[number].prepare()
    synchronise(device)
    began = CLOCKS[clock]()
    actions = decide()
    synchronise(device)
    way.seconds.append(CLOCKS[clock]() - began)
    way.actions[number] = actions


def _row(step: Step, ways: Mapping[Way, _Measured], failures: Mapping[Way, str], std: np.ndarray) -> Row:
    naive = next(iter(ways.values()))
    alone, cumulative = (None if way is None else ways.get(way) for way in (step.alone, step.cumulative))
    shown = cumulative or alone
    failed = next((failures[way] for way in (step.cumulative, step.alone) if way is not None and way in failures), None)
    return Row(
        name=step.name,
        ms_median=None if shown is None else 1e3 * statistics.median(shown.seconds),
        speedup_alone=None if alone is None else _times_faster(alone, naive),
        speedup_cumulative=None if cumulative is None else _times_faster(cumulative, naive),
        action_error_std=None if shown is None else _error(shown, naive, std),
        lossless=step.lossless,
        failure=failed,
    )


def _times_faster(way: _Measured, naive: _Measured) -> float:
    return statistics.median(slow / fast for slow, fast in zip(naive.seconds, way.seconds, strict=True))


def _error(way: _Measured, naive: _Measured, std: np.ndarray) -> float:
    differences = [(way.actions[number] - naive.actions[number]) / std for number in naive.actions]
    return float(np.sqrt(np.mean(np.square(differences))))


def draw(rows: Sequence[Row], path: Path, title: str) -> None:
    """A picture of the climb: milliseconds on a logarithmic axis, and how far the actions are."""
    climbed = [row for row in rows if row.speedup_cumulative is not None and row.ms_median is not None]
    with matplotlib.rc_context({"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8.5, 0.9 + 0.42 * len(climbed)), layout="constrained")
        axis = figure.subplots()
        colours = ["#4c78a8" if row.lossless else "#d6723b" for row in climbed]
        times = [row.ms_median or 0.0 for row in climbed]
        axis.barh(range(len(climbed)), times, color=colours)
        axis.set_yticks(range(len(climbed)), [row.name for row in climbed])
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.set_xlim(right=3 * max(times))
        axis.set_xlabel("ms per chunk, every rung on top of those above (blue: the same actions up to rounding)")
        for place, row in enumerate(climbed):
            error = "" if row.lossless or row.action_error_std is None else f", {row.action_error_std:.2f} std"
            axis.text(
                times[place] * 1.06, place, f"{times[place]:.1f} ms, {row.speedup_cumulative:.1f} x{error}", va="center"
            )
        axis.set_title(title)
        write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
