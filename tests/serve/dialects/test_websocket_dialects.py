"""openpi's and RoboArena's dialects, byte for byte, without sockets.

The golden bytes are put together here from the documented format, with msgpack alone.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from wam.robot.embodiment import METAWORLD_SAWYER, load_embodiment
from wam.serve.cadence import Choice
from wam.serve.dialects import openpi, roboarena
from wam.serve.errors import ServeError
from wam.serve.metadata import Served, example_observation, handshake, metadata
from wam.serve.request import Answer, Infer, Reset, Who
from wam.serve.robot_keys import RobotKeys
from wam_client.wire import packb, unpackb

DROID = load_embodiment("droid-franka")
KEYS = RobotKeys(DROID)
ANSWER = Answer(
    actions=np.arange(24 * 8, dtype=np.float32).reshape(24, 8),
    execute=24,
    choice=Choice((0,), "first"),
    session="s",
    seed=7,
    chunk=0,
    seconds={"encode": 0.010, "denoise": 0.030},
    queue_seconds=0.005,
    total_seconds=0.050,
)


def array(values: np.ndarray) -> dict[bytes, Any]:
    """An array in openpi's format."""
    return {b"__ndarray__": True, b"data": values.tobytes(), b"dtype": values.dtype.str, b"shape": list(values.shape)}


def droid_request(**extra: Any) -> dict[str, Any]:
    """What the released DreamZero client sends."""
    return {
        "observation/exterior_image_0_left": np.full((180, 320, 3), 1, np.uint8),
        "observation/exterior_image_1_left": np.full((180, 320, 3), 2, np.uint8),
        "observation/wrist_image_left": np.full((180, 320, 3), 3, np.uint8),
        "observation/joint_position": np.arange(7, dtype=np.float64),
        "observation/cartesian_position": np.zeros(6, np.float64),
        "observation/gripper_position": np.zeros(1, np.float64),
        "prompt": "pick up the cup",
        "session_id": "3f2c",
        **extra,
    }


# ---------------------------------------------------------------- RoboArena


def test_the_handshake_of_a_droid_is_the_released_servers_byte_for_byte() -> None:
    golden = msgpack.packb(
        {
            "image_resolution": [180, 320],
            "needs_wrist_camera": True,
            "n_external_cameras": 2,
            "needs_stereo_camera": False,
            "needs_session_id": True,
            "action_space": "joint_position",
        }
    )
    served = Served("dreamzero-droid", "r", DROID, 24, remembers=True, dreams=False)
    assert packb(handshake(served, "/")) == golden
    assert handshake(served, "/wam")["model"] == "dreamzero-droid"


def test_a_roboarena_reply_is_a_bare_array_byte_for_byte() -> None:
    assert roboarena.write(ANSWER) == msgpack.packb(array(ANSWER.actions))


def test_a_roboarena_client_gets_only_what_it_shall_execute() -> None:
    short = Answer(ANSWER.actions, 8, ANSWER.choice, "s", 0, 0)
    assert roboarena.write(short) == msgpack.packb(array(ANSWER.actions[:8]))


def test_a_released_request_is_read() -> None:
    frame = msgpack.packb(
        {k: array(v) if isinstance(v, np.ndarray) else v for k, v in droid_request(endpoint="infer").items()}
    )
    assert frame == packb(droid_request(endpoint="infer"))  # ours writes what theirs does
    request = unpackb(frame)
    assert roboarena.is_roboarena(request)
    ask = roboarena.read(request, KEYS)
    assert isinstance(ask, Infer)
    assert {camera: int(video[0, 0, 0, 0]) for camera, video in ask.seen.images.items()} == {
        "exterior_image_1_left": 1,
        "exterior_image_2_left": 2,
        "wrist_image_left": 3,
    }
    assert ask.who == Who("3f2c") and ask.unknown == () and ask.seen.state.tolist() == [0, 1, 2, 3, 4, 5, 6, 0]


def test_a_reset_needs_nothing_else() -> None:
    assert roboarena.read({"endpoint": "reset"}, KEYS) == Reset()
    assert roboarena.read(droid_request(endpoint="reset", seed=4), KEYS) == Reset(Who("3f2c"), 4)
    assert roboarena.RESET_DONE == "reset successful"


def test_roboarenas_own_test_sends_its_session_as_an_array() -> None:
    ask = roboarena.read(droid_request(endpoint="infer", session_id=np.zeros(1, np.int32)), KEYS)
    assert ask.who == Who("0")


def test_another_endpoint_is_named() -> None:
    with pytest.raises(ServeError, match="'endpoint': found 'dance', expected 'infer' or 'reset'"):
        roboarena.read({"endpoint": "dance"}, KEYS)


# ---------------------------------------------------------------- openpi


def test_an_openpi_reply_has_its_keys() -> None:
    reply = unpackb(openpi.write(ANSWER, previous_seconds=0.06))
    assert np.array_equal(reply["actions"], ANSWER.actions) and reply["actions"].dtype == np.float32
    assert reply["server_timing"] == {
        "infer_ms": pytest.approx(40.0),
        "queue_ms": pytest.approx(5.0),
        "server_ms": pytest.approx(50.0),
        "encode_ms": pytest.approx(10.0),
        "denoise_ms": pytest.approx(30.0),
        "prev_total_ms": pytest.approx(60.0),
    }
    assert reply["session"] == {"id": "s", "seed": 7, "chunk": 0, "batch": 1}
    assert reply["cadence"] == {"how": "first", "guessed": False, "why": ""}
    assert "prev_total_ms" not in unpackb(openpi.write(ANSWER))["server_timing"]
    assert reply.keys() == {"actions", "server_timing", "session", "cadence"}


def test_the_dream_is_sent_to_those_who_want_it() -> None:
    dream = np.zeros((4, 2, 2, 3), np.uint8)
    kept = Answer(ANSWER.actions, 24, ANSWER.choice, "s", 0, 0, dream=dream)
    assert "dream" not in unpackb(openpi.write(kept))
    wanted = Answer(ANSWER.actions, 24, ANSWER.choice, "s", 0, 0, dream=dream, send_dream=True)
    assert np.array_equal(unpackb(openpi.write(wanted))["dream"], dream)


def test_everything_that_a_request_may_say() -> None:
    request = droid_request(
        env_id=3, reset=True, seed=np.int64(5), dream=True, executing=np.ones((2, 8)), surprise=1, timestamp_s=2.0
    )
    ask = openpi.read(request, KEYS)
    assert ask.who == Who("3f2c", "3") and ask.anew and ask.seed == 5 and ask.wants_dream
    assert ask.executing is not None and ask.executing.shape == (2, 8) and ask.executing.dtype == np.float32
    assert ask.unknown == ("surprise",)
    assert ask.seen.times is not None and ask.seen.times.tolist() == [2.0]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"session_id": ""}, "'session_id': found str, expected a name of 1 to 200"),
        ({"session_id": "x" * 201}, "'session_id'"),
        ({"session_id": ["a"]}, "'session_id': found list"),
        ({"env_id": True}, "'env_id': found bool"),
        ({"seed": "7"}, "'seed': found str, expected int"),
        ({"seed": -1}, "'seed': found -1"),
        ({"reset": "yes"}, "'reset': found str"),
        ({"executing": [1.0]}, "'executing'"),
        ({"executing": np.ones(3)}, "'executing'"),
    ],
)
def test_a_malformed_key_is_named(extra: dict[str, Any], says: str) -> None:
    with pytest.raises(ServeError, match=says):
        openpi.read(droid_request(**extra), KEYS)


# ---------------------------------------------------------------- metadata


def test_the_metadata_says_what_a_client_must_know() -> None:
    served = Served("nano", "sha256:1", METAWORLD_SAWYER, 8, remembers=True, dreams=False)
    said = unpackb(packb(handshake(served, "/")))
    expected = {
        "model": "nano",
        "revision": "sha256:1",
        "embodiment": "metaworld-sawyer",
        "action_names": ["delta_x", "delta_y", "delta_z", "gripper_effort"],
        "horizon": 8,
        "execute": 8,
        "control_hz": 40.0,
        "video_hz": 20.0,
        "frames_per_request": 4,
        "image_resolution": [64, 64],
        "needs_wrist_camera": False,
        "n_external_cameras": 2,
        "needs_stereo_camera": False,
        "needs_session_id": True,
        "action_space": None,
    }
    assert {key: said[key] for key in expected} == expected


@pytest.mark.parametrize("robot", ["metaworld-sawyer", "droid-franka", "libero-panda", "agibot-g1", "yam"])
def test_the_example_observation_can_be_sent_back_as_it_is(robot: str) -> None:
    embodiment = load_embodiment(robot)
    served = Served("m", "r", embodiment, embodiment.actions_per_chunk, remembers=True, dreams=False)
    example = unpackb(packb(metadata(served)))["example_observation"]
    ask = openpi.read(example, RobotKeys(embodiment))
    assert ask.unknown == () and ask.notes == () and ask.seen.frames == 1
    assert set(ask.seen.images) == set(embodiment.cameras)
    assert example.keys() == example_observation(embodiment).keys()
