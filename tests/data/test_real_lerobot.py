"""Our data sets in the real lerobot package, and its data sets in our reader. Needs an environment of its own."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.synthetic import CAMERAS, EMBODIMENT, CellTokenizer, episode_data, length_of, read_picture
from tests.data.with_real_lerobot import ACTIONS, CHUNKS, ROWS, STRIDE
from tests.data.write_v2 import write_v2, write_v3_images
from wam.bench.loader import Agreement, LoaderOptions, measure
from wam.data.latent_cache import encode_dataset
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.windows import EpisodeSelection, WindowSource, WindowSpec
from wam.encoders.video import frames_to_video

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / ".venv-lerobot"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> Path:
    """The Python that has lerobot; its environment is made when missing, which takes some minutes and 2 GB."""
    subprocess.run(["bash", "scripts/make_lerobot_env.sh", str(ENVIRONMENT)], cwd=REPOSITORY, check=True)
    return ENVIRONMENT / "bin/python"


def run(python: Path, *arguments: object) -> None:
    script = Path(__file__).with_name("with_real_lerobot.py")
    done = subprocess.run([python, script, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def items(python: Path, dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What lerobot's `LeRobotDataset` returns for every tenth row of our data set."""
    out = tmp_path_factory.mktemp("real") / "items.npz"
    run(python, "read", dataset_root, out)
    return dict(np.load(out))


def test_lerobot_sees_all_episodes(items: dict[str, np.ndarray]) -> None:
    assert items["episodes"] == 7
    assert items["rows"] == sum(map(length_of, range(7)))
    assert items["fps"] == 40
    assert items["lengths"].tolist() == [length_of(i) for i in range(7)]
    assert set(items["env_task"]) == {"thing-v3"}


def test_lerobot_sees_our_numbers(items: dict[str, np.ndarray]) -> None:
    assert len(items["index"]) > 20
    for i, (episode, row) in enumerate(zip(items["episode_index"], items["frame_index"], strict=True)):
        assert items["index"][i] == ROWS * i
        written = episode_data(int(episode))
        np.testing.assert_array_equal(items["observation.state"][i], written.columns["observation.state"][row])
        rows = np.arange(row, row + 8)
        held = np.minimum(rows, length_of(int(episode)) - 1)
        np.testing.assert_array_equal(items["action"][i], written.columns["action"][held])
        np.testing.assert_array_equal(items["action_is_pad"][i], rows != held)
        assert items["task"][i] == written.task


def test_lerobot_sees_our_frames(items: dict[str, np.ndarray], dataset_root: Path) -> None:
    ours = LeRobotDataset(dataset_root)
    for i, (episode, row) in enumerate(zip(items["episode_index"], items["frame_index"], strict=True)):
        rows = np.minimum([row, row + 2, row + 8], length_of(int(episode)) - 1)
        top = np.moveaxis(items["observation.images.top"][i], 1, -1) * 255
        side = np.moveaxis(items["observation.images.side"][i], 0, -1)[None] * 255
        for camera, theirs, asked in (("top", top, rows), ("side", side, rows[:1])):
            number = CAMERAS.index(camera)
            assert [read_picture(frame) for frame in theirs] == [(t, episode, number) for t in asked]
            np.testing.assert_array_equal(theirs.round(), ours.frames(int(episode), camera, asked))


def test_lerobot_sees_our_statistics(items: dict[str, np.ndarray]) -> None:
    actions = np.concatenate([episode_data(i).columns["action"] for i in range(7)])
    np.testing.assert_allclose(items["stats/action/mean"], actions.mean(0), rtol=1e-4)
    assert items["stats/observation.images.top/std"].shape == (3, 1, 1)


def test_we_read_what_lerobot_writes(python: Path, tmp_path: Path) -> None:
    run(python, "write", tmp_path / "set")
    dataset = LeRobotDataset(tmp_path / "set")
    assert (dataset.num_episodes, dataset.meta.fps, set(dataset.meta.cameras)) == (3, 20, {"front"})
    assert (dataset.meta.cameras["front"].height, dataset.meta.cameras["front"].width) == (64, 96)
    for episode in range(3):
        rows = np.arange(12 + episode)
        columns = dataset.columns(episode)
        np.testing.assert_array_equal(columns["observation.state"][:, 0], rows)
        np.testing.assert_array_equal(columns["action"], np.stack([np.full(len(rows), episode), rows], axis=1))
        assert (
            dataset.meta.tasks[columns["task_index"][0]] == f"task {episode % 2}" == dataset.episode(episode).tasks[0]
        )
        colours = dataset.frames(episode, "front").mean(axis=(1, 2))
        np.testing.assert_allclose(colours[:, 0], 10 + 10 * rows, atol=4)
        np.testing.assert_allclose(colours[:, 1], 20 + 60 * episode, atol=4)


def test_the_bench_times_lerobots_loader_on_the_same_windows(python: Path, dataset: LeRobotDataset) -> None:
    for workers in (0, 1):
        options = LoaderOptions(windows=24, rounds=2, batch=8, workers=workers)
        report = measure(dataset, EMBODIMENT, options, lerobot_python=python)
        assert report.lerobot is not None and report.lerobot.startswith("0.4.4")
        assert report.agreement == Agreement(windows=16, numbers_equal=True, picture_mean=0, picture_max=0)
        assert min(report.speeds[-1].seconds) > 0


@pytest.mark.parametrize("name", ["v3.0", "v3.0 pictures", "v2.1", "v2.1 pictures"])
def test_training_windows_are_those_of_lerobot(
    python: Path, dataset: LeRobotDataset, tmp_path: Path, name: str
) -> None:
    """Our windows of a data set against lerobot's of the same one; v2.1 it reads only after its own conversion."""
    copies = {
        "v3.0": lambda: dataset.root,
        "v3.0 pictures": lambda: write_v3_images(tmp_path / "ours", dataset),
        "v2.1": lambda: write_v2(tmp_path / "ours", dataset),
        "v2.1 pictures": lambda: write_v2(tmp_path / "ours", dataset, images=True),
    }
    root = theirs_root = copies[name]()
    if name.startswith("v2.1"):
        theirs_root = Path(shutil.copytree(root, tmp_path / "theirs"))
        run(python, "convert", theirs_root)
    ours = LeRobotDataset(root)
    cache = encode_dataset(ours, CellTokenizer(), EMBODIMENT, tmp_path / "cache")
    source = WindowSource(ours, cache, WindowSpec(chunks=CHUNKS), EpisodeSelection("all"))
    index = source.windows(np.arange(0, len(source), 6), np.random.default_rng(0))
    batch = source.collate(index)
    offsets = np.array([ours.episode(int(i)).dataset_from_index for i in index.episode])
    np.save(tmp_path / "rows.npy", offsets + index.row)
    run(python, "windows", theirs_root, tmp_path / "rows.npy", tmp_path / "items.npz")
    theirs = dict(np.load(tmp_path / "items.npz"))

    assert len(index.row) > 40
    np.testing.assert_array_equal(batch.action.numpy(), theirs["action"])
    np.testing.assert_array_equal(batch.state.numpy(), theirs["observation.state"])
    np.testing.assert_array_equal(batch.action_valid.numpy().reshape(len(index.row), -1), ~theirs["action_is_pad"])
    assert [source.sentences[int(i)] for i in batch.text_id] == theirs["task"].tolist()
    # frames: to the bit, although two decoders made them (PyAV's FFmpeg here, torchcodec's there)
    steps = STRIDE * np.arange(CHUNKS * ACTIONS // STRIDE + 1)
    for camera in CAMERAS:
        pixels = theirs[f"observation.images.{camera}"]
        padded = theirs[f"observation.images.{camera}_is_pad"]
        for number, (episode, row) in enumerate(zip(index.episode.tolist(), index.row.tolist(), strict=True)):
            rows = np.minimum(row + steps, length_of(episode) - 1)
            frames = ours.frames(episode, camera, rows)
            shown = [(t, episode, CAMERAS.index(camera)) for t in rows.tolist()]
            assert [read_picture(frame) for frame in pixels[number]] == shown
            np.testing.assert_array_equal(pixels[number], frames)
            np.testing.assert_array_equal(padded[number], row + steps >= length_of(episode))
    latents = CellTokenizer().eval()
    with torch.inference_mode():
        for number in range(0, len(index.row), 5):
            canvas = np.concatenate([theirs[f"observation.images.{camera}"][number] for camera in CAMERAS], axis=2)
            first, state = latents.encode_first(frames_to_video(canvas[None, :1]))
            again = [first]
            for chunk in range(CHUNKS):
                latent, state = latents.encode_next(state, frames_to_video(canvas[None, 1 + 4 * chunk : 5 + 4 * chunk]))
                again.append(latent)
            valid = batch.chunk_valid[number]
            torch.testing.assert_close(batch.anchor[number], again[0][0], atol=0.02, rtol=0)
            found = torch.cat(again[1:], 2)[0][:, valid]
            torch.testing.assert_close(batch.video[number][:, valid], found, atol=0.02, rtol=0)
