"""Checkpoints of full size that take no disk: real headers, and holes instead of values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wam.checkpoints.component_names import CLIP_VIT_H14, UMT5_XXL, WAN_21_VAE, Component
from wam.checkpoints.component_sizes import component_skeleton
from wam.checkpoints.names import ACTION_MODULES, DREAMZERO_PREFIX, to_wan
from wam.checkpoints.presets import PRESETS, skeleton
from wam.checkpoints.shards import header, layout
from wam.checkpoints.targets import dreamzero_fields


def sparse(folder: Path, tensors: Mapping[str, Tensor], stem: str, shard_bytes: int = 5_000_000_000) -> int:
    """Write shards of these shapes; returns the bytes that they claim to have."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = layout(tensors, stem, shard_bytes)
    for shard in plan.shards:
        start = header(shard.tensors)
        with (folder / shard.file).open("wb") as stream:
            stream.write(start)
            stream.truncate(len(start) + shard.bytes)
    if len(plan.shards) > 1:
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(plan.index()))
    return plan.bytes


def transformer_of(preset: str, prefix: str = "", actions: bool = True) -> dict[str, Tensor]:
    """Shapes of a published transformer under Wan's names."""
    config = PRESETS[preset].transformer
    ours = {n: x for n, x in skeleton(config).state_dict().items() if actions or not ACTION_MODULES.has(n)}
    return to_wan(ours, config, prefix)


def network_of(component: Component) -> dict[str, Tensor]:
    """Shapes of a frozen network under DreamZero's names."""
    state = {name: x.to("meta") for name, x in component_skeleton(component).state_dict().items()}
    return component.to_wan(component.from_library(state), component.prefix)


def dreamzero_14b(folder: Path, tags: tuple[str, ...] = ("oxe_droid",)) -> int:
    """A whole DreamZero checkpoint: 22.9 billion parameters in bfloat16."""
    tensors = transformer_of("dreamzero-droid", DREAMZERO_PREFIX)
    for component in (UMT5_XXL, CLIP_VIT_H14, WAN_21_VAE):
        tensors |= network_of(component)
    size = sparse(folder, {name: x.bfloat16() for name, x in tensors.items()}, "model")
    (folder / "config.json").write_text(json.dumps(dreamzero_fields(PRESETS["dreamzero-droid"].transformer)))
    (folder / "experiment_cfg").mkdir()
    robots = {tag: {"statistics": {"state": {}, "action": {}}, "embodiment_tag": tag} for tag in tags}
    (folder / "experiment_cfg" / "metadata.json").write_text(json.dumps(robots))
    return size


def lora_14b(folder: Path) -> int:
    """What DreamZero's LoRA training saves of a 14B model: rank 4, and the action modules."""
    rank, prefix = 4, DREAMZERO_PREFIX + "base_model.model."
    tensors = {}
    for name, tensor in transformer_of("dreamzero-droid", prefix).items():
        layer = name.removesuffix(".weight")
        if "_encoder." in name or "_decoder." in name:
            tensors[name] = tensor
        elif name != layer and layer.endswith((".q", ".k", ".v", ".o", ".ffn.0", ".ffn.2")):
            tensors[f"{layer}.lora_A.default.weight"] = tensor.new_empty(rank, tensor.shape[1])
            tensors[f"{layer}.lora_B.default.weight"] = tensor.new_empty(tensor.shape[0], rank)
    return sparse(folder, tensors, "model")
