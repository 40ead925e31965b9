"""Experiments stop in time, go on where they were, and never mix what cannot be compared."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from recipes.runs import Commands, OutOfTime, finished, same_settings, side_by_side
from tests.evaluate.test_results import record

from recipes import runs
from wam.evaluate.results import ResultFolder


def test_a_running_command_is_stopped_at_the_deadline(tmp_path: Path) -> None:
    commands, began = Commands(minutes=3 / 60), time.monotonic()
    with pytest.raises(OutOfTime):
        commands.wam("eval", "--policy", "expert", "--tasks", "mt50", "--out", tmp_path / "eval")
    assert 3 <= time.monotonic() - began < 30
    with pytest.raises(OutOfTime):
        commands.wam("--help")


def test_a_failure_is_raised_when_the_others_are_done(capfd: pytest.CaptureFixture[str]) -> None:
    commands = Commands(None)
    with pytest.raises(subprocess.CalledProcessError, match="nonsense"):
        side_by_side(lambda words: commands.wam(*words), [("eval", "--nonsense"), ("--help",), ("--help",)], 1)
    said = capfd.readouterr()
    assert "nonsense" in said.err and said.out.count("usage: wam VERB") == 2


def test_out_of_time_is_no_failure() -> None:
    done = []

    def work(item: int) -> None:
        if item == 2:
            raise OutOfTime
        done.append(item)

    assert not side_by_side(work, [1, 2, 3], 2)
    assert sorted(done) == [1, 3]
    assert side_by_side(done.append, [4], 1)


def test_settings_must_agree(tmp_path: Path) -> None:
    same_settings(tmp_path, {"steps": 5, "seeds": (0, 1)})
    same_settings(tmp_path, {"steps": 5, "seeds": (0, 1)})
    with pytest.raises(ValueError, match=r"settings.json: steps was 5, now it is 6"):
        same_settings(tmp_path, {"steps": 6, "seeds": (0, 1)})
    with pytest.raises(ValueError, match="other.settings.json: not found"):
        same_settings(tmp_path, {"steps": 5, "seeds": (0, 1)}, [tmp_path / "other"])


def write_result(folder: Path, run: str, solved: int, n: int = 10, planned: int | None = None) -> None:
    place = ResultFolder.open(folder / "results" / run, {"policy": "wam"})
    for seed in range(n):
        place.append(record("reach", seed, seed < solved, "c0ffee"))
    (place.root / "summary.json").write_text(json.dumps({"n": n, "planned": planned or n}))


def test_results_are_found_in_any_folder_once_they_are_whole(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert finished([here, there], "a") is None
    write_result(here, "a", 4, planned=20)
    assert finished([here, there], "a") is None
    write_result(there, "a", 5)
    episodes = finished([here, there], "a")
    assert episodes is not None
    assert sum(episode.success for episode in episodes) == 5
    assert runs.AGAIN == 75
