"""wam demo: which task a sentence means, what the model has not learned, and the wall of films."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wam.cli.demo import Demo
from wam.cli.demo_tour import Tour
from wam.cli.main import main
from wam.sim.tasks import MT10


def test_a_task_or_a_sentence_names_the_scene() -> None:
    assert Demo(task="hammer").asked() == (("hammer",), None)
    assert Demo(task="slide the window open").asked() == (("window-open",), "slide the window open")
    assert Demo(task="hammer", sentence="Hit it.").asked() == (("hammer",), "Hit it.")
    assert Demo(tasks=("reach", "push")).asked() == (("reach", "push"), None)
    with pytest.raises(ValueError, match="no Meta-World task is asked for"):
        Demo(task="bake me a cake").asked()


def test_a_tour_goes_through_what_the_model_has_learned(tmp_path: Path) -> None:
    assert Tour("nano-metaworld", (), 1, {}, tmp_path).tasks() == MT10
    assert len(Tour("nano-metaworld", ("mt50",), 1, {}, tmp_path).tasks()) == 50


def test_a_tour_keeps_its_own_words() -> None:
    options = {"steps": 4, "temperature": 1.0, "compile": "off", "device": "cpu"}
    assert Demo(steps=4).tour_of(("easy",)).options == options
    with pytest.raises(ValueError, match="leave --task and --sentence out"):
        Demo(sentence="Open it.").tour_of(())


@pytest.mark.slow
def test_what_was_not_learned_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "nano-metaworld", "--task", "Hit the nail with the hammer", "--out", str(tmp_path), "--json"])
    shown = capsys.readouterr()
    assert "nano-metaworld has not learned this task" in " ".join(shown.err.split())
    assert json.loads(shown.out)["episodes"][0]["sentence"] == "Hit the nail with the hammer"


@pytest.mark.slow
def test_a_tour_is_one_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "nano-metaworld", "--tour", "drawer-close", "hammer", "--out", str(tmp_path), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert set(said["success"]) == {"drawer-close", "hammer"} and said["unlearned"] == ["hammer"]
    assert (tmp_path / "tour.mp4").stat().st_size > 10_000
