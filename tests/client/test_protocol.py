"""Looks become requests, frames become replies or errors with a name."""

from __future__ import annotations

import numpy as np
import pytest

from wam_client import Look, PolicyError, Retry, SessionLost, WireError, observation_of, packb, unpackb
from wam_client.protocol import Conversation, error_of, metadata_of, reply_of


def look(number: int, seconds: float | None = None, cameras: tuple[str, ...] = ("top", "side")) -> Look:
    images = {camera: np.full((4, 6, 3), number, np.uint8) for camera in cameras}
    return Look(images, np.array([number, 0.5]), "push the puck", seconds)


def test_several_looks_are_one_observation() -> None:
    found = observation_of([look(1, 0.1), look(2, 0.15)], executing=np.ones((3, 4)))
    assert found["observation/images/top"].shape == (2, 4, 6, 3)
    assert found["observation/images/side"][:, 0, 0, 0].tolist() == [1, 2]
    assert found["observation/state"].tolist() == [2, 0.5] and found["observation/state"].dtype == np.float32
    assert found["timestamp_s"].tolist() == [0.1, 0.15]
    assert found["prompt"] == "push the puck"
    assert found["executing"].shape == (3, 4) and found["executing"].dtype == np.float32


def test_without_times_or_prefix_nothing_is_said_of_them() -> None:
    found = observation_of([look(1, 0.1), look(2)], executing=np.zeros((0, 4)))
    assert set(found) == {"observation/images/top", "observation/images/side", "observation/state", "prompt"}


def test_looks_have_the_same_cameras() -> None:
    with pytest.raises(ValueError, match="at least one look"):
        observation_of([])
    with pytest.raises(ValueError, match=r"different cameras: \['top'\] and \['side', 'top'\]"):
        observation_of([look(1, cameras=("top",)), look(2)])


def test_a_reset_goes_with_the_next_request_until_it_was_taken() -> None:
    talk = Conversation("robot-7")
    talk.reset(seed=3)
    talk.reset(env="b")
    for _ in range(2):
        sent = unpackb(talk.request({"prompt": "go"}))
        assert sent == {"session_id": "robot-7", "reset": True, "seed": 3, "prompt": "go"}
    talk.answered()
    assert unpackb(talk.request({"prompt": "go"})) == {"session_id": "robot-7", "prompt": "go"}
    assert unpackb(talk.request({}, again=True)) == {"session_id": "robot-7", "reset": True}
    assert unpackb(talk.request({}, "b")) == {"session_id": "robot-7", "env_id": "b", "reset": True}
    assert unpackb(Conversation("").request({"prompt": "go"}, again=True)) == {"prompt": "go"}


def test_two_clients_are_two_sessions() -> None:
    names = {unpackb(Conversation().request({}))["session_id"] for _ in range(5)}
    assert len(names) == 5


def test_both_kinds_of_reply() -> None:
    actions = np.arange(6, dtype=np.float64).reshape(3, 2)
    openpi = reply_of(packb({"actions": actions, "server_timing": {"infer_ms": 2.5}}))
    assert openpi.actions.dtype == np.float32 and openpi.actions.tolist() == actions.tolist()
    assert openpi.fields == {"server_timing": {"infer_ms": 2.5}}
    openpi.actions[0] = 9  # a robot may change what it got
    arena = reply_of(packb(actions))
    assert arena.actions.tolist() == actions.tolist() and arena.fields == {}


@pytest.mark.parametrize(
    ("reply", "named"), [({"state": 1}, "no 'actions'"), ({"actions": np.zeros(4)}, r"shape \(4,\)"), ([1], r"\(1,\)")]
)
def test_an_unusable_reply_is_named(reply: object, named: str) -> None:
    with pytest.raises(WireError, match=named):
        reply_of(packb(reply))


def test_text_frames_are_errors() -> None:
    assert isinstance(error_of("SessionLost: the worker died"), SessionLost)
    bad = error_of("BadRequest: camera 'top' is missing")
    assert type(bad) is PolicyError and (bad.name, str(bad)) == ("BadRequest", "BadRequest: camera 'top' is missing")
    trace = error_of("Traceback (most recent call last):\n  ...\nKeyError: 'observation/state'")
    assert trace.name == "ServerError" and str(trace).endswith("KeyError: 'observation/state'")
    with pytest.raises(PolicyError, match="Busy"):
        metadata_of("Busy: too many")
    with pytest.raises(WireError, match="expected a map"):
        metadata_of(packb([1]))


def test_pauses_grow_and_end() -> None:
    now = iter(np.arange(0, 1000, 1.0).tolist())
    pauses = list(Retry(patience=10, first=0.5, longest=2).pauses(lambda: next(now)))
    assert len(pauses) == 9
    assert 0.375 <= pauses[0] <= 0.625 and 1.5 <= max(pauses) <= 2.5
    assert list(Retry(patience=0).pauses()) == []
    with pytest.raises(ValueError, match="patience"):
        Retry(patience=-1)
