"""wam train: learn to imagine and to act from LeRobot data sets.

Examples:
    wam train --data data/nano --tokenizer runs/tokenizer --out runs/nano --minutes 60
    wam train --resume runs/nano                    # go on after a kill or a stop, configured as it was
    wam train --resume runs/nano --minutes 120      # and for longer
    torchrun --nproc-per-node 8 -m wam.cli.main train --parallel fsdp2 --data ...    # several processes

Ctrl-C or SIGTERM ends a run after the present step, with a checkpoint to go on from and exit code 130 or 143.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wam.data.files import read_json
from wam.train import checkpoint
from wam.train.build import build
from wam.train.config import TrainConfig
from wam.train.parallel import Processes
from wam.train.plot import plot_losses
from wam.train.provenance import read_config
from wam.train.stages import read_stages
from wam.train.trackers import LOG
from wam.train.trainer import CHECKPOINTS, MODEL, ORIGIN, Report, Trainer

PICTURE = "loss.png"


def parse(arguments: list[str]) -> TrainConfig:
    """Options from the command line; with --resume, what is not given is as it was in that run."""
    run = _resumed(arguments)
    if run is None:
        return tyro.cli(TrainConfig, args=arguments, prog="wam train", description=__doc__)
    path, progress = checkpoint.last_progress(run / CHECKPOINTS)
    before = read_config(progress["config"], path)
    return tyro.cli(
        TrainConfig, args=arguments, prog="wam train", description=__doc__, default=replace(before, out=run, resume=run)
    )


def main(config: TrainConfig) -> None:
    """Train, stage by stage if there are several; a run that was stopped continues, one that is finished says so."""
    processes = Processes(config.precision)
    console = Console(stderr=True, markup=False, quiet=not processes.main)
    if config.stages is None:
        run(Run(config, again=f"wam train --resume {config.out}"), processes, console)
        return
    for stage in read_stages(config):
        run(Run(stage.config), processes, console)


@dataclass(frozen=True)
class Run:
    """What to train, and how to say so.

    build: makes the trainer of it.  last: the file of a model folder that is written last.  preparing: what takes time
    before the first step.  again: how to go on with it when it is stopped.
    """

    config: TrainConfig
    build: Callable[..., Trainer] = build
    last: str = "config.json"
    preparing: str = "encoding latents"
    again: str = "the same command"


def run(what: Run, processes: Processes, console: Console) -> None:
    """One run to its end; one that is stopped ends the process."""
    config = what.config
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if (config.out / MODEL / what.last).is_file():
        say = f"{config.out}: already finished; give another --out, or delete {config.out / MODEL} to train on"
        console.print(say, soft_wrap=True)
        if config.json and processes.main:
            origin = read_json(config.out / MODEL / ORIGIN)
            _print_json(config, origin["steps"], 60 * origin["minutes"])
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        preparing = progress.add_task(what.preparing, total=None)
        trainer = what.build(
            config,
            progress=lambda done, total: progress.update(preparing, completed=done, total=total),
            processes=processes,
        )
        progress.remove_task(preparing)
        training = progress.add_task("training", total=1.0)

        def watch(report: Report) -> None:
            text = f"step {report.step}  action {report.action:.4f}  video {report.video:.4f}"
            progress.update(training, completed=report.spent, description=text)

        received: list[int] = []

        def stop(number: int) -> None:
            received.append(number)
            trainer.stopping = True

        with on_termination(stop):
            done = trainer.run(watch, on_validation=lambda: plot_losses(config.out / LOG, config.out / PICTURE))
    if not done:
        console.print(f"{config.out}: stopped at step {trainer.step}; go on with: {what.again}", soft_wrap=True)
        sys.exit(128 + (received[0] if received else signal.SIGTERM))  # as a shell reports it; others were told first
    if processes.main:
        _conclude(config, trainer.step, trainer.seconds, console)


def _conclude(config: TrainConfig, steps: int, seconds: float, console: Console) -> None:
    """Say what came of it."""
    picture = config.out / PICTURE
    plot_losses(config.out / LOG, picture)
    console.print(f"{config.out / MODEL}: {steps} steps in {seconds / 60:.1f} min; see {picture}", soft_wrap=True)
    if config.json:
        _print_json(config, steps, seconds)


def _print_json(config: TrainConfig, steps: int, seconds: float) -> None:
    print(json.dumps({"model": str(config.out / MODEL), "steps": steps, "seconds": round(seconds, 1)}))


def _resumed(arguments: list[str]) -> Path | None:
    """The run after --resume, which decides how the other options are read."""
    for place, word in enumerate(arguments):
        name, equals, value = word.partition("=")
        if name == "--resume":
            given = value if equals else next(iter(arguments[place + 1 :]), "")
            return Path(given) if given and not given.startswith("--") else None
    return None


@contextmanager
def on_termination(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and on the first Ctrl-C instead of dying at once; a second Ctrl-C interrupts."""

    def handle(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
