"""What clients call cameras and states, and what they are told when something is missing or malformed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wam.robot.embodiment import METAWORLD_SAWYER, load_embodiment
from wam.serve.errors import ServeError
from wam.serve.robot_keys import RobotKeys

DROID, LIBERO = load_embodiment("droid-franka"), load_embodiment("libero-panda")


def picture(value: int, height: int = 180, width: int = 320) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def droid(**changes: Any) -> dict[str, Any]:
    """openpi's request for DROID, cameras counted from 1."""
    request = {
        "observation/exterior_image_1_left": picture(1),
        "observation/exterior_image_2_left": picture(2),
        "observation/wrist_image_left": picture(3),
        "observation/joint_position": np.arange(7.0),
        "observation/gripper_position": np.array([0.5]),
        "prompt": "Pick up the cup",
        **changes,
    }
    return {key: value for key, value in request.items() if value is not None}


def metaworld(**changes: Any) -> dict[str, Any]:
    request = {
        "observation/images/top": picture(1, 64, 64),
        "observation/images/side": picture(2, 64, 64),
        "observation/state": np.arange(4.0),
        "prompt": "push",
        **changes,
    }
    return {key: value for key, value in request.items() if value is not None}


def brightness(keys: RobotKeys, request: dict[str, Any]) -> dict[str, int]:
    seen, _, _ = keys.read(request)
    return {camera: int(video[0, 0, 0, 0]) for camera, video in seen.images.items()}


def test_cameras_counted_from_1_as_openpi_does() -> None:
    assert brightness(RobotKeys(DROID), droid()) == {
        "exterior_image_1_left": 1,
        "exterior_image_2_left": 2,
        "wrist_image_left": 3,
    }


def test_cameras_counted_from_0_as_roboarena_does() -> None:
    request = droid(
        **{
            "observation/exterior_image_0_left": picture(10),
            "observation/exterior_image_1_left": picture(11),
            "observation/exterior_image_2_left": None,
        }
    )
    assert brightness(RobotKeys(DROID), request) == {
        "exterior_image_1_left": 10,
        "exterior_image_2_left": 11,
        "wrist_image_left": 3,
    }


def test_the_state_is_put_together_from_its_parts() -> None:
    seen, used, notes = RobotKeys(DROID).read(droid())
    assert seen.state.tolist() == [0, 1, 2, 3, 4, 5, 6, 0.5] and seen.state.dtype == np.float32
    assert used == set(droid()) and notes == []
    assert seen.instruction == "Pick up the cup" and seen.times is None and seen.frames == 1


def test_a_scalar_gripper_and_several_rows_of_joints_are_taken() -> None:
    joints = np.stack([np.zeros(7), np.arange(7.0)])
    request = droid(**{"observation/joint_position": joints, "observation/gripper_position": np.float64(0.25)})
    assert RobotKeys(DROID).read(request)[0].state.tolist() == [0, 1, 2, 3, 4, 5, 6, 0.25]


def test_what_droid_clients_send_besides_is_not_unknown() -> None:
    request = droid(**{"observation/cartesian_position": np.zeros(6)})
    assert RobotKeys(DROID).read(request)[1] == set(request)


def test_openpi_keys_of_libero() -> None:
    request = {
        "observation/image": picture(1, 256, 256),
        "observation/wrist_image": picture(2, 256, 256),
        "observation/state": np.zeros(8),
        "prompt": "open the drawer",
    }
    assert brightness(RobotKeys(LIBERO), request) == {"image": 1, "wrist_image": 2}


def test_names_of_a_data_set_are_taken_too() -> None:
    request = {
        "observation.images.top": picture(1, 64, 64),
        "observation/side": picture(2, 64, 64),
        "observation.state": [0.0, 1.0, 2.0, 3.0],
        "prompt": "push",
    }
    assert brightness(RobotKeys(METAWORLD_SAWYER), request) == {"top": 1, "side": 2}


def test_several_frames_with_their_times() -> None:
    video = np.stack([picture(i, 64, 64) for i in range(4)])
    request = metaworld(
        **{"observation/images/top": video, "observation/images/side": video, "timestamp_s": [0.0, 0.1, 0.2, 0.3]}
    )
    seen, _, _ = RobotKeys(METAWORLD_SAWYER).read(request)
    assert seen.frames == 4 and seen.times is not None and seen.times.tolist() == [0.0, 0.1, 0.2, 0.3]
    counted = {**request, "observation_index": [0, 4, 8, 12]}
    del counted["timestamp_s"]
    times = RobotKeys(METAWORLD_SAWYER).read(counted)[0].times
    assert times is not None and times.tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("how", ["black", "duplicate"])
def test_a_missing_camera_is_replaced_only_if_that_was_asked_for(how: Any) -> None:
    request = droid(**{"observation/exterior_image_2_left": None})
    with pytest.raises(ServeError, match="camera 'exterior_image_2_left' of 'droid-franka' is missing") as refused:
        RobotKeys(DROID).read(request)
    assert "--missing-camera" in str(refused.value) and refused.value.name == "BadRequest"
    keys = RobotKeys(DROID, how)
    assert brightness(keys, request)["exterior_image_2_left"] == (0 if how == "black" else 1)
    assert keys.read(request)[2] == [f"camera 'exterior_image_2_left' is missing, {how} shown instead"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"observation/images/top": None}, "camera 'top' of 'metaworld-sawyer' is missing: expected"),
        ({"observation/state": None}, "the state of 'metaworld-sawyer' is missing"),
        ({"prompt": None}, "'prompt': found NoneType"),
        ({"prompt": 3}, "'prompt': found int"),
        ({"prompt": "x" * 3000}, "3000 characters"),
        ({"observation/images/top": "x"}, "found str, expected uint8"),
        ({"observation/images/top": np.zeros((64, 64, 3))}, "found float64 .*, expected uint8"),
        ({"observation/images/top": np.zeros((64, 64), np.uint8)}, "expected .height, width, 3."),
        ({"observation/images/top": np.zeros((3, 64, 64), np.uint8)}, "expected .height, width, 3."),
        ({"observation/images/top": np.zeros((0, 64, 64, 3), np.uint8)}, "expected .height, width, 3."),
        ({"observation/images/top": picture(0, 224, 224)}, "needs 64 x 64 .height x width.; resize"),
        ({"observation/images/top": np.zeros((2, 64, 64, 3), np.uint8)}, "different numbers of frames"),
        ({"observation/state": np.zeros(3)}, r"found shape \(3,\), expected \(4,\) = \['hand_x'"),
        ({"observation/state": np.zeros((2, 3))}, r"found shape \(2, 3\)"),
        ({"observation/state": np.zeros((2, 2, 4))}, "found shape"),
        ({"observation/state": np.array([0, 0, 0, np.nan])}, "not finite"),
        ({"observation/state": np.array([0, 0, 0, 1e300])}, "not finite"),
        ({"observation/state": "0123"}, "found str, expected numbers"),
        ({"observation/state": [[0.0], [1.0, 2.0]]}, "found list, expected numbers"),
        ({"observation/state": {}}, "found dict, expected numbers"),
        ({"timestamp_s": [0.0, 1.0]}, "expected 1 increasing number"),
        ({"timestamp_s": float("nan")}, "expected 1 increasing number"),
        ({"timestamp_s": "now"}, "expected 1 increasing number"),
        ({"timestamp_s": [[0.0], []]}, "expected 1 increasing number"),
    ],
)
def test_a_missing_or_malformed_key_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ServeError, match=says) as refused:
        RobotKeys(METAWORLD_SAWYER).read(metaworld(**changes))
    assert refused.value.name == "BadRequest" and str(refused.value).startswith("BadRequest: ")
