"""wam eval: success rates of a policy in closed loop, with intervals, on initial states that training never saw.

Example:
    wam eval runs/mt10 --tasks mt10 --episodes 50 --workers 2 --out runs/eval/mt10
    wam eval --policy constant-hold --tasks mt10 --episodes 50 --out runs/eval/hold
    wam eval nano-metaworld --realtime --delay 0.33 --out runs/eval/async-third
    wam eval runs/libero/model --env libero --tasks libero_object --episodes 10 --out runs/eval/libero
    wam eval --policy openpi://127.0.0.1:8000 --env libero --tasks libero_object --episodes 10 --out runs/eval/pi05
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wam.cli.loop import Loop
from wam.data.files import write_atomic
from wam.evaluate.provenance import Provenance
from wam.evaluate.realtime_rollout import RealTime
from wam.evaluate.remote import Address, RemoteSource
from wam.evaluate.report import Report, write_report
from wam.evaluate.rerun_log import rerun_module
from wam.evaluate.results import SUMMARY, EpisodeRecord
from wam.evaluate.rollout import EpisodeResult, rollout
from wam.evaluate.runner import Episode, Films, Setup, run_episodes
from wam.evaluate.sources import ArmsSource, MetaWorldSource, PolicyKind, PolicySource, Wording
from wam.evaluate.summary import Summary, markdown, rich_table, summarise
from wam.robot.embodiment import Embodiment
from wam.sim.looks import Look
from wam.sim.tasks import SPLITS
from wam.sim.worlds import WORLDS, WorldName

TABLE, PAGE = "summary.md", "report.html"


@dataclass(frozen=True)
class Clock:
    """The robot's clock, for --realtime; see `wam.evaluate.realtime_rollout.RealTime`."""

    delay: float | None = None
    """How long a chunk takes to think, as a share of its length, whatever it takes here; measured when left out."""
    every: int | None = None
    """Control steps between thoughts; half a chunk when left out."""
    prefix: bool = False
    """Hold clean what is executed meanwhile; for models that were trained with prefixes."""
    blend: int = 0
    """Control steps over which a new chunk fades in."""
    smooth: bool = False
    """Smooth every chunk: cubic interpolation to twice the rate, Savitzky-Golay filter (window 21, order 3)."""
    coast: float = 0.0
    """What is left of the last motion when no action is there in time: 0 holds, 0.7 slows down, 1 goes on."""


@dataclass(frozen=True)
class Eval:
    """Success rates of a policy in closed loop, with intervals.

    Every finished episode is one line of OUT/episodes.jsonl; a stopped evaluation goes on when the same command is
    given again. OUT also receives summary.json, summary.md and report.html. All policies see the same initial states.

    Example: wam eval runs/mt10 --tasks mt10 --episodes 50 --workers 2 --out runs/eval/mt10
    """

    out: Path
    """Folder of the results."""
    checkpoint: tyro.conf.Positional[Path | None] = None
    """Folder written by `wam train`, or the name of a shipped model; left out for the baselines."""
    policy: str = "wam"
    """A checkpoint (wam), a baseline: "constant-hold" (the floor) or "expert" (the ceiling), or somebody's server:
    wam://host:port, openpi://host:port, roboarena://host:port, gr00t://host:port."""
    keys: Path | None = None
    """YAML file that says how a server calls the robot's cameras, states and actions (`wam.evaluate.remote_keys`)."""
    token_file: Path | None = None
    """File with the token that a server asks for."""
    env: WorldName = "metaworld"
    """The simulator."""
    tasks: tuple[str, ...] = ("mt10",)
    """Tasks or groups of the simulator: mt10, mt50, easy, medium, hard, very-hard, ml45-train, heldout-tasks of
    Meta-World; Lift, Stack, TwoArmLift, Lift/UR5e, ... of robosuite; libero_object, libero_goal/0, ... of LIBERO."""
    split: Literal["test", "val", "train"] = "test"
    """Which initial states: unseen ones to report (test) or to choose a checkpoint by (val), or the training data's."""
    episodes: int = 50
    """Episodes per task: the first so many initial states of the split."""
    look: Look = "train"
    """What the scene looks like; all but "train" are held out."""
    wording: Wording = "canonical"
    """The sentence of the task, or one that training data never uses."""
    max_env_steps: int = 500
    """Simulator steps until an episode has failed."""
    loop: tyro.conf.OmitArgPrefixes[Loop] = Loop()
    realtime: bool = False
    """The world does not wait: the robot plays a chunk while the next one is being thought out, in virtual time."""
    clock: tyro.conf.OmitArgPrefixes[Clock] = Clock()
    workers: int = 2
    """Processes, each with its own policy and one thread; the results do not depend on their number."""
    film_failures: int = 0
    """Keep films of so many failures of every task."""
    film_successes: int = 0
    """Keep films of so many successes of every task."""
    films_per: Literal["task", "group"] = "task"
    """"group": so many of every group of tasks (easy, medium, hard, very hard), of different tasks where it can."""
    rerun: Path | None = None
    """Keep a recording of every episode that is run now, for the Rerun viewer (pip install -e ".[viz]"); of several
    episodes, task and seed go into the file's name. With --decode-video the dream is in it too."""
    label: str = ""
    """How tables call this policy; the name of the checkpoint when left out."""
    json: bool = False
    """Print one line of JSON at the end."""

    def source(self) -> PolicySource | RemoteSource:
        """Raises ValueError when the policy needs a checkpoint and has none, or the other way round."""
        robot = WORLDS[self.env].robot(self.task_names())
        if "://" in self.policy:
            return self._remote(robot)
        if self.policy not in get_args(PolicyKind):
            raise ValueError(f"--policy {self.policy}: expected one of {get_args(PolicyKind)}, or DIALECT://host:port")
        if self.keys is not None or self.token_file is not None:
            raise ValueError(f"--keys and --token-file are for servers; --policy is {self.policy!r}")
        options = dataclasses.asdict(self.loop) if self.policy == "wam" else {}
        return PolicySource(cast(PolicyKind, self.policy), self.checkpoint, options, robot)

    def _remote(self, robot: Embodiment) -> RemoteSource:
        """A server: how it runs its policy is its own business, but for the steps that are executed."""
        if self.checkpoint is not None:
            raise ValueError(f"policy {self.policy!r} takes no checkpoint; {self.checkpoint} was given")
        if self.loop != Loop(execute=self.loop.execute):
            raise ValueError(f"{self.policy}: of {self.loop} a server can be told 'execute' alone; leave the rest out")
        return RemoteSource(Address.parse(self.policy), robot, self.keys, self.loop.execute, self.token_file)

    def environments(self, embodiment: Embodiment) -> MetaWorldSource | ArmsSource:
        """Raises ValueError for a look or wording that only Meta-World has."""
        if self.env == "metaworld":
            return MetaWorldSource(self.look, self.wording, embodiment)
        if (self.look, self.wording) != ("train", "canonical"):
            raise ValueError(f"--look {self.look} --wording {self.wording}: {self.env} has one look and one wording")
        return ArmsSource(self.env, embodiment)

    def task_names(self) -> tuple[str, ...]:
        """Raises ValueError for an unknown task, or none at all."""
        if not self.tasks:
            raise ValueError("--tasks names none; expected tasks or groups of them, such as mt10")
        return WORLDS[self.env].expand(self.tasks)

    def play(self) -> Callable[..., EpisodeResult]:
        """How an episode is run. Raises ValueError when the clock is set and nobody keeps it."""
        if self.realtime:
            return RealTime(**dataclasses.asdict(self.clock))
        if self.clock != Clock():
            raise ValueError(f"{self.clock} needs --realtime; without it the world waits for the policy")
        return rollout

    def plan(self) -> list[Episode]:
        """Task by task, so that a worker seldom changes its environment. Raises ValueError for an unknown task."""
        split = SPLITS[self.split]
        return [Episode(task, split.seed(index)) for task in self.task_names() for index in range(self.episodes)]

    def describe(self, embodiment: Embodiment) -> dict[str, Any]:
        """Everything that decides the outcome; two runs with the same description may share a folder."""
        return {
            **self.source().describe(),
            "label": self.label,
            **({} if self.env == "metaworld" else {"env": self.env}),
            "tasks": list(self.task_names()),
            "split": self.split,
            "episodes": self.episodes,
            "look": self.look,
            "wording": self.wording,
            "max_env_steps": self.max_env_steps,
            "control_hz": embodiment.control_hz,
            "realtime": dataclasses.asdict(self.clock) if self.realtime else None,
        }


def main(config: Eval) -> None:
    """Run what is missing, then summarise."""
    if config.episodes < 1:
        raise ValueError(f"--episodes is {config.episodes}; expected at least 1 per task")
    if config.rerun is not None:
        rerun_module()  # before any work: is it there?
    console = Console(stderr=True, markup=False)
    embodiment = config.source().embodiment()
    described, episodes = config.describe(embodiment), config.plan()
    setup = Setup(
        make_env=config.environments(embodiment),
        load_policy=config.source(),
        max_env_steps=config.max_env_steps,
        embodiment=embodiment,
        play=config.play(),
    )
    records = _run(config, episodes, setup, described, console)
    groups = WORLDS[config.env].groups(config.task_names())
    summary = summarise(records, groups, described, Provenance.here(), planned=len(episodes))
    _write(summary, records, config.out, embodiment)
    console.print(rich_table(summary))
    console.print(f"{config.out}: {SUMMARY}, {TABLE}, {PAGE}", soft_wrap=True)
    if config.json:
        print(json.dumps(summary.to_dict()))


def _run(
    config: Eval, episodes: Sequence[Episode], setup: Setup, described: dict[str, Any], console: Console
) -> list[EpisodeRecord]:
    """Run the plan under a progress bar that shows the success rate so far."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=console) as progress:
        bar = progress.add_task("loading", total=len(episodes))
        successes = done = 0

        def show(record: EpisodeRecord) -> None:
            nonlocal successes, done
            successes, done = successes + record.success, done + 1
            text = f"{record.task}: {successes}/{done} solved so far ({100 * successes / done:.0f} %)"
            progress.update(bar, advance=1, description=text)

        return run_episodes(
            episodes,
            setup,
            config.out,
            described,
            workers=config.workers,
            films=_films(config),
            on_episode=show,
        )


def _films(config: Eval) -> Films:
    groups = WORLDS[config.env].groups(config.task_names()) if config.films_per == "group" else None
    return Films(config.film_failures, config.film_successes, config.rerun, groups)


def _write(summary: Summary, records: Sequence[EpisodeRecord], out: Path, embodiment: Embodiment) -> None:
    summary.write(out / SUMMARY)
    text = markdown(summary)
    write_atomic(out / TABLE, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    films = [out / record.video for record in records if record.video]
    facts = {name: _words(value) for name, value in summary.config.items() if value not in ("", [], {}, None)}
    report = Report(summary.title, summary.provenance, summary=summary, films=films, facts=facts, embodiment=embodiment)
    write_report(report, out / PAGE)


def _words(value: Any) -> str:
    """Configuration for people: `steps 4, solver euler`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items() if item is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
