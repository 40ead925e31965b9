"""Does dreaming help when few episodes carry actions? Success against the share of labelled episodes, for two learners.

joint         learns the video of every episode, and the actions of the labelled ones, which fill half of every batch.
actions only  the same network without video to denoise, on the labelled episodes alone.

Every training takes the same number of steps on one core, whatever else the machine does, and all are evaluated on the
same initial states. What is finished is not done again: after --minutes the experiment stops with code 75, and goes on
when the same command is given again. Results of other sessions or machines count too, with --join: folders that hold
the settings.json and results/ of an experiment with the same options. Results: table.md, results.jsonl, curve.png.

Usage: .venv/bin/python -m recipes.label_share --data DATA --tokenizer TOKENIZER --out runs/label-share --minutes 110
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import tyro
from recipes.runs import AGAIN, Commands, finished, same_settings, side_by_side

from wam.evaluate.compare import compare
from wam.evaluate.results import EpisodeRecord
from wam.evaluate.statistics import Estimate, mean, wilson

JOINT, CONTROL = "joint", "actions only"
LEARNERS = {
    JOINT: ("#4c78a8", ["--windows.labelled-part", "0.5"]),
    CONTROL: ("#d6723b", ["--no-dream", "--windows.labelled-part", "1"]),
}


@dataclass(frozen=True)
class LabelShare:
    """Success against the share of labelled episodes."""

    data: Path
    """LeRobot data set."""
    tokenizer: Path
    out: Path
    embodiment: str = "metaworld-sawyer"
    """The data set's robot: a shipped name or a YAML file."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 1.0)
    """Shares of the episodes that keep their actions; a larger share contains the smaller one."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of the two smallest shares; the others have the first alone."""
    steps: int = 5000
    """Of training, for each."""
    tasks: str = "mt10"
    episodes: int = 20
    """Test episodes per task."""
    workers: int = 2
    """Trainings side by side, one core each."""
    minutes: float | None = None
    """Stop after so long; what is unfinished goes on next time."""
    join: tuple[Path, ...] = ()
    """Further folders of this experiment whose results count too."""
    train_options: str = "--noise.mode coupled --noise.video-at-noise 0.4 --see-previous"
    """More options of `wam train`, for both learners."""
    eval_options: str = ""
    """Options of `wam eval`, for both."""

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.out, *self.join)

    @property
    def settings(self) -> dict[str, Any]:
        """What two sessions must have in common for their results to be compared."""
        names = ("steps", "tasks", "episodes", "train_options", "eval_options")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Run:
    """One training and its evaluation."""

    learner: str
    share: float
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.learner.replace(' ', '-')}-share{self.share:g}-seed{self.seed}"


def plan(config: LabelShare) -> list[Run]:
    """Both learners of a share follow each other; the first seed of every share comes before further seeds."""
    few = sorted(config.shares)[:2]
    return [
        Run(learner, share, seed)
        for seed in config.seeds
        for share in sorted(config.shares)
        if share in few or seed == config.seeds[0]
        for learner in LEARNERS
    ]


def main(config: LabelShare) -> int:
    """Do what is missing, then write what there is; 75 when time ran out."""
    runs, commands = plan(config), Commands(config.minutes)
    same_settings(config.out, config.settings, config.join)
    todo = [run for run in runs if finished(config.folders, run.folder) is None]

    def train_and_evaluate(run: Run) -> None:
        train(config, run, commands)
        evaluate(config, run, commands)

    complete = side_by_side(train_and_evaluate, todo, config.workers)
    report(config, runs)
    return 0 if complete else AGAIN


def train(config: LabelShare, run: Run, commands: Commands) -> None:
    folder = config.out / "runs" / run.folder
    if (folder / "model" / "config.json").exists():
        return
    options = [*LEARNERS[run.learner][1], *config.train_options.split()]
    commands.wam("train", "--data", config.data, "--tokenizer", config.tokenizer, "--embodiment", config.embodiment,
                 "--out", folder, "--threads", 1, "--steps", config.steps, "--seed", run.seed,
                 "--windows.labelled-share", run.share, *options)  # fmt: skip


def evaluate(config: LabelShare, run: Run, commands: Commands) -> None:
    commands.wam("eval", config.out / "runs" / run.folder / "model", "--tasks", config.tasks, "--episodes",
                 config.episodes, "--workers", 1, "--label", run.folder,
                 "--out", config.out / "results" / run.folder, *config.eval_options.split())  # fmt: skip


# ---------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Point:
    """One share: successes of both learners over their finished seeds, and the paired difference, joint minus control.

    The difference is a mean over the seeds that both have finished; `by_seed` lists it seed by seed. Its interval
    speaks of other episodes, given these trainings.
    """

    share: float
    successes: dict[str, tuple[int, int]]
    difference: Estimate | None
    by_seed: tuple[float, ...]


def points_of(results: dict[Run, list[EpisodeRecord]], shares: tuple[float, ...]) -> list[Point]:
    points = []
    for share in sorted(shares):
        own = {run: episodes for run, episodes in results.items() if run.share == share}
        successes = {}
        for learner in LEARNERS:
            episodes = [e for run, records in own.items() if run.learner == learner for e in records]
            successes[learner] = (sum(e.success for e in episodes), len(episodes))
        pairs = [(own[run], own.get(Run(CONTROL, share, run.seed))) for run in own if run.learner == JOINT]
        found = [compare(joint, control, JOINT, CONTROL).over_tasks for joint, control in pairs if control is not None]
        difference = mean(found) if found else None
        points.append(Point(share, successes, difference, tuple(estimate.value for estimate in found)))
    return points


def report(config: LabelShare, runs: list[Run]) -> None:
    """Tables and the figure of all finished runs."""
    found = {run: finished(config.folders, run.folder) for run in runs}
    results = {run: episodes for run, episodes in found.items() if episodes is not None}
    points = points_of(results, config.shares)
    lines = "".join(json.dumps(dataclasses.asdict(point)) + "\n" for point in points)
    (config.out / "results.jsonl").write_text(lines, encoding="utf-8")
    (config.out / "table.md").write_text(markdown(points), encoding="utf-8")
    print(markdown(points))
    print(f"{len(results)} of {len(runs)} runs are finished; {config.out / 'table.md'}")
    draw(config, points)


def markdown(points: list[Point]) -> str:
    lines = [
        f"| episodes with actions | {JOINT} | {CONTROL} | paired difference, points | seed by seed |",
        "|--:|--:|--:|--:|---|",
    ]
    for point in points:
        cells = [f"{k}/{n}" if n else "-" for k, n in point.successes.values()]
        difference = "-"
        if point.difference is not None:
            value, low, high = (100 * x for x in dataclasses.astuple(point.difference))
            difference = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
            difference += ", not distinguishable" if low <= 0 <= high else ""
        each = ", ".join(f"{100 * value:+.1f}" for value in point.by_seed)
        lines.append(f"| {100 * point.share:g} % | {' | '.join(cells)} | {difference} | {each} |")
    return "\n".join(lines) + "\n"


def draw(config: LabelShare, points: list[Point]) -> None:
    """Successes over all episodes of all seeds, with Wilson intervals."""
    figure, axis = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
    for learner, (colour, _) in LEARNERS.items():
        rates = [(100 * p.share, wilson(*p.successes[learner])) for p in points if p.successes[learner][1]]
        if not rates:
            continue
        x, y = [share for share, _ in rates], [100 * rate.value for _, rate in rates]
        bars = [[100 * (r.value - r.low) for _, r in rates], [100 * (r.high - r.value) for _, r in rates]]
        axis.errorbar(x, y, yerr=bars, color=colour, marker="o", capsize=3, label=learner)
    axis.set_xscale("log")
    axis.set_xticks([100 * share for share in config.shares], [f"{100 * share:g}" for share in config.shares])
    axis.minorticks_off()
    axis.set(xlabel="episodes with actions (%)", ylabel="success (%)", ylim=(0, 100))
    axis.set_title(f"{config.tasks}, {config.steps} steps, seeds {list(config.seeds)}", fontsize=9)
    axis.legend(frameon=False)
    figure.savefig(config.out / "curve.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(LabelShare, description=__doc__)))
