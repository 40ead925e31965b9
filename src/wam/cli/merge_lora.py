"""wam merge-lora: write a checkpoint with an adapter merged into its weights, tensor by tensor.

Example:
    wam merge-lora runs/base runs/kitchen/adapter runs/kitchen/merged
    wam merge-lora wan2.1-i2v-14b dreamzero-lora merged --alpha 4
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from wam.checkpoints.merge_files import merge_files
from wam.checkpoints.source import resolve


@dataclass(frozen=True)
class MergeLora:
    """Write a checkpoint with an adapter merged into its weights, tensor by tensor.

    Exit code 0: merged; 1: refused (another base, unreadable files, no space, OUT is taken), with the reason.

    Example: wam merge-lora runs/base runs/kitchen/adapter runs/kitchen/merged
    """

    base: tyro.conf.Positional[str]
    """The weights that the adapter was trained on: a folder, a file, a preset, or an id on the Hugging Face hub."""
    adapter: tyro.conf.Positional[Path]
    """Folder of the adapter: ours, one of peft's, or a released DreamZero one."""
    out: tyro.conf.Positional[Path]
    """New folder for the result."""
    alpha: float | None = None
    """Scale of the adapter times its rank, for adapters that do not say (DreamZero's without a config.json)."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: MergeLora) -> None:
    """Merge, show the progress, and say what became of the tensors."""
    console = Console(stderr=True, markup=False)
    columns = ("merging", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        report = merge_files(
            resolve(config.base).found.path,
            config.adapter,
            config.out,
            alpha=config.alpha,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(
        f"{config.out}: {report.merged} layers merged, {report.replaced} tensors replaced, {report.added} added, "
        f"{report.copied} copied; identity {report.result[:16]}"
    )
    if config.json:
        print(json.dumps({"out": str(config.out), **asdict(report)}))
