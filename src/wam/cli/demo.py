"""wam demo: a shipped nano model acts in Meta-World from a sentence, beside what it dreams.

Example:
    wam demo
    wam demo --tasks window-open --sentence "slide the window open" --seed 7
    wam demo --task "slide the window open"
    wam demo --tour mt50
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from wam.cli.demo_tour import Tour
from wam.data.files import write_atomic
from wam.engine.load import load_policy
from wam.engine.warm_up import warm_up
from wam.evaluate.provenance import Provenance
from wam.evaluate.report import Report, write_report
from wam.evaluate.rerun_log import recording_path, rerun_module, write_recording
from wam.evaluate.rollout import EpisodeResult, rollout
from wam.evaluate.sources import MetaWorldSource, Reworded, shipped_for, trained_tasks
from wam.evaluate.video import film_mp4
from wam.robot.embodiment import Embodiment
from wam.sim.tasks import SPLITS, asked_for, expand

LEAD = (
    "One network imagines the next moments of video and chooses the actions in them, together. It sees small "
    "pictures, the position of the hand and a sentence. After every chunk the real pictures, not the imagined ones, "
    "enter its memory."
)


@dataclass(frozen=True)
class Demo:
    """Watch a model act in closed loop; writes OUT/report.html and one mp4 per task.

    Example: wam demo --tasks drawer-open push
    """

    checkpoint: tyro.conf.Positional[str | None] = None
    """A shipped name or a folder written by `wam train`; by default the shipped model that has learned the tasks."""
    tasks: tuple[str, ...] = ("drawer-open", "push", "pick-place")
    """Meta-World tasks to show, one episode each."""
    task: str | None = None
    """Instead of tasks, one of the 50, or a sentence that asks for one."""
    tour: tuple[str, ...] | None = None
    """Instead of a page, one episode each of many tasks or groups (mt10, mt50, easy, ...) as a wall of small films in
    OUT/tour.mp4; without names, of what the model has learned."""
    sentence: str | None = None
    """What to ask for; each task's own sentence when left out."""
    seed: int = 1
    """Which unseen initial state (0 is the first of the test split)."""
    steps: int = 1
    """Denoising steps per chunk."""
    temperature: float = 1.0
    """Scale of the noise that actions begin as; 0, as nano-mt50 was tested, leaves none in those of a single step."""
    compile: Literal["off", "blocks", "whole"] = "off"
    """Run the network through torch.compile, block by block or as a whole; the first chunks then take long."""
    device: str = "cpu"
    """Where the network runs, such as cuda."""
    rerun: Path | None = None
    """Also keep a recording for the Rerun viewer (pip install -e ".[viz]"); of several, with their names."""
    out: Path = Path("runs/demo")
    json: bool = False
    """Print one line of JSON at the end."""

    @property
    def loop(self) -> dict[str, Any]:
        """Options of `load_policy`."""
        return {name: getattr(self, name) for name in ("steps", "temperature", "compile", "device")}

    def asked(self) -> tuple[tuple[str, ...], str | None]:
        """(tasks, the sentence to ask for or None for their own). Raises ValueError for what nobody knows."""
        if self.task is None and not self.tasks:
            raise ValueError("--tasks names none; expected at least one task of Meta-World")
        if self.task is None:
            return self.tasks, self.sentence
        name = asked_for(self.task).name
        return (name,), self.sentence or (None if self.task == name else self.task)

    def tour_of(self, groups: tuple[str, ...]) -> Tour:
        """Raises ValueError for options that a tour cannot keep."""
        if self.task is not None or self.sentence is not None:
            raise ValueError("--tour asks for every task in its own words; leave --task and --sentence out")
        checkpoint = self.checkpoint or shipped_for(expand(groups or ("mt50",)))
        return Tour(checkpoint, groups, self.seed, self.loop, self.out, self.rerun)


def main(config: Demo) -> None:
    """Run the episodes, write the page and the films, say where they are."""
    if config.rerun is not None:
        rerun_module()  # before any work: is it there?
    console = Console(stderr=True, markup=False)
    if config.tour is not None:
        config.tour_of(config.tour).film(console, config.json)
        return
    tasks, sentence = config.asked()
    checkpoint = config.checkpoint or shipped_for(tasks)
    torch.set_num_threads(1)  # of this size; more wait for each other where cores are busy, a second per chunk
    policy = load_policy(checkpoint, decode_video=True, **config.loop)
    with console.status("compiling" if config.compile != "off" else "warming up"):
        warm_up(policy.engine)  # so that the first chunk takes no longer than the others
    source = MetaWorldSource(embodiment=policy.embodiment)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    episodes: list[EpisodeResult] = []
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("acting", total=len(tasks))
        for task in tasks:
            progress.update(bar, description=task)
            plain = source(task)
            env = plain if sentence is None else Reworded(plain, sentence)
            seed = SPLITS["test"].seed(config.seed)
            episodes.append(rollout(env, policy, seed, record=True, embodiment=policy.embodiment))
            env.close()
            progress.advance(bar)
    films = [_write_film(episode, config.out, policy.embodiment.control_hz) for episode in episodes]
    recordings = _write_recordings(episodes, config.rerun, policy.embodiment)
    facts = {"checkpoint": checkpoint, "denoising steps per chunk": str(config.steps)}
    report = Report(
        "A robot that dreams and acts", Provenance.here(), LEAD, episodes, facts=facts, embodiment=policy.embodiment
    )
    page = write_report(report, config.out / "report.html")
    learned = trained_tasks(checkpoint)
    for episode in episodes:
        if learned is not None and episode.task not in learned:
            console.print(f"{episode.task}: {checkpoint} has not learned this task; it saw {', '.join(learned)}")
        outcome = "success" if episode.success else "no success"
        console.print(
            f"{episode.task}: {outcome} after {episode.steps} steps, {episode.chunks_per_second:.1f} chunks per second"
        )
    console.print(f"report: {page.resolve()}", soft_wrap=True)
    console.print(f"films:  {', '.join(str(film) for film in films)}", soft_wrap=True)
    if recordings:
        console.print(f"recordings: {', '.join(str(recording) for recording in recordings)}", soft_wrap=True)
    if config.json:
        print(json.dumps(_result(episodes, page, films, recordings)))


def _write_film(episode: EpisodeResult, out: Path, control_hz: float) -> Path:
    path = out / f"{episode.task}.mp4"
    content = film_mp4(episode, control_hz)
    write_atomic(path, lambda temporary: temporary.write_bytes(content))
    return path


def _write_recordings(episodes: list[EpisodeResult], target: Path | None, robot: Embodiment) -> list[Path]:
    if target is None:
        return []
    paths = [recording_path(target, episode, len(episodes)) for episode in episodes]
    return [write_recording(episode, robot, path) for episode, path in zip(episodes, paths, strict=True)]


def _result(episodes: list[EpisodeResult], page: Path, films: list[Path], recordings: list[Path]) -> dict[str, object]:
    return {
        "report": str(page),
        "films": [str(film) for film in films],
        "recordings": [str(recording) for recording in recordings],
        "episodes": [
            {
                "task": episode.task,
                "sentence": episode.instruction,
                "seed": episode.seed,
                "success": episode.success,
                "steps": episode.steps,
                "chunks_per_second": round(episode.chunks_per_second, 2),
            }
            for episode in episodes
        ],
    }
