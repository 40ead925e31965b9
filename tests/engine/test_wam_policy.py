"""The closed loop: what it remembers, what it refuses, and that it is the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models import EMBODIMENT, TINY, tiny_model

from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.engine.wam_policy import LoopConfig, WamPolicy
from wam.model.attention import ANCHOR, EMPTY
from wam.robot.observation import Observation
from wam.world_action_model import Sampler


class WordLengths:
    """A text encoder small enough for a test: the length of each word."""

    text_len, text_dim = TINY.text_len, TINY.transformer.text_dim

    def encode(self, prompts: list[str]) -> torch.Tensor:
        out = torch.zeros(len(prompts), self.text_len, self.text_dim)
        for row, prompt in enumerate(prompts):
            for i, word in enumerate(prompt.split()[: self.text_len]):
                out[row, i] = len(word)
        return out


def policy(config: LoopConfig | None = None) -> WamPolicy:
    torch.manual_seed(0)
    sizes = NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(1, 1), canvas_height=32, canvas_width=32)
    return WamPolicy(tiny_model(), NanoTokenizer(sizes).eval(), WordLengths(), config)


def looks(count: int, seed: int = 0, instruction: str = "push the button") -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation(
            {"front": rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)},
            rng.normal(size=3).astype(np.float32),
            instruction,
            i / EMBODIMENT.control_hz,
        )
        for i in range(count)
    ]


def play(driver: WamPolicy, chunks: int, seed: int = 3) -> list[np.ndarray]:
    driver.reset(seed)
    return [driver.act(looks(1 if i == 0 else 4, seed=i)).actions for i in range(chunks)]


def test_an_episode_repeats_bit_for_bit() -> None:
    first, again, other = play(policy(), 5), play(policy(), 5), play(policy(), 5, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_memory_slides_and_keeps_the_anchor() -> None:
    driver = policy()
    play(driver, 6)
    assert driver._session is not None
    kept = driver._session.prompts[0].cache.chunk[0].unique().tolist()
    assert kept == [ANCHOR, 3, 4]  # memory 2: the anchor and the last two chunks


def test_what_was_imagined_never_enters_the_cache() -> None:
    """Another sampler imagines something else; what is remembered must not differ."""
    caches = []
    for steps in (1, 3):
        driver = policy(LoopConfig(Sampler(steps=steps)))
        play(driver, 4)
        assert driver._session is not None
        cache = driver._session.prompts[0].cache
        caches.append(cache.keys[:, :, :, : cache.kept])
    assert torch.equal(*caches)


def test_without_memory_only_the_present_counts() -> None:
    config = LoopConfig(memory="none", execute=2)
    driver, other = policy(config), policy(config)
    assert driver.execute == driver.video_stride == 2
    for chosen, past in ((driver, 1), (other, 2)):
        chosen.reset(0)
        chosen.act(looks(1, seed=past))
    assert np.array_equal(driver.act(looks(1, seed=9)).actions, other.act(looks(1, seed=9)).actions)
    assert (driver._session.prompts[0].cache.chunk != EMPTY).sum() == 4  # type: ignore[union-attr]


def test_a_new_sentence_takes_effect_and_keeps_what_was_seen() -> None:
    driver, same = policy(), policy()
    play(driver, 3), play(same, 3)
    changed = driver.act(looks(4, seed=7, instruction="open the long drawer")).actions
    assert not np.array_equal(changed, same.act(looks(4, seed=7)).actions)
    assert driver._session.prompts[0].cache.chunk[0].unique().tolist() == [ANCHOR, 1, 2]  # type: ignore[union-attr]


def test_guidance_one_and_no_guidance_agree_and_more_changes_the_dream() -> None:
    dreams = []
    for guidance in (1.0, 3.0):
        driver = policy(LoopConfig(Sampler(steps=2, guidance=guidance), decode_video=True))
        driver.reset(0)
        dreams.append(driver.act(looks(1)).dream)
    assert dreams[0] is not None and dreams[0].shape == (4, 32, 32, 3)
    assert not np.array_equal(dreams[0], dreams[1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda o: replace(o, images={}), "camera 'front' is missing"),
        (lambda o: replace(o, images={"front": o.images["front"][:16]}), r"camera 'front': found uint8 \(16, 32, 3\)"),
        (lambda o: replace(o, state=np.zeros(2, np.float32)), r"state: found shape \(2,\)"),
        (lambda o: replace(o, state=np.array([0, np.nan, 0], np.float32)), r"state: \['y'\] is not finite"),
    ],
)
def test_bad_observations_are_named_and_the_session_goes_on(bad, message) -> None:  # type: ignore[no-untyped-def]
    driver, undisturbed = policy(), policy()
    play(driver, 2), play(undisturbed, 2)
    observations = looks(4, seed=8)
    with pytest.raises(ValueError, match=message):
        driver.act([*observations[:-1], bad(observations[-1])])
    assert np.array_equal(driver.act(observations).actions, undisturbed.act(observations).actions)


def test_wrong_cadence_is_named() -> None:
    driver = policy()
    play(driver, 1)
    with pytest.raises(ValueError, match="found 3 observations since the last chunk, expected 4"):
        driver.act(looks(3))
    with pytest.raises(ValueError, match="a sliding memory takes whole chunks"):
        policy(LoopConfig(execute=2))
