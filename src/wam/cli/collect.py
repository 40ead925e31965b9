"""wam collect: record demonstrations of Meta-World's scripted experts as a LeRobot v3.0 data set.

Example:
    wam collect --out data/nano --tasks mt10 --episodes-per-task 110 --more reach 400 push 400 --workers 2
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from wam.data.files import write_json
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import Camera, DatasetSpec, EpisodeData, Feature
from wam.robot.embodiment import METAWORLD_SAWYER
from wam.sim.experts import Demonstration, demonstrate
from wam.sim.looks import Look
from wam.sim.metaworld import ENV_HZ, MetaWorldEnv
from wam.sim.tasks import SplitName, expand, task

logger = logging.getLogger(__name__)

PLAN_PATH = "meta/collection.json"
AHEAD = 8  # episodes per worker that may wait for their turn to be written


@dataclass(frozen=True)
class Recording:
    """How one episode is seen and controlled."""

    cameras: tuple[str, ...] = METAWORLD_SAWYER.cameras
    image_size: int = METAWORLD_SAWYER.view_height
    """Height and width of a picture in pixels."""
    action_repeat: int = 2
    """Environment steps (80 Hz) per control step; one control step is one row."""
    look: Look = "train"
    """How the scene is painted; all but "train" are for testing."""
    split: SplitName = "train"
    """Which initial states; no state is in two splits."""


@dataclass(frozen=True)
class Collect:
    """Record demonstrations of Meta-World's scripted experts as a LeRobot v3.0 data set.

    The result depends on the arguments alone, not on the number of workers. A killed collection continues where it was
    when the same command is given again.

    Example: wam collect --out data/nano --tasks mt10 --episodes-per-task 110 --more reach 400 push 400
    """

    out: Path
    """Folder of the data set; created if missing."""
    tasks: tuple[str, ...] = ("mt10",)
    """Task names or groups (mt10, mt50, easy, medium, hard, very-hard, ml45-train, heldout-tasks)."""
    episodes_per_task: int = 100
    """Successful episodes of every task, each of another initial state."""
    more: dict[str, int] = field(default_factory=dict)
    """Other numbers of episodes for some tasks, e.g. `--more reach 400 push 400`."""
    detours: dict[str, int] = field(default_factory=dict)
    """Further episodes of some tasks in which the arm is led astray and has to recover, e.g. `--detours push 200`; they
    follow the others."""
    seed: int = 0
    """Of noise levels, disturbances and choice of sentences; initial states are given by the split."""
    recording: tyro.conf.OmitArgPrefixes[Recording] = Recording()
    workers: int = 2
    """Processes that simulate and draw."""
    episodes_per_file: int = 50
    """Episodes per group of files; a kill loses at most the group that was being written."""
    json: bool = False
    """Print one line of JSON at the end."""


@dataclass(frozen=True)
class Slot:
    """One episode to be recorded: number `index` of `task`, with or without detours."""

    task: str
    index: int
    detours: bool = False


def plan(config: Collect) -> list[Slot]:
    """All episodes in the order of the data set: tasks interleave, so that any prefix has its share of each."""
    names = expand(config.tasks)
    for option, given in (("--more", config.more), ("--detours", config.detours)):
        for name in given:
            if task(name).name not in names:
                raise ValueError(f"{option} names task {name!r}, which is not among --tasks {list(names)}")
    counts = {name: config.more.get(name, config.episodes_per_task) for name in names}
    for option, numbers in (("episodes per task", counts), ("--detours", config.detours)):
        if numbers and min(numbers.values()) < 1:
            raise ValueError(f"{option}: found {numbers}, expected at least 1 each")
    plain = [Slot(name, index) for name, index in _interleaved(counts)]
    return plain + [Slot(name, counts[name] + index, detours=True) for name, index in _interleaved(config.detours)]


def _interleaved(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """(task, 0 .. count - 1) of every task, in an order of which any prefix has its share of each."""
    shares = [((index + 0.5) / count, name, index) for name, count in counts.items() for index in range(count)]
    return [(name, index) for _, name, index in sorted(shares, key=lambda share: share[0])]


def dataset_spec(recording: Recording) -> DatasetSpec:
    """The declaration of a Meta-World data set in the embodiment's terms."""
    robot = METAWORLD_SAWYER
    action = Feature("float32", (robot.action_dim,), robot.action_names)
    return DatasetSpec(
        fps=round(ENV_HZ / recording.action_repeat),
        robot_type=robot.name,
        features={
            "observation.state": Feature("float32", (robot.state_dim,), robot.state_names),
            "action": action,
            "executed_action": action,
            "next.success": Feature("bool", (1,)),
        },
        cameras={name: Camera(recording.image_size, recording.image_size) for name in recording.cameras},
    )


def main(config: Collect) -> None:
    """Record what is still missing of the plan, and report."""
    console = Console(stderr=True)
    slots = plan(config)
    started = time.monotonic()
    spec = dataset_spec(config.recording)
    with LeRobotWriter(config.out, spec, episodes_per_file=config.episodes_per_file) as writer:
        _check_same_plan(config, writer.episodes_done)
        resumed = writer.episodes_done
        rows, dropped = _record(config, slots[resumed:], writer, console)
    seconds = time.monotonic() - started
    recorded = len(slots) - resumed
    console.print(f"{config.out}: {len(slots)} episodes, {recorded} recorded now ({rows} rows, {seconds:.0f} s)")
    console.print(f"failed roll-outs, thrown away: {dict(dropped) or 'none'}")
    if config.json:
        report = {"out": str(config.out), "episodes": len(slots), "resumed_after": resumed, "recorded": recorded}
        print(json.dumps(report | {"rows": rows, "dropped": dict(dropped), "seconds": round(seconds, 2)}))


def _record(config: Collect, slots: list[Slot], writer: LeRobotWriter, console: Console) -> tuple[int, Counter[str]]:
    """Record and write `slots` in their order; rows written and failed roll-outs per task."""
    rows, dropped = 0, Counter[str]()
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task("collecting", total=len(slots))
        for slot, demonstration in _demonstrations(config, slots):
            episode = demonstration.episode
            extra = {**episode.extra, "dropped": demonstration.dropped}
            writer.add_episode(EpisodeData(episode.images, episode.columns, episode.task, extra))
            rows += len(episode.columns["action"])
            if demonstration.dropped:
                dropped[slot.task] += demonstration.dropped
            progress.update(bar, advance=1, description=slot.task)
    return rows, dropped


def _demonstrations(config: Collect, slots: list[Slot]) -> Iterator[tuple[Slot, Demonstration]]:
    """Demonstrations in the order of `slots`, recorded by worker processes a few episodes ahead."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.workers, mp_context=spawn, initializer=_start_worker) as pool:
        waiting: deque[tuple[Slot, Future[Demonstration]]] = deque()
        try:
            for slot in slots:
                waiting.append((slot, pool.submit(_work, config.recording, slot, config.seed)))
                if len(waiting) >= AHEAD * config.workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_environments: dict[tuple[Recording, str], MetaWorldEnv] = {}  # of this worker process: opening one takes a second


def _work(recording: Recording, slot: Slot, seed: int) -> Demonstration:
    """In a worker: record one episode."""
    key = (recording, slot.task)
    if key not in _environments:
        _environments[key] = MetaWorldEnv(
            slot.task,
            cameras=recording.cameras,
            image_size=recording.image_size,
            action_repeat=recording.action_repeat,
            look=recording.look,
        )
    return demonstrate(_environments[key], recording.split, slot.index, seed, slot.detours)


def _start_worker() -> None:
    """In a worker: end when the parent does, even when it was killed and could not say so."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _check_same_plan(config: Collect, episodes_done: int) -> None:
    """A data set is continued only with the arguments it was begun with; they are kept beside it."""
    path = config.out / PLAN_PATH
    ours = asdict(config)
    for name in ("out", "workers", "episodes_per_file", "json"):
        del ours[name]
    ours = json.loads(json.dumps(ours))
    if not path.exists():
        if episodes_done:
            raise ValueError(f"{path}: missing, so these {episodes_done} episodes are not ours; choose another folder")
        write_json(path, ours)
        return
    theirs = json.loads(path.read_text())
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise ValueError(
                f"{path}: this data set was begun with {name} = {theirs.get(name)!r}, now it is {value!r}; "
                "choose another folder, or give the same arguments"
            )
