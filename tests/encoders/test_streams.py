"""Streams of pictures that are encoded as one batch are the streams encoded alone."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.encoders.streams import join_streams, split_stream, stream_shape
from wam.encoders.video import StreamingEncoder
from wam.encoders.wan_vae import WanVideoTokenizer


def nano() -> StreamingEncoder:
    sizes = NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(1, 1), canvas_height=32, canvas_width=32)
    made = NanoTokenizer(sizes)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def wan() -> StreamingEncoder:
    tables = {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    return WanVideoTokenizer(AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, **tables))


@pytest.fixture(params=[nano, wan])
def encoder(request: pytest.FixtureRequest) -> StreamingEncoder:
    torch.manual_seed(0)
    return request.param()  # type: ignore[no-any-return]


def film(frames: int, seed: int) -> Tensor:
    return torch.rand(1, 3, frames, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@torch.no_grad()
def test_joined_streams_go_on_as_each_alone_and_come_apart_again(encoder: StreamingEncoder) -> None:
    films = [film(13, seed) for seed in range(3)]
    states, alone = [], []
    for pictures in films:
        first, state = encoder.encode_first(pictures[:, :, :1])
        second, state = encoder.encode_next(state, pictures[:, :, 1:5])
        third, after = encoder.encode_next(state, pictures[:, :, 5:9])
        fourth, _ = encoder.encode_next(after, pictures[:, :, 9:])
        states.append(state)
        alone.append((third, fourth))
    together, after = encoder.encode_next(join_streams(states), torch.cat([pictures[:, :, 5:9] for pictures in films]))
    torch.testing.assert_close(together, torch.cat([third for third, _ in alone]), rtol=0, atol=1e-5)
    apart = split_stream(after, [1, 2])
    assert stream_shape(apart[0]) == stream_shape(apart[1]) == stream_shape(after)
    last, _ = encoder.encode_next(apart[1], torch.cat([pictures[:, :, 9:] for pictures in films[1:]]))
    torch.testing.assert_close(last, torch.cat([fourth for _, fourth in alone[1:]]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_streams_of_other_pictures_do_not_go_together(encoder: StreamingEncoder) -> None:
    _, small = encoder.encode_first(film(1, 0))
    if isinstance(encoder, WanVideoTokenizer):  # it remembers more after the first group than before it
        _, later = encoder.encode_next(small, film(4, 1))
        assert stream_shape(small) != stream_shape(later)
    assert stream_shape(small) == stream_shape(encoder.encode_first(film(1, 2))[1])
    assert stream_shape((small, "start")) != stream_shape((small, "end"))
