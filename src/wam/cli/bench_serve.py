"""wam bench serve: many robots on one server for long: latency, cross-talk, memory, and what the server itself costs.

Example:
    wam bench serve --sessions 8 --chunks 10000
    wam bench serve --sessions 8 --chunks 10000 --batch 1
    wam bench serve --sessions 1 --chunks 300 --cameras 3 --height 180 --width 320
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from wam.evaluate.provenance import Provenance
from wam.serve.backends import robot_of
from wam.serve.load import MemoryWatch, Robot, Seen, alone, together
from wam.serve.random_model import write_random_model

EPISODE = 40  # chunks until a robot begins anew


@dataclass(frozen=True)
class ServeLoad:
    """Robots at once on one server, each compared with itself alone.

    With --cameras, the model is one of nano size with random weights, for pictures of HEIGHT x WIDTH.
    """

    model: tyro.conf.Positional[str] = "nano-metaworld"
    """Folder written by `wam train`, or the name of a shipped model."""
    sessions: int = 8
    """Robots at once."""
    chunks: int = 10_000
    """Chunks in all."""
    batch: int = 8
    """Sessions that the server computes together at most."""
    cameras: int = 0
    """Measure a random model with so many cameras instead."""
    height: int = 180
    width: int = 320
    threads: int = 1
    """Of the model's process."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: ServeLoad) -> None:
    """Start a server, load it, show the table."""
    console = Console(stderr=True, markup=False)
    with tempfile.TemporaryDirectory() as scratch:
        if config.cameras:
            model = write_random_model(Path(scratch) / "random", config.cameras, config.height, config.width)
            found = _measure(config, str(model), (config.height, config.width), console)
        else:
            robot = robot_of(config.model)
            found = _measure(config, config.model, (robot.view_height, robot.view_width), console)
    origin = Provenance.here()
    console.print(_table(found))
    console.print(f"{origin.machine}; commit {origin.commit}")
    if config.json:
        print(json.dumps({"machine": origin.machine, "commit": origin.commit, **found}))


def _measure(config: ServeLoad, model: str, picture: tuple[int, int], console: Console) -> dict[str, Any]:
    robot = robot_of(model)
    robots = [Robot.make(robot, number, EPISODE, picture) for number in range(config.sessions)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _server(config, model) as (url, processes), Progress(*columns, console=console, transient=True) as progress:
        solo = [alone(url, each) for each in robots]
        task = progress.add_task("chunks", total=config.chunks)
        with MemoryWatch(processes) as memory:
            seen = together(
                url, robots, [actions for actions, _ in solo], config.chunks, lambda: progress.advance(task)
            )
    return {
        "chunks": sum(len(each.seconds) for each in seen),
        "sessions": config.sessions,
        "batch": config.batch,
        "alone": _times([each for _, each in solo]),
        "together": _times(seen),
        "farthest": max(each.farthest for each in seen),
        "errors": sum(len(each.errors) for each in seen),
        "mean_batch": float(np.mean([size for each in seen for size in each.batches])),
        "grown_bytes": memory.grown(),
        "request_bytes": len(robots[0].requests[-1]),
    }


def _times(seen: Sequence[Seen]) -> dict[str, float]:
    """Milliseconds, as a client waits. share: what is not the model's, of the model's time, in the median."""
    whole = np.concatenate([each.seconds for each in seen])
    model = np.concatenate([each.model_seconds for each in seen])
    p50, p95, p99 = (1e3 * float(value) for value in np.percentile(whole, (50, 95, 99)))
    around = whole - model
    return {
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "model_p50": 1e3 * float(np.median(model)),
        "around_p50": 1e3 * float(np.median(around)),
        "share": float(np.median(around) / np.median(model)),
    }


@contextmanager
def _server(config: ServeLoad, model: str) -> Iterator[tuple[str, list[int]]]:
    """Its address, and its processes."""
    options = ["--port", "0", "--json", "--batch", str(config.batch), "--threads", str(config.threads)]
    process = subprocess.Popen(
        [sys.executable, "-m", "wam.cli.main", "serve", model, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise ValueError(f"wam serve {model} did not start; try it by hand")
        threads = Path(f"/proc/{process.pid}/task").iterdir()
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
        yield f"ws://127.0.0.1:{json.loads(line)['port']}", [process.pid, *children]
    finally:
        process.terminate()
        process.wait(60)


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['sessions']} sessions, {found['chunks']} chunks, batch {found['batch']}: milliseconds")
    for name in ("", "p50", "p95", "p99", "model p50", "around it", "share"):
        table.add_column(name, justify="left" if not name else "right")
    for name in ("alone", "together"):
        times = found[name]
        numbers = [f"{times[key]:.1f}" for key in ("p50", "p95", "p99", "model_p50", "around_p50")]
        table.add_row(name, *numbers, f"{100 * times['share']:.1f} %")
    grown = ", ".join(f"{value / 2**20:+.1f} MiB" for value in found["grown_bytes"])
    table.caption = (
        f"farthest from its actions alone: {found['farthest']:.2g}; errors: {found['errors']}; mean batch: "
        f"{found['mean_batch']:.1f}; memory of the server's processes: {grown}; a request: {found['request_bytes']} B"
    )
    return table
