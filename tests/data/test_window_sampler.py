"""Windows are drawn in a seeded order, each once per epoch, none by two processes, and resuming is exact."""

import numpy as np
import pytest

from tests.data.synthetic import length_of
from wam.data.latent_cache import LatentCache
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.window_sampler import WindowSampler
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec

M, N = 4, 8


def source(dataset: LeRobotDataset, cache: LatentCache, spec: WindowSpec | None = None) -> WindowSource:
    return WindowSource(dataset, cache, spec or WindowSpec(chunks=M), EpisodeSelection(split="all"))


def test_every_anchor_is_drawn_once_per_epoch(dataset: LeRobotDataset, cache: LatentCache) -> None:
    windows = source(dataset, cache)
    assert len(windows) == dataset.num_rows
    sampler = WindowSampler(windows, batch_size=1)
    drawn = [next(sampler) for _ in range(sampler.batches_per_epoch)]
    seen = {(int(index.episode[0]), int(index.row[0])) for index in drawn}
    assert seen == {(e, t) for e in range(7) for t in range(length_of(e))}
    for index in drawn:
        chunk_starts = range(int(index.row[0]), length_of(int(index.episode[0])), N)
        assert int(index.chunks[0]) == min(M, len(chunk_starts))


def draws(sampler: WindowSampler, count: int) -> list[tuple[list[int], ...]]:
    indices = [next(sampler) for _ in range(count)]
    return [tuple(array.tolist() for array in vars(index).values() if array is not None) for index in indices]


def test_sampler_is_deterministic(dataset: LeRobotDataset, cache: LatentCache) -> None:
    windows = source(dataset, cache, WindowSpec(chunks=2, gap_probability=0.5))
    first = draws(WindowSampler(windows, 16, seed=3), 40)  # more than two epochs
    assert first == draws(WindowSampler(windows, 16, seed=3), 40)
    assert first != draws(WindowSampler(windows, 16, seed=4), 40)
    epoch = WindowSampler(windows, 16).batches_per_epoch
    assert first[:epoch] != first[epoch : 2 * epoch]


@pytest.mark.parametrize("position", [0, 1, 16, 17, 35])
def test_sampler_resumes_exactly(dataset: LeRobotDataset, cache: LatentCache, position: int) -> None:
    windows = source(dataset, cache, WindowSpec(chunks=2, gap_probability=0.5))
    sampler = WindowSampler(windows, 16, seed=3, rank=0, world_size=1)
    draws(sampler, position)
    state = sampler.state_dict()
    expected = draws(sampler, 20)
    resumed = WindowSampler(windows, 16, seed=3, rank=0, world_size=1)
    resumed.load_state_dict(state)
    assert draws(resumed, 20) == expected


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"seed": 4}, "seed"), ({"batch_size": 8}, "windows_at_once"), ({"world_size": 2}, "windows_at_once")],
)
def test_sampler_refuses_another_state(
    dataset: LeRobotDataset, cache: LatentCache, changed: dict[str, int], named: str
) -> None:
    windows = source(dataset, cache)
    state = WindowSampler(windows, 16, seed=3).state_dict()
    other = WindowSampler(windows, **{"batch_size": 16, "seed": 3, **changed})
    with pytest.raises(ValueError, match=f"the saved {named} is"):
        other.load_state_dict(state)


def test_ranks_never_see_the_same_window(dataset: LeRobotDataset, cache: LatentCache) -> None:
    windows = source(dataset, cache)
    seen: list[set[tuple[int, int]]] = []
    for rank in range(3):
        sampler = WindowSampler(windows, 8, seed=1, rank=rank, world_size=3)
        indices = [next(sampler) for _ in range(sampler.batches_per_epoch)]
        seen.append({(int(e), int(t)) for index in indices for e, t in zip(index.episode, index.row, strict=True)})
    assert sum(map(len, seen)) == len(set.union(*seen)) == 3 * 8 * (len(windows) // 24)


def test_one_state_resumes_all_ranks(dataset: LeRobotDataset, cache: LatentCache) -> None:
    windows = source(dataset, cache)
    samplers = [WindowSampler(windows, 8, rank=rank, world_size=2) for rank in (0, 1)]
    for sampler in samplers:
        draws(sampler, 20)
    other = WindowSampler(windows, 8, rank=1, world_size=2)
    other.load_state_dict(samplers[0].state_dict())
    assert draws(other, 3) == draws(samplers[1], 3)


def test_ranks_draw_together_what_one_draws_alone(dataset: LeRobotDataset, cache: LatentCache) -> None:
    """Gaps included: a rank's share depends on its number, its batch on nothing else."""
    windows = source(dataset, cache, WindowSpec(chunks=2, gap_probability=0.5))
    alone = WindowSampler(windows, 24, seed=5)
    ranks = [WindowSampler(windows, 8, seed=5, rank=rank, world_size=3) for rank in range(3)]
    for _ in range(2 * alone.batches_per_epoch):
        whole, parts = vars(next(alone)), [vars(next(rank)) for rank in ranks]
        for name in ("episode", "row", "chunks", "gap"):
            for rank, part in enumerate(parts):
                np.testing.assert_array_equal(part[name], whole[name][rank::3])


def test_no_two_batches_have_the_same_gaps(dataset: LeRobotDataset, cache: LatentCache) -> None:
    """Were a random stream used twice (for another seed, epoch or position), the same windows would get equal gaps."""
    long = np.flatnonzero(source(dataset, cache)._anchors[:, 1] == 0)  # first rows: all of them can have a gap
    windows = source(dataset, cache, WindowSpec(chunks=2, gap_probability=0.5))
    streams: list[np.random.Generator] = []
    draw = windows.windows
    windows.windows = lambda anchors, rng: streams.append(rng) or draw(anchors, rng)  # type: ignore[method-assign]
    for seed in (0, 1):
        sampler = WindowSampler(windows, 32, seed=seed)
        for _ in range(3 * sampler.batches_per_epoch):
            next(sampler)
    anchors = np.resize(long, 48)
    gaps = {tuple(draw(anchors, stream).gap.tolist()) for stream in streams}
    assert len(gaps) == len(streams) == 2 * 3 * sampler.batches_per_epoch
