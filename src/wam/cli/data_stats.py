"""wam data stats: mean, deviation, quantiles and limits of every dimension, and what a robot's actions are scaled by.

Example:
    wam data stats data/kitchen
    wam data stats data/kitchen --embodiment droid-franka --fill kitchen.yaml
    wam data stats data/kitchen --repair
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from wam.data.errors import MissingFileError
from wam.data.export_gear import export_gear
from wam.data.files import write_atomic, write_json
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import ACTION, BOOKKEEPING, STATE, STATS_PATH
from wam.data.stats import VectorStats, column_stats, robot_statistics
from wam.data.vectors import gathered
from wam.robot.embodiment import Embodiment, embodiment_file, load_embodiment
from wam.robot.fill_yaml import filled_text

WAM_STATS = "meta/wam_stats.json"
SHOWN = ("mean", "std", "min", "q01", "q99", "max")


@dataclass(frozen=True)
class Stats:
    """Measure every column of numbers; with a robot, also what its states and (relative) actions are scaled by."""

    path: tyro.conf.Positional[str]
    """Folder of the data set, or its id on the Hub."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    embodiment: str | None = None
    """The robot, whose file says which actions are relative: a YAML file, or the name of a shipped one."""
    horizon: int = 24
    """Without a robot: rows over which actions named like a state are taken relative to it."""
    write: bool = False
    """Save all of it beside the data, as meta/wam_stats.json."""
    repair: bool = False
    """Write the columns of meta/stats.json again, from the rows."""
    fill: Path | None = None
    """Put these statistics into the robot's YAML file, or into a copy of it; all other lines stay as they are."""
    gear: bool = False
    """Write the side files of the released DreamZero code (meta/modality.json and others) for this robot."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Stats) -> None:
    """Measure, show, and write what was asked for."""
    console = Console(stderr=True)
    robot = load_embodiment(config.embodiment) if config.embodiment is not None else None
    if robot is None and (config.fill is not None or config.gear):
        raise ValueError("--fill and --gear describe a robot: give one with --embodiment")
    dataset = LeRobotDataset(config.path, revision=config.revision)
    columns = read_columns(dataset, console)
    content = measure(dataset, columns, robot, config.horizon)
    _print(content, dataset, robot, console)
    written: list[Path] = []
    if config.write:
        write_json(dataset.root / WAM_STATS, content)
        written.append(dataset.root / WAM_STATS)
    if config.repair:
        written.append(repair(dataset, columns))
    if config.fill is not None and robot is not None:
        measured = replace(robot, statistics=robot_statistics(robot, robot_vectors(columns, robot)))
        written.append(fill(config.fill, embodiment_file(str(config.embodiment)), measured))
    if config.gear and robot is not None:
        written += export_gear(dataset, robot, dataset.root)
    for path in written:
        console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    if config.json:
        print(json.dumps(content | {"written": [str(path) for path in written]}))


Columns = Mapping[str, list[np.ndarray]]
"""Column -> (T, D) per episode."""


def read_columns(dataset: LeRobotDataset, console: Console) -> Columns:
    """All columns of numbers but for the bookkeeping ones. Raises DatasetError as the reader does."""
    names = [name for name in dataset.meta.features if name not in BOOKKEEPING]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for number in track(range(dataset.num_episodes), "reading", console=console, transient=True):
        for name, values in dataset.columns(number, names).items():
            columns[name].append(values.reshape(len(values), -1))
    return columns


def measure(dataset: LeRobotDataset, columns: Columns, robot: Embodiment | None, horizon: int) -> dict[str, Any]:
    """All statistics as plain values.

    Returns:
        `dataset` (fingerprint), `columns` (name -> statistics), `relative` (the same for action(t + k) - state(t), k
        below `horizon`, of dimensions that state and action both have) and, with a robot, `embodiment`: its state and
        action as the model learns them.
    """
    content: dict[str, Any] = {
        "dataset": dataset.meta.fingerprint,
        "episodes": dataset.num_episodes,
        "rows": dataset.num_rows,
        "columns": {name: asdict(VectorStats.of(np.concatenate(parts), name)) for name, parts in columns.items()},
    }
    if robot is not None:
        learned = robot_statistics(robot, robot_vectors(columns, robot))
        content["embodiment"] = {"name": robot.name, **asdict(learned)}
    elif relative := relative_stats(dataset, columns, horizon):
        content["relative"] = relative
    return content


def relative_stats(dataset: LeRobotDataset, columns: Columns, horizon: int) -> dict[str, Any]:
    """Of actions whose dimension has the name of a state dimension; empty where there is none."""
    names = {key: dataset.meta.features[key].names or () for key in (STATE, ACTION) if key in columns}
    common = [name for name in names.get(ACTION, ()) if name in names.get(STATE, ())]
    if not common:
        return {}
    mine, theirs = ([names[key].index(name) for name in common] for key in (ACTION, STATE))
    differences = []
    for state, action in zip(columns[STATE], columns[ACTION], strict=True):
        count = min(horizon, len(action))
        windows = np.lib.stride_tricks.sliding_window_view(action[:, mine], count, axis=0)
        differences.append((windows - state[: len(windows), theirs, None]).swapaxes(1, 2).reshape(-1, len(common)))
    return {"horizon": horizon, "names": common, **asdict(VectorStats.of(np.concatenate(differences), ACTION))}


def robot_vectors(columns: Columns, robot: Embodiment) -> list[tuple[np.ndarray, np.ndarray]]:
    """(states (T, S), actions (T, A)) of every episode, in the robot's order.

    Raises ValueError for a robot that has neither.
    """
    if not robot.state and not robot.action:
        raise ValueError(f"embodiment {robot.name!r} has neither states nor actions; leave --embodiment out")
    count = len(next(iter(columns.values()), ()))
    episodes = [{name: parts[number] for name, parts in columns.items()} for number in range(count)]
    return [(gathered(rows, robot.state, STATE), gathered(rows, robot.action, ACTION)) for rows in episodes]


def repair(dataset: LeRobotDataset, columns: Columns) -> Path:
    """Write `meta/stats.json` with its columns computed anew; statistics of pictures stay as they are."""
    path = dataset.root / STATS_PATH
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        stored = {}
    if not isinstance(stored, dict):
        raise MissingFileError(f"{path}: not a JSON object; remove it, then repair")
    everything = dict(columns)
    for name in BOOKKEEPING:
        if name in dataset.meta.features:
            parts = [dataset.columns(number, [name])[name].reshape(-1, 1) for number in range(dataset.num_episodes)]
            everything[name] = parts
    for name, parts in everything.items():
        stored[name] = {key: value.tolist() for key, value in column_stats(np.concatenate(parts)).items()}
    write_json(path, stored)
    return path


def fill(path: Path, source: Path, robot: Embodiment) -> Path:
    """Put the statistics of `robot` into the file at `path`; one that is not there becomes a copy of `source`.

    Raises EmbodimentError where the file at `path` is of another robot.
    """
    text = (path if path.exists() else source).read_bytes().decode("utf-8")  # line ends as they are
    new = filled_text(text, robot, str(path))
    write_atomic(path, lambda temporary: temporary.write_bytes(new.encode("utf-8")))
    return path


def _print(content: Mapping[str, Any], dataset: LeRobotDataset, robot: Embodiment | None, console: Console) -> None:
    for name, stats in content["columns"].items():
        _table(name, dataset.meta.features[name].names or (), stats, console)
    if "relative" in content:
        title = f"action(t + k) - state(t), k < {content['relative']['horizon']}"
        _table(title, content["relative"]["names"], content["relative"], console)
    if robot is not None:
        for vector, names in (("state", robot.state_names), ("action", robot.action_names)):
            title = f"{vector} as {robot.name} learns it (grippers 0 open, 1 closed; relative actions as differences)"
            _table(title, names, content["embodiment"][vector], console)


def _table(title: str, names: tuple[str, ...], stats: Mapping[str, Any], console: Console) -> None:
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    shown = [key for key in SHOWN if key in stats]
    for head in ("dimension", *shown):
        table.add_column(head, justify="left" if head == "dimension" else "right")
    for dim in range(len(stats["mean"])):
        label = names[dim] if dim < len(names) else f"[{dim}]"
        table.add_row(escape(label), *(f"{stats[key][dim]:.4g}" for key in shown))
    console.print(table, "", highlight=False)
