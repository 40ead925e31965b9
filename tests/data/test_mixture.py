"""Mixtures: proportions, order, resuming, and members that do not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.data.synthetic import EMBODIMENT
from wam.data.errors import DatasetError
from wam.data.latent_cache import LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.mixture import Member, Mixture, prompts_of, shares
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec
from wam.robot.embodiment import Moments, Statistics
from wam.robot.units import Units

ONE = Moments((0.0,) * 4, (1.0,) * 4)
PEOPLE = replace(EMBODIMENT, prompt_template="people {instruction}")
ROBOT = replace(EMBODIMENT, statistics=Statistics(ONE, ONE))


@pytest.fixture
def source(dataset: LeRobotDataset, cache: LatentCache) -> WindowSource:
    return WindowSource(dataset, cache, WindowSpec(chunks=3), EpisodeSelection(split="all"))


def members(source: WindowSource) -> list[Member]:
    """Two robots, the second twice as wide a scale, and video without actions."""
    double = replace(ROBOT, statistics=Statistics(ONE, replace(ONE, std=(2.0,) * 4)))
    return [
        Member("one", source, Units(ROBOT), slot=0, weight=2),
        Member("two", source, Units(double), slot=1, weight=1),
        Member("video", source, None, slot=1, weight=1, embodiment=PEOPLE),
    ]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 64))
def test_shares_add_up_and_are_off_by_less_than_one(weights: list[float], batch: int) -> None:
    counts = shares(weights, batch)
    assert sum(counts) == batch
    assert all(abs(count - weight / sum(weights) * batch) < 1 for count, weight in zip(counts, weights, strict=True))


def test_every_batch_holds_each_member_in_its_own_units(source: WindowSource) -> None:
    mixture = Mixture(members(source), batch_size=8)
    assert mixture.counts == [4, 2, 2]
    for _ in range(3):
        batch = next(mixture)
        assert batch.embodiment.tolist() == [0] * 4 + [1] * 2 + [1] * 2
        assert batch.has_action.tolist() == [True] * 6 + [False] * 2
        assert not batch.action[6:].any() and not batch.state[6:].any() and not batch.action_dims[6:].any()
        rows = source._offset[batch.episode.numpy()] + batch.row.numpy()
        raw = source._action[rows]
        scale = torch.tensor([1.0] * 4 + [2.0] * 2)[:, None]
        assert torch.allclose(batch.action[:6, 0] * scale, torch.from_numpy(raw[:6]))
        prompts = [prompts_of(mixture.members)[i] for i in batch.text_id.tolist()]
        plain = [source.sentences[task] for task in source._instructions.said(rows, None)]
        assert prompts == [*plain[:6], *(f"people {sentence}" for sentence in plain[6:])]


def test_where_nothing_was_said_there_is_no_prompt(source: WindowSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the robot's template: the policy hears nothing then, too."""
    monkeypatch.setattr(WindowSource, "sentences", property(lambda _: ("push", "")))
    assert prompts_of(members(source)) == ["push", "", "push", "", "people push", ""]


def test_half_of_a_batch_can_come_from_the_few_labelled_episodes(dataset: LeRobotDataset, cache: LatentCache) -> None:
    source = WindowSource(dataset, cache, WindowSpec(chunks=3), EpisodeSelection("all", labelled_share=0.4))
    assert 0 < len(source.labelled_episodes) < len(source.episodes)
    member = Member("one", source, Units(ROBOT), labelled_part=0.5)
    drawn = Mixture([member], 6), Mixture([member], 6)
    seen = []
    for _ in range(8):
        batch = next(drawn[0])
        assert batch.has_action.tolist() == [True] * 3 + [False] * 3
        seen += zip(batch.episode[:3].tolist(), batch.row[:3].tolist(), strict=True)
    per_epoch = len(source.labelled_anchors()) // 3 * 3
    assert len(set(seen[:per_epoch])) == len(seen[:per_epoch]), "a labelled window came twice before all had come"
    drawn[1].load_state_dict(drawn[0].state_dict())
    assert torch.equal(next(drawn[0]).row, next(drawn[1]).row)
    assert [next(Mixture([replace(member, labelled_part=1.0)], 4)).has_action.all() for _ in range(2)] == [True, True]


def test_resuming_goes_on_exactly_and_ranks_differ(source: WindowSource) -> None:
    one, other = Mixture(members(source), 8, seed=3), Mixture(members(source), 8, seed=3)
    for _ in range(5):
        next(one)
    other.load_state_dict(one.state_dict())
    assert torch.equal(next(one).row, next(other).row)
    ranks = [next(Mixture(members(source), 8, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    drawn = [{*zip(b.episode[:4].tolist(), b.row[:4].tolist(), strict=True)} for b in ranks]
    assert not drawn[0] & drawn[1], "two ranks drew the same window of one member"
    with pytest.raises(ValueError, match="saved members are"):
        Mixture(members(source)[:1], 8).load_state_dict(one.state_dict())


def test_what_does_not_fit_is_named(source: WindowSource, dataset: LeRobotDataset, cache: LatentCache) -> None:
    with pytest.raises(DatasetError, match="weight 0.01 of 'two' gives it no window"):
        first, second, _ = members(source)
        Mixture([first, replace(second, weight=0.01)], 8)
    few = WindowSource(dataset, cache, source.spec, EpisodeSelection("all", labelled_share=0.5))
    with pytest.raises(DatasetError, match="labelled_part 0.1 of 4 windows .* is 0 with actions and 4 without"):
        Mixture([replace(members(source)[0], source=few, labelled_part=0.1)], 4)
    with pytest.raises(DatasetError, match="every member is video only"):
        Mixture([members(source)[2]], 8)
    longer = WindowSource(dataset, cache, WindowSpec(chunks=4), EpisodeSelection(split="all"))
    with pytest.raises(DatasetError, match="windows differ in video"):
        next(Mixture([members(source)[0], replace(members(longer)[1])], 8))
