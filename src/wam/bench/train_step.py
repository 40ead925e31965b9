"""How fast a training step is, and which share of the machine's matrix products it reaches.

Two subjects: a whole optimiser step of a model as `wam train` takes it, and forward and backward of one block as wide
as a published model's. Every round measures the rate of a large product too, in the same type, with the same threads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from wam.bench.flops import Tokens, training_flops
from wam.bench.limit import matmul_rate
from wam.bench.random_inputs import random_windows
from wam.bench.rungs import synchronise
from wam.engine.compiled import compile_blocks
from wam.model.attention import Kind, Layout
from wam.model.config import TransformerConfig
from wam.model.passes import window_layout
from wam.model.precision import arithmetic, native_dtype
from wam.model.transformer import Transformer
from wam.world_action_model import WorldActionModel

PEAK_SIZE = 2048  # rows and columns of the product whose rate is called the peak
WIDE = TransformerConfig(dim=5120, heads=40, layers=1, ffn_dim=13824, in_channels=36, action_dim=32, state_dim=64)
"""One block of the published 14B model (codec and patches small, they are not timed)."""


@dataclass(frozen=True)
class Subject:
    """What is timed. run: one step.  samples, tokens, flops: of a step."""

    name: str
    run: Callable[[], None]
    samples: int
    tokens: int
    flops: int


@dataclass(frozen=True)
class StepSpeed:
    """seconds, rates: of every round; rates are FLOP/s of the large product."""

    name: str
    samples: int
    tokens: int
    flops: int
    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def share_of_peak(self) -> float:
        """Median over rounds of what the step's arithmetic would take at the peak over what it took."""
        return statistics.median(self.flops / rate / took for rate, took in zip(self.rates, self.seconds, strict=True))

    def to_dict(self) -> dict[str, float | str]:
        return {
            "name": self.name,
            "ms_median": 1e3 * self.median,
            "samples_per_second": self.samples / self.median,
            "tokens_per_second": self.tokens / self.median,
            "gflop": self.flops / 1e9,
            "peak_gflops": statistics.median(self.rates) / 1e9,
            "share_of_peak": self.share_of_peak,
        }


def measure(
    subjects: Sequence[Subject],
    rounds: int,
    device: str,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> list[StepSpeed]:
    """All subjects in turns; the first step of each warms up, and compiles."""
    speeds = [StepSpeed(s.name, s.samples, s.tokens, s.flops) for s in subjects]
    for turn in range(rounds + 1):
        rate = matmul_rate(device, native_dtype(device), size=PEAK_SIZE, repeats=5)
        for place, (subject, speed) in enumerate(zip(subjects, speeds, strict=True)):
            took = timed(subject.run, device)
            if turn:
                speed.seconds.append(took)
                speed.rates.append(rate)
            on_round(turn * len(subjects) + place + 1, (rounds + 1) * len(subjects))
    return speeds


def timed(run: Callable[[], object], device: str) -> float:
    synchronise(device)
    began = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - began


# ---------------------------------------------------------------- subjects


def optimiser_step(
    name: str, model: WorldActionModel, batch: int, chunks: int, device: str, *, compile: bool = False
) -> Subject:
    """Forward, backward, clipping and AdamW on random windows, mixed precision as in `wam train`."""
    model = model.to(device).train()
    if compile:
        compile_blocks(model.transformer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    windows = random_windows(model.config, batch, chunks, device)
    text = torch.randn(batch, model.config.text_len, model.config.transformer.text_dim, device=device)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        optimizer.zero_grad()
        with arithmetic(native_dtype(device), device):
            total = model.loss(windows, text, generator).total
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    c = model.config.transformer
    layout = window_layout(c, model.config.grid, chunks, model.config.dream)
    flops = training_flops(c, window_tokens(c, layout, model.config.text_len, batch)).total
    return Subject(name, run, batch, batch * len(layout), flops)


def wide_block(tokens: int, device: str, config: TransformerConfig = WIDE, *, compile: bool = False) -> Subject:
    """Forward and backward of one block, over this many tokens that all see each other, and a prompt of 512."""
    text, c, dtype = 512, config, native_dtype(device)
    with torch.device("meta"):
        block: torch.nn.Module = Transformer(config).blocks[0]
    block = block.to(dtype).to_empty(device=device)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    if compile:
        block.compile(dynamic=False)
    x = torch.randn(1, tokens, c.dim, device=device, dtype=dtype, requires_grad=True)
    levels = torch.randn(1, 2, 6, c.dim, device=device, dtype=dtype)
    slot = torch.arange(tokens, device=device) % 2
    angle = torch.rand(1, 1, tokens, c.head_dim // 2, device=device)
    prompt = torch.randn(2, 1, c.heads, text, c.head_dim, device=device, dtype=dtype, requires_grad=True)

    def run() -> None:
        block.zero_grad()
        block(x, levels, slot, (angle.cos(), angle.sin()), None, (prompt[0], prompt[1]), None, None).sum().backward()

    linear = 2 * tokens * (6 * c.dim**2 + 2 * c.dim * c.ffn_dim)
    attention = 4 * tokens * (tokens + text) * c.dim
    flops = 3 * (linear + attention)
    return Subject(f"block of width {c.dim}{', compiled' if compile else ''}", run, 1, tokens, flops)


def window_tokens(c: TransformerConfig, layout: Layout, text: int, batch: int) -> Tokens:
    """A short training window, in which hidden pairs are computed as well."""
    clean, noisy, actions, states = (layout.count(kind) for kind in (Kind.CLEAN, Kind.NOISY, Kind.ACTION, Kind.STATE))
    levels = 1 + int(layout.sigma_slot.max())
    return Tokens(clean, noisy, actions, states, levels, len(layout), text, batch=batch)
