"""Names of other projects: exact both ways, and strict about what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from wam.checkpoints.names import (
    ACTION_MODULES,
    DREAMZERO_PREFIX,
    IMAGE_BRANCH,
    compare,
    from_diffusers,
    from_wan,
    load_foreign,
    merge_adapters,
    to_diffusers,
    to_wan,
)
from wam.model.attention import Kind, video_layout
from wam.model.config import TransformerConfig
from wam.model.transformer import Pass, Transformer

CONFIG = TransformerConfig(
    dim=24,
    heads=2,
    layers=2,
    ffn_dim=40,
    in_channels=5,
    out_channels=4,
    text_dim=10,
    image_dim=16,
    time_dim=8,
    action_dim=3,
    state_dim=2,
    codec_hidden=6,
    frames_per_chunk=3,
    actions_per_chunk=4,
)
DIFFUSERS = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 5,
    "out_channels": 4,
    "text_dim": 10,
    "freq_dim": 8,
    "ffn_dim": 40,
    "num_layers": 2,
    "image_dim": 16,
    "added_kv_proj_dim": 24,
    "rope_max_seq_len": 32,
}


def transformer(seed: int = 0) -> Transformer:
    """Random weights everywhere, the zero-initialised heads included."""
    torch.manual_seed(seed)
    made = Transformer(CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("prefix", ["", DREAMZERO_PREFIX, DREAMZERO_PREFIX + "base_model.model."])
def test_wan_names_round_trip(prefix: str) -> None:
    ours = dict(transformer().state_dict())
    theirs = to_wan(ours, CONFIG, prefix)
    assert theirs[prefix + "patch_embedding.weight"].shape == (24, 5, 1, 2, 2)
    assert theirs[prefix + "action_encoder.W2.W"].shape == (1, 48, 24)
    assert prefix + "state_encoder.layer1.b" in theirs and prefix + "blocks.1.cross_attn.norm_k_img.weight" in theirs
    assert same(from_wan(theirs), ours)


def test_wrapped_layers_lose_their_wrapping() -> None:
    found = from_wan(
        {
            "action_head.model.base_model.model.blocks.0.self_attn.q.base_layer.weight": torch.ones(1),
            "action_head.model.base_model.model.blocks.0.self_attn.q.lora_A.default.weight": torch.ones(2),
        }
    )
    assert list(found) == ["blocks.0.self_attn.q.weight", "blocks.0.self_attn.q.lora_A.weight"]


def test_one_weight_under_two_names_is_refused() -> None:
    name = "blocks.0.ffn.0.weight"
    with pytest.raises(ValueError, match="twice"):
        from_wan({name: torch.ones(1), DREAMZERO_PREFIX + name: torch.ones(1)})
    with pytest.raises(ValueError, match="twice"):
        from_diffusers({name: torch.ones(1), "blocks.0.ffn.net.0.proj.weight": torch.ones(1)})


def test_diffusers_names_are_those_of_diffusers() -> None:
    model = WanTransformer3DModel(**DIFFUSERS)
    ours = dict(transformer().state_dict())
    theirs = to_diffusers(ours, CONFIG)
    assert {name: x.shape for name, x in theirs.items()} == {name: x.shape for name, x in model.state_dict().items()}
    video_part = {name: x for name, x in ours.items() if not ACTION_MODULES.has(name)}
    assert same(from_diffusers(theirs), video_part)
    with pytest.raises(ValueError, match=r"'blocks.0.self_attn.z.weight' has no counterpart"):
        to_diffusers({"blocks.0.self_attn.z.weight": torch.ones(1)}, CONFIG)


@pytest.mark.parametrize("kind", ["image-to-video", "text-to-video"])
@torch.no_grad()
def test_the_weights_of_diffusers_give_the_numbers_of_diffusers(kind: str) -> None:
    """Bidirectional noisy video without actions sees exactly itself: this is Wan's video model."""
    torch.manual_seed(1)
    has_image = kind == "image-to-video"
    without = {"image_dim": None, "added_kv_proj_dim": None}
    theirs = WanTransformer3DModel(**(DIFFUSERS if has_image else DIFFUSERS | without)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    config = replace(CONFIG, frames_per_chunk=1, autoregressive=False, image_dim=16 if has_image else None)
    ours = Transformer(config).eval()
    report = load_foreign(ours, theirs.state_dict(), source="diffusers", new=(ACTION_MODULES,))
    assert report.ok and all(ACTION_MODULES.has(name) for name in report.new)
    video, image = torch.randn(1, 5, 3, 4, 6), torch.randn(1, 9, 16) if has_image else None
    text = torch.randn(1, 512, 10)  # diffusers tells image from text by this length
    expected = theirs(video, torch.tensor([625.0]), text, image, return_dict=False)[0]
    inputs = Pass(
        layout=video_layout(Kind.NOISY, [0, 1, 2], frames_per_chunk=1, rows=2, columns=3, slot=0),
        sigma=torch.full((1, 3), 0.625),
        embodiment=torch.zeros(1, dtype=torch.long),
        video=video,
    )
    answer = ours(inputs, ours.context(text, image)).video
    assert answer is not None
    assert (answer - expected).norm() < 2e-5 * expected.norm()


def test_report_names_every_kind_of_fault() -> None:
    expected = dict(transformer().state_dict())
    found = dict(expected)
    del found["head.modulation"], found["action_encoder.layer1.weight"]
    found["blocks.0.norm3.weight"] = torch.ones(3)
    found["blocks.7.norm3.weight"] = torch.ones(3)
    found["action_head.vae.model.conv1.weight"] = torch.ones(3)
    report = compare(found, expected, new=(ACTION_MODULES,))
    assert report.missing == ("head.modulation",)
    assert report.unexpected == ("blocks.7.norm3.weight",)
    assert [fault.name for fault in report.wrong_shape] == ["blocks.0.norm3.weight"]
    assert list(report.new) == ["action_encoder.layer1.weight"]
    assert "video tokenizer" in report.unused["action_head.vae.model.conv1.weight"]
    with pytest.raises(
        ValueError, match=r"file: 1 weights are missing.*'head.modulation'.*found \[3\], expected \[24\]"
    ):
        report.require_ok("file")


def test_a_faulty_file_changes_nothing() -> None:
    ours = transformer()
    before = {name: x.clone() for name, x in ours.state_dict().items()}
    other = to_wan(dict(transformer(seed=1).state_dict()), CONFIG)
    del other["head.head.bias"]
    with pytest.raises(ValueError, match=r"head\.head\.bias"):
        load_foreign(ours, other, source="file")
    assert same(dict(ours.state_dict()), before)


def test_image_branch_is_left_out_only_on_request() -> None:
    full = to_wan(dict(transformer().state_dict()), CONFIG)
    bare = Transformer(TransformerConfig(**{**vars(CONFIG), "image_dim": None}))
    with pytest.raises(ValueError, match="unexpected"):
        load_foreign(bare, full, source="file")
    report = load_foreign(bare, full, source="file", unused=(IMAGE_BRANCH,))
    assert len(report.unused) == 8 + CONFIG.layers * 5


def test_adapters_are_merged() -> None:
    base, lower, upper = torch.randn(4, 3), torch.randn(2, 3), torch.randn(4, 2)
    tensors = {"a.weight": base, "a.lora_A.weight": lower, "a.lora_B.weight": upper}
    merged = merge_adapters(tensors, scale=0.5)
    assert list(merged) == ["a.weight"] and torch.allclose(merged["a.weight"], base + 0.5 * upper @ lower)
    for gone in tensors:
        with pytest.raises(ValueError, match="missing"):
            merge_adapters({name: x for name, x in tensors.items() if name != gone}, scale=0.5)
