"""What a run says can be read back: from log.jsonl, TensorBoard's event files, and an offline run of wandb."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.train.processes import tiny_run

from wam.train.build import build
from wam.train.config import TrainConfig, WandbConfig
from wam.train.samples import Sample, Stretch
from wam.train.trackers import LOG, JsonLines, TrackerError, Trackers, numbers, read_rows

CHECK = {"seconds": 2.0, "data": {"mt10": {"embodiment": "sawyer", "video_at": {"0.5": 0.25}}}}
ROWS: list[dict[str, Any]] = [
    {"step": 10, "seconds": 1.0, "action": 0.5},
    {"step": 20, "seconds": 2.0, "action": 0.25},
    {"step": 20, "seconds": 2.0, "validation": CHECK},
]


def run(tmp_path: Path, *track: str) -> TrainConfig:
    return tiny_run(tmp_path, tmp_path / "run", track=track, wandb=WandbConfig(project="test", mode="offline"))


def small_sample() -> Sample:
    frames = np.random.default_rng(0).integers(0, 255, (9, 16, 32, 3), dtype=np.uint8)
    return Sample((Stretch("lift the cube", frames, frames[::-1], frames, 4, 0.05),))


def say(config: TrainConfig, step: int = 0, rows: list[dict[str, Any]] = ROWS) -> None:
    trackers = Trackers(config, step)
    for row in rows:
        trackers.log(row)
    trackers.show(small_sample(), 20)
    trackers.close()


def test_a_log_always_exists_and_holds_the_rows_as_they_are(tmp_path: Path) -> None:
    say(run(tmp_path))
    assert read_rows(tmp_path / "run" / LOG) == ROWS
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LOG, "samples"}


def test_numbers_are_named_by_their_path() -> None:
    assert numbers(ROWS[0]) == {"training/seconds": 1.0, "training/action": 0.5}
    assert numbers(ROWS[2]) == {
        "training/seconds": 2.0,
        "validation/seconds": 2.0,
        "validation/data/mt10/video_at/0.5": 0.25,
    }


def test_a_continued_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / LOG)
    for row in ROWS:
        log.append(row)
    with log.path.open("a") as file:
        file.write('{"step": 30, "seco')  # killed while writing
    assert read_rows(log.path) == ROWS
    log.forget_after(20)
    assert [json.loads(line) for line in log.path.read_text().splitlines()] == ROWS
    log.forget_after(15)
    assert read_rows(log.path) == ROWS[:1]
    log.append(ROWS[1])
    assert read_rows(log.path) == ROWS[:2]


def test_tensorboard_shows_scalars_pictures_and_films(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    say(run(tmp_path, "tensorboard"))
    say(run(tmp_path, "tensorboard"), step=15, rows=[{"step": 20, "seconds": 3.0, "action": 0.125}])
    events = reading.EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [(one.step, one.value) for one in events.Scalars("training/action")] == [(10, 0.5), (20, 0.125)]
    assert "validation/data/mt10/video_at/0.5" in numbers(ROWS[2])
    strip, film = (events.Images(f"samples/{name}")[-1] for name in ("strip", "film"))
    with Image.open(io.BytesIO(strip.encoded_image_string)) as picture:
        assert np.array_equal(np.asarray(picture), small_sample().strip())
    with Image.open(io.BytesIO(film.encoded_image_string)) as moving:
        assert moving.format == "GIF" and getattr(moving, "n_frames", 1) > 5
        assert (film.height, film.width) == (moving.height, moving.width)


def test_wandb_writes_offline_what_can_be_sent_later(tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    say(run(tmp_path, "wandb"))
    wandb.teardown()  # its own process has written everything
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (history,) = written.glob("run-*.wandb")
    content = history.read_bytes()
    for name in ("training/action", "validation/data/mt10/video_at/0.5", "samples/strip", "samples/film"):
        assert name.encode() in content
    media = sorted(path.suffix for path in written.rglob("media/**/*") if path.is_file())
    assert media == [".mp4", ".png"]
    assert (tmp_path / "run" / "wandb" / "run-id").read_text() in written.name


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_library_is_named_before_anything_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == name else find(wanted))
    with pytest.raises(TrackerError, match=rf"--track {name}: the library '{name}' is not installed; pip install"):
        build(run(tmp_path, name))  # there is no data set
    assert not (tmp_path / "run").exists()
