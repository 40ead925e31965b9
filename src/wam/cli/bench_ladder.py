"""wam bench ladder: every speed-up of the engine, alone and on top of the others, with what it does to the actions.

Example:
    wam bench ladder
    wam bench ladder runs/kitchen --data data/kitchen --out runs/ladder --json runs/ladder.json
    wam bench ladder --flash nano-metaworld-flash --episodes 20 --tasks mt10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from wam.bench.episodes import played, recorded
from wam.bench.ladder import Clock, Row, draw, measure
from wam.bench.naive import Looks
from wam.bench.rungs import Garage, Step, climb, naive, rungs
from wam.bench.successes import add_successes
from wam.cli.progress import counted
from wam.data.files import write_json
from wam.data.lerobot_reader import LeRobotDataset
from wam.evaluate.provenance import Provenance
from wam.robot.embodiment import Embodiment


@dataclass(frozen=True)
class Ladder:
    """From a loop that computes everything again to the engine with all that it has, rung by rung.

    Every rung is timed on top of those above it and alone, all in turns, one thread. The naive loop: 16 UniPC steps,
    guidance in two passes, no cache, prompt and noise levels computed again, float32, eager.
    """

    model: tyro.conf.Positional[str] = "nano-metaworld"
    """Folder written by `wam train`, or the name of a shipped model."""
    data: Path | None = None
    """LeRobot data set whose episodes are looked at; when left out, the scripted expert plays Meta-World."""
    tasks: tuple[str, ...] = ("reach", "drawer-open", "button-press-topdown")
    """Meta-World tasks, names or groups: those that the expert plays, and those of --episodes."""
    history: int = 6
    """Chunks that have been executed before the one that is decided; the naive loop reads all of them again."""
    observed: int = 3
    """Episodes of --data to look at."""
    rounds: int = 6
    """Timed decisions of every way."""
    steps: int = 16
    """Denoising steps of the naive loop."""
    guidance: float = 2.0
    """Classifier-free guidance of the naive loop."""
    flash: str | None = None
    """The same model after its Flash stage, for a rung of its own: a folder, or a shipped name."""
    bound: float = 0.1
    """Relative error that the step cache may make."""
    episodes: int = 0
    """Episodes per task in closed loop for every rung that changes the actions; 0 leaves the success column empty."""
    workers: int = 2
    """Processes of the closed loops."""
    clock: Clock = "wall"
    """"cpu" counts the processor time of this process, for a machine that is busy with other things."""
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    out: Path = Path("runs/ladder")
    """Folder of the plot and of the closed loops' episodes."""
    json: Path | None = None
    """File to write the numbers to."""


def main(config: Ladder) -> None:
    """Climb, show, write."""
    torch.set_num_threads(config.threads)
    console = Console(stderr=True, markup=False)
    garage = Garage(config.model, config.device)
    robot = garage.model.config.embodiments[0]
    steps = climb(naive(config.steps, config.guidance), rungs(config.bound, config.device == "cuda", config.flash))
    episodes = _episodes(config, robot)
    with counted("climbing", console) as watch:
        rows = measure(garage, steps, episodes, robot, rounds=config.rounds, clock=config.clock, on_decision=watch)
    if config.episodes:
        rows = _with_successes(config, rows, steps, robot, console)
    origin = Provenance.here()
    console.print(_table(config, rows))
    config.out.mkdir(parents=True, exist_ok=True)
    draw(rows, config.out / "ladder.png", f"{config.model}, {config.history} chunks behind it")
    console.print(f"{config.out / 'ladder.png'}; {origin.machine}; commit {origin.commit}")
    if config.json is not None:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": origin.machine, "commit": origin.commit, "rows": [row.to_dict() for row in rows]}
        write_json(config.json, content)


def _episodes(config: Ladder, robot: Embodiment) -> Sequence[Sequence[Looks]]:
    if config.data is not None:
        return recorded(LeRobotDataset(config.data), robot, config.observed, config.history)
    from wam.sim.tasks import expand  # the `sim` extra

    return played(robot, expand(config.tasks), config.history)


def _with_successes(
    config: Ladder, rows: Sequence[Row], steps: Sequence[Step], robot: Embodiment, console: Console
) -> list[Row]:
    from wam.sim.tasks import expand

    with counted("closed loop", console) as watch:
        solved = add_successes(
            config.model,
            steps,
            expand(config.tasks),
            config.episodes,
            robot,
            config.out,
            workers=config.workers,
            on_episode=watch,
        )
    found = [solved.get(row.name, (None, None)) for row in rows]
    return [replace(row, success_k=k, success_n=n) for row, (k, n) in zip(rows, found, strict=True)]


def _table(config: Ladder, rows: Sequence[Row]) -> Table:
    title = f"{config.model}: a chunk after {config.history}, medians of {config.rounds} ({config.clock} time)"
    table = Table(title=title)
    for name in ("rung", "ms", "alone", "cumulative", "action error (std)", "success", ""):
        table.add_column(name, justify="left" if name in ("rung", "") else "right")
    for row in rows:
        form = ".0e" if row.lossless else ".3f"
        error = "" if row.action_error_std is None else format(row.action_error_std, form)
        table.add_row(
            row.name,
            _number(row.ms_median, ""),
            _number(row.speedup_alone, " x"),
            _number(row.speedup_cumulative, " x"),
            error,
            "" if row.success_n is None else f"{row.success_k}/{row.success_n}",
            row.failure or ("lossless" if row.lossless else "" if row.speedup_cumulative else "alone only"),
        )
    return table


def _number(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.1f}{unit}"
