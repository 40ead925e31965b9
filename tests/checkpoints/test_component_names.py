"""Names of the frozen networks: real modules of transformers and diffusers, exact both ways, strict about the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from wam.checkpoints.component_names import (
    CLIP_VIT_H14,
    COMPONENTS,
    UMT5_XXL,
    WAN_21_VAE,
    WAN_22_VAE,
    Component,
    component_of,
    load_component,
)
from wam.checkpoints.component_sizes import WAN_22_VAE_CONFIG, component_skeleton

NAMES = {"umt5-xxl": 242, "clip-vit-h-14": 391, "wan2.1-vae": 194, "wan2.2-vae": 196}  # of the published files
PARAMETERS = {
    "umt5-xxl": 5_680_910_336,
    "clip-vit-h-14": 630_766_080,
    "wan2.1-vae": 126_892_531,
    "wan2.2-vae": 704_688_668,
}
PLACES = {  # a published name, the shape of its tensor, and where the library keeps it
    "umt5-xxl": [
        ("token_embedding.weight", (256384, 4096), "shared.weight"),
        ("blocks.23.ffn.gate.0.weight", (10240, 4096), "encoder.block.23.layer.1.DenseReluDense.wi_0.weight"),
        (
            "blocks.1.pos_embedding.embedding.weight",
            (32, 64),
            "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        ),
    ],
    "clip-vit-h-14": [
        ("visual.cls_embedding", (1, 1, 1280), "embeddings.class_embedding"),
        ("visual.pos_embedding", (1, 257, 1280), "embeddings.position_embedding.weight"),
        ("visual.transformer.31.attn.to_qkv.bias", (3840,), "encoder.layers.31.self_attn.q_proj.bias"),
        ("visual.transformer.0.mlp.2.weight", (1280, 5120), "encoder.layers.0.mlp.fc2.weight"),
    ],
    "wan2.1-vae": [
        ("encoder.downsamples.8.time_conv.weight", (384, 384, 3, 1, 1), "encoder.down_blocks.8.time_conv.weight"),
        ("decoder.upsamples.7.resample.1.bias", (192,), "decoder.up_blocks.1.upsamplers.0.resample.1.bias"),
        (
            "decoder.upsamples.4.shortcut.weight",
            (384, 192, 1, 1, 1),
            "decoder.up_blocks.1.resnets.0.conv_shortcut.weight",
        ),
    ],
    "wan2.2-vae": [
        (
            "encoder.downsamples.1.downsamples.2.time_conv.weight",
            (320, 320, 3, 1, 1),
            "encoder.down_blocks.1.downsampler.time_conv.weight",
        ),
        ("decoder.upsamples.3.upsamples.2.residual.6.bias", (256,), "decoder.up_blocks.3.resnets.2.conv2.bias"),
        ("decoder.head.0.gamma", (256, 1, 1, 1), "decoder.norm_out.gamma"),
    ],
}


def text_encoder() -> nn.Module:
    return UMT5EncoderModel(UMT5Config(vocab_size=11, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2))


def image_encoder() -> nn.Module:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    return CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=28, patch_size=14))


def vae_21() -> nn.Module:
    return AutoencoderKLWan(base_dim=2)


def vae_22() -> nn.Module:
    return AutoencoderKLWan(**{**WAN_22_VAE_CONFIG, "base_dim": 2, "decoder_base_dim": 4})


SMALL: list[tuple[Component, Callable[[], nn.Module]]] = [
    (UMT5_XXL, text_encoder),
    (CLIP_VIT_H14, image_encoder),
    (WAN_21_VAE, vae_21),
    (WAN_22_VAE, vae_22),
]
each = pytest.mark.parametrize(("component", "build"), SMALL, ids=lambda x: getattr(x, "name", ""))


def random_weights(module: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def copy(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.name)
def test_published_sizes(component: Component) -> None:
    """Names and shapes of the full-size modules, without memory for weights."""
    module = component_skeleton(component)
    assert all(parameter.is_meta for parameter in module.parameters())
    assert not any(buffer.is_meta for buffer in module.buffers())
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[component.name]
    wan = component.to_wan(module.state_dict())
    assert len(wan) == NAMES[component.name]
    for name, shape, place in PLACES[component.name]:
        assert wan[name].shape == shape and next(iter(component.from_wan({name: wan[name]}))) == place
    assert component.compare(wan, module).ok and component.compare(module.state_dict(), module).ok


@each
@pytest.mark.parametrize("dreamzero", [False, True])
def test_round_trips_are_exact(component: Component, build: Callable[[], nn.Module], dreamzero: bool) -> None:
    library = component.from_library(random_weights(build()).state_dict())
    prefix = component.prefix if dreamzero else ""
    wan = component.to_wan(library, prefix)
    assert all(name.startswith(prefix) for name in wan)
    assert same(component.from_wan(wan), library)
    assert same(component.to_wan(component.from_wan(wan), prefix), wan)
    assert same(component.from_any(library), library) and same(component.from_any(wan), library)


@each
def test_shard_by_shard_is_the_same(component: Component, build: Callable[[], nn.Module]) -> None:
    wan = component.to_wan(random_weights(build()).state_dict(), component.prefix)
    pieces: dict[str, Tensor] = {}
    for name, tensor in wan.items():
        pieces |= component.from_wan({name: tensor})
    assert same(pieces, component.from_wan(wan))


@each
def test_names_tell_the_component(component: Component, build: Callable[[], nn.Module]) -> None:
    library = build().state_dict()
    for names in (library, component.to_wan(library), component.to_wan(library, component.prefix)):
        assert component_of(names) is component
        assert component_of([*names, "blocks.0.self_attn.q.weight"]) is None
    assert component_of([]) is None


@each
@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
def test_a_module_loads_every_dialect(component: Component, build: Callable[[], nn.Module], assign: bool) -> None:
    source = random_weights(build())
    wan = component.to_wan(source.state_dict(), component.prefix)
    for tensors in (source.state_dict(), wan, {**wan, "action_head.model.head.head.bias": torch.zeros(1)}):
        target = random_weights(build(), seed=1)
        if assign:
            target = target.to("meta")
        report = load_component(component, target, copy(tensors), source="file", assign=assign)
        assert report.ok and same(dict(target.state_dict()), dict(source.state_dict()))


@each
def test_a_faulty_file_changes_nothing(component: Component, build: Callable[[], nn.Module]) -> None:
    target = random_weights(build())
    before = copy(target.state_dict())
    wan = component.to_wan(random_weights(build(), seed=1).state_dict())
    name = next(iter(wan))
    faults = {
        "missing": {own: x for own, x in wan.items() if own != name},
        "unexpected": {**wan, "encoder.extra.weight": torch.zeros(1)},
        "wrong shape": {**wan, name: torch.zeros(5)},
    }
    for fault, tensors in faults.items():
        with pytest.raises(ValueError, match=f"some file: .*{fault}"):
            load_component(component, target, tensors, source="some file")
        assert same(dict(target.state_dict()), before)


def test_q_k_and_v_are_rows_of_one_tensor_in_this_order() -> None:
    """One fused projection, as Wan's code computes it, gives the same q, k and v as the three of transformers."""
    module = random_weights(image_encoder())
    wan = CLIP_VIT_H14.to_wan(module.state_dict())
    x = torch.randn(4, 8)
    fused = F.linear(x, *(wan[f"visual.transformer.1.attn.to_qkv.{kind}"] for kind in ("weight", "bias")))
    attention = module.get_submodule("encoder.layers.1.self_attn")
    for ours, name in zip(fused.chunk(3, dim=-1), ("q_proj", "k_proj", "v_proj"), strict=True):
        torch.testing.assert_close(ours, attention.get_submodule(name)(x))


def test_the_gate_of_the_text_encoder_is_the_gate() -> None:
    """Wan's gate.0 is followed by the activation, its fc1 is not: hidden = fc1(x) * gelu(gate.0(x))."""
    module = random_weights(text_encoder())
    wan = UMT5_XXL.to_wan(module.state_dict())
    x = torch.randn(4, 8)
    gate, fc1, fc2 = (wan[f"blocks.1.ffn.{name}.weight"] for name in ("gate.0", "fc1", "fc2"))
    expected = F.linear(F.linear(x, fc1) * F.gelu(F.linear(x, gate), approximate="tanh"), fc2)
    torch.testing.assert_close(module.get_submodule("encoder.block.1.layer.1.DenseReluDense")(x), expected)


def test_a_missing_piece_and_a_foreign_name_are_refused() -> None:
    library = image_encoder().state_dict()
    piece = "encoder.layers.2.self_attn.k_proj.weight"
    with pytest.raises(ValueError, match=r"visual\.transformer\.2\.attn\.to_qkv\.weight' needs 3 .* found 2"):
        CLIP_VIT_H14.to_wan({name: x for name, x in library.items() if name != piece})
    with pytest.raises(ValueError, match="'encoder.layers.99.mlp.fc1.weight' has no counterpart"):
        CLIP_VIT_H14.to_wan({"encoder.layers.99.mlp.fc1.weight": torch.zeros(1)})


@pytest.mark.parametrize("shape", [(), (1,), (25, 8), (24, 8, 1)])
def test_a_fused_tensor_of_a_wrong_shape_is_reported(shape: tuple[int, ...]) -> None:
    module = image_encoder()
    wan = {
        **CLIP_VIT_H14.to_wan(module.state_dict()),
        "visual.transformer.0.attn.to_qkv.weight": torch.zeros(shape),
        "visual.pos_embedding": torch.zeros(2, 5, 8),
    }
    wrong = {fault.name for fault in CLIP_VIT_H14.compare(wan, module).wrong_shape}
    assert "encoder.layers.0.self_attn.q_proj.weight" in wrong and "embeddings.position_embedding.weight" in wrong


def test_what_no_part_of_ours_needs_is_named_with_a_reason() -> None:
    module = image_encoder()
    extra = {name: torch.zeros(1) for name in ("log_scale", "visual.head", "textual.head.0.weight")}
    report = CLIP_VIT_H14.compare({**CLIP_VIT_H14.to_wan(module.state_dict()), **extra}, module)
    assert report.ok and report.unused.keys() == extra.keys() and "text tower" in report.unused["textual.head.0.weight"]
    whole = {
        **{f"vision_model.{name}": x for name, x in module.state_dict().items()},
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
        "text_model.final_layer_norm.bias": torch.zeros(1),
        "logit_scale": torch.zeros(()),
    }
    report = CLIP_VIT_H14.compare(whole, module)
    assert report.ok and len(report.unused) == 3 and component_of(whole) is CLIP_VIT_H14


def test_a_tied_tensor_counts_once_under_either_name() -> None:
    module = random_weights(text_encoder())
    both = copy(module.state_dict())
    assert {"shared.weight", "encoder.embed_tokens.weight"} <= both.keys()
    for absent in ("shared.weight", "encoder.embed_tokens.weight"):
        one = {name: x for name, x in both.items() if name != absent}
        target = text_encoder().to("meta")
        load_component(UMT5_XXL, target, one, source="file", assign=True)
        assert same(dict(target.state_dict()), both)
        assert target.shared.weight is target.encoder.embed_tokens.weight


def test_pieces_can_be_written(tmp_path: Path) -> None:
    """They are views of one tensor, side by side: safetensors writes each of them alone."""
    library = CLIP_VIT_H14.from_wan(CLIP_VIT_H14.to_wan(random_weights(image_encoder()).state_dict()))
    save_file(library, tmp_path / "model.safetensors")
    assert same(load_file(tmp_path / "model.safetensors"), library)
