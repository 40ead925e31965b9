"""The frozen networks in the sizes that were published, as modules of transformers and diffusers without weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from wam.checkpoints.component_names import CLIP_VIT_H14, UMT5_XXL, WAN_21_VAE, WAN_22_VAE, Component

UMT5_XXL_CONFIG: dict[str, Any] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
}
CLIP_VIT_H14_CONFIG: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "projection_dim": 1024,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
WAN_21_VAE_CONFIG: dict[str, Any] = {}  # the defaults of diffusers
# fmt: off
WAN_22_VAE_CONFIG: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
    "latents_mean": [  # of the training data, per channel, as published beside the weights
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
        0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
        -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
        -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ],
    "latents_std": [
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
        0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
        0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
        0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ],
}
# fmt: on


def component_skeleton(component: Component) -> nn.Module:
    """The published network on torch's meta device; fill it with `load_component(..., assign=True)`."""
    with torch.device("meta"):
        module = _BUILDERS[component.name]()
    for owner in module.modules():
        ids = getattr(owner, "position_ids", None)
        if isinstance(ids, torch.Tensor):  # no file holds them, so they must be real already
            owner.position_ids = torch.arange(ids.shape[-1]).expand(1, -1)
    return module.requires_grad_(False).eval()


def _text_encoder() -> nn.Module:
    from transformers import UMT5Config, UMT5EncoderModel

    return UMT5EncoderModel(UMT5Config(**UMT5_XXL_CONFIG))


def _image_encoder() -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(CLIPVisionConfig(**CLIP_VIT_H14_CONFIG))


def _vae(config: dict[str, Any]) -> nn.Module:
    from diffusers import AutoencoderKLWan

    return cast(nn.Module, cast(Any, AutoencoderKLWan)(**config))


_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    UMT5_XXL.name: _text_encoder,
    CLIP_VIT_H14.name: _image_encoder,
    WAN_21_VAE.name: lambda: _vae(WAN_21_VAE_CONFIG),
    WAN_22_VAE.name: lambda: _vae(WAN_22_VAE_CONFIG),
}
