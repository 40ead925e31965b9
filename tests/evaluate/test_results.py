"""The result folder: what survives a crash, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.evaluate.point_robot import POINT, PointEnv, PointPolicy
from wam.evaluate.results import CONFIG, EPISODES, SUMMARY, EpisodeRecord, ResultFolder, ResultFolderError
from wam.evaluate.rollout import rollout


def record(task: str = "reach", seed: int = 0, success: bool = True, commit: str = "c0ffee") -> EpisodeRecord:
    return EpisodeRecord(task, seed, "Reach.", success, 20, (9.0, 6.0), {"act": 6.0}, commit)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    folder = ResultFolder.open(tmp_path, {"policy": "wam"})
    result = rollout(PointEnv(), PointPolicy(), 1, embodiment=POINT)
    written = [EpisodeRecord.of(result, "c0ffee", "videos/near-1.mp4"), record(success=False)]
    for line in written:
        folder.append(line)
    found = ResultFolder(tmp_path).episodes()
    assert found == written
    assert found[0].key == ("near", 1)
    assert found[0].act_ms[0] == pytest.approx(1e3 * result.act_seconds[0], abs=1e-3)


def started(root: Path, config: dict[str, object]) -> None:
    """A folder with one finished episode."""
    ResultFolder.open(root, config).append(record())


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    started(tmp_path, {"policy": "wam", "tasks": ("a", "b"), "steps": 4})
    ResultFolder.open(tmp_path, {"policy": "wam", "tasks": ["a", "b"], "steps": 4})
    with pytest.raises(ResultFolderError, match=r"field 'steps' is 4, but this run has 1"):
        ResultFolder.open(tmp_path, {"policy": "wam", "tasks": ("a", "b"), "steps": 1})
    with pytest.raises(ResultFolderError, match=r"field 'look'"):
        ResultFolder.open(tmp_path, {"policy": "wam", "tasks": ("a", "b"), "steps": 4, "look": "train"})


def test_only_the_entries_that_differ_are_named(tmp_path: Path) -> None:
    started(tmp_path, {"split": "test", "options": {"steps": 4, "solver": "euler", "guidance": 1.0}})
    with pytest.raises(ResultFolderError) as refused:
        ResultFolder.open(tmp_path, {"split": "val", "options": {"steps": 1, "solver": "euler", "guidance": 1.0}})
    assert str(refused.value).startswith(
        f"{tmp_path / CONFIG}: field 'options.steps' is 4, but this run has 1; field 'split' is 'test', but this run "
        "has 'val'; choose another --out"
    )


def test_a_run_that_finished_nothing_claims_nothing(tmp_path: Path) -> None:
    ResultFolder.open(tmp_path, {"steps": 0})
    (tmp_path / EPISODES).write_text('{"task": "reach", "se')
    ResultFolder.open(tmp_path, {"steps": 1}).append(record())
    assert ResultFolder(tmp_path).config() == {"steps": 1}
    with pytest.raises(ResultFolderError, match="field 'steps' is 1, but this run has 2"):
        ResultFolder.open(tmp_path, {"steps": 2})


def test_the_same_weights_may_lie_elsewhere(tmp_path: Path) -> None:
    started(tmp_path, {"checkpoint": "runs/nano/model", "fingerprint": "abc"})
    ResultFolder.open(tmp_path, {"checkpoint": "/home/me/runs/nano/model", "fingerprint": "abc"})
    with pytest.raises(ResultFolderError, match=r"field 'fingerprint' is 'abc', but this run has 'def'"):
        ResultFolder.open(tmp_path, {"checkpoint": "runs/nano/model", "fingerprint": "def"})


def test_a_summary_says_what_was_asked_where_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / SUMMARY).write_text('{"config": {"policy": "wam"}, "n": 3}')
    assert ResultFolder(tmp_path).config() == {"policy": "wam"}
    (tmp_path / CONFIG).write_text('{"policy": "expert"}')
    assert ResultFolder(tmp_path).config() == {"policy": "expert"}
    (tmp_path / CONFIG).write_text('{"policy": ')
    with pytest.raises(ResultFolderError, match=rf"{tmp_path / CONFIG}: not JSON"):
        ResultFolder(tmp_path).config()


def test_a_torn_line_is_dropped_and_the_next_one_starts_afresh(tmp_path: Path) -> None:
    folder = ResultFolder.open(tmp_path, {})
    folder.append(record(seed=1))
    whole = (tmp_path / EPISODES).read_bytes()
    (tmp_path / EPISODES).write_bytes(whole + b'{"task": "reach", "se')
    assert [line.seed for line in ResultFolder(tmp_path).episodes()] == [1]
    again = ResultFolder.open(tmp_path, {})
    assert (tmp_path / EPISODES).read_bytes() == whole
    again.append(record(seed=2))
    assert [line.seed for line in again.episodes()] == [1, 2]


def test_an_episode_counts_once_however_often_it_was_written(tmp_path: Path) -> None:
    folder = ResultFolder.open(tmp_path, {})
    for seed in (0, 1, 0, 2, 1):
        folder.append(record(seed=seed))
    assert [line.seed for line in folder.episodes()] == [0, 1, 2]


def test_damage_and_strangers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResultFolderError, match="no config.json, and no summary.json with field 'config'"):
        ResultFolder(tmp_path).config()
    (tmp_path / EPISODES).write_text("{}\n")
    with pytest.raises(ResultFolderError, match=r"has episodes.jsonl but no config.json"):
        ResultFolder.open(tmp_path, {})
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(ResultFolderError, match=r"line 1: fields .*'task'"):
        ResultFolder(tmp_path).episodes()
    line = json.dumps(dataclasses.asdict(record()))
    (tmp_path / EPISODES).write_text(f"{line}\nnot json\n")
    with pytest.raises(ResultFolderError, match="line 2: not JSON"):
        ResultFolder(tmp_path).episodes()
