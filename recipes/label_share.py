"""Does dreaming help when few episodes carry actions? Success against the share of labelled episodes, by learner.

joint         learns the video of every episode, and the actions of the labelled ones, which fill half of every batch.
actions only  the same network without video to denoise, on the labelled episodes alone: the control of the others.
dream first   joint for the first half of its steps, then actions only. Left out unless --learners names it.

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
from typing import Any, Literal

import matplotlib.pyplot as plt
import tyro
from recipes.runs import AGAIN, Commands, finished, same_settings, side_by_side

from wam.evaluate.compare import compare
from wam.evaluate.results import EpisodeRecord
from wam.evaluate.statistics import Estimate, mean, wilson

Learner = Literal["joint", "actions only", "dream first"]
JOINT: Learner = "joint"
CONTROL: Learner = "actions only"
STAGED: Learner = "dream first"
_JOINTLY = ("--windows.labelled-part", "0.5")
_ON_ACTIONS = ("--no-dream", "--windows.labelled-part", "1")
STAGES: dict[Learner, tuple[tuple[str, ...], ...]] = {
    JOINT: (_JOINTLY,),
    CONTROL: (_ON_ACTIONS,),
    STAGED: (_JOINTLY, _ON_ACTIONS),
}
"""Options of `wam train` for each stage, which has an equal part of the steps and begins with the weights before it."""
COLOURS: dict[Learner, str] = {JOINT: "#4c78a8", CONTROL: "#d6723b", STAGED: "#54a24b"}


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
    learners: tuple[Learner, ...] = (JOINT, CONTROL)
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
    """More options of `wam train`, for every learner."""
    eval_options: str = ""
    """Options of `wam eval`, for every learner."""

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

    learner: Learner
    share: float
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.learner.replace(' ', '-')}-share{self.share:g}-seed{self.seed}"


def plan(config: LabelShare) -> list[Run]:
    """The learners of a share follow each other; the first seed of every share comes before further seeds."""
    few = sorted(config.shares)[:2]
    return [
        Run(learner, share, seed)
        for seed in config.seeds
        for share in sorted(config.shares)
        if share in few or seed == config.seeds[0]
        for learner in config.learners
    ]


def main(config: LabelShare) -> int:
    """Do what is missing, then write what there is; 75 when time ran out."""
    runs, commands = plan(config), Commands(config.minutes)
    same_settings(config.out, config.settings, config.join)
    todo = [run for run in runs if finished(config.folders, run.folder) is None]

    def encode(data: Path) -> None:  # once, before trainings that go on side by side
        commands.wam("data", "encode", data, "--tokenizer", config.tokenizer, "--embodiment", config.embodiment)

    def train_and_evaluate(run: Run) -> None:
        train(config, run, commands)
        evaluate(config, run, commands)

    try:
        complete = side_by_side(encode, [config.data] if todo else [], 1)
        complete = complete and side_by_side(train_and_evaluate, todo, config.workers)
    finally:
        report(config, runs)
    return 0 if complete else AGAIN


def train(config: LabelShare, run: Run, commands: Commands) -> None:
    """Stage after stage; the last one is the run's own folder."""
    folder, stages = config.out / "runs" / run.folder, STAGES[run.learner]
    begin: list[object] = []
    for number, options in enumerate(stages, start=1):
        out = folder if number == len(stages) else folder.with_name(f"{folder.name}-stage{number}")
        if not (out / "model" / "config.json").exists():
            commands.wam("train", "--data", config.data, "--tokenizer", config.tokenizer, "--embodiment",
                         config.embodiment, "--out", out, "--threads", 1, "--steps", config.steps // len(stages),
                         "--seed", run.seed, "--windows.labelled-share", run.share, *options, *begin,
                         *config.train_options.split())  # fmt: skip
        begin = ["--init", out / "model"]


def evaluate(config: LabelShare, run: Run, commands: Commands) -> None:
    commands.wam("eval", config.out / "runs" / run.folder / "model", "--tasks", config.tasks, "--episodes",
                 config.episodes, "--workers", 1, "--label", run.folder,
                 "--out", config.out / "results" / run.folder, *config.eval_options.split())  # fmt: skip


# ---------------------------------------------------------------- what came of it


@dataclass(frozen=True)
class Point:
    """One learner at one share of labelled episodes, over its finished seeds.

    solved, played: episodes.  by_seed: those solved, training by training.
    difference: rate minus that of the control, paired, a mean over the seeds that both have finished, None without any.
    Its interval speaks of other episodes, given these trainings.  differences: seed by seed.
    """

    share: float
    learner: Learner
    solved: int
    played: int
    by_seed: tuple[int, ...]
    difference: Estimate | None
    differences: tuple[float, ...]


def points_of(results: dict[Run, list[EpisodeRecord]], shares: tuple[float, ...]) -> list[Point]:
    """For every share and learner with at least one finished run."""
    points = []
    for share in sorted(shares):
        for learner in STAGES:
            own = {run.seed: found for run, found in results.items() if (run.share, run.learner) == (share, learner)}
            if not own:
                continue
            pairs = [(found, results.get(Run(CONTROL, share, seed))) for seed, found in own.items()]
            paired = [
                compare(ours, control, learner, CONTROL).over_tasks
                for ours, control in pairs
                if control is not None and learner != CONTROL
            ]
            solved = tuple(sum(episode.success for episode in found) for found in own.values())
            played = sum(len(found) for found in own.values())
            difference = mean(paired) if paired else None
            differences = tuple(estimate.value for estimate in paired)
            points.append(Point(share, learner, sum(solved), played, solved, difference, differences))
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
        f"| episodes with actions | learner | solved | by training seed | points against {CONTROL} | seed by seed |",
        "|--:|---|--:|---|---|---|",
    ]
    for point in points:
        difference = "-"
        if point.difference is not None:
            value, low, high = (100 * x for x in dataclasses.astuple(point.difference))
            difference = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
            difference += ", not distinguishable" if low <= 0 <= high else ""
        solved = ", ".join(map(str, point.by_seed))
        each = ", ".join(f"{100 * value:+.1f}" for value in point.differences) or "-"
        cells = (f"{100 * point.share:g} %", point.learner, f"{point.solved}/{point.played}", solved, difference, each)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(config: LabelShare, points: list[Point]) -> None:
    """Successes over all episodes of all seeds, with Wilson intervals."""
    figure, axis = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
    for learner in dict.fromkeys(point.learner for point in points):
        own = [point for point in points if point.learner == learner]
        x, rates = [100 * point.share for point in own], [wilson(point.solved, point.played) for point in own]
        y = [100 * rate.value for rate in rates]
        bars = [[100 * (r.value - r.low) for r in rates], [100 * (r.high - r.value) for r in rates]]
        axis.errorbar(x, y, yerr=bars, color=COLOURS[learner], marker="o", capsize=3, label=learner)
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
