"""How each dialect lays out a checkpoint: which files, which names, which configuration. Nothing is written here.

wam        transformer/ under our names, frozen networks as their libraries keep them
diffusers  transformer/ for `WanTransformer3DModel`, which has no action modules, the rest as above
original   Wan's files beside each other, as safetensors (theirs are pickles); action modules in the transformer's
dreamzero  everything in one set of shards, action_head.*
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor, nn

from wam.checkpoints.component_names import Component
from wam.checkpoints.lazy import Lazy, Translated
from wam.checkpoints.names import CODEC, DREAMZERO_PREFIX, to_diffusers, to_wan
from wam.checkpoints.shards import SHARD_BYTES
from wam.model.config import TransformerConfig

Target = Literal["wam", "original", "diffusers", "dreamzero"]
WHOLE = 10**15  # bytes: one file, however large, for loaders that know one file name
STEMS = {"vae": "diffusion_pytorch_model", "text_encoder": "model", "image_encoder": "model"}
ORIGINAL_STEMS = {
    "umt5-xxl": "models_t5_umt5-xxl-enc-bf16",
    "clip-vit-h-14": "models_clip_open-clip-xlm-roberta-large-vit-huge-14",
    "wan2.1-vae": "Wan2.1_VAE",
    "wan2.2-vae": "Wan2.2_VAE",
}


@dataclass(frozen=True)
class Frozen:
    """A frozen network under its library's names, and the settings that its library needs."""

    network: Component
    weights: Lazy
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Files:
    """One set of weights to write. folder: inside the checkpoint, "" is its root. fields: its config.json, if any."""

    folder: str
    stem: str
    weights: Lazy
    shard_bytes: int
    fields: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """A checkpoint to write. fields: of the config.json at its root. dropped: our names without a place in it."""

    files: tuple[Files, ...]
    fields: Mapping[str, Any]
    metadata: str
    tokenizer: str
    dropped: tuple[str, ...] = ()


def plan(
    to: Target,
    config: TransformerConfig,
    transformer: Lazy,
    frozen: Mapping[str, Frozen],
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Lay out a checkpoint. transformer: under our names, perhaps without action modules."""
    return _LAYOUTS[to](config, transformer, frozen, shard_bytes)


class Held(Mapping[str, Tensor]):
    """Tensors that are in memory already, as a start of a chain."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.meta = {name: tensor.to("meta") for name, tensor in tensors.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class Joined(Mapping[str, Tensor]):
    """Several mappings without common names, one after the other."""

    def __init__(self, *parts: Lazy) -> None:
        self._owner = {name: part for part in parts for name in part.meta}
        self.meta = {name: part.meta[name] for name, part in self._owner.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._owner[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner)

    def __len__(self) -> int:
        return len(self._owner)


# ---------------------------------------------------------------- the four layouts


def _wam(config: TransformerConfig, transformer: Lazy, frozen: Mapping[str, Frozen], shard_bytes: int) -> Plan:
    own = Files("transformer", "model", transformer, shard_bytes)
    return Plan((own, *_libraries(frozen, shard_bytes)), {"format": "wam"}, "metadata.json", "tokenizer")


def _diffusers(config: TransformerConfig, transformer: Lazy, frozen: Mapping[str, Frozen], shard_bytes: int) -> Plan:
    renamed = Translated(transformer, lambda tensors: to_diffusers(tensors, config))
    theirs = Files("transformer", STEMS["vae"], renamed, shard_bytes, diffusers_fields(config))
    dropped = tuple(name for name in transformer.meta if CODEC.match(name))
    return Plan((theirs, *_libraries(frozen, shard_bytes)), {}, "metadata.json", "tokenizer", dropped)


def _original(config: TransformerConfig, transformer: Lazy, frozen: Mapping[str, Frozen], shard_bytes: int) -> Plan:
    renamed = Translated(transformer, lambda tensors: to_wan(tensors, config))
    files = [Files("", "diffusion_pytorch_model", renamed, shard_bytes)]
    for part in frozen.values():
        files.append(Files("", ORIGINAL_STEMS[part.network.name], _to_wan(part, ""), WHOLE))
    return Plan(tuple(files), original_fields(config), "metadata.json", "google/umt5-xxl")


def _dreamzero(config: TransformerConfig, transformer: Lazy, frozen: Mapping[str, Frozen], shard_bytes: int) -> Plan:
    renamed = Translated(transformer, lambda tensors: to_wan(tensors, config, DREAMZERO_PREFIX))
    parts = [_to_wan(part, part.network.prefix) for part in frozen.values()]
    everything = Files("", "model", Joined(*parts, renamed), shard_bytes)
    return Plan((everything,), dreamzero_fields(config), "experiment_cfg/metadata.json", "tokenizer")


_LAYOUTS = {"wam": _wam, "diffusers": _diffusers, "original": _original, "dreamzero": _dreamzero}


def _libraries(frozen: Mapping[str, Frozen], shard_bytes: int) -> Iterator[Files]:
    for folder, part in frozen.items():
        yield Files(folder, STEMS[folder], part.weights, shard_bytes, part.fields)


def _to_wan(part: Frozen, prefix: str) -> Translated:
    """CLIP's q, k and v are one tensor there, so they are translated together."""
    return Translated(
        part.weights,
        lambda tensors: part.network.to_wan(tensors, prefix),
        group=lambda name: re.sub(r"\.[qkv]_proj\.", ".qkv.", name),
    )


# ---------------------------------------------------------------- configurations


def model_type(config: TransformerConfig) -> str:
    """What Wan calls a model of these channels."""
    if config.image_dim is not None and config.in_channels > config.out_channels:
        return "i2v"
    return "ti2v" if config.out_channels == 48 else "t2v"


def original_fields(config: TransformerConfig) -> dict[str, Any]:
    """config.json of Wan's own repositories."""
    return {
        "_class_name": "WanModel",
        "model_type": model_type(config),
        "dim": config.dim,
        "ffn_dim": config.ffn_dim,
        "freq_dim": config.time_dim,
        "in_dim": config.in_channels,
        "out_dim": config.out_channels,
        "num_heads": config.heads,
        "num_layers": config.layers,
        "text_len": 512,
        "eps": 1e-6,
    }


def diffusers_fields(config: TransformerConfig) -> dict[str, Any]:
    """config.json of `WanTransformer3DModel`."""
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": [1, config.patch, config.patch],
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "text_dim": config.text_dim,
        "freq_dim": config.time_dim,
        "ffn_dim": config.ffn_dim,
        "num_layers": config.layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
        "image_dim": config.image_dim,
        "added_kv_proj_dim": None if config.image_dim is None else config.dim,
        "rope_max_seq_len": 1024,
    }


def dreamzero_fields(config: TransformerConfig) -> dict[str, Any]:
    """The part of a DreamZero config.json that describes the network, as `from_dreamzero` reads it."""
    sizes = {name: value for name, value in original_fields(config).items() if name not in ("_class_name", "text_len")}
    network = {
        **sizes,
        "text_dim": config.text_dim,
        "action_dim": config.action_dim,
        "max_state_dim": config.state_dim,
        "hidden_size": config.codec_hidden,
        "num_frame_per_block": config.frames_per_chunk,
        "num_action_per_block": config.actions_per_chunk,
        "num_state_per_block": 1,
        "max_chunk_size": config.memory,
        "concat_first_frame_latent": config.in_channels > config.out_channels,
    }
    head = {
        "train_architecture": "full",
        "num_frame_per_block": config.frames_per_chunk,
        "action_horizon": config.actions_per_chunk,
        "max_action_dim": config.action_dim,
        "max_state_dim": config.state_dim,
        "diffusion_model_cfg": network,
    }
    return {"model_type": "vla", "action_dim": config.action_dim, "action_head_cfg": {"config": head}}


def library_fields(module: nn.Module) -> dict[str, Any]:
    """config.json of a frozen network, as diffusers or transformers writes it."""
    owner = cast(Any, module)
    if hasattr(owner, "to_json_string"):  # diffusers
        return dict(json.loads(owner.to_json_string()))
    return {**owner.config.to_diff_dict(), "architectures": [type(module).__name__]}
