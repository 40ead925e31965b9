"""How success grows while a model trains: validation episodes with the models that were saved on the way, and the last.

Usage: .venv/bin/python -m recipes.curve --training runs/nano --out runs/nano-curve --tasks mt10 --episodes 5
The training needs `--models-every`. What is evaluated is not evaluated again; after --minutes it stops with code 75,
and goes on when the same command is given again. Results: a folder for each model
with its `minutes.json`, and minutes.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import tyro
from recipes.runs import AGAIN, Commands, OutOfTime

from wam.data.files import write_json

MINUTES = "minutes.json"
FIGURE = "minutes.png"


@dataclass(frozen=True)
class Curve:
    """Success against minutes of training."""

    training: Path
    """Folder that `wam train` wrote."""
    out: Path
    tasks: str = "mt10"
    episodes: int = 5
    """Validation episodes per task."""
    options: str = "--steps 1"
    """More options of `wam eval`."""
    workers: int = 2
    minutes: float | None = None
    """Stop after so long."""


def main(config: Curve) -> int:
    """Evaluate what is missing, then draw what there is; 75 when time ran out."""
    code = 0
    try:
        evaluate(Commands(config.minutes), config)
    except OutOfTime:
        code = AGAIN
    draw(config.out / FIGURE, {config.training.name: [points(config.out)]})
    for minutes, success in points(config.out):
        print(f"{minutes:6.1f} min  {success:5.1f} %")
    return code


def evaluate(commands: Commands, config: Curve) -> None:
    """Validation episodes of all models of a training that do not have theirs yet. Raises OutOfTime."""
    saved = sorted((config.training / "models").glob("step-*"))
    for model in (*saved, config.training / "model"):
        origin = json.loads((model / "training.json").read_text())
        place = config.out / f"step-{origin['steps']:08d}"
        if not (place / MINUTES).exists():
            commands.wam("eval", model, "--tasks", config.tasks, "--split", "val", "--episodes", config.episodes,
                         "--workers", config.workers, "--out", place, *config.options.split())  # fmt: skip
            write_json(place / MINUTES, {name: origin[name] for name in ("steps", "minutes")})


def points(folder: Path) -> list[tuple[float, float]]:
    """(minutes, success in %) of the models that are evaluated, in their order."""
    found = []
    for file in sorted(folder.glob(f"*/{MINUTES}")):
        summary = json.loads((file.parent / "summary.json").read_text())
        found.append((json.loads(file.read_text())["minutes"], 100 * summary["over_tasks"]["value"]))
    return found


def draw(path: Path, curves: Mapping[str, list[list[tuple[float, float]]]]) -> None:
    """A colour for each name, a line for each of its trainings; nothing without a point."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for number, (name, lines) in enumerate(curves.items()):
        colour = plt.get_cmap("tab20")(number % 20)
        for place, line in enumerate(line for line in lines if line):
            axis.plot(*zip(*line, strict=True), marker="o", color=colour, label=None if place else name)
    if axis.lines:
        axis.set(
            xlabel="minutes of training", ylabel="success on validation episodes (%)", xlim=(0, None), ylim=(0, 100)
        )
        axis.legend(frameon=False, fontsize=7)
        figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Curve, description=__doc__)))
