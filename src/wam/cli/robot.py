"""wam robot: the robots that are known, and a first file for a new one.

Example:
    wam robot list
    wam robot new --from-dataset data/kitchen --out kitchen.yaml
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Union

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from wam.data.files import write_atomic
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.schema import ACTION, BOOKKEEPING, STATE
from wam.data.stats import robot_statistics
from wam.data.vectors import gathered
from wam.robot.draft import Choices, Draft, Facts, draft
from wam.robot.draft_yaml import commented_yaml
from wam.robot.embodiment import SHIPPED, Embodiment, load_embodiment

NEW_HELP = """Draft the embodiment file of a new robot from a LeRobot data set.

Example:
    wam robot new --from-dataset data/kitchen --out kitchen.yaml
    wam robot new --from-dataset data/kitchen --cameras front wrist --view 192 256 --state joints --action targets
"""


@dataclass(frozen=True)
class New:
    """What the data set declares is taken as it is, the rest is guessed with a remark above it in the file.

    What contradicts itself or cannot be guessed is an error that names the field. Correct the file by hand, then check
    it with `wam data lint PATH --embodiment FILE`.
    """

    from_dataset: str
    """Folder of the data set (v2.0, v2.1 or v3.0), or its id on the Hub."""
    out: Path = Path("robot.yaml")
    """The file to write."""
    overwrite: bool = False
    """Replace a file that is there."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    choices: tyro.conf.OmitArgPrefixes[Choices] = field(default_factory=Choices)
    json: bool = False
    """Print one line of JSON at the end."""


@dataclass(frozen=True)
class List:
    """The shipped robots: name, cameras, dimensions, rates."""

    json: bool = False
    """Print one line of JSON."""


Robot = Union[  # noqa: UP007  a value, not an annotation
    Annotated[New, tyro.conf.subcommand("new", description=NEW_HELP)],
    Annotated[List, tyro.conf.subcommand("list", description="The shipped robots.")],
]


def main(config: New | List) -> None:
    """Hand over to the sub-verb."""
    if isinstance(config, New):
        new(config)
    else:
        listed(config)


def new(config: New) -> None:
    """Draft, measure, write; say what was guessed. Raises ValueError for a file that is there already."""
    console = Console(stderr=True, markup=False)
    if config.out.exists() and not config.overwrite:
        raise ValueError(f"{config.out}: exists already; give another --out, or --overwrite")
    dataset = LeRobotDataset(config.from_dataset, revision=config.revision)
    facts = _facts(dataset, console)
    drafted = _measured(draft(facts, config.choices), facts)
    text = commented_yaml(drafted, str(config.from_dataset), dataset.num_episodes)
    write_atomic(config.out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    _print_remarks(drafted, console)
    console.print(f"{config.out}: correct what was guessed, then check it:", highlight=False, soft_wrap=True)
    console.print(f"  wam data lint {config.from_dataset} --embodiment {config.out}", highlight=False, soft_wrap=True)
    if config.json:
        robot = drafted.embodiment.to_dict()
        robot.pop("statistics", None)
        print(json.dumps({"out": str(config.out), "embodiment": robot, "remarks": dict(drafted.remarks)}))


def listed(config: List) -> None:
    """Print the shipped robots."""
    robots = [load_embodiment(path.stem) for path in sorted(SHIPPED.glob("*.yaml"))]
    rows = [_row(robot) for robot in robots]
    if config.json:
        print(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(markup=False).print(table, highlight=False)


def _row(robot: Embodiment) -> dict[str, object]:
    return {
        "name": robot.name,
        "cameras": ", ".join(robot.cameras),
        "canvas": f"{robot.canvas_height} x {robot.canvas_width}",
        "state": robot.state_dim,
        "action": robot.action_dim,
        "rows per second": robot.control_hz,
        "chunk": f"{robot.actions_per_chunk} actions, {robot.chunk_seconds:.2g} s",
    }


def _facts(dataset: LeRobotDataset, console: Console) -> Facts:
    """Declarations, and all columns of numbers but for the bookkeeping ones."""
    meta = dataset.meta
    names = [n for n, f in meta.features.items() if n not in BOOKKEEPING and f.dtype.startswith("float")]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    times = []
    for number in track(range(dataset.num_episodes), "reading", console=console, transient=True):
        found = dataset.columns(number, [*names, "timestamp"])
        times.append(np.diff(found["timestamp"].reshape(-1)))
        for name in names:
            rows[name].append(found[name].reshape(len(found[name]), -1))
    return Facts(
        source=str(dataset.root),
        robot_type=meta.robot_type,
        fps=meta.fps,
        row_seconds=float(np.median(np.concatenate(times))),
        cameras={
            {**meta.video_keys, **meta.image_keys}[name]: (camera.height, camera.width)
            for name, camera in meta.cameras.items()
        },
        names={name: meta.features[name].names or () for name in names},
        rows=rows,
        instructed=any(task.strip() for task in meta.tasks),
    )


def _measured(drafted: Draft, facts: Facts) -> Draft:
    """With the statistics of all episodes; a robot without actions has none."""
    robot = drafted.embodiment
    if not robot.action:
        return drafted
    episodes = [
        {name: parts[i] for name, parts in facts.rows.items()} for i in range(len(facts.rows[next(iter(facts.rows))]))
    ]
    pairs = [(gathered(rows, robot.state, STATE), gathered(rows, robot.action, ACTION)) for rows in episodes]
    statistics = robot_statistics(robot, pairs)
    remark = "of this data set; `wam data stats PATH --embodiment FILE --fill FILE` takes them anew"
    return replace(
        drafted, embodiment=replace(robot, statistics=statistics), remarks={**drafted.remarks, "statistics": remark}
    )


def _print_remarks(drafted: Draft, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("field")
    table.add_column("why", overflow="fold")
    for name, remark in drafted.remarks.items():
        table.add_row(name, remark, style="yellow" if remark.startswith("guess") else "")
    console.print(table, highlight=False)
