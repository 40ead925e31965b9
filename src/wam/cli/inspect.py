"""wam inspect: what is this checkpoint? Its parts, sizes, robots and licence, and whatever is missing or does not fit.

Example:
    wam inspect Wan2.1-I2V-14B-480P/
    wam inspect checkpoint-5000/ --json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from wam.checkpoints.files import SHARD
from wam.checkpoints.inspection import KINDS, Fit, Inspection, inspect


@dataclass(frozen=True)
class Inspect:
    """What is this checkpoint? Only headers and small files are read, and nothing in them is executed.

    Exit code 0: everything is there and fits; 1: something is missing, unexpected or of the wrong shape, or the files
    cannot be read.

    Example: wam inspect Wan2.1-I2V-14B-480P/
    """

    source: tyro.conf.Positional[str]
    """A folder, a file, a preset, a repository of the hub (owner/name), or a shipped model."""
    all: bool = False
    """Name every tensor that does not fit instead of the first few."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Inspect) -> None:
    """Look, show, and end with 1 if something does not fit."""
    console = Console(stderr=True)
    found = inspect(config.source)
    for line in _shown(found, sys.maxsize if config.all else 3):
        console.print(line, highlight=False)
    if config.json:
        print(json.dumps(found.to_dict()))
    if not found.ok:
        sys.exit(1)


def _shown(found: Inspection, most: int) -> Iterator[str | Table]:
    yield f"[bold]{escape(found.source.name)}[/bold]: {KINDS[found.source.found.kind]}"
    if found.preset is not None:
        yield f"looks like: {found.preset}"
    yield escape(f"licence: {found.licence}")
    if found.embodiments:
        told = [
            tag if known else f"{tag} (views and order of numbers unknown)" for tag, known in found.embodiments.items()
        ]
        yield escape(f"robots: {', '.join(told)}")
    if found.adapter is not None:
        scale = "unknown, its files do not say" if found.adapter.scale is None else f"{found.adapter.scale:g}"
        lora = found.adapter
        yield escape(f"LoRA: {lora.matrices} layers, rank {lora.rank}, scale {scale}; base: {lora.base}")
    yield _parts(found)
    for fit in found.fits:
        yield from _fit(fit, most)


def _parts(found: Inspection) -> Table:
    """One row per component; which network it is stands in the line about its fit."""
    right = [Column(name, justify="right", no_wrap=True) for name in ("tensors", "parameters", "size")]
    table = Table("component", *right, "stored as", Column("files", overflow="fold"), box=SIMPLE_HEAD, pad_edge=False)
    for part in found.parts:
        kinds = part.dtypes.items()
        dtypes = next(iter(part.dtypes)) if len(kinds) == 1 else ", ".join(f"{count} {dtype}" for dtype, count in kinds)
        count = len(part.files)
        files = part.files[0] if not SHARD.match(part.files[0]) else f"{count} shard{'s' if count > 1 else ''}"
        table.add_row(part.part, f"{part.tensors:,}", f"{part.parameters:,}", size(part.bytes), dtypes, escape(files))
    if len(found.parts) > 1:
        tensors, parameters = (sum(getattr(p, name) for p in found.parts) for name in ("tensors", "parameters"))
        table.add_row("all", f"{tensors:,}", f"{parameters:,}", size(sum(p.bytes for p in found.parts)), "", "")
    return table


def _fit(fit: Fit, most: int) -> Iterator[str]:
    if fit.report is None:
        yield f"[red]{fit.part}: cannot be compared[/red]: {escape(fit.fault)}"
        return
    report = fit.report
    verdict = "[green]fits[/green]" if fit.ok else "[red]does not fit[/red]"
    yield f"{fit.part}: {verdict} {escape(fit.against)}, {report.loaded:,} weights"
    wrong = [f"{w.name} is {list(w.found)}, expected {list(w.expected)}" for w in report.wrong_shape]
    for kind, names in (("missing", report.missing), ("unexpected", report.unexpected), ("wrong shape", wrong)):
        if names:
            more = "" if len(names) <= most else f", and {len(names) - most:,} more (--all names them)"
            yield f"  [red]{kind}[/red] ({len(names):,}): {escape(', '.join(names[:most]))}{more}"
    for kind, reasons in (("not in the files", report.new), ("not used", report.unused)):
        for reason in dict.fromkeys(reasons.values()):
            yield escape(f"  {kind}: {sum(r == reason for r in reasons.values()):,} weights; {reason}")


def size(count: int) -> str:
    """Bytes for people: decimal units, as disks are sold."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}"
    return f"{count} B"
