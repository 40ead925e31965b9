"""A recording holds what happened, and Rerun's own reader finds it there, number for number and pixel for pixel."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.evaluate.point_robot import POINT, PointEnv, PointPolicy
from wam.cli.main import main
from wam.evaluate.rerun_log import recording_path, write_recording
from wam.evaluate.rollout import EpisodeResult, rollout


def episode(task: str = "near", record: bool = True) -> EpisodeResult:
    return rollout(PointEnv(task), PointPolicy(dream=True), 3, max_env_steps=64, record=record, embodiment=POINT)


def read(path: Path) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Entity -> [(step, {component: value})] in order, read with Rerun's own tool; static ones stand at step -1."""
    chunk = pytest.importorskip("rerun.chunk", reason='needs a newer pip install -e ".[viz]"')
    reader, found = chunk.RrdReader(str(path)), defaultdict(list)
    (store,) = reader.recordings()
    for part in reader.stream(store=store):
        batch = part.to_record_batch()
        steps = batch.column("step").to_pylist() if "step" in batch.schema.names else [-1] * batch.num_rows
        columns = {name.split(":")[-1]: batch.column(name) for name in batch.schema.names if ":" in name}
        for row, step in enumerate(steps):
            found[part.entity_path].append((step, {name: column[row].as_py() for name, column in columns.items()}))
    return {entity: sorted(rows, key=lambda row: row[0]) for entity, rows in found.items()}


def scalars(rows: list[tuple[int, dict[str, Any]]]) -> tuple[list[int], np.ndarray]:
    logged = [(step, values["scalars"]) for step, values in rows if values.get("scalars") is not None]
    return [step for step, _ in logged], np.array([value for _, value in logged])


@pytest.fixture(scope="module")
def rerun() -> Any:
    return pytest.importorskip("rerun", reason='needs pip install -e ".[viz]"')


@pytest.mark.slow
def test_what_happened_is_read_back(rerun: Any, tmp_path: Path) -> None:
    result = episode()
    assert result.frames is not None and result.dreams is not None and result.states is not None
    path = write_recording(result, POINT, tmp_path / "a" / "episode.rrd", [(0, "Go."), (8, "Stop.")])
    found = read(path)

    steps, actions = scalars(found["/action"])
    assert steps == list(range(result.steps)) and np.allclose(actions, result.actions)
    steps, states = scalars(found["/state"])
    assert steps == list(result.frame_steps) and np.allclose(states, result.states)
    for entity, frames, first in (("/real/top", result.frames, 0), ("/dream/top", result.dreams, 1)):
        assert [step for step, _ in found[entity]] == list(result.frame_steps[first:])
        for (_, values), frame in zip(found[entity], frames[first:], strict=True):
            picture = Image.open(io.BytesIO(bytes(values["blob"][0])))
            assert np.array_equal(np.asarray(picture), frame)
    steps, calls = scalars(found["/latency/call"])
    assert steps == list(result.chunk_starts) and np.allclose(calls[:, 0], 1000 * np.array(result.act_seconds))
    assert scalars(found["/latency/think"])[1][0] == pytest.approx(9000)
    assert [step for step, _ in found["/chunk"]] == list(result.chunk_starts)
    assert [(step, values["text"]) for step, values in found["/sentence"]] == [(0, ["Go."]), (8, ["Stop."])]
    steps, solved = scalars(found["/success"])
    assert result.success and steps == list(result.frame_steps) and result.solved_at == result.steps
    assert solved.ravel().tolist() == [0.0] * (len(steps) - 1) + [1.0]
    assert "solved after" in found["/episode"][0][1]["text"][0]


@pytest.mark.slow
def test_demo_eval_record(rerun: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, target = tmp_path / "demo", tmp_path / "recordings" / "demo.rrd"
    main(["demo", "--tasks", "drawer-close", "--rerun", str(target), "--out", str(out), "--json"])
    said = json.loads(capsys.readouterr().out)
    found = read(target)
    assert said["recordings"] == [str(target)]
    assert {"/real/top", "/real/side", "/dream/top", "/dream/side", "/latency/denoise"} <= set(found)
    assert len(found["/action"]) - 1 == said["episodes"][0]["steps"]  # one row is static: the names

    target = tmp_path / "eval.rrd"
    options = ["--policy", "expert", "--tasks", "drawer-close", "--episodes", "2", "--workers", "1"]
    main(["eval", *options, "--rerun", str(target), "--out", str(tmp_path / "eval")])
    written = sorted(path.name for path in tmp_path.glob("eval-*.rrd"))
    assert written == ["eval-drawer-close-2000000.rrd", "eval-drawer-close-2000001.rrd"]
    assert "/real/side" in read(tmp_path / written[0])


def test_an_episode_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no frames; run it with record=True"):
        write_recording(episode(record=False), POINT, tmp_path / "episode.rrd")


def test_several_recordings_are_told_apart_by_name() -> None:
    result = episode()
    assert recording_path(Path("a/b.rrd"), result, 1) == Path("a/b.rrd")
    assert recording_path(Path("a/b.rrd"), result, 2) == Path("a/b-near-3.rrd")
