"""The plot draws what a log has, and never fails for what it has not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wam.train.plot import Log, _smoothed, plot_losses

LEVELS = {"0.1": 1.2, "0.5": 0.8, "1.0": 0.5}


def error(scale: float, names: tuple[str, ...]) -> dict[str, Any]:
    return {"all": scale, "dims": {name: scale * (1 + i / 10) for i, name in enumerate(names)}}


def acting(robot: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        **watching(robot),
        "action": 0.4,
        "action_at": LEVELS,
        "action_at_video_noise": LEVELS,
        "action_error": {"1": error(0.4, names), "4": error(0.5, names)},
        "hold_mean": error(1.0, names),
        "hold_last": error(0.8, names),
    }


def watching(robot: str) -> dict[str, Any]:
    return {"embodiment": robot, "windows": 4, "video": 0.9, "video_at": LEVELS}


def embodiment(score: dict[str, Any]) -> dict[str, Any]:
    if "action_error" not in score:
        return {"video": score["video"]}
    errors = {steps: found["all"] for steps, found in score["action_error"].items()}
    holds = {name: score[name]["all"] for name in ("hold_mean", "hold_last")}
    return {"video": score["video"], "action": score["action"], "action_error": errors, **holds}


def validation(**data: dict[str, Any]) -> dict[str, Any]:
    robots = {score["embodiment"]: embodiment(score) for score in data.values()}
    return {"seconds": 1.0, "video": 0.9, "action": 0.4, "data": data, "embodiments": robots}


TRAINING = [
    {"step": 10 * i, "seconds": 60.0 * i, "video": 2 / i, "action": 1 / i, "lr": 1e-3, "gradient_norm": 1.0}
    for i in range(1, 40)
]
ONE = validation(mt10=acting("sawyer", ("x", "y")))
SEVERAL = validation(mt10=acting("sawyer", ("x", "y")), arm=acting("arm", tuple("abcdefg")), people=watching("human"))
OLD = {"video": 0.9, "action": 0.4, "action_error_1": 0.46, "action_error_4": 0.57, "action_error_hold": 1.0}
OLD_SEVERAL = {"data": OLD, "data-1": OLD}


def drawn(tmp_path: Path, *checks: dict[str, Any], training: list[dict[str, Any]] = TRAINING) -> tuple[int, int]:
    """Width and height of the picture; warnings are errors."""
    rows = [*training, *({"step": 100 * i, "seconds": 600.0 * i, "validation": c} for i, c in enumerate(checks, 1))]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_losses(tmp_path / "log.jsonl", tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as image:
        return image.size


def test_two_rows_of_panels_of_one_data_set_and_of_several(tmp_path: Path) -> None:
    assert drawn(tmp_path, ONE, ONE) == drawn(tmp_path, SEVERAL) == drawn(tmp_path, ONE, SEVERAL)


@pytest.mark.parametrize("check", [OLD, OLD_SEVERAL, {}], ids=["old", "old, several", "empty"])
def test_logs_without_the_scores_of_today_show_their_losses(tmp_path: Path, check: dict[str, Any]) -> None:
    assert drawn(tmp_path, check)[1] < drawn(tmp_path, ONE)[1]


def test_a_control_without_video_and_an_empty_log_are_drawn(tmp_path: Path) -> None:
    score = acting("sawyer", ("x", "y"))
    control = validation(
        mt10={name: value for name, value in score.items() if not name.startswith("video")} | {"video": 0}
    )
    drawn(tmp_path, control, training=[{**row, "video": 0.0} for row in TRAINING])
    drawn(tmp_path, training=[])
    drawn(tmp_path, training=TRAINING[:1])


def test_a_log_is_sorted_into_training_and_validations(tmp_path: Path) -> None:
    drawn(tmp_path, OLD, ONE)
    log = Log.read(tmp_path / "log.jsonl")
    assert (len(log.training), len(log.checks), len(log.scored)) == (39, 2, 1)


def test_smoothing_keeps_a_straight_line() -> None:
    line = np.linspace(0, 1, 301)
    assert np.allclose(_smoothed(line), line)
    assert _smoothed(np.resize([0.0, 1.0], 300))[100:200].std() < 0.15
