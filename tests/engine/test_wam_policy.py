"""The closed loop: what it remembers, what it refuses, and that it is the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.engine.robots import looks, tiny_engine
from tests.models import TINY

from wam.engine.config import EngineConfig
from wam.engine.wam_policy import WamPolicy
from wam.flow.sampler import Sampler
from wam.model.attention import ANCHOR, EMPTY


def policy(config: EngineConfig | None = None) -> WamPolicy:
    return WamPolicy(tiny_engine(config))


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
    kept = driver.session.remembered.cache.chunk[0].unique().tolist()
    assert kept == [ANCHOR, 3, 4]  # memory 2: the anchor and the last two chunks


def test_what_was_imagined_never_enters_the_cache() -> None:
    """Another sampler imagines something else; what is remembered must not differ."""
    caches = []
    for steps in (1, 3):
        driver = policy(EngineConfig(Sampler(steps=steps)))
        play(driver, 4)
        cache = driver.session.remembered.cache
        caches.append(cache.keys[:, :, :, : cache.kept])
    assert torch.equal(*caches)


def test_without_memory_only_the_present_counts() -> None:
    config = EngineConfig(memory="none", execute=2)
    driver, other = policy(config), policy(config)
    assert driver.execute == driver.video_stride == 2
    for chosen, past in ((driver, 1), (other, 2)):
        chosen.reset(0)
        chosen.act(looks(1, seed=past))
    assert np.array_equal(driver.act(looks(1, seed=9)).actions, other.act(looks(1, seed=9)).actions)
    assert (driver.session.remembered.cache.chunk != EMPTY).sum() == 4


def test_a_new_sentence_takes_effect_and_keeps_what_was_seen() -> None:
    driver, same = policy(), policy()
    play(driver, 3), play(same, 3)
    changed = driver.act(looks(4, seed=7, instruction="open the long drawer")).actions
    assert not np.array_equal(changed, same.act(looks(4, seed=7)).actions)
    assert driver.session.remembered.cache.chunk[0].unique().tolist() == [ANCHOR, 1, 2]


def test_guidance_one_and_no_guidance_agree_and_more_changes_the_dream() -> None:
    dreams = []
    for guidance in (1.0, 3.0):
        driver = policy(EngineConfig(Sampler(steps=2, guidance=guidance), decode_video=True))
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
        policy(EngineConfig(execute=2))


def test_a_bidirectional_model_runs_without_memory_alone() -> None:
    both_ways = replace(TINY, transformer=replace(TINY.transformer, autoregressive=False))
    with pytest.raises(ValueError, match="memory='slide': this model is bidirectional .* use memory='none'"):
        tiny_engine(model=both_ways)
    driver = WamPolicy(tiny_engine(EngineConfig(memory="none"), both_ways))
    assert all(driver.act(looks(1, seed=i)).actions.shape == (4, 2) for i in range(2))
