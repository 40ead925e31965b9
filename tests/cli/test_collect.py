"""wam collect: the plan, determinism over workers, and going on after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from wam.cli.collect import PLAN_PATH, Collect, Slot, main, plan, robot_of, view_of

SMALL = {"tasks": ("reach", "window-close"), "episodes_per_task": 2, "more": {"reach": 3}, "episodes_per_file": 2}


def rows(root: Path) -> list[dict[str, object]]:
    """All rows of a data set, without anything that could hide a difference."""
    files = sorted((root / "data").rglob("*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def test_plan_interleaves_tasks() -> None:
    slots = plan(Collect(out=Path("unused"), tasks=("reach", "push"), episodes_per_task=10, more={"reach": 40}))
    assert len(slots) == len(set(slots)) == 50
    first = [slot.task for slot in slots[:10]]
    assert 7 <= first.count("reach") <= 9


def test_detours_follow_in_initial_states_of_their_own() -> None:
    plain = plan(Collect(out=Path("unused"), tasks=("reach", "push"), episodes_per_task=10))
    longer = plan(Collect(out=Path("unused"), tasks=("reach", "push"), episodes_per_task=10, detours={"push": 4}))
    assert longer[:20] == plain, "a data set without detours must be a prefix of the one with them"
    assert longer[20:] == [Slot("push", 10 + i, "detours") for i in range(4)]


def test_repeats_take_few_initial_states_with_one_seed_after_the_other() -> None:
    asked = Collect(out=Path("unused"), tasks=("reach",), episodes_per_task=5, skip=7, detours={"reach": 2})
    slots = plan(replace(asked, repeats=2))
    assert [(slot.index, slot.repeat, slot.led) for slot in slots] == [
        (7, 0, "expert"), (7, 1, "expert"), (8, 0, "expert"), (8, 1, "expert"), (9, 0, "expert"),
        (10, 0, "detours"), (10, 1, "detours"),
    ]  # fmt: skip
    assert [slot.index for slot in plan(asked)] == [7, 8, 9, 10, 11, 12, 13]
    with pytest.raises(ValueError, match="--repeats: found 0"):
        plan(replace(asked, repeats=0))


def test_a_number_for_a_group_is_for_each_of_its_tasks() -> None:
    slots = plan(Collect(out=Path("unused"), tasks=("mt50",), episodes_per_task=1, detours={"hard": 2, "push": 1}))
    assert len(slots) == 50 + 2 * 6 - 1


def test_a_learner_begins_episodes_that_no_other_data_set_has() -> None:
    asked = Collect(out=Path("unused"), tasks=("reach", "push"), episodes_per_task=0, skip=400)
    slots = plan(replace(asked, learner="nano-metaworld", interventions={"push": 2}, detours={"push": 1}))
    assert slots == [Slot("push", 400, "detours"), Slot("push", 401, "learner"), Slot("push", 402, "learner")]
    with pytest.raises(ValueError, match="--interventions and --learner go together"):
        plan(replace(asked, learner="nano-metaworld"))


def test_interventions_are_recorded_with_the_weights_that_made_them(tmp_path: Path) -> None:
    asked = Collect(out=tmp_path, tasks=("window-close",), episodes_per_task=0, workers=1, learner="nano-metaworld",
                    interventions={"window-close": 2})  # fmt: skip
    main(asked)
    assert json.loads((tmp_path / "meta/info.json").read_text())["total_episodes"] == 2
    led = [row for row in rows(tmp_path) if row["executed_action"] != row["action"]]
    assert len(led) > 10
    with pytest.raises(ValueError, match="begun with learner = "):
        main(replace(asked, learner="nano-metaworld-flash"))


def test_plan_refuses_numbers_for_a_task_that_is_not_collected() -> None:
    with pytest.raises(ValueError, match="'push'"):
        plan(Collect(out=Path("unused"), tasks=("reach",), more={"push": 3}))
    with pytest.raises(ValueError, match="--detours names task 'push'"):
        plan(Collect(out=Path("unused"), tasks=("reach",), detours={"push": 3}))
    with pytest.raises(ValueError, match="at least 1"):
        plan(Collect(out=Path("unused"), tasks=("reach",), episodes_per_task=0))


def test_another_embodiment_brings_its_cameras(tmp_path: Path) -> None:
    config = Collect(out=tmp_path, tasks=("reach",), embodiment="metaworld-corner2")
    robot = robot_of(config, ["reach"])
    view = view_of(config, robot)
    assert (robot.name, view.cameras, view.image_size, view.action_repeat) == (
        "metaworld-corner2", ("corner2_near",), 96, 2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="--embodiment libero-panda: state_names are"):
        robot_of(Collect(out=tmp_path, embodiment="libero-panda"), ["reach"])


def test_same_data_whatever_the_workers_and_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(Collect(out=whole, workers=2, **SMALL))  # type: ignore[arg-type]

    import wam.cli.collect as collect

    calls = []
    add_episode = collect.LeRobotWriter.add_episode

    def add_three(writer: collect.LeRobotWriter, episode: collect.EpisodeData) -> None:
        calls.append(episode)
        if len(calls) > 3:
            raise KeyboardInterrupt
        add_episode(writer, episode)

    with monkeypatch.context() as patch:
        patch.setattr(collect.LeRobotWriter, "add_episode", add_three)
        with pytest.raises(KeyboardInterrupt):
            main(Collect(out=broken, workers=1, **SMALL))  # type: ignore[arg-type]
    main(Collect(out=broken, workers=1, **SMALL))  # type: ignore[arg-type]
    assert json.loads((broken / "meta/info.json").read_text())["total_episodes"] == 5
    assert rows(broken) == rows(whole)
    assert (broken / PLAN_PATH).read_text() == (whole / PLAN_PATH).read_text()

    with pytest.raises(ValueError, match="seed = 0, now it is 1"):
        main(Collect(out=broken, seed=1, **SMALL))  # type: ignore[arg-type]
