"""A whole published model in a few hundred kilobytes: random weights, real classes, one robot."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from wam.checkpoints import component_sizes
from wam.checkpoints.licence import Licence
from wam.checkpoints.load import PublishedModel
from wam.encoders.clip import ClipImageEncoder
from wam.encoders.umt5 import Umt5TextEncoder
from wam.encoders.wan_vae import WanVideoTokenizer
from wam.model.config import TransformerConfig
from wam.model.transformer import Transformer

CONFIG = TransformerConfig(
    dim=24,
    heads=2,
    layers=3,
    ffn_dim=40,
    in_channels=36,
    out_channels=16,
    text_dim=16,
    image_dim=16,
    time_dim=8,
    action_dim=3,
    state_dim=2,
    codec_hidden=6,
    frames_per_chunk=3,
    actions_per_chunk=4,
)
UMT5 = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
CLIP = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14}
VAE = {"base_dim": 2}
WORDS = {"<pad>": 0, "</s>": 1, "<unk>": 2, "push": 3}


def robot(state: dict[str, int], action: dict[str, int]) -> dict[str, Any]:
    """Statistics as DreamZero's metadata.json has them, with these widths."""

    def quantiles(widths: dict[str, int]) -> dict[str, Any]:
        return {name: {"q01": [-1.0 - n for n in range(w)], "q99": [2.0] * w} for name, w in widths.items()}

    return {"statistics": {"state": quantiles(state), "action": quantiles(action)}, "modalities": {}}


_WIDTHS = {"gripper_position": 1, "joint_position": 7}  # not in the order of the model's vector
METADATA = {"oxe_droid": robot(_WIDTHS, _WIDTHS), "newcomer": robot({"a": 1}, {"a": 1})}


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@functools.cache
def whole() -> PublishedModel:
    """All components. Shared by tests: do not change it."""
    transformer: Any = randomised(Transformer(CONFIG))
    vae: Any = randomised(AutoencoderKLWan(**VAE), 1)  # type: ignore[no-untyped-call]
    text: Any = randomised(UMT5EncoderModel(UMT5Config(**UMT5)), 2)
    image: Any = randomised(CLIPVisionModel(CLIPVisionConfig(**CLIP)), 3)
    return PublishedModel(
        transformer=transformer,
        source="tests/tiny",
        licence=Licence("mit", "README.md"),
        identity="",
        vae=WanVideoTokenizer(vae),
        text_encoder=Umt5TextEncoder(text, tokenizer()),
        image_encoder=ClipImageEncoder(image),
        metadata=METADATA,
    )


def networks(model: PublishedModel) -> dict[str, dict[str, Tensor]]:
    """Every weight of every component."""
    assert model.vae is not None and model.text_encoder is not None and model.image_encoder is not None
    return {
        "transformer": dict(model.transformer.state_dict()),
        "vae": dict(model.vae.vae.state_dict()),
        "text_encoder": dict(model.text_encoder.network.state_dict()),
        "image_encoder": dict(model.image_encoder.network.state_dict()),
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit by bit, type by type."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def publish_small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the published networks were tiny: Wan's own files carry no configuration of theirs."""
    monkeypatch.setattr(component_sizes, "UMT5_XXL_CONFIG", UMT5)
    monkeypatch.setattr(component_sizes, "CLIP_VIT_H14_CONFIG", CLIP)
    monkeypatch.setattr(component_sizes, "WAN_21_VAE_CONFIG", VAE)
