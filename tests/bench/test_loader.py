"""What the loaders deliver is the same whoever delivers it, and the measurement says so."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.data.synthetic import EMBODIMENT, CellTokenizer, episode_data, length_of, read_picture, write_dataset
from wam.bench.loader import (
    Agreement,
    LoaderOptions,
    LoaderReport,
    Speed,
    VideoWindows,
    finished_caches,
    joined,
    measure,
    with_floats,
)
from wam.cli.bench_loader import Loader
from wam.cli.bench_loader import main as bench_loader
from wam.data.latent_cache import encode_dataset
from wam.data.lerobot_reader import LeRobotDataset

CHUNKS = 3
ROBOT = replace(EMBODIMENT, name="arm")
STUB = '''
"""Stands in for lerobot: the same windows through our reader."""
import numpy as np, torch
from pathlib import Path
from wam.data.lerobot_reader import LeRobotDataset as Ours

class LeRobotDataset:
    video_backend = "stub"
    def __init__(self, repo_id, root, delta_timestamps):
        print("lerobot talks on stdout")
        self.ours, self.wanted = Ours(root), delta_timestamps
    def __len__(self):
        return self.ours.num_rows
    def __getitem__(self, at):
        episode = next(e for e in self.ours.meta.episodes if e.dataset_from_index <= at < e.dataset_to_index)
        item = {}
        for name, times in self.wanted.items():
            rows = at - episode.dataset_from_index + np.round(np.array(times) * 40).astype(int)
            rows = np.minimum(rows, episode.length - 1)
            if "images" in name:
                item[name] = torch.from_numpy(self.ours.frames(episode.index, name, rows)).permute(0, 3, 1, 2) / 255
            else:
                item[name] = torch.from_numpy(self.ours.columns(episode.index, [name])[name][rows])
        return item
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five episodes with their latents beside them, and the robot's file."""
    folder = write_dataset(tmp_path_factory.mktemp("loader") / "set", 5)
    encode_dataset(LeRobotDataset(folder), CellTokenizer(), ROBOT, folder / "latents")
    ROBOT.to_yaml(folder / "arm.yaml")
    return folder


@pytest.fixture(scope="module")
def windows(root: Path) -> VideoWindows:
    dataset = LeRobotDataset(root)
    return VideoWindows(dataset, ROBOT, CHUNKS, np.arange(0, dataset.num_rows, 3))


def test_a_window_holds_its_rows_and_the_last_one_behind_the_end(windows: VideoWindows) -> None:
    offset = np.cumsum([0, *map(length_of, range(5))])
    for number in range(len(windows)):
        first = 3 * number
        episode = int(np.searchsorted(offset, first, side="right")) - 1
        row, last = first - offset[episode], length_of(episode) - 1
        columns, window = episode_data(episode).columns, windows[number]
        states, actions = row + 8 * np.arange(CHUNKS), row + np.arange(8 * CHUNKS)
        np.testing.assert_array_equal(
            window["observation.state"], columns["observation.state"][np.minimum(states, last)]
        )
        np.testing.assert_array_equal(window["action"], columns["action"][np.minimum(actions, last)])
        shown = np.minimum(row + np.arange(0, 25, 2), last)
        for place, camera in enumerate(("top", "side")):
            frames = window[f"observation.images.{camera}"]
            assert [read_picture(frame) for frame in frames] == [(t, episode, place) for t in shown]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_deliver_every_window_once_and_in_order(windows: VideoWindows, start: str) -> None:
    """Twice over; the parent has the same videos open meanwhile."""
    plain = list(DataLoader(windows, 4, collate_fn=joined))
    loader = DataLoader(
        windows, 4, num_workers=2, collate_fn=joined, multiprocessing_context=start, persistent_workers=True
    )
    for _ in range(2):
        for number, batch in enumerate(loader):
            windows[number]
            assert batch.keys() == plain[number].keys()
            assert all(torch.equal(batch[name], plain[number][name]) for name in batch)
        assert number == len(plain) - 1


def test_threads_share_the_windows(windows: VideoWindows) -> None:
    plain = [windows[number] for number in range(len(windows))]
    with ThreadPoolExecutor(6) as threads:
        shared = list(threads.map(windows.__getitem__, [*range(len(windows))] * 3))
    for number, window in enumerate(shared):
        for name, values in window.items():
            np.testing.assert_array_equal(values, plain[number % len(plain)][name])


def test_floats_are_what_lerobot_delivers(windows: VideoWindows) -> None:
    batch = joined([windows[0], windows[1]])
    pictures = with_floats(batch)["observation.images.top"]
    assert pictures.shape == (2, 13, 3, 64, 64) and pictures.dtype == torch.float32
    assert torch.equal((pictures * 255).round().byte(), batch["observation.images.top"].permute(0, 1, 4, 2, 3))


def test_speeds_are_medians_and_ratios_are_taken_round_by_round() -> None:
    slow, fast = Speed("slow", 10, (4.0, 2.0, 6.0), (0,) * 3), Speed("fast", 10, (1.0, 1.0, 2.0), (0,) * 3)
    assert fast.windows_per_second == 10 and slow.windows_per_second == 2.5
    assert fast.times_faster(slow) == 3


def test_all_loaders_are_timed_on_the_same_windows(root: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = measure(
        LeRobotDataset(root),
        ROBOT,
        LoaderOptions(windows=12, rounds=2, batch=4),
        finished_caches(root)[0],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [speed.name for speed in report.speeds] == ["wam, video", "wam, floats", "wam, latents"]
    assert all(len(speed.seconds) == 2 and min(speed.seconds) > 0 for speed in report.speeds)
    assert seen[-1] == (9, 9) and report.lerobot is None


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stub/lerobot/datasets"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text('__version__ = "0.0"')
    (package / "__init__.py").touch()
    (package / "lerobot_dataset.py").write_text(STUB)
    source = Path(__file__).parents[2] / "src"
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'stub'}:{source}")


def test_the_other_loader_runs_in_its_own_interpreter(
    root: Path, stub: None, capsys: pytest.CaptureFixture[str]
) -> None:
    options = LoaderOptions(windows=12, rounds=2, batch=4, workers=1)
    config = Loader(str(root), str(root / "arm.yaml"), options, lerobot_python=Path(sys.executable), json=True)
    bench_loader(config)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["lerobot"] == "0.0 (stub)"
    assert report["agreement"] == {"windows": 8, "numbers_equal": True, "picture_mean": 0.0, "picture_max": 0.0}
    assert set(report["times_faster"]) == {"wam, video", "wam, floats", "wam, latents"}
    assert [len(speed["seconds"]) for speed in report["speeds"]] == [2] * 4


def test_other_numbers_fail(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = (Speed("wam, video", 8, (1.0,), (0.5,)), Speed("lerobot, video", 8, (4.0,), (2.0,)))
    report = LoaderReport(LoaderOptions(), speeds, "0.0 (stub)", Agreement(8, False, 0.5, 3.0))
    monkeypatch.setattr("wam.cli.bench_loader.measure", lambda *_: report)
    with pytest.raises(SystemExit) as stopped:
        bench_loader(Loader(str(root), str(root / "arm.yaml")))
    assert stopped.value.code == 1
    shown = capsys.readouterr().err
    assert "NOT the same" in shown and "4.0 x" in shown


def test_an_interpreter_without_lerobot_is_named(root: Path) -> None:
    options = LoaderOptions(windows=4, rounds=1)
    with pytest.raises(RuntimeError, match="(?s)lerobot_loader.py failed: .*No module named 'lerobot'"):
        measure(LeRobotDataset(root), ROBOT, options, lerobot_python=Path(sys.executable))
