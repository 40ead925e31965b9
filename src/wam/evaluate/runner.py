"""Many episodes on many processes, one line on disk for each as soon as it ends.

What an episode does depends on its task and seed alone: never on the number of workers, on the order, or on what a
worker did before. So an evaluation can be interrupted and resumed, and two policies see the same initial states.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wam.data.files import FolderLock, write_atomic
from wam.evaluate.provenance import commit
from wam.evaluate.rerun_log import recording_path, write_recording
from wam.evaluate.results import EpisodeRecord, ResultFolder
from wam.evaluate.rollout import Environment, EpisodeResult, rollout
from wam.evaluate.sources import PolicyFor
from wam.evaluate.video import film_mp4
from wam.evaluate.workers import run_jobs
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment


@dataclass(frozen=True)
class Episode:
    """One entry of the plan: a task and the seed of its initial state."""

    task: str
    seed: int

    def __str__(self) -> str:
        return f"episode {self.task!r} seed {self.seed}"


@dataclass(frozen=True)
class Setup:
    """Everything that a worker process needs to know; picklable.

    make_env: task -> environment, called when the first episode of a task arrives.
    load_policy: called once per process; see `wam.evaluate.sources`.
    play: runs one episode, as `rollout` does; `RealTime` of `wam.evaluate.realtime_rollout` is another way.
    """

    make_env: Callable[[str], Environment]
    load_policy: Callable[[], PolicyFor]
    max_env_steps: int = 500
    embodiment: Embodiment = METAWORLD_SAWYER
    play: Callable[..., EpisodeResult] = rollout

    def __call__(self) -> EpisodeWorker:
        return EpisodeWorker(self)


@dataclass(frozen=True)
class Films:
    """What is kept to look at.

    failures, successes: how many of every task to keep as mp4, in the order in which they end.
    groups: task -> group, to keep so many of every group instead, from as many tasks of it as can be.
    rerun: a recording of every episode; see `wam.evaluate.rerun_log`.
    """

    failures: int = 0
    successes: int = 0
    rerun: Path | None = None
    groups: Mapping[str, str] | None = None


def run_episodes(
    episodes: Sequence[Episode],
    setup: Setup,
    out: Path,
    config: Mapping[str, Any],
    *,
    workers: int = 1,
    films: Films = Films(),
    on_episode: Callable[[EpisodeRecord], None] = lambda record: None,
) -> list[EpisodeRecord]:
    """Run what is not yet done and return the records of all `episodes`, in the order of the plan.

    config: whatever decides the outcome, ready for JSON; the folder `out` refuses to mix two configurations.
    on_episode: told about every episode as it ends (and first about those already on disk).
    Raises WorkerError, naming the episode, when one fails to run; ResultFolderError for another evaluation's folder,
    DatasetLockedError for one that another process is writing.
    """
    with FolderLock(out):
        folder = ResultFolder.open(out, config)
        done = {record.key: record for record in folder.episodes()}
        planned = {(episode.task, episode.seed) for episode in episodes}
        for record in done.values():
            if record.key in planned:
                on_episode(record)
        cutter = _Cutter(folder, films, setup.embodiment, done.values(), episodes)
        version = commit()
        waiting = (episode for episode in episodes if (episode.task, episode.seed) not in done)
        for _, result in run_jobs(setup, cutter.jobs(waiting), workers):
            record = EpisodeRecord.of(result, version, cutter.cut(result))
            folder.append(record)
            done[record.key] = record
            on_episode(record)
        return [done[episode.task, episode.seed] for episode in episodes]


class EpisodeWorker:
    """Lives in a process: loads its policy once, keeps the environment of the task that it works on."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._policy_for = setup.load_policy()
        self._env: Environment | None = None

    def run(self, job: Job) -> EpisodeResult:
        env = self._environment(job.episode.task)
        return self._setup.play(
            env,
            self._policy_for(env),
            job.episode.seed,
            max_env_steps=self._setup.max_env_steps,
            record=job.record,
            embodiment=self._setup.embodiment,
        )

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _environment(self, task: str) -> Environment:
        if self._env is None or self._env.task != task:
            self.close()
            self._env = self._setup.make_env(task)
        return self._env


@dataclass(frozen=True)
class Job:
    """An episode, and whether its frames are wanted back."""

    episode: Episode
    record: bool

    def __str__(self) -> str:
        return str(self.episode)


class _Cutter:
    """Decides which episodes are filmed and writes the films into the result folder."""

    def __init__(
        self,
        folder: ResultFolder,
        films: Films,
        embodiment: Embodiment,
        done: Iterable[EpisodeRecord],
        planned: Sequence[Episode],
    ) -> None:
        self._root = folder.root
        self._embodiment = embodiment
        self._rerun, self._planned = films.rerun, len(planned)
        self._quota = {False: films.failures, True: films.successes}
        tasks = dict.fromkeys(episode.task for episode in planned)
        self._group = {task: task if films.groups is None else films.groups.get(task, task) for task in tasks}
        self._members = Counter(self._group.values())
        self._kept, self._kept_of_task = Counter[tuple[str, bool]](), Counter[tuple[str, bool]]()
        for record in done:
            if record.video and record.task in self._group:
                self._count(record.task, record.success)

    def jobs(self, episodes: Iterable[Episode]) -> Iterator[Job]:
        """Asked for one by one, so that recording stops as soon as a task has its films."""
        for episode in episodes:
            filmed = any(self._wants(episode.task, outcome) for outcome in (True, False))
            yield Job(episode, filmed or self._rerun is not None)

    def cut(self, result: EpisodeResult) -> str | None:
        """Write film and recording when they are wanted; returns the film's path inside the folder."""
        if self._rerun is not None:
            write_recording(result, self._embodiment, recording_path(self._rerun, result, self._planned))
        if result.frames is None or not self._wants(result.task, result.success):
            return None
        outcome = "success" if result.success else "failure"
        name = f"videos/{result.task}-{result.seed}-{outcome}.mp4"
        content = film_mp4(result, self._embodiment.control_hz)
        write_atomic(self._root / name, lambda temporary: temporary.write_bytes(content))
        self._count(result.task, result.success)
        return name

    def _count(self, task: str, success: bool) -> None:
        self._kept[self._group[task], success] += 1
        self._kept_of_task[task, success] += 1

    def _wants(self, task: str, success: bool) -> bool:
        """Whether its group lacks films, and the task has not yet given its part of them."""
        group, quota = self._group[task], self._quota[success]
        part = -(-quota // self._members[group])
        return self._kept[group, success] < quota and self._kept_of_task[task, success] < part
