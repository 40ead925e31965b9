"""The embodiment file, the canvas and the normaliser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wam.robot.canvas import compose, split
from wam.robot.embodiment import (
    METAWORLD_SAWYER,
    SHIPPED,
    Embodiment,
    EmbodimentError,
    Moments,
    Part,
    Statistics,
    load_embodiment,
)
from wam.robot.normalization import Normalizer

ZERO, SHORT = (Moments(*((0.0,) * dims for _ in range(4))) for dims in (4, 1))


def views() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for name in METAWORLD_SAWYER.cameras}


def test_a_part_that_starts_at_the_beginning_stays_there() -> None:
    """Behind another part of its column; without a start it would be taken from behind that."""
    parts = (Part("gripper", ("g",), start=7), Part("joints", tuple("abcdefg"), start=0), Part("still", ("s",)))
    assert tuple(Part.from_dict(part.to_dict(), "here") for part in parts) == parts
    assert parts[2].to_dict() == {"name": "still", "dims": ("s",)}


def test_yaml_round_trip(tmp_path: Path) -> None:
    for robot in (load_embodiment(path.stem) for path in SHIPPED.glob("*.yaml")):
        robot.to_yaml(tmp_path / "robot.yaml")
        assert Embodiment.from_yaml(tmp_path / "robot.yaml") == robot
        assert load_embodiment(tmp_path / "robot.yaml") == robot


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"canvas": (("top", "front"),)}, "field 'canvas'"),
        ({"canvas": (("top", "side", "top"),)}, "tears camera 'top' apart"),
        ({"camera_keys": ("observation.images.top",)}, "field 'camera_keys' has 1 entries for 2 cameras"),
        ({"crop": 1.5}, "field 'crop' is 1.5"),
        ({"action": (Part("arm", ("x",), relative=True),)}, "action 'arm' is relative"),
        ({"state": (Part("a", ("x",)), Part("a", ("y",)))}, "names a part twice"),
        ({"action_width": 3}, "field 'action_width' is 3"),
        (
            {"statistics": Statistics(ZERO, SHORT)},
            "field 'statistics.action.mean' has 1",
        ),
        ({"canvas": (("top",), ("side", None))}, "different lengths"),
        ({"actions_per_chunk": 9}, "field 'actions_per_chunk' is 9"),
        ({"prompt_template": "do it"}, "field 'prompt_template'"),
        ({"view_height": 0}, "field 'view_height' is 0, expected at least 1"),
        ({"view_width": -64}, "field 'view_width' is -64, expected at least 1"),
        ({"video_stride": -2, "actions_per_chunk": -8}, "field 'video_stride' is -2, expected at least 1"),
        ({"frames_per_chunk": 0, "actions_per_chunk": 0}, "field 'actions_per_chunk' is 0, expected at least 1"),
        ({"control_hz": 0.0}, "field 'control_hz' is 0.0, expected control steps per second above 0"),
        ({"control_hz": float("nan")}, "field 'control_hz' is nan, expected control steps per second above 0"),
        ({"control_hz": float("inf")}, "field 'control_hz' is inf, expected control steps per second above 0"),
        ({"cameras": (), "canvas": ((),)}, "field 'cameras' is empty"),
    ],
)
def test_contradictions_are_named(change: dict[str, object], named: str) -> None:
    with pytest.raises(EmbodimentError, match=named):
        replace(METAWORLD_SAWYER, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gripper": (0.0, 0.0)}, r"part 'arm': field 'gripper' is \[0.0, 0.0\], expected two different raw values"),
        ({"dims": ("x", "y", "x")}, "part 'arm': field 'dims' names 'x' twice"),
        ({"dims": ()}, "part 'arm': field 'dims' names no dimension"),
        ({"start": -2}, "part 'arm': field 'start' is -2, expected the number of a dimension"),
    ],
)
def test_parts_that_mean_nothing_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(EmbodimentError, match=named):
        replace(Part("arm", ("x", "y")), **changes)  # type: ignore[arg-type]


HAND = {"name": "hand", "dims": 4}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": 7}, "field 'name' is 7, expected text"),
        ({"view_height": "64"}, "field 'view_height' is '64', expected a whole number"),
        ({"view_height": 64.5}, "field 'view_height' is 64.5, expected a whole number"),
        ({"view_height": True}, "field 'view_height' is True, expected a whole number"),
        ({"view_height": None}, "field 'view_height' is None, expected a whole number"),
        ({"control_hz": "40"}, "field 'control_hz' is '40', expected a finite number"),
        ({"control_hz": float("nan")}, "field 'control_hz' is nan, expected a finite number"),
        ({"lower_case": "yes"}, "field 'lower_case' is 'yes', expected true or false"),
        ({"normalization": "min_max"}, "field 'normalization' is 'min_max', expected 'mean_std' or 'quantiles'"),
        ({"cameras": "top"}, "field 'cameras' is 'top', expected a list"),
        ({"canvas": [["top", 1]]}, r"field 'canvas\[0\]\[1\]' is 1, expected text"),
        ({"state": None}, "field 'state' is None, expected a list"),
        ({"state": ["hand"]}, r"field 'state\[0\]' is 'hand', expected fields with names and values"),
        ({"state": [{"dims": 4}]}, r"field 'state\[0\].name' is missing"),
        ({"state": [{**HAND, "colour": 1}]}, r"unknown field 'state\[0\].colour'"),
        ({"state": [{**HAND, "dims": "wxyz"}]}, r"field 'state\[0\].dims' is 'wxyz', expected a list"),
        ({"state": [{**HAND, "dims": -4}]}, "part 'hand': field 'dims' names no dimension"),
        ({"state": [{**HAND, "gripper": [0]}]}, r"field 'state\[0\].gripper' is \[0\], expected a list of 2 numbers"),
        ({"state": [{**HAND, "start": "2"}]}, r"field 'state\[0\].start' is '2', expected a whole number"),
        ({"statistics": {"state": {"mean": 0}}}, r"field 'statistics.action' is missing"),
        (
            {"statistics": {"state": {"mean": [0, float("inf")]}, "action": {}}},
            r"field 'statistics.state.mean\[1\]' is inf, expected a finite number",
        ),
    ],
)
def test_fields_of_another_type_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(EmbodimentError, match=f"^robot.yaml: {named}"):
        Embodiment.from_dict({**METAWORLD_SAWYER.to_dict(), **changes}, "robot.yaml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: [arm", "not valid YAML, correct it: "),
        ("", "found None, expected fields with names and values"),
        ("- name: arm", r"found \[.*\], expected fields with names and values"),
    ],
)
def test_files_without_fields_are_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "arm.yaml").write_text(text)
    with pytest.raises(EmbodimentError, match=f"{tmp_path}/arm.yaml: {named}"):
        load_embodiment(tmp_path / "arm.yaml")


def test_whole_numbers_may_stand_for_others() -> None:
    robot = Embodiment.from_dict({**METAWORLD_SAWYER.to_dict(), "control_hz": 40, "state": [{**HAND, "start": 0}]})
    assert robot.control_hz == METAWORLD_SAWYER.control_hz
    assert robot.state == (Part("hand", ("hand_0", "hand_1", "hand_2", "hand_3"), start=0),)
    assert Part.from_dict({"name": "grip", "dims": 1, "gripper": [1, 0]}, "here").gripper == (1.0, 0.0)


def test_unknown_and_missing_fields_are_named() -> None:
    fields = METAWORLD_SAWYER.to_dict()
    with pytest.raises(EmbodimentError, match="unknown field 'colour'"):
        Embodiment.from_dict({**fields, "colour": "red"})
    del fields["control_hz"]
    with pytest.raises(EmbodimentError, match="field 'control_hz' is missing"):
        Embodiment.from_dict(fields)


def test_canvas_puts_every_view_in_its_place_and_takes_it_out_again() -> None:
    images = views()
    canvas = compose(images, METAWORLD_SAWYER)
    assert canvas.shape == (64, 128, 3)
    assert np.array_equal(canvas[:, :64], images["top"]) and np.array_equal(canvas[:, 64:], images["side"])
    again = split(canvas, METAWORLD_SAWYER)
    assert all(np.array_equal(again[name], images[name]) for name in images)


def test_a_view_over_two_cells_is_stretched() -> None:
    wide = replace(METAWORLD_SAWYER, canvas=(("top", "top"), ("side", None)))
    images = views()
    canvas = compose(images, wide)
    assert np.array_equal(canvas[:64], np.repeat(images["top"], 2, axis=1))
    assert np.array_equal(split(canvas, wide)["top"], images["top"])


def test_a_robot_with_a_crop_takes_pictures_of_any_size() -> None:
    robot = load_embodiment("droid-franka")
    images = {name: np.full((180, 320, 3), 10 * i, dtype=np.uint8) for i, name in enumerate(robot.cameras)}
    canvas = compose(images, robot)
    assert canvas.shape == (352, 640, 3)
    assert canvas[176:, :320].max() == 0 and canvas[176:, 320:].min() >= 9 and canvas[:176].min() >= 19


def test_an_unknown_robot_is_named_with_those_there_are() -> None:
    with pytest.raises(EmbodimentError, match="'toaster': no such file.*droid-franka"):
        load_embodiment("toaster")


def test_canvas_cell_without_a_camera_is_black() -> None:
    wide = replace(METAWORLD_SAWYER, canvas=(("top", None), (None, "side")))
    canvas = compose(views(), wide)
    assert canvas.shape == (128, 128, 3) and not canvas[:64, 64:].any() and not canvas[64:, :64].any()


def test_missing_or_misshapen_camera_is_named() -> None:
    images = views()
    with pytest.raises(ValueError, match="camera 'side' is missing"):
        compose({"top": images["top"]}, METAWORLD_SAWYER)
    with pytest.raises(ValueError, match=r"camera 'side': found uint8 \(32, 64, 3\)"):
        compose({**images, "side": images["side"][:32]}, METAWORLD_SAWYER)
    with pytest.raises(ValueError, match="camera 'top': found float64"):
        compose({**images, "top": images["top"] / 255.0}, METAWORLD_SAWYER)


def test_normalizer_round_trip_and_still_dimension() -> None:
    normalizer = Normalizer.from_mean_std(Moments((1.0, 5.0), (2.0, 0.0), (0.0, 0.0), (0.0, 0.0)))
    x = torch.tensor([[3.0, 5.0], [-1.0, 5.5]])
    assert torch.allclose(normalizer.normalize(x), torch.tensor([[1.0, 0.0], [-1.0, 0.5]]))
    assert torch.allclose(normalizer.restore(normalizer.normalize(x)), x)


def test_quantiles_go_to_the_ends_and_still_dimensions_come_back_as_their_constant() -> None:
    moments = Moments((0.0, 0.0), (1.0, 1.0), (-2.0, 0.5), (6.0, 0.5))
    normalizer = Normalizer.from_quantiles(moments)
    assert normalizer.normalize(torch.tensor([[-2.0, 0.25], [6.0, 0.5], [99.0, 7.0]])).tolist() == [
        [-1.0, 0.25],
        [1.0, 0.5],
        [1.0, 1.0],
    ]
    assert normalizer.restore(torch.tensor([[2.0, 0.9]])).tolist() == [[10.0, 0.5]]  # not cut off


def test_normalizer_of_another_robot_is_refused() -> None:
    with pytest.raises(ValueError, match="found 3 dimensions, the statistics have 2"):
        Normalizer((0.0, 0.0), (1.0, 1.0)).normalize(torch.zeros(3))
