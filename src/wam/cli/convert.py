"""wam convert: the same weights in another layout, or in another type. One tensor at a time, so any model fits.

Example:
    wam convert DreamZero-DROID/ droid-bf16/ --dtype bf16
    wam convert droid/ droid-diffusers/ --to diffusers
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from wam.checkpoints.convert import convert
from wam.checkpoints.recognise import PARTS, Part
from wam.checkpoints.source import resolve
from wam.checkpoints.targets import Target
from wam.cli.inspect import size

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Convert:
    """The same weights in another layout, or in another type, with statistics of robots, tokenizer and licence.

    Nothing is written unless every weight fits and the disk has room. After an interruption the same command goes on.

    Example: wam convert DreamZero-DROID/ droid-bf16/ --dtype bf16
    """

    source: tyro.conf.Positional[str]
    """A folder, a preset, or a repository of the hub (owner/name)."""
    out: tyro.conf.Positional[Path]
    """The folder to write; it must not exist yet."""
    to: Target = "wam"
    """Whose names and files; diffusers has no place for action modules."""
    dtype: Literal["keep", "f32", "f16", "bf16"] = "keep"
    """Type of transformer, text and image encoder; the video VAE keeps its own."""
    components: tuple[Part, ...] = PARTS
    """Which components to write; the transformer always is."""
    shard_gb: float = 5.0
    """Largest file, in GB."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Convert) -> None:
    """Find, convert, sum up, say whose terms hold."""
    console = Console(stderr=True, markup=False)
    source = resolve(config.source, components={*config.components, "transformer"})
    columns = (TextColumn("converting"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        written = convert(
            source,
            config.out,
            to=config.to,
            dtype=DTYPES.get(config.dtype),
            components=config.components,
            shard_bytes=int(config.shard_gb * 1e9),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    console.print(f"{config.out}: {written.tensors:,} tensors, {size(written.bytes)}", highlight=False)
    console.print(f"licence of {source.name}: {written.licence}", highlight=False)
    if written.dropped:
        what = f"{len(written.dropped)} weights of action and state modules have no place in {config.to}"
        console.print(f"left out: {what}; keep the original for control", style="yellow", highlight=False)
    if config.json:
        print(json.dumps({**asdict(written), "folder": str(config.out)}))
