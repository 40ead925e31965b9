"""wam train: learn to imagine and to act from a LeRobot data set.

Example:
    wam train --data data/nano --tokenizer runs/tokenizer --out runs/nano --minutes 60
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wam.train.build import build
from wam.train.config import TrainConfig
from wam.train.plot import plot_losses
from wam.train.trainer import LOG, MODEL, Report

STOPPED = 143  # what a shell reports for a process that SIGTERM ended


def main(config: TrainConfig) -> None:
    """Train; a run that was stopped continues, one that is finished says so.

    SIGTERM ends the run after the present step, with a checkpoint to go on from and exit code 143.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    console = Console(stderr=True)
    finished = config.out / MODEL / "config.json"
    if finished.is_file():
        console.print(f"{config.out}: already finished; give another --out, or delete {config.out / MODEL} to train on")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        encoding = progress.add_task("encoding latents", total=None)
        trainer = build(config, progress=lambda done, total: progress.update(encoding, completed=done, total=total))
        progress.remove_task(encoding)
        if config.compile:
            for block in trainer.bare.transformer.blocks:
                block.compile()
        training = progress.add_task("training", total=1.0)

        def watch(report: Report) -> None:
            text = f"step {report.step}  action {report.action:.4f}  video {report.video:.4f}"
            progress.update(training, completed=report.spent, description=text)

        def stop(*_: object) -> None:
            trainer.stopping = True

        with _on_termination(stop):
            done = trainer.run(watch)
    if not done:
        console.print(f"{config.out}: stopped at step {trainer.step}; give the same command again to go on")
        sys.exit(STOPPED)
    plot_losses(config.out / LOG, config.out / "loss.png")
    summary = {"model": str(config.out / MODEL), "steps": trainer.step, "seconds": round(trainer.seconds, 1)}
    console.print(
        f"{config.out / MODEL}: {trainer.step} steps in {trainer.seconds / 60:.1f} min; see {config.out / 'loss.png'}"
    )
    if config.json:
        print(json.dumps(summary))


@contextmanager
def _on_termination(stop: Callable[..., None]) -> Iterator[None]:
    """Call `stop` on SIGTERM instead of dying at once."""
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
