"""What a server is sent and what comes back, by its dialect's habits or by a YAML file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wam.evaluate.remote import Address
from wam.evaluate.remote_keys import gr00t_keys, openpi_keys, read_keys, resize_with_pad, roboarena_keys
from wam.robot.embodiment import METAWORLD_SAWYER, load_embodiment
from wam.robot.observation import Observation

DROID, LIBERO = load_embodiment("droid-franka"), load_embodiment("libero-panda")


def look(robot, size=(90, 160)) -> Observation:
    images = {camera: np.full((*size, 3), 10 * i + 10, np.uint8) for i, camera in enumerate(robot.cameras)}
    return Observation(images, np.arange(robot.state_dim, dtype=np.float32), "open the drawer", 0.0)


def test_openpi_calls_a_droid_as_its_own_client_does() -> None:
    keys = openpi_keys(DROID, {})
    sent = keys.observation(look(DROID), DROID)
    assert {
        "observation/exterior_image_1_left",
        "observation/wrist_image_left",
        "observation/joint_position",
        "observation/gripper_position",
        "prompt",
    } <= set(sent)
    assert sent["observation/wrist_image_left"].shape == (224, 224, 3)
    assert sent["observation/joint_position"].tolist() == list(range(7))
    assert sent["observation/gripper_position"].tolist() == [7]
    assert sent["prompt"] == "open the drawer"


def test_openpi_calls_libero_as_its_own_client_does() -> None:
    sent = openpi_keys(LIBERO, {"image_resolution": None, "horizon": 10}).observation(look(LIBERO), LIBERO)
    assert {"observation/image", "observation/wrist_image", "observation/state", "prompt"} <= set(sent)
    assert sent["observation/image"].shape == (90, 160, 3)
    assert sent["observation/state"].shape == (8,)
    assert openpi_keys(LIBERO, {"horizon": 10}).execute == 10


def test_roboarena_gets_what_its_server_asks_for() -> None:
    config = {
        "image_resolution": (180, 320),
        "needs_wrist_camera": True,
        "n_external_cameras": 2,
        "action_space": "joint_position",
    }
    sent = roboarena_keys(DROID, config).observation(look(DROID), DROID)
    assert sent["observation/exterior_image_0_left"].shape == (180, 320, 3)
    assert [int(sent[f"observation/{name}_left"][90, 160, 0]) for name in ("exterior_image_0", "exterior_image_1")] == [
        10,
        20,
    ]
    assert int(sent["observation/wrist_image_left"][90, 160, 0]) == 30
    assert sent["observation/joint_position"].shape == (7,)
    with pytest.raises(ValueError, match="acts in 'joint_position', robot 'metaworld-sawyer' in"):
        roboarena_keys(METAWORLD_SAWYER, {**config, "needs_wrist_camera": False})
    with pytest.raises(ValueError, match="needs 3 external cameras"):
        roboarena_keys(DROID, {**config, "n_external_cameras": 3})


def test_gr00t_uses_the_servers_names() -> None:
    config = {"video": ["image"], "state": ["end_effector"], "language": ["task"]}
    sent = gr00t_keys(LIBERO, config).observation(look(LIBERO), LIBERO)
    assert set(sent) == {"video.image", "state.end_effector", "language.task"}
    with pytest.raises(ValueError, match=r"needs camera 'front', robot 'libero-panda' has \['image', 'wrist_image'\]"):
        gr00t_keys(LIBERO, {"video": ["front"]})


def test_a_file_says_it_all(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(
        "images: {observation/base: side}\nimage_size: [32, 48]\n"
        "state: {observation/gripper: [gripper_opening], observation/hand: [hand_z, hand_x]}\nprompt: task\n"
        "actions: [2, 0, {column: 1, scale: 0.5, offset: 1}, {column: 4, above: 0.5, scale: 2, offset: -1}]\n"
        "execute: 5\n"
    )
    keys = read_keys(path).check(METAWORLD_SAWYER, str(path))
    sent = keys.observation(look(METAWORLD_SAWYER), METAWORLD_SAWYER)
    assert set(sent) == {"observation/base", "observation/gripper", "observation/hand", "task"}
    assert sent["observation/base"].shape == (32, 48, 3) and sent["observation/base"].max() == 20
    assert sent["observation/gripper"].tolist() == [3] and sent["observation/hand"].tolist() == [2, 0]
    actions = np.array([[1, 2, 3, 9, 0.6], [1, -2, 3, 9, 0.4]], np.float32)
    assert keys.robot_actions(actions, METAWORLD_SAWYER).tolist() == [[3, 1, 2, 1], [3, 1, 0, -1]]
    assert keys.execute == 5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- 1", "found list"),
        ("images: {a: top", "not YAML .*line 1"),
        ("state: {}", "'images' is missing"),
        ("images: {a: top}\ncameras: {}", "unknown field 'cameras'"),
        ("images: {a: top}\nactions: [{row: 1}]", "row"),
        ("images: {a: top}\nimage_size: 3", "int"),
        ("images: {a: front}", "is camera 'front'"),
        ("images: {a: top}\nstate: {b: [elbow]}", "dimension 'elbow'"),
        ("images: {a: top}\nactions: [0, 1]", "2 columns"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "keys.yaml").write_text(text)
    with pytest.raises(ValueError, match=named):
        read_keys(tmp_path / "keys.yaml").check(METAWORLD_SAWYER, "keys.yaml")


def test_actions_of_another_width_are_never_guessed() -> None:
    keys = openpi_keys(METAWORLD_SAWYER, {})
    with pytest.raises(ValueError, match="have 8 columns, robot 'metaworld-sawyer' has 4"):
        keys.robot_actions(np.zeros((10, 8), np.float32), METAWORLD_SAWYER)


def test_pictures_keep_their_shape_between_black_borders() -> None:
    wide = np.full((90, 160, 3), 200, np.uint8)
    sized = resize_with_pad(wide, 224, 224)
    rows = np.flatnonzero(sized.any(axis=(1, 2)))
    assert (rows[0], len(rows)) == (49, 126)
    assert np.array_equal(resize_with_pad(wide, 90, 160), wide)


@pytest.mark.parametrize("text", ["http://a:1", "openpi://a", "openpi://a:b", "wam://", "nano-metaworld"])
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="wam://host:port, openpi://host:port"):
        Address.parse(text)


def test_addresses() -> None:
    assert Address.parse("gr00t://robot.local:5555") == Address("gr00t", "robot.local", 5555)
    assert Address.parse("openpi://[::1]:8000/").websocket == "ws://[::1]:8000"
    assert str(Address.parse("wam://127.0.0.1:8000")) == "wam://127.0.0.1:8000"
