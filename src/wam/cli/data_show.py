"""wam data show: one episode to look at: a page with its film and numbers, and a recording for the Rerun viewer.

Example:
    wam data show data/kitchen --episode 3
    wam data show data/kitchen --episode 3 --rerun episode.rrd && rerun episode.rrd
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from wam.cli.data_pictures import canvases, film_tag, layout, sized
from wam.cli.data_plots import PLOT_LEFT, PLOT_RIGHT, plot
from wam.data.files import write_atomic
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import BOOKKEEPING
from wam.evaluate.page import page
from wam.evaluate.rerun_log import rerun_module
from wam.robot.embodiment import Embodiment, load_embodiment

MOST_FRAMES = 1000
"""Frames of the film on the page; longer episodes are shown with every k-th frame."""


@dataclass(frozen=True)
class Show:
    """Show one episode: its cameras in canvas order as a film, every column over time, and its facts."""

    path: tyro.conf.Positional[str]
    """Folder of the data set, or its id on the Hub."""
    episode: int = 0
    """Which episode."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    embodiment: str | None = None
    """The robot, for the canvas: a YAML file, or the name of a shipped one."""
    page: Path | None = None
    """Where the page goes; runs/show/NAME-episode-N.html when left out."""
    rerun: Path | None = None
    """Also write a recording for the Rerun viewer (pip install -e ".[viz]")."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Show) -> None:
    """Write the page, and the recording if asked for."""
    console = Console(stderr=True, markup=False)
    if config.rerun is not None:
        rerun_module()  # before any work: is it there?
    robot = load_embodiment(config.embodiment) if config.embodiment is not None else None
    dataset = LeRobotDataset(config.path, revision=config.revision, check=False)
    if not 0 <= config.episode < dataset.num_episodes:
        raise ValueError(
            f"{dataset.root}: --episode is {config.episode}, there are episodes 0 to {dataset.num_episodes - 1}"
        )
    target = config.page or Path("runs/show") / f"{dataset.root.resolve().name}-episode-{config.episode}.html"
    text = render(dataset, config.episode, robot)
    write_atomic(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    console.print(f"page: {target.resolve()}", highlight=False, soft_wrap=True)
    if config.rerun is not None:
        write_recording(dataset, config.episode, config.rerun)
        console.print(f"recording: {config.rerun.resolve()}", highlight=False, soft_wrap=True)
    if config.json:
        print(json.dumps({"page": str(target), "rerun": str(config.rerun) if config.rerun else None}))


# -- page --------------------------------------------------------------------------------------------------------------


def render(dataset: LeRobotDataset, number: int, robot: Embodiment | None) -> str:
    """The page of one episode as text."""
    episode, fps = dataset.episode(number), dataset.meta.fps
    stride = 1 + (episode.length - 1) // MOST_FRAMES
    rows = list(range(0, episode.length, stride))
    film = film_tag(sized(canvases(dataset, number, rows, robot)), fps / stride)
    columns = {name: values for name, values in dataset.columns(number).items() if name not in BOOKKEEPING}
    facts = {"rows": f"{episode.length} at {fps:g} per second ({episode.length / fps:.2f} s)"}
    facts |= {"cameras": layout(list(dataset.meta.cameras), robot)}
    facts |= {name: str(value) for name, value in episode.extra.items()}
    timeline = {"fps": fps / stride, "hz": fps, "steps": rows, "left": PLOT_LEFT, "right": PLOT_RIGHT}
    sentence = " / ".join(episode.tasks) or "(no instruction)"
    title = f"{dataset.root.resolve().name}, episode {number}"
    style = "<style>h4 { font-size: .85rem; font-weight: 600; margin: 10px 0 2px; } figure { max-width: none; }</style>"
    plots = "".join(_plots(name, _names(dataset, name), values, fps) for name, values in columns.items())
    body = f"""{style}<h1>{escape(title)}</h1>
<section data-episode="{escape(json.dumps(timeline))}"><p class="sentence">“{escape(sentence)}”</p>
<figure>{film}</figure>
<div class="player" hidden><button type="button">Pause</button><button type="button" title="speed">1×</button>
<input type="range" min="0" max="{len(rows) - 1}" value="0" aria-label="time"><output></output></div>
<div class="plot"><div>{plots}<div class="playhead" style="bottom:0" hidden></div></div></div></section>
<section><h2>Episode</h2><dl>{"".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())}</dl>
</section>"""
    return page(title, body)


def _names(dataset: LeRobotDataset, column: str) -> tuple[str, ...]:
    return dataset.meta.features[column].names or ()


def _plots(column: str, names: tuple[str, ...], values: np.ndarray, fps: float) -> str:
    """Every dimension of a column, one under the other."""
    table = values.reshape(len(values), -1).astype(np.float64)
    labels = names if len(names) == table.shape[1] else tuple(f"[{dim}]" for dim in range(table.shape[1]))
    if table.shape[1] == 1 and not names:
        labels = ("",)
    return "".join(
        plot(f"{column} {label}".strip(), {"": table[:, dim]}, fps, colour=dim) for dim, label in enumerate(labels)
    )


# -- Rerun -------------------------------------------------------------------------------------------------------------


def write_recording(dataset: LeRobotDataset, number: int, target: Path) -> None:
    """All cameras, columns and the instruction of an episode, by row and by time, as an .rrd file (atomic)."""
    rerun = rerun_module()
    episode, fps = dataset.episode(number), dataset.meta.fps
    recording = rerun.RecordingStream(f"{dataset.root.resolve().name} episode {number}")

    def write(temporary: Path) -> None:
        recording.save(temporary)
        recording.log("instruction", rerun.TextDocument("\n".join(episode.tasks)), static=True)
        _log(rerun, recording, dataset, number, fps)
        recording.flush()
        recording.disconnect()

    write_atomic(target, write)


def _log(rerun: Any, recording: Any, dataset: LeRobotDataset, number: int, fps: float) -> None:
    columns: Mapping[str, np.ndarray] = {
        name: values.reshape(len(values), -1).astype(np.float64)
        for name, values in dataset.columns(number).items()
        if name not in BOOKKEEPING
    }
    for name, values in columns.items():
        labels = dataset.meta.features[name].names or tuple(map(str, range(values.shape[1])))
        recording.log(name, rerun.SeriesLines(names=list(labels)), static=True)
    for row in range(dataset.episode(number).length):
        recording.set_time("row", sequence=row)
        recording.set_time("time", duration=row / fps)
        for camera in dataset.meta.cameras:
            picture = dataset.frames(number, camera, [row])[0]
            recording.log(f"cameras/{camera}", rerun.Image(picture).compress(jpeg_quality=90))
        for name, values in columns.items():
            recording.log(name, rerun.Scalars(values[row]))
