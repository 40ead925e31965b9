"""wam bench released: our network and loop against the released algorithm, with the same weights, in turns.

Example:
    wam bench released --threads 2
    wam bench released --what training --rounds 5 --json
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from wam.bench.against_release import Compared, Contest, Setting, acting, compare, denoising, training
from wam.cli.progress import counted
from wam.evaluate.provenance import Provenance

What = Literal["training", "step", "chunk"]
CONTESTS = {"training": training, "step": denoising, "chunk": acting}


@dataclass(frozen=True)
class Released:
    """The released algorithm is re-created with all that it computes again; its numbers are ours.

    Width 512, 4 heads, 8 layers, 220 tokens per latent frame, 512 text and 257 image tokens, batch 1, random weights.
    training: forward and backward of a window of 9 latent frames, checkpointed. step: a guided denoising step over 7
    latent frames. chunk: four chunks of 16 such steps, with prompt, anchor and cache work.
    """

    what: tuple[What, ...] = ("training", "step", "chunk")
    types: tuple[Literal["bf16", "float32"], ...] = ("bf16", "float32")
    compile: tuple[Literal["off", "blocks"], ...] = ("off", "blocks")
    """How our side runs; the released network is not compiled."""
    rounds: int = 3
    threads: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    json: tyro.conf.OmitArgPrefixes[bool] = False
    """Print one line of JSON at the end."""


def main(config: Released) -> None:
    """Run both sides in turns, show the table."""
    torch.set_num_threads(config.threads)
    console = Console(stderr=True, markup=False)
    with counted("rounds", console) as watch:
        rows = compare(_contests(config), config.rounds, config.device, watch)
    console.print(_table(config, rows))
    origin = Provenance.here()
    console.print(f"{origin.machine}; commit {origin.commit}")
    if config.json:
        found = [{"name": row.name, "times_faster": row.times_faster, **_medians(row)} for row in rows]
        print(json.dumps({"machine": origin.machine, "commit": origin.commit, "rows": found}))


def _contests(config: Released) -> list[Contest]:
    settings = [Setting(bf16=kind == "bf16", device=config.device) for kind in config.types]
    return [
        CONTESTS[what](setting, compile=form == "blocks")
        for what in config.what
        for setting in settings
        for form in config.compile
    ]


def _medians(row: Compared) -> dict[str, float]:
    return {"released_ms": 1e3 * statistics.median(row.theirs), "ours_ms": 1e3 * statistics.median(row.ours)}


def _table(config: Released, rows: list[Compared]) -> Table:
    table = Table(title=f"medians of {config.rounds} rounds, {config.threads} threads, {config.device}")
    for name in ("what", "released, ms", "ours, ms", "times faster"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        table.add_row(row.name, *(f"{value:,.0f}" for value in _medians(row).values()), f"{row.times_faster:.2f}")
    return table
