"""wam bench latency: how long every stage of a chunk takes over one long episode, and whether memory stays flat.

Example:
    wam bench latency --chunks 10000
    wam bench latency runs/kitchen --steps 4 --weights bf16 --json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table

from wam.bench.latency import STAGES, measure, synthetic
from wam.bench.latency import Latency as Measured
from wam.bench.limit import Limit, denoising_tokens, limit
from wam.cli.progress import counted
from wam.engine.compiled import Compile
from wam.engine.engine import Engine
from wam.engine.load import load_policy
from wam.engine.quantize import Weights
from wam.evaluate.provenance import Provenance


@dataclass(frozen=True)
class Latency:
    """Milliseconds of every stage (median, 95th and 99th percentile), memory, and the distance to the arithmetic limit.

    Pictures are synthetic JPEGs of the robot's size, so that no simulator or data set is needed.
    """

    model: tyro.conf.Positional[str] = "nano-metaworld"
    """Folder written by `wam train`, or the name of a shipped model."""
    chunks: int = 10_000
    """Chunks of the episode, at least 20."""
    steps: int = 1
    """Denoising steps per chunk."""
    solver: Literal["euler", "unipc"] = "euler"
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 = off."""
    weights: Weights = "float32"
    """Format of the weights."""
    compile: Compile = "off"
    """Compile the transformer; the first chunks, which compile, are not counted."""
    joint_pass: bool = True
    """Remember in the pass of the first denoising step; --no-joint-pass gives remembering a row of its own."""
    device: str = "cpu"
    """Where the network runs, such as cuda."""
    threads: int = 1
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Latency) -> None:
    """Run the episode, show the table."""
    torch.set_num_threads(config.threads)
    console = Console(stderr=True, markup=False)
    engine = load_policy(
        config.model,
        steps=config.steps,
        solver=config.solver,
        guidance=config.guidance,
        weights=config.weights,
        compile=config.compile,
        joint_pass=config.joint_pass,
        device=config.device,
    ).engine
    with counted("chunks", console) as watch:
        found = measure(engine, synthetic(engine.embodiment), config.chunks, lambda done: watch(done, config.chunks))
        bound = _limit(engine, config)
    console.print(_table(config, found))
    console.print(_memory(found))
    if found.step is not None:
        console.print(_distance(found.step, bound))
    origin = Provenance.here()
    console.print(f"{origin.machine}; commit {origin.commit}")
    if config.json:
        extra = {} if found.step is None else {"limit_ms": 1e3 * bound.seconds, "distance": bound.distance(found.step)}
        print(json.dumps({"machine": origin.machine, "commit": origin.commit, **asdict(found), **extra}))


def _limit(engine: Engine, config: Latency) -> Limit:
    model = engine.model.config
    joint = engine.config.joint_pass and config.steps == 1  # of several steps, the median one remembers nothing
    rows, columns = model.grid
    tokens = denoising_tokens(model.transformer, rows * columns, model.text_len, dream=model.dream, joint=joint)
    weight = engine.model.transformer.patch_embedding.weight
    found = limit(model.transformer, tokens, str(weight.device), weight.dtype)
    return Limit(found.flops * (1 if config.guidance == 1.0 else 2), found.rate)


def _table(config: Latency, found: Measured) -> Table:
    table = Table(title=f"{config.model}, {config.steps} steps, {found.chunks} chunks: milliseconds")
    for name in ("stage", "p50", "p95", "p99", ""):
        table.add_column(name, justify="left" if name in ("stage", "") else "right")
    for name, times in found.stages.items():
        values = (f"{value:.2f}" for value in (times.p50, times.p95, times.p99))
        table.add_row(name, *values, STAGES.get(name, "one pass of the network that denoises"))
    return table


def _memory(found: Measured) -> str:
    start, end = found.memory.start / 2**20, found.memory.end / 2**20
    return f"memory: {start:.1f} MiB after a tenth, {end:.1f} MiB at the end, {found.memory.slope:+.1f} bytes per chunk"


def _distance(step: float, bound: Limit) -> str:
    return (
        f"distance to the limit: {bound.distance(step):.1f} (a pass takes {1e3 * step:.2f} ms; {bound.flops / 1e6:.0f} "
        f"MFLOP at the {bound.rate / 1e9:.0f} GFLOP/s of a large product would take {1e3 * bound.seconds:.2f} ms)"
    )
