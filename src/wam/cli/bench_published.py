"""wam bench published: what a chunk of a published model costs on this GPU, from the released algorithm to one step.

Example:
    wam bench published --preset dreamzero-droid --device cuda
    wam bench published --preset wan2.1-t2v-1.3b --rounds 5 --json
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from wam.bench.published import DROID_GRID, RUNGS, Timed, measure, setting_of
from wam.cli.progress import counted
from wam.evaluate.provenance import Provenance


@dataclass(frozen=True)
class Published:
    """Random weights of the preset's size; the 14B in bf16 needs 50 GB of GPU memory, its fp8 rung 70 GB."""

    preset: str = "dreamzero-droid"
    grid: tuple[int, int] = DROID_GRID
    """Rows and columns of video tokens in a latent frame."""
    rounds: int = 3
    device: Literal["cpu", "cuda"] = "cuda"
    json: tyro.conf.OmitArgPrefixes[bool] = False
    """Print one line of JSON at the end."""


def main(config: Published) -> None:
    """Measure, show the table."""
    console = Console(stderr=True, markup=False)
    with counted("chunks", console) as watch:
        rows = measure(setting_of(config.preset, config.device, config.grid), RUNGS, config.rounds, watch)
    console.print(_table(config, rows))
    origin, gpu = Provenance.here(), torch.cuda.get_device_name() if config.device == "cuda" else None
    console.print(f"{gpu or 'CPU'}; {origin.machine}; commit {origin.commit}")
    if config.json:
        found = [{"name": row.name, "seconds": row.seconds, "failure": row.failure} for row in rows]
        print(json.dumps({"machine": origin.machine, "gpu": gpu, "commit": origin.commit, "rows": found}))


def _table(config: Published, rows: list[Timed]) -> Table:
    table = Table(title=f"{config.preset}: a chunk, transformer alone, medians of {config.rounds}")
    for name in ("rung", "ms", "against released", ""):
        table.add_column(name, justify="left" if name in ("rung", "") else "right")
    for row in rows:
        if row.failure is not None:
            table.add_row(row.name, "", "", row.failure)
            continue
        ratio = "" if rows[0].failure is not None else f"{rows[0].median / row.median:.1f} x"
        table.add_row(row.name, f"{1e3 * row.median:,.0f}", ratio, "")
    return table
