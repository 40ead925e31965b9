"""What a training step needs: weights, gradients, optimiser, activations; full or through adapters.

As `wam train` and `wam finetune` work: AdamW, mixed precision with what learns in float32, averaged weights kept on the
device. Adapters to a base that is smaller than bf16 are arithmetic alone so far: no command trains them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn

from wam.bench.flops import Flops, training_flops
from wam.bench.hardware import Gpu
from wam.bench.memory import Format, training_activations, transformer_weights
from wam.bench.planner import RESERVE, Memory, smaller_formats
from wam.bench.subject import Subject
from wam.checkpoints.names import CODEC
from wam.model.transformer import Transformer

ADAPTED = re.compile(r"^blocks\.\d+\.((self|cross)_attn\.[qkvo]|ffn\.[02])$")
"""Where LoRA puts its adapters (the released targets)."""
STATE = {"weights": 4, "gradients": 4, "optimiser": 8, "averaged weights": 4, "bf16 copies": 2}
"""Bytes of a trained parameter: float32, two AdamW moments, and the copy that autocast keeps for the backward."""


@dataclass(frozen=True)
class Method:
    """How to train. rank: of LoRA adapters, None for all weights.  base: format of the weights that stay as they are.

    encoders: on the GPU: all; those that see pictures, as in `wam finetune`; none, where latents were encoded before.
    """

    name: str
    rank: int | None
    base: Format = "bf16"
    encoders: Literal["all", "pictures", "none"] = "pictures"
    checkpointing: bool = True


def methods(rank: int, gpu: Gpu | None) -> list[Method]:
    """The options in the order in which to turn them on."""
    eight, four = smaller_formats(gpu)
    return [
        Method("all weights, pictures encoded on the way", None, encoders="all", checkpointing=False),
        Method("all weights, latents and prompts cached", None, encoders="none", checkpointing=False),
        Method("all weights, activation checkpointing", None, encoders="none"),
        Method(f"LoRA rank {rank}", rank, checkpointing=False),
        Method(f"LoRA rank {rank}, activation checkpointing", rank),
        Method(f"LoRA rank {rank}, checkpointing, {eight} base", rank, eight),
        Method(f"LoRA rank {rank}, checkpointing, {four} base", rank, four),
    ]


def adapter_parameters(transformer: Transformer, rank: int) -> int:
    """Parameters of LoRA adapters of this rank on the released targets."""
    layers = (m for name, m in transformer.named_modules() if isinstance(m, nn.Linear) and ADAPTED.match(name))
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


@dataclass(frozen=True)
class TrainingRung:
    """trained: parameters that change.  seconds: bound of a step at the bf16 peak, None without a GPU."""

    method: Method
    trained: int
    memory: Memory
    flops: Flops
    fits: bool | None
    seconds: float | None

    @property
    def total(self) -> int:
        return sum(self.memory.values())


@dataclass(frozen=True)
class TrainingPlan:
    """Windows as long as the model's memory, `batch` of them per step; chosen: the first method that fits."""

    batch: int
    tokens: int
    rungs: list[TrainingRung]
    budget: int | None

    @property
    def chosen(self) -> TrainingRung | None:
        return next((rung for rung in self.rungs if rung.fits), None)


def plan_training(
    subject: Subject,
    *,
    batch: int = 1,
    rank: int = 4,
    budget: int | None = None,
    gpu: Gpu | None = None,
    reserve: int = RESERVE,
) -> TrainingPlan:
    """One GPU, nothing sharded. Raises ValueError for a batch or rank below 1."""
    if batch < 1 or rank < 1:
        raise ValueError(f"batch is {batch}, lora-rank is {rank}; both must be at least 1")
    budget = gpu.memory if budget is None and gpu is not None else budget
    transformer = subject.transformer()
    rungs = [_rung(subject, transformer, method, batch, budget, gpu, reserve) for method in methods(rank, gpu)]
    return TrainingPlan(batch, subject.window(batch).length, rungs, budget)


def _rung(
    s: Subject, transformer: Transformer, method: Method, batch: int, budget: int | None, gpu: Gpu | None, reserve: int
) -> TrainingRung:
    tokens = s.window(batch)
    trained, frozen = _parameters(transformer, method)
    activations = training_activations(s.config, tokens, checkpointing=method.checkpointing)
    memory = {name: size * trained for name, size in STATE.items()}
    memory |= {"frozen weights": frozen, "activations": activations.total, "reserve": reserve}
    if method.encoders != "none":  # one window at a time goes through them
        memory["encoders and VAE"] = _encoders(s, with_text=method.encoders == "all")
    flops = training_flops(s.config, tokens, lora_rank=method.rank, recompute=method.checkpointing)
    return TrainingRung(
        method=method,
        trained=trained,
        memory=memory,
        flops=flops,
        fits=None if budget is None else sum(memory.values()) <= budget,
        seconds=None if gpu is None else flops.total / gpu.bf16,
    )


def _parameters(transformer: Transformer, method: Method) -> tuple[int, int]:
    """How many parameters train, and bytes of those that do not."""
    everything = sum(parameter.numel() for parameter in transformer.parameters())
    if method.rank is None:
        return everything, 0
    codec = sum(p.numel() for name, p in transformer.named_parameters() if CODEC.match(name))
    frozen = transformer_weights(transformer, method.base).total - 2 * codec
    return codec + adapter_parameters(transformer, method.rank), frozen


def _encoders(s: Subject, with_text: bool) -> int:
    """Encoders and VAE on the GPU, and what the VAE needs while it encodes."""
    item, text = s.dtype.itemsize, s.text.parameters if with_text else 0
    parameters = text + (0 if s.image is None else s.image.parameters) + s.vae.parameters
    return item * parameters + (s.vae.working + s.vae.state) * s.pixels * item // 2
