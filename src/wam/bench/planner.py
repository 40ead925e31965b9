"""Will it fit, with which options, and how fast can it be at best? `plan` for acting, `plan_training` for training.

Times are roofline bounds: what the GPU's data sheet allows when every product runs at the peak and every byte moves at
full bandwidth. Measurements are slower; the bound says which of the two to work on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wam.bench.flops import NOTHING, Flops, pass_flops, prompt_flops
from wam.bench.hardware import GIB, Arithmetic, Gpu
from wam.bench.memory import (
    FORMATS,
    Format,
    Weights,
    acting_activations,
    cache_bytes,
    prompt_bytes,
    transformer_weights,
)
from wam.bench.subject import Subject

RESERVE = 1 * GIB
"""Set aside for the CUDA context, library workspaces and fragmentation: an assumption, not a measurement."""


# ---------------------------------------------------------------- work


@dataclass(frozen=True)
class Stage:
    """A stage of a chunk: `passes` times the same work.

    weights, cache: bytes read per pass from the GPU's memory.  moved: bytes per pass that come from host memory.
    """

    name: str
    passes: int
    flops: Flops
    weights: int = 0
    cache: int = 0
    moved: int = 0

    def time(self, gpu: Gpu, arithmetic: Arithmetic = "bf16") -> StageTime:
        """Seconds of all passes, and what bounds them. Attention is in bf16 whatever the products are in."""
        compute = self.flops.linear / gpu.peaks()[arithmetic] + self.flops.attention / gpu.bf16
        parts = {"compute": compute, "bandwidth": (self.weights + self.cache) / gpu.bandwidth}
        if self.moved and gpu.host is not None:
            parts["host link"] = self.moved / gpu.host
        bound = max(parts, key=lambda name: parts[name])
        return StageTime(self.name, self.passes * parts[bound], bound)


@dataclass(frozen=True)
class StageTime:
    """Lower bound in seconds; bound: "compute", "bandwidth" or "host link"."""

    name: str
    seconds: float
    bound: str


def episode_stages(s: Subject) -> list[Stage]:
    """What a new episode costs once; for released weights, all but the text encoder when their window is full."""
    item, frames = s.dtype.itemsize, s.config.frames_per_chunk
    seen = s.vae.encode_flops(s.pixels, 0, first=True)
    if s.first_frame:
        seen += s.vae.encode_flops(s.pixels, frames * (s.config.memory or 1), first=True)
    stages = [
        Stage("text encoder", s.branches, Flops(s.text.flops, 0), weights=item * s.text.parameters),
        Stage("prompt keys", s.branches, prompt_flops(s.config, s.text.tokens, s.image_tokens)),
        Stage("first frame", 1, Flops(seen, 0)),
    ]
    if s.image is not None:
        stages.append(Stage("image encoder", 1, Flops(s.image.flops, 0), weights=item * s.image.parameters))
    return [*stages, Stage("prefill", s.branches, pass_flops(s.config, s.clean(1)))]


def chunk_stages(s: Subject) -> list[Stage]:
    """What every chunk costs: encode what was seen, remember it, denoise. The dream is not decoded."""
    frames = s.config.frames_per_chunk
    seen = s.vae.encode_flops(s.pixels, frames, first=not s.streams)
    return [
        Stage("encode", 1, Flops(seen, 0)),
        Stage("remember", s.branches, pass_flops(s.config, s.clean(frames))),
        Stage("denoise", s.branches * s.steps, pass_flops(s.config, s.denoising())),
    ]


# ---------------------------------------------------------------- placements: what is where


PLACES = 2
"""Blocks on the GPU under `BlockOffload`: the one that runs, and the next one on its way."""


@dataclass(frozen=True)
class Placement:
    """encoders: text and image encoder on the GPU, else on the CPU.  vae: on the GPU always, else while it encodes.

    offload: the transformer's blocks rest in host memory and pass through two places on the GPU, in every pass.
    """

    weights: Format
    encoders: bool = True
    vae: bool = True
    offload: bool = False


def placements(base: Format, formats: tuple[Format, ...]) -> Iterator[tuple[str, Placement]]:
    """The options in the order in which to turn them on; `formats`: smaller weights to try, largest first."""
    yield "everything on the GPU", Placement(base)
    yield "encoders on the CPU", Placement(base, encoders=False)
    yield "VAE on the GPU only to encode", Placement(base, encoders=False, vae=False)
    for name in formats:
        yield f"{name} weights", Placement(name, encoders=False, vae=False)
    for name in dict.fromkeys((*formats[-1:], base)):
        yield f"{name} weights, blocks offloaded", Placement(name, encoders=False, vae=False, offload=True)


def turned_on(place: Placement, base: Format) -> list[str]:
    """What to change, compared with everything on the GPU in the `base` format."""
    options = {
        "encoders on the CPU": not place.encoders,
        "VAE on the GPU only to encode": not place.vae,
        f"{place.weights} weights": place.weights != base,
        "blocks offloaded": place.offload,
    }
    return [option for option, on in options.items() if on]


def serve_options(place: Placement, base: Format) -> list[str]:
    """The same, as `wam serve` is told it for published weights."""
    options = {
        "--published.text cpu": not place.encoders,
        "--published.image cpu": not place.encoders,
        "--published.vae visit": not place.vae,
        f"--published.weights {place.weights}": place.weights != base,
        f"--published.blocks {PLACES}": place.offload,
    }
    return [option for option, on in options.items() if on]


def smaller_formats(gpu: Gpu | None) -> tuple[Format, ...]:
    """8 and 4 bits, in the formats that the GPU has units for."""
    eight: Format = "fp8" if gpu is None or gpu.fp8 else "int8"
    return eight, "nvfp4" if gpu is not None and gpu.fp4 else "int4"


Memory = Mapping[str, int]


def acting_memory(s: Subject, place: Placement, weights: Weights, reserve: int = RESERVE) -> Memory:
    """Bytes on the GPU at the fullest moment of a chunk, by component. Stages do not overlap: the larger one counts."""
    item = s.dtype.itemsize
    here = weights.outside + weights.block * PLACES if place.offload else weights.total
    vae = item * s.vae.parameters
    state = s.vae.state * s.pixels * item // 2
    encoding = s.vae.working * s.pixels * item // 2 + (0 if place.vae else vae) + (0 if s.streams else state)
    thinking = max(
        acting_activations(s.config, tokens, item) for tokens in (s.denoising(), s.clean(s.config.frames_per_chunk))
    )
    image = 0 if s.image is None else s.image.parameters
    return {
        "transformer": here,
        "text encoder": item * s.text.parameters if place.encoders else 0,
        "image encoder": item * image if place.encoders else 0,
        "VAE": vae if place.vae else 0,
        "VAE state": state if s.streams else 0,
        "KV cache": s.branches * cache_bytes(s.config, s.frame_tokens, s.dtype),
        "prompt keys": s.branches * prompt_bytes(s.config, s.text.tokens, s.image_tokens, item),
        "activations": max(thinking + _widened(s, place.weights), encoding),
        "reserve": reserve,
    }


def _widened(s: Subject, weights: Format) -> int:
    """Bytes of the largest matrix of a block, once more as numbers that can be multiplied."""
    narrow = weights not in ("float32", "bf16")
    return s.dtype.itemsize * s.config.dim * max(s.config.dim, s.config.ffn_dim) if narrow else 0


# ---------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Rung:
    """One placement. fits: None when no memory was given.  seconds: bound of a chunk, None without a GPU."""

    option: str
    placement: Placement
    memory: Memory
    fits: bool | None
    seconds: float | None

    @property
    def total(self) -> int:
        return sum(self.memory.values())


@dataclass(frozen=True)
class Plan:
    """What acting costs and how it can be made to fit; chosen: the first rung that fits.

    times: bounds by stage, for the chosen rung (or the first); without a GPU, or where its host link is not known: {}.
    by_arithmetic: seconds of a chunk, by what the products with weights would be computed in.
    """

    subject: Subject
    base: Format
    parameters: Mapping[str, int]
    weights: Mapping[Format, int]
    episode: list[Stage]
    chunk: list[Stage]
    times: Mapping[str, StageTime]
    by_arithmetic: Mapping[Arithmetic, float]
    rungs: list[Rung]
    budget: int | None

    @property
    def chosen(self) -> Rung | None:
        return next((rung for rung in self.rungs if rung.fits), None)


def plan(
    subject: Subject,
    *,
    budget: int | None = None,
    gpu: Gpu | None = None,
    weights: Format | None = None,
    reserve: int = RESERVE,
) -> Plan:
    """budget: bytes of GPU memory, by default the GPU's.  weights: this format only, instead of those that fit."""
    budget = gpu.memory if budget is None and gpu is not None else budget
    transformer = subject.transformer()
    sizes = {name: transformer_weights(transformer, name) for name in FORMATS}
    base = weights or subject.weights
    formats = () if weights else smaller_formats(gpu)
    rungs = [
        _rung(subject, option, place, sizes[place.weights], budget, gpu, reserve)
        for option, place in placements(base, formats)
    ]
    shown = next((rung for rung in rungs if rung.fits), rungs[0])
    episode, chunk = _placed(subject, shown.placement, sizes[shown.placement.weights])
    parts = {"transformer": sum(parameter.numel() for parameter in transformer.parameters())}
    parts |= {"text encoder": subject.text.parameters}
    parts |= {} if subject.image is None else {"image encoder": subject.image.parameters}
    return Plan(
        subject=subject,
        base=base,
        parameters=parts | {"VAE": subject.vae.parameters},
        weights={name: size.total for name, size in sizes.items()},
        episode=episode,
        chunk=chunk,
        times={} if gpu is None else {s.name: s.time(gpu) for s in (*episode, *chunk) if _on_gpu(s, shown, gpu)},
        by_arithmetic={} if gpu is None else _by_arithmetic(chunk, gpu),
        rungs=rungs,
        budget=budget,
    )


def _rung(
    s: Subject, option: str, place: Placement, weights: Weights, budget: int | None, gpu: Gpu | None, reserve: int
) -> Rung:
    memory = acting_memory(s, place, weights, reserve)
    _, chunk = _placed(s, place, weights)
    return Rung(
        option=option,
        placement=place,
        memory=memory,
        fits=None if budget is None else sum(memory.values()) <= budget,
        seconds=None if gpu is None else _by_arithmetic(chunk, gpu).get("bf16"),
    )


def _placed(s: Subject, place: Placement, weights: Weights) -> tuple[list[Stage], list[Stage]]:
    """The stages of an episode and of a chunk, with the bytes that each pass reads and moves under a placement."""
    cache = cache_bytes(s.config, s.frame_tokens, s.dtype)
    cache += prompt_bytes(s.config, s.text.tokens, s.image_tokens, s.dtype.itemsize)
    blocks = weights.layers * weights.block if place.offload else 0
    visit = 0 if place.vae else 2 * s.dtype.itemsize * s.vae.parameters  # there and back
    changes: dict[str, dict[str, Any]] = {
        "first frame": {"moved": visit},
        "encode": {"moved": visit},
        "prompt keys": {"weights": weights.of_prompt, "moved": blocks},
        **{name: {"weights": weights.per_pass, "cache": cache, "moved": blocks} for name in PASSES},
    }
    episode, chunk = (
        [replace(stage, **changes.get(stage.name, {})) for stage in stages]
        for stages in (episode_stages(s), chunk_stages(s))
    )
    return episode, chunk


PASSES = ("prefill", "remember", "denoise")
"""Stages that run the transformer."""


def _on_gpu(stage: Stage, rung: Rung, gpu: Gpu) -> bool:
    """Whether a bound can be given: not for encoders on the CPU, nor for an unknown host link."""
    return (rung.placement.encoders or not stage.name.endswith("encoder")) and (not stage.moved or gpu.host is not None)


def _by_arithmetic(stages: list[Stage], gpu: Gpu) -> dict[Arithmetic, float]:
    """Seconds of these stages together; {} where bytes move over an unknown link."""
    if gpu.host is None and any(stage.moved for stage in stages):
        return {}
    return {name: sum(stage.time(gpu, name).seconds for stage in stages) for name in gpu.peaks()}


def total_flops(stages: list[Stage]) -> Flops:
    return sum((stage.flops * stage.passes for stage in stages), start=NOTHING)
