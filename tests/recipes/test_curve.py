"""Success against minutes: what is evaluated is read back, in order, and drawn."""

from __future__ import annotations

import json
from pathlib import Path

from recipes.curve import MINUTES, draw, points


def write(place: Path, minutes: float, success: float) -> None:
    place.mkdir(parents=True)
    (place / MINUTES).write_text(json.dumps({"steps": 0, "minutes": minutes}))
    (place / "summary.json").write_text(json.dumps({"over_tasks": {"value": success, "low": 0.0, "high": 1.0}}))


def test_points_come_in_the_order_of_steps(tmp_path: Path) -> None:
    write(tmp_path / "step-00000200", 4.0, 0.5)
    write(tmp_path / "step-00000100", 2.0, 0.25)
    (tmp_path / "step-00000300").mkdir()  # not evaluated yet
    assert points(tmp_path) == [(2.0, 25.0), (4.0, 50.0)]


def test_a_figure_needs_a_point(tmp_path: Path) -> None:
    draw(tmp_path / "none.png", {"base": [[]]})
    assert not (tmp_path / "none.png").exists()
    draw(tmp_path / "some.png", {"base": [[], [(1.0, 20.0), (2.0, 40.0)]], "other": [[(1.0, 30.0)]]})
    assert (tmp_path / "some.png").stat().st_size > 1000
