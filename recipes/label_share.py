"""Does dreaming help when few episodes carry actions? Success against the share of labelled episodes, for two learners.

joint         learns the video of every episode, and the actions of the labelled ones, which fill half of every batch.
actions only  the same network without video to denoise, on the labelled episodes alone.

Every training gets the same time on one core. All are evaluated on the same initial states. What is finished is not
done again, so a stopped run continues when the same command is given.

Usage: .venv/bin/python recipes/label_share.py --data DATA --tokenizer TOKENIZER --out runs/label-share
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import tyro

from wam.evaluate.results import ResultFolder
from wam.evaluate.statistics import wilson

LEARNERS = {
    "joint": ("#4c78a8", ["--windows.labelled-part", "0.5"]),
    "actions only": ("#d6723b", ["--no-dream", "--windows.labelled-part", "1"]),
}


@dataclass(frozen=True)
class LabelShare:
    """Success against the share of labelled episodes."""

    data: Path
    """LeRobot data set."""
    tokenizer: Path
    out: Path
    shares: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 1.0)
    """Shares of the episodes that keep their actions; a larger share contains the smaller one."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds."""
    minutes: float = 20.0
    """Of training, for each."""
    tasks: str = "mt10"
    episodes: int = 20
    """Test episodes per task."""
    workers: int = 2
    """Trainings side by side, one core each."""
    train_options: str = ""
    """More options of `wam train` for both learners, e.g. `--train-options="--noise.mode coupled --compile"`."""


@dataclass(frozen=True)
class Run:
    """One training and its evaluation."""

    learner: str
    share: float
    seed: int

    def folder(self, out: Path) -> Path:
        return out / f"{self.learner.replace(' ', '-')}-share{self.share:g}-seed{self.seed}"


def main(config: LabelShare) -> None:
    runs = [Run(name, share, seed) for seed in config.seeds for share in config.shares for name in LEARNERS]
    with ThreadPoolExecutor(config.workers) as pool:
        list(pool.map(lambda run: train_and_evaluate(config, run), runs))
    draw(config, runs)


def train_and_evaluate(config: LabelShare, run: Run) -> None:
    train(config, run)
    evaluate(config, run)


def train(config: LabelShare, run: Run) -> None:
    folder = run.folder(config.out)
    if (folder / "model" / "config.json").exists():
        return
    options = [*LEARNERS[run.learner][1], *config.train_options.split()]
    wam("train", "--data", config.data, "--tokenizer", config.tokenizer, "--out", folder, "--threads", 1,
        "--minutes", config.minutes, "--seed", run.seed, "--windows.labelled-share", run.share, *options)  # fmt: skip


def evaluate(config: LabelShare, run: Run) -> None:
    folder = run.folder(config.out)
    wam("eval", folder / "model", "--tasks", config.tasks, "--episodes", config.episodes, "--workers", 1,
        "--label", folder.name, "--out", folder / "eval")  # fmt: skip


def draw(config: LabelShare, runs: list[Run]) -> None:
    """curve.png and a table on the terminal: successes over all episodes of all seeds, with Wilson intervals."""
    figure, axis = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
    for learner, (colour, _) in LEARNERS.items():
        points = []
        for share in config.shares:
            chosen = [run for run in runs if (run.learner, run.share) == (learner, share)]
            episodes = [e for run in chosen for e in ResultFolder(run.folder(config.out) / "eval").episodes()]
            rate = wilson(sum(e.success for e in episodes), len(episodes))
            points.append((share, rate))
            print(f"{learner:13s} share {share:5.2f}: {100 * rate.value:5.1f} % "
                  f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}] of {len(episodes)}")  # fmt: skip
        x, y = [100 * share for share, _ in points], [100 * rate.value for _, rate in points]
        bars = [[100 * (r.value - r.low) for _, r in points], [100 * (r.high - r.value) for _, r in points]]
        axis.errorbar(x, y, yerr=bars, color=colour, marker="o", capsize=3, label=learner)
    axis.set_xscale("log")
    axis.set_xticks([100 * share for share in config.shares], [f"{100 * share:g}" for share in config.shares])
    axis.minorticks_off()
    axis.set(xlabel="episodes with actions (%)", ylabel="success (%)", ylim=(0, 100))
    axis.set_title(f"{config.tasks}, {config.minutes:g} min on one core, seeds {list(config.seeds)}", fontsize=9)
    axis.legend(frameon=False)
    figure.savefig(config.out / "curve.png", dpi=150)
    print(f"{config.out / 'curve.png'}")


def wam(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "wam.cli.main", *map(str, words)], check=True)


if __name__ == "__main__":
    main(tyro.cli(LabelShare, description=__doc__))
