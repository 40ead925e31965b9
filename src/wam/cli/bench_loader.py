"""wam bench loader: how many training windows per second come from video and from cached latents, and from lerobot.

Example:
    wam bench loader data/kitchen --embodiment kitchen.yaml
    wam bench loader data/kitchen --lerobot-python .venv-lerobot/bin/python --workers 2 --json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from wam.bench.loader import LoaderOptions, LoaderReport, finished_caches, measure
from wam.cli.progress import counted
from wam.data.lerobot_reader import LeRobotDataset
from wam.robot.embodiment import load_embodiment


@dataclass(frozen=True)
class Loader:
    """Time the loaders on the same windows, in turns, one thread for each process.

    Exit code 1 when lerobot was asked for and delivers other numbers than we do.
    """

    path: tyro.conf.Positional[str]
    """Folder of the data set, or its id on the Hub."""
    embodiment: str = "metaworld-sawyer"
    """The robot, for cameras, rates and columns: a YAML file, or the name of a shipped one."""
    options: tyro.conf.OmitArgPrefixes[LoaderOptions] = field(default_factory=LoaderOptions)
    latents: Path | None = None
    """Folder of a finished latent cache; the newest one beside the data set when left out."""
    lerobot_python: Path | None = None
    """Interpreter that has lerobot (`scripts/make_lerobot_env.sh` makes one), to time its loader too."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Loader) -> None:
    """Measure, show a table, and say how far the loaders agree."""
    torch.set_num_threads(1)
    console = Console(stderr=True, markup=False)
    with counted("passes", console) as watch:
        dataset = LeRobotDataset(config.path)
        robot = load_embodiment(config.embodiment)
        latents = config.latents or next(reversed(finished_caches(dataset.root)), None)
        report = measure(dataset, robot, config.options, latents, config.lerobot_python, watch)
    console.print(_table(report))
    if report.agreement is not None:
        same = "the same bit for bit" if report.agreement.numbers_equal else "NOT the same"
        console.print(
            f"lerobot {report.lerobot}: states and actions are {same}; pictures differ by "
            f"{report.agreement.picture_mean:.2g} levels of 255 on average, {report.agreement.picture_max:.2g} at most"
        )
    if config.json:
        speeds = [asdict(speed) | {"windows_per_second": speed.windows_per_second} for speed in report.speeds]
        print(json.dumps(asdict(report) | {"speeds": speeds, "times_faster": _ratios(report)}))
    if report.agreement is not None and not report.agreement.numbers_equal:
        raise SystemExit(1)


def _table(report: LoaderReport) -> Table:
    o = report.options
    title = f"{o.windows} windows of {o.chunks} chunks, {o.workers} worker processes, medians of {o.rounds} passes"
    table = Table("loader", "windows/s", "ms/window", "CPU ms/window", "against lerobot", title=title)
    ratios = _ratios(report)
    for speed in report.speeds:
        each, own = (1000 * sum(times) / len(times) / speed.windows for times in (speed.seconds, speed.cpu))
        cpu = f"{own:.2f}" if o.workers == 0 or "latents" in speed.name else ""  # workers' time is not counted
        ratio = f"{ratios[speed.name]:.1f} x" if speed.name in ratios else ""
        table.add_row(speed.name, f"{speed.windows_per_second:.1f}", f"{each:.2f}", cpu, ratio)
    return table


def _ratios(report: LoaderReport) -> dict[str, float]:
    """How many times faster each of ours is than lerobot's."""
    theirs = [speed for speed in report.speeds if speed.name.startswith("lerobot")]
    return {speed.name: speed.times_faster(theirs[0]) for speed in report.speeds if theirs and speed is not theirs[0]}
