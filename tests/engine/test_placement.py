"""Wrappers that move parts: not a number changes, no more is held than promised, and the account is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from tests.tiny_transformer import CONFIG, tiny_transformer
from torch import Tensor, nn

from wam.encoders.text import TextEncoder
from wam.encoders.video import VideoTokenizer
from wam.engine.placement import (
    BlockOffload,
    DroppedTextEncoder,
    Line,
    OffloadedImageEncoder,
    OffloadedVideoTokenizer,
    Visiting,
    memory_account,
    tensor_bytes,
)
from wam.engine.quantize import quantize
from wam.engine.released_loop import ReleasedLoop, ReleasedSampler
from wam.model.attention import ANCHOR
from wam.model.kv_cache import KVCache
from wam.model.transformer import Block, Transformer

DEEP = replace(CONFIG, layers=5, dim=64, ffn_dim=96, image_dim=None)


def chunks(transformer: Transformer) -> Tensor:
    """A closed loop of two chunks with a prompt read before it: everything that runs a block."""
    g = torch.Generator().manual_seed(1)
    context = transformer.context(torch.randn(1, 5, 10, generator=g))
    loop = ReleasedLoop(transformer, [context], (2, 2), ReleasedSampler(steps=2, guidance=1.0))
    answers = []
    for number in (ANCHOR, 0):
        loop.remember(torch.randn(1, 4, 1, 4, 4, generator=g), number)
        noise = (torch.randn(shape, generator=g) for shape in ((1, 4, 1, 4, 4), (1, 4, 2), (1, 1, 3)))
        done = loop.denoise(*noise, chunk=number + 1)
        answers += [done.video.flatten(), done.action.flatten()]
    return torch.cat(answers)


def bytes_of(block: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in block.parameters())


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize("resident", [1, 2, 3, 5])
def test_offloaded_blocks_give_the_same_numbers(resident: int) -> None:
    transformer = tiny_transformer(DEEP)
    expected = chunks(transformer)
    offload = BlockOffload(transformer, "cpu", resident)
    assert torch.equal(chunks(transformer), expected)
    assert torch.equal(chunks(transformer), expected)  # again, from another state of the places
    weights = {name: x.clone() for name, x in transformer.state_dict().items()}
    offload.remove()
    assert torch.equal(chunks(transformer), expected) and offload.place_tensors == []
    assert all(torch.equal(weights[name], x) for name, x in transformer.state_dict().items())


@pytest.mark.parametrize("resident", [1, 2, 3])
def test_no_more_than_the_promised_blocks_are_on_the_device(resident: int) -> None:
    """On the meta device, presence can be seen: a block is there if its weights are."""
    transformer = tiny_transformer(DEEP)
    offload = BlockOffload(transformer, "meta", resident)
    seen: list[tuple[int, ...]] = []

    def look(block: nn.Module, *_: object) -> None:
        present = [i for i, other in enumerate(transformer.blocks) if any(p.is_meta for p in other.parameters())]
        assert all(p.is_meta for p in block.parameters()), "the block that runs is on the device"
        assert tuple(present) == offload.resident
        seen.append(tuple(present))

    for block in transformer.blocks:
        block.register_forward_pre_hook(look)
    x, levels = torch.empty(1, 3, 64, device="meta"), torch.empty(1, 1, 6, 64, device="meta")
    rotation = (torch.empty(1, 1, 3, 16, device="meta"), torch.empty(1, 1, 3, 16, device="meta"))
    text = torch.empty(1, 2, 7, 32, device="meta")
    slot = torch.zeros(3, dtype=torch.long, device="meta")
    for _ in range(2):
        for block in transformer.blocks:
            x = block(x, levels, slot, rotation, None, (text, text), None, None)
    assert len(seen) == 10 and max(map(len, seen)) == resident
    if resident > 1:
        assert all((index + 1) % 5 in present for index, present in zip([*range(5)] * 2, seen, strict=True))
    assert sum(map(tensor_bytes, offload.place_tensors)) == resident * bytes_of(Block(DEEP))
    assert sum(map(tensor_bytes, offload.host_tensors)) == 5 * bytes_of(Block(DEEP))


@pytest.mark.parametrize(("resident", "per_pass"), [(1, 5), (2, 5), (3, 4), (4, 3), (5, 0)])
def test_blocks_that_need_not_move_stay(resident: int, per_pass: int) -> None:
    transformer = tiny_transformer(DEEP)
    offload = BlockOffload(transformer, "cpu", resident)
    for _ in range(2):
        for index in range(5):
            offload.bring(index)
    before = offload.copied
    for _ in range(3):
        for index in range(5):
            offload.bring(index)
    assert offload.copied - before <= 3 * per_pass
    if resident < 3:
        assert offload.copied - before == 3 * per_pass


def test_everything_but_the_blocks_goes_to_the_device() -> None:
    transformer = tiny_transformer(DEEP)
    BlockOffload(transformer, "meta", 1)
    on = {name: parameter.device.type for name, parameter in transformer.named_parameters()}
    assert {device for name, device in on.items() if name.startswith("blocks.")} == {"cpu"}
    assert {device for name, device in on.items() if not name.startswith("blocks.")} == {"meta"}


def test_a_prompt_is_read_block_by_block() -> None:
    """`Transformer.context` calls parts of a block, not the block: they have to be brought as well."""
    transformer = tiny_transformer(DEEP)
    text = torch.randn(1, 5, 10)
    expected = transformer.context(text).text
    offload = BlockOffload(transformer, "cpu", 1)
    for place in offload.place_tensors:
        place.data.fill_(torch.nan)
    found = transformer.context(text).text
    assert all(torch.equal(a, b) for pair in zip(expected, found, strict=True) for a, b in zip(*pair, strict=True))
    assert offload.resident == (4,)


def test_quantised_blocks_travel_as_they_are() -> None:
    transformer = tiny_transformer(DEEP)
    quantize(transformer, "int8")
    expected = chunks(transformer)
    offload = BlockOffload(transformer, "cpu", 2)
    assert torch.equal(chunks(transformer), expected)
    kinds = {type(x.data).__name__ for x in offload.place_tensors}
    assert kinds == {"Tensor", "Int8Tensor"}


def test_wrong_counts_are_named() -> None:
    for resident in (0, 6):
        with pytest.raises(ValueError, match=f"resident={resident}: expected 1 to 5"):
            BlockOffload(Transformer(DEEP), "cpu", resident)


# ---------------------------------------------------------------- encoders and tokenizers


def test_a_visitor_is_on_the_device_only_while_it_works() -> None:
    visiting = Visiting(nn.Linear(3, 2), device="meta")
    assert not visiting.module.weight.is_meta
    with visiting.working() as module:
        assert module.weight.is_meta and module(torch.empty(1, 3, device="meta")).shape == (1, 2)


def test_a_visitor_goes_home_after_a_fault_too() -> None:
    """Its own weights, not copies: what is shared stays shared."""
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    module.register_buffer("mean", torch.ones(3), persistent=False)
    before = [id(tensor) for tensor in (*module.parameters(), *module.buffers())]
    visiting = Visiting(module, "meta")
    with pytest.raises(KeyError), visiting.working() as working:
        assert working["a"].weight is working["b"].weight and working["a"].weight.is_meta and working.mean.is_meta
        raise KeyError
    assert [id(tensor) for tensor in (*module.parameters(), *module.buffers())] == before
    assert not module["b"].weight.is_meta and torch.equal(module.mean, torch.ones(3))


class CountingEncoder:
    """Features from the letters of a prompt."""

    text_len, text_dim = 4, 2
    built = read = 0

    def __init__(self) -> None:
        type(self).built += 1

    def encode(self, prompts: Sequence[str]) -> Tensor:
        type(self).read += len(prompts)
        return torch.stack([torch.full((4, 2), float(sum(map(ord, prompt)))) for prompt in prompts])


def test_a_text_encoder_is_built_for_new_prompts_alone() -> None:
    CountingEncoder.built = CountingEncoder.read = 0
    dropped = DroppedTextEncoder(CountingEncoder, 4, 2)
    assert isinstance(dropped, TextEncoder) and CountingEncoder.built == 0
    first = dropped.encode(["push", "pull", "push"])
    assert torch.equal(first, CountingEncoder().encode(["push", "pull", "push"]))
    CountingEncoder.built = CountingEncoder.read = 0
    dropped.encode(["pull", "push"])
    assert (CountingEncoder.built, CountingEncoder.read) == (0, 0)
    dropped.encode(["pull", "lift", "turn"])
    assert (CountingEncoder.built, CountingEncoder.read) == (1, 2)
    with pytest.raises(ValueError, match=r"\(4, 2\), expected \(512, 4096\)"):
        DroppedTextEncoder(CountingEncoder, 512, 4096).encode(["push"])


class ScalingTokenizer(nn.Module):
    """The least that is a `VideoTokenizer`; remembers where its weights were when it was asked to work."""

    z_channels, spatial_factor = 3, 1

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.worked_on: list[str] = []

    def encode(self, video: Tensor) -> Tensor:
        self.worked_on.append(self.factor.device.type)
        return video * self.factor

    def decode(self, latents: Tensor) -> Tensor:
        self.worked_on.append(self.factor.device.type)
        return latents / self.factor

    def encode_first(self, frame: Tensor) -> tuple[Tensor, int]:
        return self.encode(frame), 1

    def encode_next(self, state: int, frames: Tensor) -> tuple[Tensor, int]:
        return self.encode(frames) + state, state + 1

    def decode_first(self, latent: Tensor) -> tuple[Tensor, int]:
        return self.decode(latent), 1

    def decode_next(self, state: int, latents: Tensor) -> tuple[Tensor, int]:
        return self.decode(latents) - state, state + 1


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_video_tokenizer_visits_for_every_call(device: str) -> None:
    tokenizer, x = ScalingTokenizer(), torch.ones(1, 3, 1, 2, 2, device=device)
    offloaded = OffloadedVideoTokenizer(tokenizer, device)
    assert isinstance(offloaded, VideoTokenizer) and (offloaded.z_channels, offloaded.spatial_factor) == (3, 1)
    results = [offloaded.encode(x), offloaded.decode(x)]
    for first, following in (
        (offloaded.encode_first, offloaded.encode_next),
        (offloaded.decode_first, offloaded.decode_next),
    ):
        started, state = first(x)
        went_on, state = following(state, x)
        results += [started, went_on]
        assert state == 2
    assert tokenizer.worked_on == [device] * 6 and tokenizer.factor.device.type == "cpu"
    if device == "cpu":
        assert [float(result.mean()) for result in results] == [2.0, 0.5, 2.0, 3.0, 0.5, -0.5]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_image_encoder_visits_for_every_call(device: str) -> None:
    encoder = ScalingTokenizer()
    offloaded = OffloadedImageEncoder(encoder, device)
    assert [offloaded(torch.ones(1, 2, device=device)).shape for _ in range(2)] == [(1, 2)] * 2
    assert encoder.worked_on == [device] * 2 and encoder.factor.device.type == "cpu"


# ---------------------------------------------------------------- the account


def test_the_account_is_the_bytes_of_real_tensors() -> None:
    transformer = tiny_transformer()
    cache = KVCache(CONFIG, 1, frame_tokens=4)
    account = memory_account({"transformer": transformer, "cache": [cache.keys, cache.values]})
    stored = sum(len(p.detach().numpy().tobytes()) for p in transformer.parameters())
    remembered = len(cache.keys.numpy().tobytes()) + len(cache.values.numpy().tobytes())
    assert account == (Line("transformer", "cpu", stored), Line("cache", "cpu", remembered))


def test_shared_memory_counts_once_and_devices_apart() -> None:
    first, second = nn.Linear(8, 4), nn.Linear(8, 4)
    second.weight = first.weight
    account = memory_account({"a": first, "b": second, "view": [first.weight.data[0]]})
    assert account == (Line("a", "cpu", 4 * (32 + 4)), Line("b", "cpu", 16))
    first.bias = nn.Parameter(torch.empty(4, device="meta"))
    assert memory_account({"a": first}) == (Line("a", "cpu", 128), Line("a", "meta", 16))


def test_the_account_sees_an_offload() -> None:
    transformer = tiny_transformer(DEEP)
    one, rest = bytes_of(transformer.blocks[0]), bytes_of(transformer) - 5 * bytes_of(transformer.blocks[0])
    offload = BlockOffload(transformer, "meta", 2)
    account = memory_account({"places": offload.place_tensors, "blocks": offload.host_tensors, "rest": transformer})
    assert account == (Line("places", "meta", 2 * one), Line("blocks", "cpu", 5 * one), Line("rest", "meta", rest))


def test_quantised_tensors_count_with_their_scales() -> None:
    transformer = tiny_transformer(DEEP)
    plain = memory_account({"t": transformer})[0].bytes
    weight = transformer.blocks[0].ffn[0].weight
    assert tensor_bytes(weight) == 96 * 64 * 4
    quantize(transformer, "int8")
    small = transformer.blocks[0].ffn[0].weight
    assert 96 * 64 < tensor_bytes(small) <= 96 * 64 + 96 * 8
    assert memory_account({"t": transformer})[0].bytes < plain / 2
