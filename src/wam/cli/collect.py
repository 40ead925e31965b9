"""wam collect: record demonstrations of scripted experts in a simulator as a LeRobot v3.0 data set.

Example:
    wam collect --out data/nano --tasks mt10 --episodes-per-task 110 --more reach 400 push 400 --workers 2
    wam collect --out data/two-arms --env robosuite --tasks TwoArmLift --episodes-per-task 50
    wam collect --out data/again --learner runs/nano/model --episodes-per-task 0 --interventions push 50 --skip 400
    wam collect --out data/libero --env libero --tasks libero_object/0 libero_object/4 --episodes-per-task 20
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from wam.data.files import read_json, write_json
from wam.data.interrupts import deaf_to_interrupts
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import Camera, DatasetSpec, EpisodeData, Feature
from wam.engine.load import resolve
from wam.evaluate.learner import Learner, check_view
from wam.evaluate.results import differences
from wam.evaluate.sources import fingerprint
from wam.robot.embodiment import Embodiment, load_embodiment
from wam.sim.looks import Look
from wam.sim.recording import Demonstration, Leader
from wam.sim.tasks import SplitName
from wam.sim.worlds import WORLDS, SimulatedTask, View, World, WorldName, repeat_of, whole_repeat

logger = logging.getLogger(__name__)

PLAN_PATH = "meta/collection.json"
AHEAD = 8  # episodes per worker that may wait for their turn to be written


@dataclass(frozen=True)
class Recording:
    """How one episode is seen and controlled."""

    cameras: tuple[str, ...] | None = None
    """Those of the robot's embodiment when left out."""
    image_size: int | None = None
    """Height and width of a picture in pixels; that of the robot's embodiment when left out."""
    action_repeat: int | None = None
    """Simulator steps per row. Meta-World steps at 80 Hz and has 2; robosuite and LIBERO have 1, at 20 Hz."""
    look: Look = "train"
    """How the scene is painted; all but "train" are for testing."""
    split: SplitName = "train"
    """Which initial states; no state is in two splits."""


@dataclass(frozen=True)
class Collect:
    """Record demonstrations of scripted experts in a simulator as a LeRobot v3.0 data set.

    The result depends on the arguments alone, not on the number of workers. A killed collection continues where it was
    when the same command is given again.

    Example: wam collect --out data/nano --tasks mt10 --episodes-per-task 110 --more reach 400 push 400
    """

    out: Path
    """Folder of the data set; created if missing."""
    env: WorldName = "metaworld"
    """The simulator."""
    embodiment: str | None = None
    """Whose cameras, picture size and rate: a shipped name or a YAML file; the simulator's own robot when left out."""
    tasks: tuple[str, ...] = ("mt10",)
    """Tasks or groups of the simulator: mt10, mt50, easy, ... of Meta-World; Lift, Stack, TwoArmLift, Lift/UR5e, ... of
    robosuite; libero_object, libero_object/0, ... of LIBERO."""
    episodes_per_task: int = 100
    """Successful episodes of every task, each of another initial state unless --repeats."""
    more: dict[str, int] = field(default_factory=dict)
    """Other numbers of episodes for some tasks or groups, e.g. `--more reach 400 push 400`."""
    detours: dict[str, int] = field(default_factory=dict)
    """Further episodes of some tasks in which the arm is led astray and has to recover, e.g. `--detours push 200`; they
    follow the others."""
    interventions: dict[str, int] = field(default_factory=dict)
    """Further episodes that a learner begins and the expert takes over and ends (DAgger), e.g. `--interventions push
    50`; they come last."""
    learner: str | None = None
    """The model that begins these: a folder, or the name of a shipped one."""
    repeats: int = 1
    """Episodes of every initial state, told apart by the --seed and those that follow it: less diverse data."""
    skip: int = 0
    """Initial states of every task that are left out, because another data set has them."""
    disturbance: float = 1.0
    """Scale of the noise on what is executed; 0 shows the experts undisturbed."""
    seed: int = 0
    """Of noise levels, disturbances and choice of sentences; initial states are given by the split."""
    recording: tyro.conf.OmitArgPrefixes[Recording] = Recording()
    workers: int = 2
    """Processes that simulate and draw."""
    episodes_per_file: int = 50
    """Episodes per group of files; a kill loses at most the group that was being written."""
    json: bool = False
    """Print one line of JSON at the end."""


Led = Literal["expert", "detours", "learner"]


@dataclass(frozen=True)
class Slot:
    """One episode to be recorded.

    index: number of the initial state.  led: who leads the arm before the expert does.  repeat: how many episodes of
    this initial state come before.
    """

    task: str
    index: int
    led: Led = "expert"
    repeat: int = 0


def plan(config: Collect) -> list[Slot]:
    """All episodes in the order of the data set: tasks interleave, so that any prefix has its share of each."""
    world = WORLDS[config.env]
    if not config.tasks:
        raise ValueError("--tasks names none; expected tasks or groups of them, such as mt10")
    names = world.expand(config.tasks)
    more = _by_task(world, names, "--more", config.more)
    astray = _by_task(world, names, "--detours", config.detours)
    begun = _by_task(world, names, "--interventions", config.interventions)
    if bool(begun) != (config.learner is not None):
        raise ValueError("--interventions and --learner go together: how many episodes of which tasks, and who begins")
    if config.episodes_per_task < (0 if astray or begun else 1):
        raise ValueError(f"--episodes-per-task: found {config.episodes_per_task}, expected at least 1")
    plain = {name: more.get(name, config.episodes_per_task) for name in names}
    if config.repeats < 1:
        raise ValueError(f"--repeats: found {config.repeats}, expected at least 1")
    parts: tuple[tuple[Led, dict[str, int]], ...] = (("expert", plain), ("detours", astray), ("learner", begun))
    slots: list[Slot] = []
    following = dict.fromkeys(names, config.skip)
    for led, counts in parts:
        for name, number in _interleaved(counts):
            index, repeat = divmod(number, config.repeats)
            slots.append(Slot(name, following[name] + index, led, repeat))
        following = {name: first + -(-counts.get(name, 0) // config.repeats) for name, first in following.items()}
    return slots


def _by_task(world: World, names: Sequence[str], option: str, given: Mapping[str, int]) -> dict[str, int]:
    """The same numbers with groups replaced by their tasks; of several for a task, the last one counts."""
    for name, number in given.items():
        if not set(world.expand([name])) <= set(names):
            raise ValueError(f"{option} names task {name!r}, which is not among --tasks {list(names)}")
        if number < 1:
            raise ValueError(f"{option}: found {name} {number}, expected at least 1")
    return {task: number for name, number in given.items() for task in world.expand([name])}


def _interleaved(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """(task, 0 .. count - 1) of every task, in an order of which any prefix has its share of each."""
    shares = [((index + 0.5) / count, name, index) for name, count in counts.items() for index in range(count)]
    return [(name, index) for _, name, index in sorted(shares, key=lambda share: share[0])]


def robot_of(config: Collect, tasks: Sequence[str]) -> Embodiment:
    """What is recorded. Raises ValueError when the named embodiment is not of the arm that acts in these tasks."""
    own = WORLDS[config.env].robot(tasks)
    if config.embodiment is None:
        return own
    robot = load_embodiment(config.embodiment)
    for vector in ("state_names", "action_names"):
        if getattr(robot, vector) != getattr(own, vector):
            raise ValueError(
                f"--embodiment {config.embodiment}: {vector} are {list(getattr(robot, vector))}, but the arm of "
                f"{config.env} has {list(getattr(own, vector))}; change the file, or take one of that arm"
            )
    return robot


def view_of(config: Collect, robot: Embodiment) -> View:
    """What was asked for, with the robot's own cameras, picture size and rate where nothing was.

    Raises ValueError for a rate that the simulator does not have.
    """
    given, hz = config.recording, WORLDS[config.env].hz
    if given.action_repeat is None:
        repeat = repeat_of(robot, hz)
    else:
        repeat = whole_repeat(hz, given.action_repeat, f"--action-repeat is {given.action_repeat}")
    return View(
        cameras=robot.cameras if given.cameras is None else given.cameras,
        image_size=robot.view_height if given.image_size is None else given.image_size,
        action_repeat=repeat,
        look=given.look,
    )


def dataset_spec(robot: Embodiment, view: View, world: World) -> DatasetSpec:
    """The declaration of a data set in the embodiment's terms."""
    action = Feature("float32", (robot.action_dim,), robot.action_names)
    return DatasetSpec(
        fps=round(world.hz / view.action_repeat),  # nothing to round: `view_of` refuses other rates
        robot_type=robot.name,
        features={
            "observation.state": Feature("float32", (robot.state_dim,), robot.state_names),
            "action": action,
            "executed_action": action,
            "next.success": Feature("bool", (1,)),
            **{name: Feature("float32", (len(dims),), dims) for name, dims in world.columns.items()},
        },
        cameras={name: Camera(view.image_size, view.image_size) for name in view.cameras},
    )


def main(config: Collect) -> None:
    """Record what is still missing of the plan, and report."""
    console = Console(stderr=True, markup=False)
    slots = plan(config)
    started = time.monotonic()
    world = WORLDS[config.env]
    robot = robot_of(config, [slot.task for slot in slots])
    view = view_of(config, robot)
    if config.learner is not None:
        check_view(config.learner, view, world.hz)
    spec = dataset_spec(robot, view, world)
    with LeRobotWriter(config.out, spec, episodes_per_file=config.episodes_per_file) as writer:
        _check_same_plan(config, view, writer.episodes_done)
        resumed = writer.episodes_done
        rows, dropped = _record(config, view, slots[resumed:], writer, console)
    seconds = time.monotonic() - started
    recorded = len(slots) - resumed
    said = f"{config.out}: {len(slots)} episodes, {recorded} recorded now ({rows} rows, {seconds:.0f} s)"
    console.print(said, soft_wrap=True)
    console.print(f"failed roll-outs, thrown away: {dict(dropped) or 'none'}")
    if config.json:
        report = {"out": str(config.out), "episodes": len(slots), "resumed_after": resumed, "recorded": recorded}
        print(json.dumps(report | {"rows": rows, "dropped": dict(dropped), "seconds": round(seconds, 2)}))


def _record(
    config: Collect, view: View, slots: list[Slot], writer: LeRobotWriter, console: Console
) -> tuple[int, Counter[str]]:
    """Record and write `slots` in their order; rows written and failed roll-outs per task."""
    rows, dropped = 0, Counter[str]()
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task("collecting", total=len(slots))
        for slot, demonstration in _demonstrations(config, view, slots):
            episode = demonstration.episode
            extra = {**episode.extra, "dropped": demonstration.dropped}
            writer.add_episode(EpisodeData(episode.images, episode.columns, episode.task, extra))
            rows += len(episode.columns["action"])
            if demonstration.dropped:
                dropped[slot.task] += demonstration.dropped
            progress.update(bar, advance=1, description=slot.task)
    return rows, dropped


def _demonstrations(config: Collect, view: View, slots: list[Slot]) -> Iterator[tuple[Slot, Demonstration]]:
    """Demonstrations in the order of `slots`, recorded by worker processes a few episodes ahead."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.workers, mp_context=spawn, initializer=_start_worker) as pool:
        waiting: deque[tuple[Slot, Future[Demonstration]]] = deque()
        try:
            for slot in slots:
                with deaf_to_interrupts():  # submitting starts processes
                    waiting.append((slot, pool.submit(_work, config, view, slot)))
                if len(waiting) >= AHEAD * config.workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BaseException:  # nobody waits for what they are at: end them, instead of seeing it through
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_environments: dict[tuple[View, str], SimulatedTask] = {}  # of this worker process: opening one takes seconds


def _work(config: Collect, view: View, slot: Slot) -> Demonstration:
    """In a worker: record one episode."""
    world = WORLDS[config.env]
    env = _environments.pop((view, slot.task), None)
    while len(_environments) >= world.kept_open:
        _environments.pop(next(iter(_environments))).close()
    env = _environments[view, slot.task] = env or world.open(slot.task, view)  # last in, as the one used last
    leader = _leader(slot.led, config.learner)
    seed = config.seed + slot.repeat
    return world.demonstrate(env, config.recording.split, slot.index, seed, leader, config.disturbance)


@lru_cache(maxsize=3)
def _leader(led: Led, learner: str | None) -> Leader | None:
    """Kept for the life of this worker, since a learner takes seconds to load."""
    if led == "learner":
        assert learner is not None  # checked by `plan`
        return Learner.of(learner)
    if led == "detours":
        from wam.sim.experts import detours  # needs the simulator

        return detours
    return None


def _start_worker() -> None:
    """In a worker: end when the parent does, even when it was killed and could not say so."""
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _check_same_plan(config: Collect, view: View, episodes_done: int) -> None:
    """A data set with episodes is continued only with the arguments it was begun with; they are kept beside it."""
    path = config.out / PLAN_PATH
    ours = asdict(config)
    ours["recording"] |= {name: getattr(view, name) for name in ("cameras", "image_size", "action_repeat")}
    for name in ("out", "workers", "episodes_per_file", "json"):
        del ours[name]
    if config.learner is not None:
        ours["learner"] = fingerprint(resolve(config.learner))
    ours = json.loads(json.dumps(ours))
    if not episodes_done:
        write_json(path, ours)
        return
    if not path.exists():
        raise ValueError(f"{path}: missing, so these {episodes_done} episodes are not ours; choose another folder")
    theirs, defaults = read_json(path), asdict(Collect(config.out))
    before = {name: theirs.get(name, defaults[name]) for name in ours}  # plans may be older than an option
    if changed := differences(before, ours):
        said = "; ".join(f"{name} = {old!r}, now it is {new!r}" for name, (old, new) in changed.items())
        raise ValueError(
            f"{path}: this data set was begun with {said}; choose another folder, or give the same arguments"
        )
