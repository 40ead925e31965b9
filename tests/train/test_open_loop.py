"""Chunks are imagined from what really happened before them; errors and holds are those that a loop over rows finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.data.synthetic import EMBODIMENT, CellTokenizer, length_of, write_dataset
from tests.models import TINY, tiny_model, tiny_windows, with_changes
from torch import Tensor

from wam.data.latent_cache import encode_dataset
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.mixture import Member, Mixture
from wam.data.stats import robot_statistics
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec
from wam.flow.sampler import Imagined, Sampler
from wam.model.attention import ANCHOR
from wam.robot.embodiment import Embodiment, Part
from wam.robot.units import Units
from wam.train import open_loop
from wam.train.open_loop import action_errors, imagine_along, mean_and_deviation, without_gap
from wam.world_action_model import WorldActionModel

STEP = Sampler(steps=2)
RELATIVE = replace(
    EMBODIMENT,
    state=(
        Part("arm", ("x", "y", "z"), key="observation.state", start=0),
        Part("grip", ("g",), key="observation.state"),
    ),
    action=(
        Part("arm", ("a", "b", "c"), key="action", start=0, relative=True),
        Part("grip", ("d",), key="action"),
    ),
)


def dreams(model: WorldActionModel, windows: object, text: Tensor) -> list[Imagined]:
    return list(imagine_along(model, windows, text, STEP))  # type: ignore[arg-type]


def test_a_chunk_is_imagined_from_the_real_chunks_before_it_alone() -> None:
    model = tiny_model().eval()
    windows, text = tiny_windows(batch=2, chunks=4)
    plain = dreams(model, windows, text)
    video, per_chunk = windows.video.clone(), TINY.transformer.frames_per_chunk
    video[:, :, per_chunk : 2 * per_chunk] += 1.0  # chunk 1 was another one
    other = dreams(model, with_changes(windows, video=video), text)
    same = [torch.equal(a.action, b.action) for a, b in zip(plain, other, strict=True)]
    assert same == [True, True, False, False]


def test_the_first_chunk_is_what_the_closed_loop_would_imagine() -> None:
    model = tiny_model().eval()
    windows, text = tiny_windows(batch=2, chunks=2)
    cache, context = model.new_cache(batch=2), model.context(text)
    model.remember(cache, context, windows.anchor, ANCHOR)
    noise = model.noise(torch.Generator().manual_seed(0), 2)
    expected = model.denoise(model.velocity(cache, context), noise, windows.state[:, 0], 0, STEP, windows.anchor)
    assert torch.equal(dreams(model, windows, text)[0].action, expected.action)


def test_a_bidirectional_model_imagines_one_chunk() -> None:
    config = replace(TINY, transformer=replace(TINY.transformer, autoregressive=False))
    windows, text = tiny_windows(batch=2, chunks=3, config=config)
    assert len(dreams(tiny_model(config).eval(), windows, text)) == 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    root = tmp_path_factory.mktemp("open_loop") / "data"
    return LeRobotDataset(write_dataset(root, 6))


def member(dataset: LeRobotDataset, robot: Embodiment) -> Member:
    cache = encode_dataset(dataset, CellTokenizer(), EMBODIMENT, dataset.root / "latents")
    spec = WindowSpec(chunks=3, gap_probability=0.5)
    source = WindowSource(dataset, cache, spec, EpisodeSelection("all"))
    known = replace(robot, statistics=robot_statistics(robot, source.labelled_rows()))
    return Member("data", source, Units(known), embodiment=known)


def squares_by_hand(dataset: LeRobotDataset, member: Member, index: object) -> dict[str, np.ndarray]:
    """Sums of squared errors of both holds, (A,), in standard deviations: row by row, in the robot's own numbers."""
    assert member.units is not None
    robot, per_chunk = member.units.embodiment, member.source.spec.actions_per_chunk
    assert robot.statistics is not None
    mean, std = (np.array(values) for values in (robot.statistics.action.mean, robot.statistics.action.std))
    sums = {"hold_mean": np.zeros(robot.action_dim), "hold_last": np.zeros(robot.action_dim)}
    for episode, row, chunks in zip(index.episode, index.row, index.chunks, strict=True):  # type: ignore[attr-defined]
        columns = dataset.columns(int(episode))
        actions, states = columns["action"], columns["observation.state"]
        for start in row + per_chunk * np.arange(chunks):
            origin = np.where([part.relative for part in robot.action for _ in part.dims], states[start], 0.0)
            last = mean if start == 0 else actions[start - 1] - origin
            for action in actions[start : start + per_chunk] - origin:
                sums["hold_mean"] += ((mean - action) / std) ** 2
                sums["hold_last"] += ((last - action) / std) ** 2
    return sums


@pytest.mark.parametrize("robot", [EMBODIMENT, RELATIVE], ids=["absolute", "relative"])
def test_holds_are_those_that_a_loop_over_rows_finds(
    dataset: LeRobotDataset, robot: Embodiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = member(dataset, robot)
    index = without_gap(held.source.windows(np.arange(0, len(held.source), 3), np.random.default_rng(0)), 3)
    assert (index.row == 0).any() and (index.row % 8 != 0).any()

    def perfect(model: object, windows: object, *_: object) -> Iterator[Imagined]:
        for chunk in windows.action.split(8, dim=1):  # type: ignore[attr-defined]
            yield Imagined(None, chunk)

    monkeypatch.setattr(open_loop, "imagine_along", perfect)
    text = torch.zeros(len(index.row), 5, 10)
    found = action_errors(tiny_model(), Mixture([held], 1), 0, index, text, {"perfect": STEP})
    assert found["perfect"].squares.sum() == 0
    rows = sum(min(length_of(e) - r, 8 * c) for e, r, c in zip(index.episode, index.row, index.chunks, strict=True))
    for name, squares in squares_by_hand(dataset, held, index).items():
        assert found[name].count == rows
        np.testing.assert_allclose(found[name].squares.numpy(), squares, rtol=1e-3)


def test_the_root_over_all_dimensions_goes_with_those_of_each() -> None:
    sums = open_loop.ErrorSums(torch.tensor([8.0, 0.0]), 2) + open_loop.ErrorSums(torch.tensor([8.0, 0.0]), 2)
    assert sums.roots(("x", "y")) == {"all": pytest.approx(2**0.5), "dims": {"x": 2.0, "y": 0.0}}


def test_a_robot_scaled_by_quantiles_is_measured_in_deviations_too(dataset: LeRobotDataset) -> None:
    held = member(dataset, replace(EMBODIMENT, normalization="quantiles"))
    assert held.units is not None
    robot = held.units.embodiment
    mean, deviation = mean_and_deviation(robot, held.source)
    assert robot.statistics is not None
    action = robot.statistics.action
    half = (np.array(action.q99) - np.array(action.q01)) / 2
    np.testing.assert_allclose(deviation.numpy(), np.array(action.std) / half, rtol=1e-4)
    assert (deviation != 1).all()
    quantiles_alone = replace(robot, statistics=replace(robot.statistics, action=replace(action, mean=(), std=())))
    again = mean_and_deviation(quantiles_alone, held.source)
    assert torch.allclose(again[0], mean) and torch.allclose(again[1], deviation)
