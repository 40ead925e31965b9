"""GR00T's dialect, byte for byte, without sockets; the client's half is written here from the documented format."""

from __future__ import annotations

import io
from typing import Any

import msgpack
import numpy as np
import pytest

from wam.robot.embodiment import METAWORLD_SAWYER, load_embodiment
from wam.serve.cadence import Cadence, Choice
from wam.serve.dialects import gr00t
from wam.serve.errors import ServeError
from wam.serve.request import Answer, Who
from wam.serve.robot_keys import RobotKeys
from wam_client.wire import Limits

DROID = load_embodiment("droid-franka")
KEYS, CADENCE = RobotKeys(METAWORLD_SAWYER), Cadence.of(METAWORLD_SAWYER)
LIMITS = Limits()


def npy(value: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value, **options)
    return file.getvalue()


def encode(value: Any) -> bytes:
    """As a GR00T client does."""
    return bytes(msgpack.packb(value, default=lambda a: {"__ndarray_class__": True, "as_npy": npy(a)}))


def decode(data: bytes) -> Any:
    def hook(fields: dict[str, Any]) -> Any:
        return np.load(io.BytesIO(fields["as_npy"])) if "__ndarray_class__" in fields else fields

    return msgpack.unpackb(data, object_hook=hook)


def observation(robots: int = 1, frames: int = 1) -> dict[str, Any]:
    video = np.stack([np.full((frames, 64, 64, 3), b, np.uint8) for b in range(robots)])
    return {
        "video": {"top": video, "side": video},
        "state": {"hand": np.arange(robots * 4.0).reshape(robots, 1, 4)},
        "language": {gr00t.LANGUAGE: [[f"push {b}"] for b in range(robots)]},
    }


def flat_observation() -> dict[str, Any]:
    video = np.zeros((1, 64, 64, 3), np.uint8)
    return {
        "video.top": video,
        "video.side": video,
        "state.hand": np.arange(4.0)[None],
        gr00t.LANGUAGE: ["push"],
    }


def answer(value: float, width: int = 4) -> Answer:
    return Answer(np.full((8, width), value, np.float32), 8, Choice((0,), "first"), "s", 1, 0)


def test_a_message_is_read_as_a_client_wrote_it() -> None:
    message = {"endpoint": "get_action", "data": {"observation": observation(2), "options": None}}
    read = gr00t.unpack(encode(message), LIMITS)
    assert np.array_equal(read["data"]["observation"]["video"]["top"], observation(2)["video"]["top"])


def test_an_answer_is_the_list_of_two_that_clients_expect_byte_for_byte() -> None:
    data = {"observation": observation(2), "options": None}
    reply = gr00t.write([answer(1.0), answer(2.0)], METAWORLD_SAWYER, data)
    actions, info = decode(reply)
    assert actions["hand"].shape == (2, 8, 4) and actions["hand"].dtype == np.float32
    assert actions["hand"][:, 0, 0].tolist() == [1.0, 2.0]
    assert [session["cadence"] for session in info["sessions"]] == ["first", "first"]
    assert reply == encode([{"hand": actions["hand"]}, info])


def test_actions_are_split_into_the_robots_parts() -> None:
    whole = Answer(np.tile(np.arange(8, dtype=np.float32), (24, 1)), 24, Choice((0,), "first"), "s", 1, 0)
    actions, _ = decode(gr00t.write([whole], DROID, {"observation": {}}))
    assert actions["joint_position"][0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert actions["gripper_position"].shape == (1, 24, 1) and actions["gripper_position"][0, 0, 0] == 7


def test_every_robot_of_a_request_is_a_session() -> None:
    asks = gr00t.read({"observation": observation(3, frames=4), "options": {"session_id": "a", "seed": 2}}, KEYS)
    assert [ask.who for ask in asks] == [Who("a", "0"), Who("a", "1"), Who("a", "2")]
    assert [ask.seen.instruction for ask in asks] == ["push 0", "push 1", "push 2"]
    assert [ask.seen.images["side"][0, 0, 0, 0] for ask in asks] == [0, 1, 2]
    assert asks[1].seen.state.tolist() == [4, 5, 6, 7] and asks[1].seen.frames == 4 and asks[1].seed == 2


def test_a_single_robot_is_the_connections_session() -> None:
    (ask,) = gr00t.read({"observation": observation(1)}, KEYS)
    assert ask.who == Who() and ask.unknown == ()


def test_the_flat_request_of_older_clients_gets_a_flat_answer() -> None:
    (ask,) = gr00t.read(flat_observation(), KEYS)
    assert ask.seen.frames == 1 and ask.seen.instruction == "push"
    reply = decode(gr00t.write([answer(1.0)], METAWORLD_SAWYER, flat_observation()))
    assert reply.keys() == {"action.hand"} and reply["action.hand"].shape == (8, 4)


def test_the_modality_config_names_keys_and_steps() -> None:
    config = decode(gr00t.pack(gr00t.modality_config(METAWORLD_SAWYER, CADENCE, remembers=True)))
    assert config["video"] == {
        "__ModalityConfig_class__": True,
        "as_json": {"delta_indices": [-6, -4, -2, 0], "modality_keys": ["top", "side"]},
    }
    assert config["action"]["as_json"] == {"delta_indices": list(range(8)), "modality_keys": ["hand"]}
    assert config["state"]["as_json"]["modality_keys"] == ["hand"]
    assert config["language"]["as_json"]["modality_keys"] == [gr00t.LANGUAGE]
    assert gr00t.modality_config(METAWORLD_SAWYER, CADENCE, remembers=False)["video"]["as_json"]["delta_indices"] == [0]


def without(modality: str, key: str) -> dict[str, Any]:
    made = observation()
    del made[modality][key]
    return {"observation": made}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "'data': found NoneType"),
        ({"observation": 3}, "'observation': found int"),
        ({"observation": observation(), "options": 3}, "'options': found int"),
        (without("video", "top"), "camera 'top' of 'metaworld-sawyer' is missing"),
        (without("state", "hand"), "the state of 'metaworld-sawyer' is missing"),
        (without("language", gr00t.LANGUAGE), "language: no sentence"),
        ({"observation": {**observation(2), "state": {"hand": np.zeros((3, 1, 4))}}}, "counts the robots"),
        ({"observation": {**observation(), "language": {"task": [3]}}}, "'language.task': found int"),
        ({"observation": {**observation(), "video": {"top": 1, "side": 2}}}, "found int, expected uint8"),
    ],
)
def test_what_is_missing_or_malformed_is_named(data: Any, says: str) -> None:
    with pytest.raises(ServeError, match=says) as refused:
        gr00t.read(data, KEYS)
    assert refused.value.name == "BadRequest"


def header(dtype: str, shape: str) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("as_npy", "says"),
    [
        (npy(np.array([object()]), allow_pickle=True), "no numpy file"),
        (npy(np.zeros(1, "i4,f4")), "no numpy file"),
        (npy(np.array([1j])), "no numpy file"),
        (npy(np.zeros(9))[:-1], "needs 72 bytes, has 71"),
        (npy(np.zeros(9)) + b"x", "needs 72 bytes, has 73"),
        (header("<f8", "2000000000,"), "needs 16000000000 bytes"),
        (header("<f8", "9999999999999,"), "is not taken"),
        (header("<f8", "-1,"), "no numpy file"),
        (header("<f7", "1,"), "unknown"),
        (header("|S0", "1,"), "is not taken"),
        (header("<f8", "__import__('os').abort()"), "no numpy file"),
        (header("<f8", "(" * 9000), "no numpy file"),
        (b"\x80\x04K\x01.", "no numpy file"),
        (b"", "no numpy file"),
        ("text", "must be bytes"),
    ],
)
def test_a_bad_array_is_refused_before_anything_is_allocated(as_npy: Any, says: str) -> None:
    frame = msgpack.packb({"data": {"__ndarray_class__": True, "as_npy": as_npy}})
    with pytest.raises(ServeError, match=says.replace("|", r"\|")) as refused:
        gr00t.unpack(frame, LIMITS)
    assert refused.value.name == "BadFrame"


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x91" * 100, b"\xdd\xff\xff\xff\xff", msgpack.packb([1])])
def test_a_bad_message_is_refused(frame: bytes) -> None:
    with pytest.raises(ServeError) as refused:
        gr00t.unpack(frame, LIMITS)
    assert refused.value.name == "BadFrame"


def test_fortran_order_survives() -> None:
    value = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert np.array_equal(gr00t.unpack(encode({"a": value}), LIMITS)["a"], value)
