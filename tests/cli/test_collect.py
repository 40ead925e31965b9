"""wam collect: the plan, determinism over workers, and going on after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from wam.cli.collect import PLAN_PATH, Collect, Recording, Slot, main, plan, robot_of, view_of
from wam.robot.embodiment import METAWORLD_SAWYER

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
    with pytest.raises(ValueError, match="--tasks names none"):
        plan(Collect(out=Path("unused"), tasks=()))
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


@pytest.mark.parametrize("repeat", [0, -2, 3, 160])
def test_rows_per_second_are_a_whole_number(repeat: int) -> None:
    config = Collect(out=Path("unused"), recording=Recording(action_repeat=repeat))
    with pytest.raises(ValueError, match=f"--action-repeat is {repeat}, but the simulator steps at 80 Hz; choose"):
        view_of(config, METAWORLD_SAWYER)
    assert view_of(replace(config, recording=Recording(action_repeat=5)), METAWORLD_SAWYER).action_repeat == 5


@pytest.mark.parametrize("rate", [30.0, 200.0, 2.5])
def test_a_robot_is_recorded_at_its_own_rate_or_not_at_all(rate: float) -> None:
    robot = replace(METAWORLD_SAWYER, control_hz=rate)
    with pytest.raises(ValueError, match=f"embodiment 'metaworld-sawyer': field 'control_hz' is {rate:g}, but the sim"):
        view_of(Collect(out=Path("unused")), robot)


def test_a_command_that_fails_at_once_claims_nothing(tmp_path: Path) -> None:
    asked = Collect(out=tmp_path, tasks=("window-close",), episodes_per_task=1, workers=1)
    with pytest.raises(ValueError, match="episode 200000 of split 'train' asked for, it has 0 to 99999"):
        main(replace(asked, skip=200_000))
    main(replace(asked, recording=Recording(image_size=32)))
    assert json.loads((tmp_path / "meta/info.json").read_text())["total_episodes"] == 1
    with pytest.raises(ValueError, match="begun with recording.look = 'train', now it is 'lights'; choose") as refused:
        main(replace(asked, recording=Recording(image_size=32, look="lights")))
    assert len(str(refused.value).split(";")) == 2


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
