"""The sizes that published weights have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from wam.model.config import TransformerConfig
from wam.model.transformer import Transformer

IMAGE_DIM = 1280  # width of the features of CLIP ViT-H/14


@dataclass(frozen=True)
class Preset:
    """A published transformer: its configuration, where it lives, and its number of parameters.

    repository: on the Hugging Face hub, "" where none is public; `new_modules` says what those files do not contain.
    parameters: of the whole transformer, action modules included.
    """

    transformer: TransformerConfig
    repository: str
    parameters: int
    new_modules: tuple[str, ...] = ()


# What DreamZero puts on every backbone (arXiv 2602.15922): chunks of 2 latent frames, 24 actions and 1 state, windows
# of at most 4 chunks, and one codec for all robots.
_WAN_I2V_14B = TransformerConfig(
    dim=5120,
    heads=40,
    layers=40,
    ffn_dim=13824,
    in_channels=36,  # 16 noisy + 4 mask + 16 of the first frame
    out_channels=16,
    text_dim=4096,
    image_dim=IMAGE_DIM,
    action_dim=32,
    state_dim=64,
    codec_hidden=1024,
    frames_per_chunk=2,
    actions_per_chunk=24,
    memory=4,
)
_WAN_TI2V_5B = replace(
    _WAN_I2V_14B, dim=3072, heads=24, layers=30, ffn_dim=14336, in_channels=48, out_channels=48, image_dim=None
)
_WAN_T2V_1_3B = replace(_WAN_TI2V_5B, dim=1536, heads=12, ffn_dim=8960, in_channels=16, out_channels=16)
_ACTIONS = ("state_encoder", "action_encoder", "action_decoder")

PRESETS = {
    "wan2.1-i2v-14b": Preset(_WAN_I2V_14B, "Wan-AI/Wan2.1-I2V-14B-480P", 16_484_292_448, _ACTIONS),
    "wan2.2-ti2v-5b": Preset(_WAN_TI2V_5B, "Wan-AI/Wan2.2-TI2V-5B", 5_034_601_696, _ACTIONS),
    "wan2.1-t2v-1.3b": Preset(_WAN_T2V_1_3B, "Wan-AI/Wan2.1-T2V-1.3B", 1_429_376_096, _ACTIONS),
    "dreamzero-5b": Preset(replace(_WAN_TI2V_5B, image_dim=IMAGE_DIM), "", 5_606_692_832),
    "dreamzero-droid": Preset(_WAN_I2V_14B, "GEAR-Dreams/DreamZero-DROID", 16_484_292_448),
    "dreamzero-agibot": Preset(_WAN_I2V_14B, "GEAR-Dreams/DreamZero-AgiBot", 16_484_292_448),
}


def preset(name: str) -> Preset:
    """Raises ValueError naming the presets there are."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; expected one of {sorted(PRESETS)}")
    return PRESETS[name]


def from_dreamzero(fields: Mapping[str, Any], *, image: bool) -> TransformerConfig:
    """The `diffusion_model_cfg` of a DreamZero config.json -> our configuration; nothing in it is executed.

    image: whether the network has the image branch. Raises ValueError naming a field that is missing or not supported.
    """
    needed = {
        "dim": "dim",
        "heads": "num_heads",
        "layers": "num_layers",
        "ffn_dim": "ffn_dim",
        "in_channels": "in_dim",
        "out_channels": "out_dim",
        "frames_per_chunk": "num_frame_per_block",
        "actions_per_chunk": "num_action_per_block",
        "memory": "max_chunk_size",
    }
    optional = {  # constructor defaults that released configurations leave out
        "text_dim": ("text_dim", 4096),
        "time_dim": ("freq_dim", 256),
        "action_dim": ("action_dim", 32),
        "state_dim": ("max_state_dim", 64),
        "codec_hidden": ("hidden_size", 1024),
    }
    missing = sorted(theirs for theirs in needed.values() if theirs not in fields)
    if missing:
        raise ValueError(f"DreamZero configuration: field {missing[0]!r} is missing; found {sorted(fields)}")
    if fields.get("num_state_per_block", 1) != 1:
        raise ValueError(f"num_state_per_block is {fields['num_state_per_block']}; only 1 state per chunk is supported")
    values = {own: fields[theirs] for own, theirs in needed.items()}
    values |= {own: fields.get(theirs, default) for own, (theirs, default) in optional.items()}
    return TransformerConfig(**values, image_dim=IMAGE_DIM if image else None)


def skeleton(config: TransformerConfig) -> Transformer:
    """The transformer without memory for its weights (torch's meta device), to compare names, shapes and sizes."""
    with torch.device("meta"):
        return Transformer(config)
