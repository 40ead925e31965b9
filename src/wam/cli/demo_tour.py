"""The part of `wam demo` that goes through many tasks: one episode each, filmed side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from wam.data.files import write_atomic
from wam.evaluate.rerun_log import recording_path, write_recording
from wam.evaluate.rollout import EpisodeResult
from wam.evaluate.runner import Episode, Job, Setup
from wam.evaluate.sources import MetaWorldSource, PolicySource, trained_tasks
from wam.evaluate.wall import wall_mp4
from wam.evaluate.workers import run_jobs
from wam.sim.tasks import MT10, SPLITS, expand

_WORKERS = 2


@dataclass(frozen=True)
class Tour:
    """One episode of every task, under the task's own sentence.

    groups: tasks or groups of Meta-World; what the model has learned when empty.  number: which unseen initial state.
    options: of `wam.engine.load_policy`.  rerun: where recordings go, if they are wanted.
    """

    checkpoint: str
    groups: Sequence[str]
    number: int
    options: Mapping[str, Any]
    out: Path
    rerun: Path | None = None

    def tasks(self) -> tuple[str, ...]:
        """Raises ValueError for an unknown task."""
        return expand(self.groups) if self.groups else trained_tasks(self.checkpoint) or MT10

    def run(self, console: Console) -> list[EpisodeResult]:
        """In the order of the tasks."""
        policy = PolicySource("wam", Path(self.checkpoint), self.options)
        robot = policy.embodiment()
        setup = Setup(MetaWorldSource(embodiment=robot), policy, embodiment=robot)
        jobs = [Job(Episode(task, SPLITS["test"].seed(self.number)), record=True) for task in self.tasks()]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        done: dict[str, EpisodeResult] = {}
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("loading", total=len(jobs))
            for job, result in run_jobs(setup, jobs, min(_WORKERS, len(jobs))):
                done[job.episode.task] = result
                progress.update(bar, advance=1, description=job.episode.task)
        return [done[job.episode.task] for job in jobs]

    def film(self, console: Console, as_json: bool) -> None:
        """Run, write OUT/tour.mp4, and say how each episode ended."""
        learned, episodes = trained_tasks(self.checkpoint), self.run(console)
        unlearned = [] if learned is None else [task for task in self.tasks() if task not in learned]
        robot = PolicySource("wam", Path(self.checkpoint)).embodiment()
        content, path = wall_mp4(episodes, robot.control_hz, unlearned), self.out / "tour.mp4"
        write_atomic(path, lambda temporary: temporary.write_bytes(content))
        if self.rerun is not None:
            for episode in episodes:
                write_recording(episode, robot, recording_path(self.rerun, episode, len(episodes)))
        console.print(_table(episodes, unlearned))
        console.print(f"film: {path.resolve()}", soft_wrap=True)
        if as_json:
            outcomes = {episode.task: episode.success for episode in episodes}
            print(
                json.dumps({"film": str(path), "seed": episodes[0].seed, "success": outcomes, "unlearned": unlearned})
            )


def _table(episodes: Sequence[EpisodeResult], unlearned: Sequence[str]) -> Table:
    solved = sum(episode.success for episode in episodes)
    table = Table("task", "", "steps", "sentence", title=f"{solved} of {len(episodes)} solved, one episode each")
    for episode in episodes:
        name = Text(f"{episode.task} (not in its training)", "dim") if episode.task in unlearned else episode.task
        outcome = Text("solved", "green") if episode.success else Text("not solved", "red")
        table.add_row(name, outcome, str(episode.steps), episode.instruction)
    return table
