"""umT5 as text encoder: the numbers of the padded and masked call, prompts apart from each other, bounded memory."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from wam.encoders.text import TextEncoder
from wam.encoders.umt5 import Umt5TextEncoder

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "open",
    "close",
    "the",
    "drawer",
    "window",
    "push",
    "puck",
    "to",
    "green",
    "goal",
    "a",
]
PROMPTS = ["open the drawer", "push the puck to the green goal"]
LENGTH, END = 12, WORDS.index("</s>")


def small_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, and the end mark after the last."""
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=1000
    )


def small_network() -> UMT5EncoderModel:
    torch.manual_seed(0)
    config = UMT5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    network = UMT5EncoderModel(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture
def encoder() -> Umt5TextEncoder:
    return Umt5TextEncoder(small_network(), small_tokenizer(), text_len=LENGTH)


def count_calls(encoder: Umt5TextEncoder) -> list[Tensor]:
    """Token ids of every call of the network from now on."""
    calls: list[Tensor] = []
    encoder.network.register_forward_pre_hook(lambda _m, _a, kw: calls.append(kw["input_ids"]), with_kwargs=True)
    return calls


def test_shape_and_zeros_beyond_each_prompt(encoder: Umt5TextEncoder) -> None:
    features = encoder.encode(PROMPTS)
    assert isinstance(encoder, TextEncoder)
    assert features.shape == (2, encoder.text_len, encoder.text_dim) == (2, LENGTH, 16)
    assert features.dtype == torch.float32 and not features.requires_grad
    assert (features.abs().sum(-1) > 0).sum(-1).tolist() == [4, 8]  # words and the end mark
    assert not features[0, 4:].any() and not features[1, 8:].any()


@torch.no_grad()
def test_equals_the_padded_and_masked_call(encoder: Umt5TextEncoder) -> None:
    """What the released code does: pad every prompt, mask the padding, set what it gave to zero."""
    tokens = small_tokenizer()(PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt")
    mask = tokens["attention_mask"]
    expected = small_network().eval()(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
    torch.testing.assert_close(encoder.encode(PROMPTS), expected * mask[..., None], rtol=0, atol=1e-5)


def test_features_do_not_depend_on_the_batch(encoder: Umt5TextEncoder) -> None:
    alone = Umt5TextEncoder(small_network(), small_tokenizer(), text_len=LENGTH).encode(PROMPTS[:1])
    assert torch.equal(alone[0], encoder.encode(PROMPTS)[0])
    assert torch.equal(encoder.encode(PROMPTS[::-1]).flip(0), encoder.encode(PROMPTS))


def test_prompts_are_remembered_up_to_a_bound() -> None:
    encoder = Umt5TextEncoder(small_network(), small_tokenizer(), text_len=LENGTH, remember=2)
    calls = count_calls(encoder)
    first, second, third = "open the drawer", "close the drawer", "push the puck"
    expected = encoder.encode([first, second, first])
    assert len(calls) == 2 and torch.equal(expected[0], expected[2])
    encoder.encode([third])  # the second one was used longest ago
    assert torch.equal(encoder.encode([first])[0], expected[0]) and len(calls) == 3
    assert torch.equal(encoder.encode([second])[0], expected[1]) and len(calls) == 4
    assert encoder.encode([first, second, third]).shape[0] == 3  # more than the bound at once


def test_remembered_prompts_outlive_the_weights(encoder: Umt5TextEncoder) -> None:
    expected = encoder.encode(PROMPTS)
    encoder.to("meta")
    assert torch.equal(encoder.encode(PROMPTS), expected)


def test_long_prompts_are_cut_before_the_end_mark(encoder: Umt5TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    calls = count_calls(encoder)
    with caplog.at_level(logging.WARNING):
        encoder.encode(["push " * (LENGTH - 1)])
    assert not caplog.records and calls[0].shape == (1, LENGTH)
    with caplog.at_level(logging.WARNING):
        encoder.encode(["push " * 30])
    assert "has 31 tokens; only the first 12 are used" in caplog.text
    assert calls[1].shape == (1, LENGTH) and calls[1][0, -1] == END


def test_loads_the_layout_of_transformers(encoder: Umt5TextEncoder, tmp_path: Path) -> None:
    encoder.network.save_pretrained(tmp_path / "text_encoder")
    encoder.tokenizer.save_pretrained(tmp_path / "tokenizer")
    folders = tmp_path / "text_encoder", tmp_path / "tokenizer"
    loaded = Umt5TextEncoder.from_pretrained(*folders, dtype=torch.float32, text_len=LENGTH)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert torch.equal(loaded.encode(PROMPTS), encoder.encode(PROMPTS))
    narrow = Umt5TextEncoder.from_pretrained(*folders, text_len=LENGTH)
    assert narrow.network.dtype == torch.bfloat16
    assert (narrow.encode(PROMPTS) - encoder.encode(PROMPTS)).norm() < 0.05 * encoder.encode(PROMPTS).norm()


def test_missing_files_are_named(encoder: Umt5TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config.json: not found; expected the text encoder"):
        Umt5TextEncoder.from_pretrained(tmp_path)
    encoder.network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="words: not found; expected the folder of the text encoder's tokenizer"):
        Umt5TextEncoder.from_pretrained(tmp_path, tmp_path / "words")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")  # a pickle, by its name
    with pytest.raises(ValueError, match=r"no \*\.safetensors file for the text encoder; found .*pytorch_model\.bin"):
        Umt5TextEncoder.from_pretrained(tmp_path)


def test_wrong_arguments_are_named(encoder: Umt5TextEncoder) -> None:
    with pytest.raises(ValueError, match="expected a list"):
        encoder.encode("open the drawer")
    with pytest.raises(ValueError, match="text_len is 1"):
        Umt5TextEncoder(small_network(), small_tokenizer(), text_len=1)
    with pytest.raises(ValueError, match="remember is 0"):
        Umt5TextEncoder(small_network(), small_tokenizer(), remember=0)
    tokenizer = small_tokenizer()
    tokenizer.add_tokens([f"word{n}" for n in range(10)])
    with pytest.raises(ValueError, match="the tokenizer has 24 tokens, the network knows 20"):
        Umt5TextEncoder(small_network(), tokenizer)
