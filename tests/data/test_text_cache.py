"""Prompts are encoded once, in steps that survive a kill, and are found again only for the same encoder."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from wam.data.errors import StaleCacheError
from wam.data.text_cache import STEP, TextCache, encode_prompts


class CountingEncoder:
    """Feature of token i of a prompt: its character, i. One token per character; counts what it is asked."""

    text_len, text_dim = 16, 2

    def __init__(self, fail_after: int = 10**9) -> None:
        self.asked: list[str] = []
        self.fail_after = fail_after

    def encode(self, prompts: Sequence[str]) -> Tensor:
        if len(self.asked) >= self.fail_after:
            raise KeyboardInterrupt
        self.asked += prompts
        out = torch.zeros(len(prompts), self.text_len, self.text_dim)
        for row, prompt in enumerate(prompts):
            for token, letter in enumerate(prompt[: self.text_len]):
                out[row, token] = torch.tensor([ord(letter), token])
        return out


def test_remembers_what_the_encoder_says(tmp_path: Path) -> None:
    encoder, prompts = CountingEncoder(), ["open the door", "close it", "open the door", "x" * 40]
    cache = TextCache(encode_prompts(prompts, encoder, "counting", tmp_path))
    assert encoder.asked == ["open the door", "close it", "x" * 40]
    torch.testing.assert_close(cache.encode(prompts), CountingEncoder().encode(prompts))
    assert (cache.text_len, cache.text_dim) == (16, 2)
    with pytest.raises(StaleCacheError, match="no prompt 'dance'"):
        cache.encode(["dance"])


def test_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    prompts = [f"task {number}" for number in range(3 * STEP)]
    with pytest.raises(KeyboardInterrupt):
        encode_prompts(prompts, CountingEncoder(fail_after=2 * STEP), "counting", tmp_path)
    encoder, seen = CountingEncoder(), []
    file = encode_prompts(prompts, encoder, "counting", tmp_path, lambda done, total: seen.append((done, total)))
    assert encoder.asked == prompts[2 * STEP :]
    assert seen == [(3 * STEP, 3 * STEP)]
    torch.testing.assert_close(TextCache(file).encode(prompts), CountingEncoder().encode(prompts))
    again = CountingEncoder()
    assert encode_prompts(prompts, again, "counting", tmp_path) == file
    assert again.asked == []


def test_other_weights_have_another_file(tmp_path: Path) -> None:
    one, two = (encode_prompts(["go"], CountingEncoder(), name, tmp_path) for name in ("one", "two"))
    assert one != two


def test_a_stranger_is_refused(tmp_path: Path) -> None:
    save_file({"go": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(StaleCacheError, match="no text cache"):
        TextCache(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="x.safetensors: cannot be read"):
        TextCache(tmp_path / "x.safetensors")
