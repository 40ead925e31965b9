"""wam plan: will this model fit my GPU, with which options, and how fast can it be at best?

Example:
    wam plan --preset dreamzero-droid --gpu h100
    wam plan --preset wan2.2-ti2v-5b --gpu-memory 24GB --train
    wam plan --preset nano-metaworld --gpu rtx-4090 --json
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wam.bench.hardware import GIB, Gpu, gpu, memory_bytes
from wam.bench.memory import Format
from wam.bench.planner import Plan, Stage, StageTime, plan, serve_options, total_flops, turned_on
from wam.bench.subject import subject
from wam.bench.training import TrainingPlan, plan_training
from wam.checkpoints.presets import PRESETS

TERA = 1e12


@dataclass(frozen=True)
class PlanOptions:
    """Will this model fit my GPU, with which options, and how fast can it be at best?

    Memory and arithmetic are counted; times are roofline bounds from data sheets, not measurements.

    Exit code 0: it fits with some option set (or no memory was given); 1: nothing fits; 2: bad input.

    Example: wam plan --preset dreamzero-droid --gpu-memory 24GB --gpu rtx-4090
    """

    preset: str
    """A published size (dreamzero-droid, wan2.2-ti2v-5b, ...), a folder written by wam train, or a shipped model."""
    gpu_memory: str | None = None
    """Memory of the GPU, such as 24GB; by default that of --gpu."""
    gpu: str | None = None
    """Name of a GPU (rtx-3090, rtx-4090, rtx-5090, a100-40gb, a100-80gb, l40s, h100, h200, b200, gb200), for times."""
    train: bool = False
    """Plan training instead of acting."""
    batch: int = 1
    """Windows per training step."""
    lora_rank: int = 4
    """Rank of the adapters in the LoRA rows of --train."""
    weights: Format | None = None
    """Use this weight format only, instead of trying smaller ones until it fits."""
    steps: int | None = None
    """Network calls per chunk and branch: by default 8 of the released 16 steps, 1 for a folder of `wam train`."""
    guidance: bool = True
    """Classifier-free guidance: two branches (presets only)."""
    canvas: str | None = None
    """Pixels of the canvas, HEIGHTxWIDTH: by default 352x640, 160x320 for models with the Wan 2.2 VAE."""
    reserve: str = "1GB"
    """Left free for the CUDA context, libraries and fragmentation."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: PlanOptions) -> None:
    """Plan, show, and end with the exit code of the verdict."""
    try:
        found, report = _planned(config)
    except (ValueError, OSError) as error:
        print(f"wam plan: {error}", file=sys.stderr)
        sys.exit(2)
    console = Console(stderr=True)
    for part in report:
        console.print(part, soft_wrap=isinstance(part, str))
    if config.json:
        print(json.dumps(found))
    if found["fits"] is False:
        sys.exit(1)


def _planned(config: PlanOptions) -> tuple[dict[str, Any], list[Table | str]]:
    """The plan as plain data, and as tables. Raises ValueError or FileNotFoundError naming the option at fault."""
    if config.steps is not None and config.steps < 1:
        raise ValueError(f"steps is {config.steps}; a chunk needs at least one call of the network")
    device = None if config.gpu is None else gpu(config.gpu)
    budget = None if config.gpu_memory is None else memory_bytes(config.gpu_memory)
    reserve = memory_bytes(config.reserve, "reserve")
    model = subject(config.preset, _canvas(config.canvas), config.steps, config.guidance)
    acting = plan(model, budget=budget, gpu=device, weights=config.weights, reserve=reserve)
    if not config.train:
        return _acting_data(acting, device), [_parts(acting), _work(acting), *_acting_verdict(acting, device)]
    training = plan_training(
        model, batch=config.batch, rank=config.lora_rank, budget=budget, gpu=device, reserve=reserve
    )
    return _training_data(acting, training, device), [_parts(acting), *_training_verdict(training, device)]


def _canvas(text: str | None) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)x(\d+)", text or "")
    if text is not None and match is None:
        raise ValueError(f"canvas is {text!r}; expected HEIGHTxWIDTH in pixels, such as 352x640")
    return None if match is None else (int(match[1]), int(match[2]))


# ---------------------------------------------------------------- what there is


def _parts(plan: Plan) -> Table:
    """Parameters and bytes by component; only the transformer has small formats."""
    s = plan.subject
    canvas = f"canvas {s.canvas[0]}x{s.canvas[1]}, {s.frame_tokens} tokens per latent frame, memory {s.config.memory}"
    table = Table("component", "parameters", *plan.weights, title=escape(f"{s.name}: {canvas}"), title_justify="left")
    for name, count in plan.parameters.items():
        sizes = plan.weights if name == "transformer" else {"float32": 4 * count, "bf16": 2 * count}
        table.add_row(name, f"{count:,}", *(_gib(sizes[f]) if f in sizes else "" for f in plan.weights))
    table.add_row("total", f"{sum(plan.parameters.values()):,}")
    return table


def _work(plan: Plan) -> Table:
    """Arithmetic of an episode's start and of every chunk."""
    bound = ["at best", "bound by"] if plan.times else []
    table = Table("stage", "passes", "TFLOP", "attention", *bound, title="Work", title_justify="left")
    for when, stages in (("once", plan.episode), ("chunk", plan.chunk)):
        for stage in stages:
            table.add_row(f"{when}: {stage.name}", *_stage(stage), *_at_best(plan.times.get(stage.name)))
        table.add_section()
    flops = total_flops(plan.chunk)
    share = f"{flops.attention / flops.total:.0%}"
    seconds = _seconds(plan.by_arithmetic["bf16"]) if plan.by_arithmetic else ""
    table.add_row("chunk", "", f"{flops.total / TERA:.4g}", share, *([seconds] if plan.times else []))
    return table


def _at_best(time: StageTime | None) -> list[str]:
    return [] if time is None else [_seconds(time.seconds), time.bound]


def _stage(stage: Stage) -> list[str]:
    flops = stage.flops * stage.passes
    return [str(stage.passes), f"{flops.total / TERA:.4g}", f"{flops.attention / flops.total:.0%}"]


# ---------------------------------------------------------------- what fits


def _acting_verdict(plan: Plan, device: Gpu | None) -> list[Table | str]:
    title = "Options, each with the encoders and the VAE as above it"
    table = Table("option", "GPU memory", "fits", "chunk at best", title=title, title_justify="left")
    for rung in plan.rungs:
        time = "" if rung.seconds is None else _seconds(rung.seconds)
        table.add_row(rung.option, _gib(rung.total), _mark(rung.fits), time)
    smallest = min(plan.rungs, key=lambda rung: rung.total)
    shown = plan.chosen or (plan.rungs[0] if plan.budget is None else smallest)
    lines: list[Table | str] = [table, _where(shown.option, shown.memory)]
    if plan.budget is not None:
        lines.append(f"[bold]{_gib(plan.budget)} of GPU memory: {_advice(plan)}[/bold]")
    if (command := _command(plan)) is not None:
        lines.append(command)
    if device is not None:
        lines.append(_bound(plan, device))
    return lines


def _advice(plan: Plan) -> str:
    if plan.chosen is None:
        cache = max(rung.memory["KV cache"] + rung.memory["prompt keys"] for rung in plan.rungs)
        hint = f"; --no-guidance saves {_gib(cache // 2)}" if plan.subject.branches == 2 else ""
        return f"nothing fits{hint}"
    options = turned_on(plan.chosen.placement, plan.base)
    return f"turn on {', '.join(options)}" if options else "everything fits as it is"


def _command(plan: Plan) -> str | None:
    """What serves the model like that, where published weights of it can act; None where nothing fits, too."""
    known = PRESETS.get(plan.subject.name)
    if plan.chosen is None or known is None or known.new_modules:
        return None
    source = plan.subject.name if known.repository else "FOLDER"
    return " ".join(["wam serve", source, "--device cuda", *serve_options(plan.chosen.placement, plan.base)])


def _bound(plan: Plan, device: Gpu) -> str:
    if not plan.by_arithmetic:
        return f"{device.name}: its link to host memory is not in the table, so no bound is given with parts offloaded."
    chunk = plan.subject.chunk_seconds
    pace = "" if chunk is None else f" (a chunk lasts {chunk:g} s on the robot)"
    by = ", ".join(f"{name} products {_seconds(seconds)}" for name, seconds in plan.by_arithmetic.items())
    return (
        f"A chunk on {device.name} takes at least: {by}{pace}. Roofline bound from the data sheet ({device.source}), "
        "not a measurement; smaller weights alone are still multiplied in bf16."
    )


def _training_verdict(plan: TrainingPlan, device: Gpu | None) -> list[Table | str]:
    title = f"Training step: {plan.batch} window(s) of {plan.tokens:,} tokens, one GPU, nothing sharded"
    table = Table("method", "trained", "GPU memory", "fits", "TFLOP", "step at best", title=title, title_justify="left")
    for rung in plan.rungs:
        time = "" if rung.seconds is None else _seconds(rung.seconds)
        tera = f"{rung.flops.total / TERA:.4g}"
        table.add_row(rung.method.name, f"{rung.trained:,}", _gib(rung.total), _mark(rung.fits), tera, time)
    shown = plan.chosen or plan.rungs[-1]
    lines: list[Table | str] = [table, _where(shown.method.name, shown.memory)]
    if plan.budget is not None:
        fits = "nothing fits" if plan.chosen is None else f"train with: {plan.chosen.method.name}"
        lines.append(f"[bold]{_gib(plan.budget)} of GPU memory: {fits}[/bold]")
    if device is not None:
        lines.append(f"Times are roofline bounds at {device.name}'s bf16 peak ({device.source}), not measurements.")
    return lines


def _where(option: str, memory: Mapping[str, int]) -> str:
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in memory.items() if size)
    return f"{option}: {parts}"


# ---------------------------------------------------------------- plain data


def _acting_data(plan: Plan, device: Gpu | None) -> dict[str, Any]:
    stages = [*(("episode", stage) for stage in plan.episode), *(("chunk", stage) for stage in plan.chunk)]
    return {
        **_common(plan, device),
        "mode": "act",
        "fits": None if plan.budget is None else plan.chosen is not None,
        "option": None if plan.chosen is None else plan.chosen.option,
        "turn_on": None if plan.chosen is None else turned_on(plan.chosen.placement, plan.base),
        "command": _command(plan),
        "work": [
            {"when": when, "stage": s.name, "passes": s.passes, "flops": s.flops.total, "attention": s.flops.attention}
            for when, s in stages
        ],
        "chunk_flops": total_flops(plan.chunk).total,
        "chunk_seconds_bound": dict(plan.by_arithmetic),
        "stages_bound": [_time(plan.times[stage.name]) for stage in plan.chunk if stage.name in plan.times],
        "options": [
            {"option": r.option, "bytes": r.total, "memory": dict(r.memory), "fits": r.fits, "seconds": r.seconds}
            for r in plan.rungs
        ],
    }


def _training_data(acting: Plan, plan: TrainingPlan, device: Gpu | None) -> dict[str, Any]:
    return {
        **_common(acting, device),
        "mode": "train",
        "fits": None if plan.budget is None else plan.chosen is not None,
        "option": None if plan.chosen is None else plan.chosen.method.name,
        "batch": plan.batch,
        "tokens": plan.tokens,
        "options": [
            {
                "option": r.method.name,
                "trained": r.trained,
                "bytes": r.total,
                "memory": dict(r.memory),
                "flops": r.flops.total,
                "fits": r.fits,
                "seconds": r.seconds,
            }
            for r in plan.rungs
        ],
    }


def _common(plan: Plan, device: Gpu | None) -> dict[str, Any]:
    return {
        "model": plan.subject.name,
        "canvas": list(plan.subject.canvas),
        "parameters": dict(plan.parameters),
        "weights": dict(plan.weights),
        "gpu": None if device is None else device.name,
        "gpu_memory": plan.budget,
    }


def _time(time: StageTime) -> dict[str, Any]:
    return {"stage": time.name, "seconds": time.seconds, "bound": time.bound}


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB / 4 else f"{size / 2**20:.1f} MiB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def _mark(fits: bool | None) -> str:
    return "" if fits is None else "[green]yes[/green]" if fits else "[red]no[/red]"
