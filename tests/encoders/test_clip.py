"""CLIP as image encoder: the layer before the last one, the whole canvas as a square, in the type of the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from wam.encoders.clip import ClipImageEncoder, clip_input


def small_network(image_size: int = 224) -> CLIPVisionModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = CLIPVisionConfig(**sizes, image_size=image_size, patch_size=14, hidden_act="gelu")
    network = CLIPVisionModel(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture
def encoder() -> ClipImageEncoder:
    return ClipImageEncoder(small_network())


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, 44, 80, 3), dtype=np.uint8)


def to_range(frames: np.ndarray) -> Tensor:
    return (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


@torch.no_grad()
def test_features_are_what_goes_into_the_last_layer(encoder: ClipImageEncoder, frames: np.ndarray) -> None:
    seen: list[Tensor] = []
    encoder.network.encoder.layers[-1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    features = encoder.encode(frames)
    assert features.shape == (2, encoder.image_len, encoder.image_dim) == (2, 257, 16)
    assert features.dtype == torch.float32 and not features.requires_grad
    assert torch.equal(features, seen[0])
    assert not torch.equal(features, encoder.network(clip_input(to_range(frames))).last_hidden_state)


def test_pictures_do_not_depend_on_the_batch(encoder: ClipImageEncoder, frames: np.ndarray) -> None:
    both = encoder.encode(torch.from_numpy(frames))
    torch.testing.assert_close(encoder.encode(frames[1:])[0], both[1], rtol=0, atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_the_whole_canvas_becomes_the_square() -> None:
    """A ramp over the columns stays a ramp from edge to edge, whatever the shape of the canvas."""
    ramp = torch.linspace(-1, 1, 80).expand(1, 3, 44, 80)
    levels = clip_input(ramp) * torch.tensor(OPENAI_CLIP_STD)[:, None, None]
    levels = levels + torch.tensor(OPENAI_CLIP_MEAN)[:, None, None]
    assert levels.shape == (1, 3, 224, 224)
    assert torch.allclose(levels[..., :1, :], levels, atol=1e-5)  # rows are alike
    middle = levels[0, 0, 0, 8:-8]
    expected = ((torch.arange(224) + 0.5) * 80 / 224 - 0.5)[8:-8] / 79  # where each pixel lies on the ramp
    torch.testing.assert_close(middle, expected, rtol=0, atol=2e-3)


def test_resizing_is_bicubic_without_antialiasing() -> None:
    """Every second row and column of a canvas of twice the size lies between four pixels: fixed weights say how."""
    column = torch.zeros(448)
    column[224] = 1.0
    made = clip_input(column.expand(1, 3, 448, 448))[0, 0, 0] * OPENAI_CLIP_STD[0] + OPENAI_CLIP_MEAN[0]
    a, change = -0.75, (made - 0.5) * 2
    near, far = ((a + 2) * 0.5 - (a + 3)) * 0.25 + 1, ((a * 1.5 - 5 * a) * 1.5 + 8 * a) * 1.5 - 4 * a
    expected = torch.zeros(224)
    expected[[111, 112, 113]] = torch.tensor([far, near, 0.0])
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-5)


def test_pixels_are_rounded_to_the_type_of_the_weights_before_the_shift(frames: np.ndarray) -> None:
    narrow = ClipImageEncoder(small_network().to(torch.bfloat16))
    seen: list[Tensor] = []
    narrow.network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    features = narrow.encode(frames)
    rounded = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255).to(torch.bfloat16)
    assert torch.equal(seen[0], clip_input((rounded - 0.5) / 0.5)) and seen[0].dtype == torch.bfloat16
    assert features.dtype == torch.float32
    wide = ClipImageEncoder(small_network()).encode(frames)
    assert 0 < (features - wide).norm() < 0.05 * wide.norm()


def test_loads_the_layout_of_transformers(encoder: ClipImageEncoder, frames: np.ndarray, tmp_path: Path) -> None:
    encoder.network.save_pretrained(tmp_path)
    loaded = ClipImageEncoder.from_pretrained(tmp_path, dtype=torch.float32)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded.encode(frames), encoder.encode(frames))
    assert ClipImageEncoder.from_pretrained(tmp_path).network.dtype == torch.bfloat16


def test_wrong_input_is_named(encoder: ClipImageEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config.json: not found; expected the image encoder"):
        ClipImageEncoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="field image_size is 336, expected 224"):
        ClipImageEncoder(small_network(image_size=336))
    for wrong in (np.zeros((1, 3, 8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3))):
        with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
            encoder.encode(wrong)
