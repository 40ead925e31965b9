"""The wrapper around diffusers' video VAE: streaming equals the library's own one-shot call, on tiny random weights."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from tests.encoders.streams import check_a_state_can_be_used_twice
from wam.encoders.video import VideoTokenizer
from wam.encoders.wan_vae import WanVideoTokenizer

WAN_21 = {"base_dim": 4, "z_dim": 4, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
WAN_22 = WAN_21 | {
    "decoder_base_dim": 8,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
}
ROUNDING = 5e-6  # the library runs its last (or first) 1 x 1 x 1 convolution over all frames at once
STATISTICS = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 1.5, 2.0, 1.0]}


@pytest.fixture(params=[WAN_21, WAN_22], ids=["wan2.1", "wan2.2"])
def tokenizer(request: pytest.FixtureRequest) -> WanVideoTokenizer:
    torch.manual_seed(0)
    return WanVideoTokenizer(AutoencoderKLWan(**request.param, **STATISTICS))


@pytest.fixture
def video() -> torch.Tensor:
    return torch.rand(1, 3, 13, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _table(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1, 1)


def test_encode_equals_the_library(tokenizer: WanVideoTokenizer, video: torch.Tensor) -> None:
    with torch.no_grad():
        mean = tokenizer.vae.encode(video).latent_dist.mode()
    expected = (mean - _table(STATISTICS["latents_mean"])) / _table(STATISTICS["latents_std"])
    assert isinstance(tokenizer, VideoTokenizer)
    factor = tokenizer.spatial_factor
    assert tokenizer.encode(video).shape == (1, 4, 4, 32 // factor, 48 // factor)
    torch.testing.assert_close(tokenizer.encode(video), expected, rtol=0, atol=ROUNDING)


def test_streaming_encode_equals_one_shot(tokenizer: WanVideoTokenizer, video: torch.Tensor) -> None:
    first, state = tokenizer.encode_first(video[:, :, :1])
    second, state = tokenizer.encode_next(state, video[:, :, 1:5])
    rest, _ = tokenizer.encode_next(state, video[:, :, 5:])
    assert torch.equal(torch.cat([first, second, rest], dim=2), tokenizer.encode(video))


def test_streaming_decode_equals_the_library(tokenizer: WanVideoTokenizer, video: torch.Tensor) -> None:
    latents = tokenizer.encode(video)
    with torch.no_grad():
        raw = latents * _table(STATISTICS["latents_std"]) + _table(STATISTICS["latents_mean"])
        expected = tokenizer.vae.decode(raw).sample
    first, state = tokenizer.decode_first(latents[:, :, :1])
    second, state = tokenizer.decode_next(state, latents[:, :, 1:2])
    rest, _ = tokenizer.decode_next(state, latents[:, :, 2:])
    assert expected.shape == video.shape
    torch.testing.assert_close(tokenizer.decode(latents), expected, rtol=0, atol=ROUNDING)
    assert torch.equal(torch.cat([first, second, rest], dim=2), tokenizer.decode(latents))


def test_a_state_can_be_used_twice(tokenizer: WanVideoTokenizer, video: torch.Tensor) -> None:
    _, state = tokenizer.encode_first(video[:, :, :1])
    check_a_state_can_be_used_twice(tokenizer.encode_next, state, video[:, :, 1:5], video[:, :, 5:9])
    latents = tokenizer.encode(video)
    _, state = tokenizer.decode_first(latents[:, :, :1])
    check_a_state_can_be_used_twice(tokenizer.decode_next, state, latents[:, :, 1:2], latents[:, :, 2:3])


def test_later_frames_never_change_earlier_latents(tokenizer: WanVideoTokenizer, video: torch.Tensor) -> None:
    other = video.clone()
    other[:, :, 5:] = 0.3
    same, different = tokenizer.encode(video), tokenizer.encode(other)
    assert torch.equal(same[:, :, :2], different[:, :, :2])
    assert not torch.equal(same[:, :, 2], different[:, :, 2])


def test_loads_diffusers_weights(tokenizer: WanVideoTokenizer, video: torch.Tensor, tmp_path: Path) -> None:
    tokenizer.vae.save_pretrained(tmp_path / "vae")
    loaded = WanVideoTokenizer.from_pretrained(tmp_path, subfolder="vae")
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded.encode(video), tokenizer.encode(video))


def test_wrong_shapes_are_named(tokenizer: WanVideoTokenizer) -> None:
    with pytest.raises(ValueError, match="expected 1 \\+ 4 n"):
        tokenizer.encode(torch.zeros(1, 3, 4, 32, 32))
    with pytest.raises(ValueError, match="multiples of"):
        tokenizer.encode(torch.zeros(1, 3, 1, 33, 32))
    with pytest.raises(ValueError, match="F >= 1"):
        tokenizer.decode(torch.zeros(1, 3, 1, 4, 4))


def test_statistics_must_match_the_channels() -> None:
    with pytest.raises(ValueError, match="latents_mean has 16 values, expected z_dim = 4"):
        WanVideoTokenizer(AutoencoderKLWan(**WAN_21))
