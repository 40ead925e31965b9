"""A drafted embodiment: what is taken, what is guessed and why, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from wam.robot.draft import Choices, DraftError, Facts, draft
from wam.robot.draft_views import choose_cell, choose_layout
from wam.robot.draft_yaml import commented_yaml
from wam.robot.embodiment import Embodiment, EmbodimentError, Moments, Part, Statistics

JOINTS = tuple(f"left_joint_{i}" for i in range(3))
ROWS = 60


def arm(rows: int = ROWS, episodes: int = 4, lag: int = 2) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """States and actions (T, 4): joints that follow their targets, and a gripper that begins open (at 0.08)."""
    rng = np.random.default_rng(0)
    states, actions = [], []
    for _ in range(episodes):
        path = np.cumsum(rng.normal(size=(rows + lag, 3)) * 0.05, axis=0)
        width = np.where(np.arange(rows) < rows // 2, 0.08, 0.0)[:, None]
        states.append(np.concatenate([path[:-lag], width], axis=1))
        actions.append(np.concatenate([path[lag:], np.where(width > 0.04, -1.0, 1.0)], axis=1))
    return states, actions


def facts(**changes: object) -> Facts:
    states, actions = arm()
    plain = Facts(
        source="data/kitchen",
        robot_type="My Arm",
        fps=30.0,
        row_seconds=1 / 30,
        cameras={"observation.images.front": (480, 640), "observation.images.wrist": (480, 640)},
        names={"observation.state": (*JOINTS, "left_gripper"), "action": (*JOINTS, "left_gripper")},
        rows={"observation.state": states, "action": actions},
        instructed=True,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_what_is_declared_is_taken_and_what_is_guessed_is_said() -> None:
    robot, remarks = draft(facts()).embodiment, draft(facts()).remarks
    assert (robot.name, robot.control_hz, robot.cameras) == ("my-arm", 30.0, ("front", "wrist"))
    assert robot.canvas == (("front", "wrist"),) and (robot.view_height, robot.view_width) == (192, 256)
    assert robot.crop == 1.0 and robot.camera_keys == ()
    assert robot.state == (Part("left_joints", JOINTS), Part("left_gripper", ("left_gripper",), gripper=(0.08, 0.0)))
    assert robot.action == (
        Part("left_joints", JOINTS, relative=True),
        Part("left_gripper", ("left_gripper",), gripper=(-1.0, 1.0)),
    )
    assert (robot.video_stride, robot.frames_per_chunk, robot.actions_per_chunk) == (3, 2, 24)
    for field in ("canvas", "action.left_joints", "action.left_gripper", "video_stride", "normalization"):
        assert remarks[field].startswith("guess"), field


def test_commands_and_differences_are_not_relative() -> None:
    states, _ = arm()
    moves = [np.concatenate([np.diff(s[:, :3], axis=0, prepend=s[:1, :3]), s[:, 3:]], axis=1) for s in states]
    drafted = draft(facts(rows={"observation.state": states, "action": moves}))
    assert not any(part.relative for part in drafted.embodiment.action)
    assert "a command" in drafted.remarks["action.left_joints"]
    noisy = [s + np.random.default_rng(1).normal(size=s.shape) * s.std(0) for s in states]
    unclear = draft(facts(rows={"observation.state": states, "action": noisy})).remarks["action.left_joints"]
    assert "unclear" in unclear


def test_a_command_that_begins_in_the_middle_is_read_off_the_state() -> None:
    states, actions = arm()
    for action in actions:
        action[0, 3] = 0.0
    flipped = [np.concatenate([a[:, :3], -a[:, 3:]], axis=1) for a in actions]
    for moved, ends in ((actions, (-1.0, 1.0)), (flipped, (1.0, -1.0))):
        drafted = draft(facts(rows={"observation.state": states, "action": moved}))
        assert drafted.embodiment.action[1].gripper == ends
    still = [np.concatenate([a[:, :3], a[:, 3:] * 0], axis=1) for a in actions]
    drafted = draft(facts(rows={"observation.state": states, "action": still}))
    assert drafted.embodiment.action[1].gripper is None and "never moves" in drafted.remarks["action.left_gripper"]


def test_columns_without_names_become_one_arm_and_a_gripper_that_only_opens_and_closes() -> None:
    robot = draft(facts(names={"observation.state": ("state",)})).embodiment
    assert [part.name for part in robot.state] == [part.name for part in robot.action] == ["arm", "gripper"]
    assert robot.action[0].dims == ("action_0", "action_1", "action_2")
    assert robot.action[0].relative and robot.action[1].gripper == (-1.0, 1.0)


def test_columns_and_features_of_other_names_keep_their_keys() -> None:
    states, actions = arm()
    drafted = draft(
        facts(
            cameras={"image": (256, 256), "wrist_image": (256, 256)},
            rows={"state": states, "actions": actions},
            names={"state": (*JOINTS, "finger"), "actions": (*JOINTS, "finger")},
        )
    ).embodiment
    assert drafted.camera_keys == ("image", "wrist_image") and (drafted.view_height, drafted.view_width) == (224, 224)
    assert {part.key for part in drafted.state} == {"state"} and {part.key for part in drafted.action} == {"actions"}
    split = draft(
        facts(
            rows={"observation.state.arm": [s[:, :3] for s in states], "action.arm": [a[:, :3] for a in actions]},
            names={},
        )
    ).embodiment
    assert split.state[0].key == "observation.state.arm" and split.action[0].relative


def test_two_arms_and_repeated_names_are_told_apart() -> None:
    names = ("x", "y", "z", "gripper", "x", "y", "z", "gripper")
    states, actions = arm()
    both = {"observation.state": [np.tile(s, 2) for s in states], "action": [np.tile(a, 2) for a in actions]}
    robot = draft(facts(rows=both, names=dict.fromkeys(both, names))).embodiment
    assert [part.name for part in robot.action] == ["end_effector_0", "gripper_0", "end_effector_1", "gripper_1"]
    assert robot.action_names == ("x_0", "y_0", "z_0", "gripper_0", "x_1", "y_1", "z_1", "gripper_1")
    assert all(part.relative for part in robot.action[::2])


def test_choices_are_kept_and_not_called_guesses() -> None:
    drafted = draft(facts(), Choices("a", ("wrist",), view=(96, 128), video_stride=2, frames_per_chunk=1))
    robot = drafted.embodiment
    assert (robot.name, robot.cameras, robot.view_width, robot.actions_per_chunk) == ("a", ("wrist",), 128, 8)
    assert "name" not in drafted.remarks and "video_stride" not in drafted.remarks
    people = draft(facts(), Choices(video_only=True)).embodiment
    assert people.action == people.state == ()


@pytest.mark.parametrize(
    ("changes", "choices", "named"),
    [
        ({"fps": 0.0}, Choices(), "field 'fps' is 0"),
        ({"row_seconds": 0.05}, Choices(), r"field 'fps' is 30, but the time stamps of the rows are 20 per second"),
        ({"names": {"action": ("a", "b")}}, Choices(), r"column 'action' has 4 dimensions, but its 'names' are 2"),
        (
            {"rows": {"observation.state": arm()[0]}},
            Choices(),
            "no column that is named like the action.*--video-only",
        ),
        ({"rows": {**facts().rows, "actions": arm()[1]}}, Choices(), r"could both be the action; choose one"),
        ({}, Choices(action=("targets",)), "no column 'targets'"),
        ({}, Choices(cameras=("top",)), "no camera 'top'"),
        ({"cameras": {}}, Choices(), "no camera, but a World Action Model learns from video"),
        ({}, Choices(video_stride=0), "field 'video_stride' is 0, expected at least 1"),
        ({}, Choices(video_stride=-2), "field 'video_stride' is -2, expected at least 1"),
        ({}, Choices(frames_per_chunk=0), "field 'actions_per_chunk' is 0, expected at least 1"),
        ({}, Choices(view=(0, 0)), "field 'view_height' is 0, expected at least 1"),
        ({}, Choices(video_stride=20), "'actions_per_chunk' would be 160, but the longest episode has 60 rows"),
        (
            {"cameras": {"front": (480, 640), "wide": (720, 1280)}},
            Choices(),
            r"'wide' \(720 x 1280\) and 'front' \(480 x 640\) have different shapes",
        ),
    ],
)
def test_what_is_unknown_or_contradictory_is_named(changes: dict[str, object], choices: Choices, named: str) -> None:
    with pytest.raises(EmbodimentError, match=named):
        draft(facts(**changes), choices)
    assert issubclass(DraftError, EmbodimentError)


@pytest.mark.parametrize(
    ("keys", "canvas"),
    [
        (("front",), (("front",),)),
        (("wrist", "front"), (("front", "wrist"),)),
        (("left", "wrist", "right"), (("wrist", "wrist"), ("left", "right"))),
        (("top", "hand_left", "hand_right"), (("top", "hand_left"), ("hand_right", None))),
        (("a", "b", "c", "d", "e"), (("a", "b", "c"), ("d", "e", None))),
    ],
)
def test_every_camera_has_a_place(keys: tuple[str, ...], canvas: tuple[tuple[str | None, ...], ...]) -> None:
    layout = choose_layout([f"observation.images.{key}" for key in keys])
    assert layout.canvas == canvas
    assert [f"observation.images.{name}" for name in layout.names] == list(layout.keys)


@pytest.mark.parametrize(
    ("camera", "cell"),
    [
        ((64, 64), (64, 64)),
        ((84, 84), (64, 64)),
        ((720, 1280), (160, 288)),
        ((256, 256), (224, 224)),
        ((48, 64), (48, 64)),
    ],
)
def test_cells_keep_the_shape_of_the_pictures(camera: tuple[int, int], cell: tuple[int, int]) -> None:
    chosen = choose_cell({"a": camera}, ["a"], None)
    assert (chosen.height, chosen.width, chosen.resized) == (*cell, cell != camera)


def test_the_file_holds_a_comment_above_every_guess_and_reads_back_the_same() -> None:
    drafted = draft(facts())
    numbers = Moments(*((0.1, 0.2, 0.3, 0.4) for _ in range(4)))
    drafted = replace(drafted, embodiment=replace(drafted.embodiment, statistics=Statistics(numbers, numbers)))
    text = commented_yaml(drafted, "data/kitchen", 4)
    assert Embodiment.from_dict(yaml.safe_load(text)) == drafted.embodiment
    lines = text.splitlines()
    for field, remark in drafted.remarks.items():
        vector, _, part = field.partition(".")
        start = f"  - {{name: {part}," if part else f"{field}:"
        places = [i for i, line in enumerate(lines) if line.startswith(start)]
        above = [lines[i - 1].strip() for i in places]
        assert any(line.startswith("#") and line[2:] in remark for line in above), (field, vector)
    assert max(map(len, lines)) <= 120
