"""The nano tokenizer keeps the contract: causal, streaming, saved and loaded exactly."""

import json
from pathlib import Path

import pytest
import torch

from tests.encoders.streams import check_a_state_can_be_used_twice
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.encoders.video import VideoTokenizer

CONFIG = NanoTokenizerConfig(z_channels=6, width=(8, 12), depth=(1, 1), canvas_height=16, canvas_width=32)


@pytest.fixture
def tokenizer() -> NanoTokenizer:
    """Random weights everywhere, so that no path is silent, and statistics that are not the defaults."""
    torch.manual_seed(0)
    network = NanoTokenizer(CONFIG)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    network.background.uniform_(-1, 1)
    network.latent_mean.normal_()
    network.latent_std.uniform_(0.5, 2)
    return network.requires_grad_(False).eval()


@pytest.fixture
def video() -> torch.Tensor:
    return torch.rand(2, 3, 13, 16, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes(tokenizer: NanoTokenizer, video: torch.Tensor) -> None:
    latents = tokenizer.encode(video)
    assert isinstance(tokenizer, VideoTokenizer)
    assert latents.shape == (2, 6, 4, 2, 4)
    assert tokenizer.decode(latents).shape == video.shape
    assert tokenizer.decode(tokenizer.encode(video[:, :, :1])).shape == (2, 3, 1, 16, 32)


def test_streaming_equals_one_shot(tokenizer: NanoTokenizer, video: torch.Tensor) -> None:
    whole = tokenizer.encode(video)
    first, state = tokenizer.encode_first(video[:, :, :1])
    second, state = tokenizer.encode_next(state, video[:, :, 1:5])
    rest, _ = tokenizer.encode_next(state, video[:, :, 5:])
    torch.testing.assert_close(torch.cat([first, second, rest], dim=2), whole, rtol=0, atol=2e-6)


def test_streaming_decode_equals_one_shot(tokenizer: NanoTokenizer, video: torch.Tensor) -> None:
    latents = tokenizer.encode(video)
    first, state = tokenizer.decode_first(latents[:, :, :1])
    second, state = tokenizer.decode_next(state, latents[:, :, 1:2])
    rest, _ = tokenizer.decode_next(state, latents[:, :, 2:])
    torch.testing.assert_close(torch.cat([first, second, rest], 2), tokenizer.decode(latents), rtol=0, atol=2e-6)


def test_a_state_can_be_used_twice(tokenizer: NanoTokenizer, video: torch.Tensor) -> None:
    _, state = tokenizer.encode_first(video[:, :, :1])
    check_a_state_can_be_used_twice(tokenizer.encode_next, state, video[:, :, 1:5], video[:, :, 5:9])


@pytest.mark.parametrize("changed", [1, 4, 5, 12])
def test_later_frames_never_change_earlier_latents(tokenizer: NanoTokenizer, video: torch.Tensor, changed: int) -> None:
    other = video.clone()
    other[:, :, changed:] = 0.3
    before = 1 + (changed - 1) // 4
    same, different = tokenizer.encode(video), tokenizer.encode(other)
    assert torch.equal(same[:, :, :before], different[:, :, :before])
    assert not torch.equal(same[:, :, before], different[:, :, before])


def test_later_latents_never_change_earlier_frames(tokenizer: NanoTokenizer, video: torch.Tensor) -> None:
    latents = tokenizer.encode(video)
    other = latents.clone()
    other[:, :, 2:] += 1
    same, different = tokenizer.decode(latents), tokenizer.decode(other)
    assert torch.equal(same[:, :, :5], different[:, :, :5])
    assert not torch.equal(same[:, :, 5:9], different[:, :, 5:9])


def test_bfloat16_weights_stay_close(tokenizer: NanoTokenizer, video: torch.Tensor) -> None:
    exact = tokenizer.encode(video)
    rounded = tokenizer.to(torch.bfloat16).encode(video)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).std() < 0.05 * exact.std()


def test_saved_and_loaded_exactly(tokenizer: NanoTokenizer, video: torch.Tensor, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "a")
    loaded = NanoTokenizer.from_pretrained(tmp_path / "a")
    assert loaded.config == CONFIG
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.encode(video), tokenizer.encode(video))
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]


def test_wrong_folders_are_named(tokenizer: NanoTokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="save_pretrained"):
        NanoTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"colour": 1}))
    with pytest.raises(ValueError, match="unknown fields \\['colour'\\]"):
        NanoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings | {"model_type": "other"}))
    with pytest.raises(ValueError, match="model_type"):
        NanoTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_named(tokenizer: NanoTokenizer, tmp_path: Path, name: str) -> None:
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:30])
    with pytest.raises(ValueError, match=f"{tmp_path / name}: (not JSON|cannot be read)"):
        NanoTokenizer.from_pretrained(tmp_path)


def test_wrong_shapes_are_named(tokenizer: NanoTokenizer, video: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected 1 \\+ 4 n"):
        tokenizer.encode(video[:, :, :4])
    with pytest.raises(ValueError, match="canvas of 16 x 32"):
        tokenizer.encode(torch.zeros(1, 3, 1, 16, 16))
    with pytest.raises(ValueError, match="expected \\(B, 6, F >= 1, h, w\\)"):
        tokenizer.decode(torch.zeros(1, 5, 1, 2, 4))
    with pytest.raises(ValueError, match="grid"):
        tokenizer.decode(torch.zeros(1, 6, 1, 2, 2))
    with pytest.raises(ValueError, match="canvas_width is 30"):
        NanoTokenizerConfig(canvas_width=30)


def test_principal_components_alone_already_reconstruct(video: torch.Tensor) -> None:
    torch.manual_seed(0)
    tokenizer = NanoTokenizer(CONFIG)
    patterns = torch.randn(CONFIG.z_channels, 3, 8, 8)
    codes = torch.randn(40, CONFIG.z_channels, 2, 4)
    frames = torch.einsum("bzhw,zcij->bchiwj", codes, patterns).reshape(40, 3, 1, 16, 32) / 20
    tokenizer.start_from_principal_components(frames, torch.ones(40, 1, 1, 16, 32))
    raw = tokenizer.analyse(frames)
    latents = (raw - raw.mean((0, 2, 3, 4), keepdim=True)) / raw.std((0, 2, 3, 4), keepdim=True)
    error = tokenizer.synthesise_first(latents) - frames
    assert error.square().mean() < 0.01 * frames.square().mean()
