"""A writer may die at any moment: the data set is then the old one or the new one, and writing can go on."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.synthetic import SPEC, episode_data, length_of, read_picture, write_dataset
from wam.data import files, lerobot_writer
from wam.data.errors import DatasetLockedError, MissingFileError, SpecMismatchError
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import INFO_PATH, Camera, DatasetSpec
from wam.data.video import VideoWriter

EPISODES = 5
LENGTH = 6  # short, to be quick
MOVES_PER_COMMIT = 6  # two videos, rows, tasks, episodes, info


def write_and_die(root: Path, die_at_move: int, before: bool) -> None:
    """In a child process: write 5 episodes in files of two; die right before or after the n-th file is in place."""
    moves, really_move = 0, files.move_into_place

    def counting(source: Path, target: Path) -> None:
        nonlocal moves
        moves += 1
        if before and moves == die_at_move:
            os._exit(9)
        really_move(source, target)
        if moves == die_at_move:
            os._exit(9)

    def child() -> None:
        files.move_into_place = lerobot_writer.move_into_place = counting
        write_dataset(root, EPISODES, 2, LENGTH)

    assert in_child(child) == 9


def in_child(function: Callable[[], None]) -> int:
    """Run in a forked process; its exit status, 0 when the function returned."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(root: Path) -> tuple[list[str], list[tuple[int, int, int]], str]:
    """Names of all files, what the first frames show, and the hash of the metadata."""
    dataset = LeRobotDataset(root)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    seen = [read_picture(dataset.frames(i, "top", [3])[0]) for i in range(dataset.num_episodes)]
    return names, seen, dataset.meta.fingerprint


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[tuple[int, int, int]], str]:
    return contents(write_dataset(tmp_path_factory.mktemp("undisturbed"), EPISODES, 2, LENGTH))


KILLS = [(move, before) for before in (True, False) for move in range(2, 2 + MOVES_PER_COMMIT)]
KILLS += [(move + MOVES_PER_COMMIT, False) for move, before in KILLS if not before]


@pytest.mark.parametrize(("move", "before"), KILLS)
def test_killed_while_committing(
    tmp_path: Path, move: int, before: bool, undisturbed: tuple[list[str], list[tuple[int, int, int]], str]
) -> None:
    # move 1 is the empty info.json; each commit ends with info.json
    root = tmp_path / "set"
    write_and_die(root, move, before)
    committed = 2 * ((move - 1 - before) // MOVES_PER_COMMIT)
    if committed:
        dataset = LeRobotDataset(root)
        assert dataset.num_episodes == committed
        assert dataset.num_rows == committed * LENGTH
    else:
        with pytest.raises(MissingFileError, match=r"0 episodes.*Reopen it for writing"):
            LeRobotDataset(root)
    writer = LeRobotWriter(root, SPEC)
    assert writer.episodes_done == committed
    writer.finalize()
    write_dataset(root, EPISODES, 2, LENGTH)
    assert contents(root) == undisturbed


def test_killed_while_encoding(tmp_path: Path, undisturbed: tuple[list[str], list[tuple[int, int, int]], str]) -> None:
    root = tmp_path / "set"

    def child() -> None:
        append = VideoWriter.append
        calls = iter(range(100))

        def dying(video: VideoWriter, images: np.ndarray) -> None:
            append(video, images[:4])
            if next(calls) == 6:  # the fourth episode
                os._exit(9)
            append(video, images[4:])

        VideoWriter.append = dying  # type: ignore[method-assign]
        write_dataset(root, EPISODES, 2, LENGTH)

    assert in_child(child) == 9
    assert (root / ".partial").is_dir()
    assert LeRobotDataset(root).num_episodes == 2
    write_dataset(root, EPISODES, 2, LENGTH)
    assert contents(root) == undisturbed


def test_finished_data_set_can_grow(tmp_path: Path) -> None:
    write_dataset(tmp_path, 3)
    with LeRobotWriter(tmp_path, SPEC) as writer:
        assert writer.episodes_done == 3
        writer.add_episode(episode_data(3))
    dataset = LeRobotDataset(tmp_path)
    assert [read_picture(dataset.frames(i, "side", [29])[0]) for i in range(4)] == [(29, i, 1) for i in range(4)]
    assert dataset.episode(3).dataset_from_index == sum(map(length_of, range(3)))


def test_whole_episodes_survive_an_error_of_the_caller(tmp_path: Path) -> None:
    def record() -> None:
        with LeRobotWriter(tmp_path, SPEC) as writer:
            writer.add_episode(episode_data(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record()
    assert LeRobotDataset(tmp_path).num_episodes == 1


def test_half_an_episode_is_never_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = VideoWriter.append

    def failing(video: VideoWriter, images: np.ndarray) -> None:
        append(video, images[:4])
        raise OSError("disk full")

    with LeRobotWriter(tmp_path, SPEC, episodes_per_file=1) as writer:
        writer.add_episode(episode_data(0))
        monkeypatch.setattr(VideoWriter, "append", failing)
        with pytest.raises(OSError, match="disk full"):
            writer.add_episode(episode_data(1))
        with pytest.raises(ValueError, match="broken by an earlier error"):
            writer.add_episode(episode_data(2))
    assert LeRobotDataset(tmp_path).num_episodes == 1


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with LeRobotWriter(tmp_path, SPEC) as writer:
        with pytest.raises(DatasetLockedError, match="another process"):
            LeRobotWriter(tmp_path, SPEC)
        writer.add_episode(episode_data(0))
    with LeRobotWriter(tmp_path, SPEC) as writer:
        assert writer.episodes_done == 1
    with pytest.raises(ValueError, match="finalized"):
        writer.add_episode(episode_data(1))


def test_another_declaration_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, 1)
    other = DatasetSpec(SPEC.fps, SPEC.robot_type, SPEC.features, {**SPEC.cameras, "wrist": Camera(64, 64)})
    with pytest.raises(SpecMismatchError, match="features is"):
        LeRobotWriter(tmp_path, other)
    LeRobotWriter(tmp_path, SPEC).finalize()


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("chapter one")
    with pytest.raises(SpecMismatchError, match="not empty"):
        LeRobotWriter(tmp_path, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_declaration_without_recordings_may_change(tmp_path: Path) -> None:
    faster = replace(SPEC, fps=SPEC.fps + 1)
    LeRobotWriter(tmp_path, SPEC).finalize()
    LeRobotWriter(tmp_path, faster).finalize()
    assert json.loads((tmp_path / INFO_PATH).read_text())["fps"] == faster.fps
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    (tmp_path / "data/chunk-000/file-000.parquet").write_bytes(b"somebody's rows")
    with pytest.raises(SpecMismatchError, match="fps is"):
        LeRobotWriter(tmp_path, SPEC)
