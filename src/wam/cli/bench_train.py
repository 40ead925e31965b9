"""wam bench train: how fast a training step is, and which share of this machine's matrix products it reaches.

Example:
    wam bench train
    wam bench train runs/kitchen --batch 16 --threads 2 --json
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from wam.bench.train_step import StepSpeed, measure, optimiser_step, wide_block
from wam.checkpoints.model_folder import load_model
from wam.cli.progress import counted
from wam.engine.load import resolve
from wam.evaluate.provenance import Provenance


@dataclass(frozen=True)
class Train:
    """Time optimiser steps on random windows, eager and compiled, and one block as wide as the published 14B's.

    Everything is in bf16 where the hardware multiplies it, else in float32; the peak is a product of 2048 x 2048
    matrices in that type, measured in every round.
    """

    model: tyro.conf.Positional[str] = "nano-metaworld"
    """Folder written by `wam train`, or the name of a shipped model."""
    batch: int = 32
    """Windows of a step."""
    chunks: int = 3
    """Chunks of a window."""
    wide_tokens: int = 1024
    """Tokens that go through the wide block; 0 leaves it out (it needs 3 GB)."""
    rounds: int = 5
    compile: bool = True
    """Time compiled steps too."""
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Train) -> None:
    """Measure, show the table."""
    torch.set_num_threads(config.threads)
    console, model = Console(stderr=True, markup=False), load_model(resolve(config.model))
    forms = (False, True) if config.compile else (False,)
    subjects = [
        optimiser_step(
            f"{config.model}, {config.batch} windows{', compiled' if compile else ''}",
            copy.deepcopy(model),
            config.batch,
            config.chunks,
            config.device,
            compile=compile,
        )
        for compile in forms
    ]
    if config.wide_tokens:
        subjects += [wide_block(config.wide_tokens, config.device, compile=compile) for compile in forms]
    with counted("steps", console) as watch:
        speeds = measure(subjects, config.rounds, config.device, watch)
    console.print(_table(config, speeds))
    origin = Provenance.here()
    console.print(f"{origin.machine}; commit {origin.commit}")
    if config.json:
        rows = [speed.to_dict() for speed in speeds]
        print(json.dumps({"machine": origin.machine, "commit": origin.commit, "rows": rows}))


def _table(config: Train, speeds: list[StepSpeed]) -> Table:
    table = Table(title=f"training steps, medians of {config.rounds}, {config.threads} threads, {config.device}")
    names = ("step", "ms", "samples/s", "tokens/s", "GFLOP", "peak GFLOP/s", "share of peak")
    for name in names:
        table.add_column(name, justify="left" if name == "step" else "right")
    for speed in speeds:
        row = speed.to_dict()
        keys = ("ms_median", "samples_per_second", "tokens_per_second", "gflop", "peak_gflops")
        table.add_row(speed.name, *(f"{row[key]:,.1f}" for key in keys), f"{speed.share_of_peak:.0%}")
    return table
