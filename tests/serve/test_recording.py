"""What --record keeps can be played again, and never outgrows its budget; echo and replay need no model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from tests.engine.robots import looks
from tests.models import EMBODIMENT
from tests.serve.servers import Client, Running, TinySource, request_of, serving
from tests.serve.test_websocket import episode, in_process

from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import Camera, DatasetSpec, EpisodeData, Feature
from wam.engine.engine import EngineConfig
from wam.robot.embodiment import METAWORLD_SAWYER, load_embodiment
from wam.serve.backends import EchoSource, ReplaySource, hold
from wam.serve.cadence import Choice
from wam.serve.metadata import Served
from wam.serve.recording import Exchange, Recorder, read_recording, recorded_actions
from wam.serve.request import Answer
from wam.serve.server import Record
from wam_client.wire import packb, unpackb

CALLS = episode(3)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes of one robot, recorded by a server that decodes its dreams."""
    folder = tmp_path_factory.mktemp("served")
    with (
        serving(TinySource(EngineConfig(decode_video=True)), record=Record(folder)) as running,
        Client(running.url) as client,
    ):
        for call in CALLS:
            reply = client.ask(request_of(call, seed=3, session_id="arm", dream=True))
            assert reply["dream"].shape == (4, 32, 32, 3)
        client.ask({"endpoint": "reset", "session_id": "arm"})
        client.ask({**request_of(CALLS[0], seed=3, session_id="arm"), "endpoint": "infer"})
    return folder


def test_every_episode_is_a_file_with_what_was_on_the_wire(recorded: Path) -> None:
    first, second = sorted(recorded.glob("*.wamrec"))
    head, *exchanges = read_recording(first)
    assert Served.from_dict(head["served"]).robot == EMBODIMENT
    assert [exchange["dialect"] for exchange in exchanges] == ["openpi"] * 3
    assert exchanges[0]["request"] == packb(request_of(CALLS[0], seed=3, session_id="arm", dream=True))
    replies = [unpackb(exchange["reply"]) for exchange in exchanges]
    for reply, exchange, expected in zip(replies, exchanges, in_process(CALLS, 3), strict=True):
        assert np.array_equal(reply["actions"], expected) and np.array_equal(exchange["actions"], expected)
    assert [exchange["dialect"] for exchange in list(read_recording(second))[1:]] == ["roboarena"]


def test_the_dream_is_a_film_beside_it(recorded: Path) -> None:
    films = sorted(recorded.glob("*.mp4"))
    assert [film.stem for film in films] == [file.stem for file in sorted(recorded.glob("*.wamrec"))]
    with av.open(str(films[0])) as film:
        frames = list(film.decode(video=0))
    assert len(frames) == 12 and (frames[0].width, frames[0].height) == (32, 32)


def test_a_recording_is_played_again(recorded: Path) -> None:
    file = sorted(recorded.glob("*.wamrec"))[0]
    expected = in_process(CALLS, 3)
    with serving(ReplaySource(str(file))) as running, Client(running.url) as client:
        assert client.metadata["embodiment"] == "tiny" and client.metadata["model"] == f"replay:{file.name}"
        for actions in expected:
            assert np.array_equal(client.ask(request_of(looks(1)))["actions"], actions)
        over = client.ask(request_of(looks(1)))
        assert over.startswith("BadRequest: ") and "all 3 recorded chunks have been played" in over
        assert client.ask({"endpoint": "reset"}) == "reset successful"
        assert np.array_equal(client.ask(request_of(looks(1)))["actions"], expected[0])


def test_an_episode_of_a_data_set_is_played(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    robot = METAWORLD_SAWYER
    numbers = {"observation.state": Feature("float32", (4,)), "action": Feature("float32", (4,))}
    cameras = {name: Camera(64, 64) for name in robot.cameras}
    spec = DatasetSpec(fps=40, robot_type="sawyer", features=numbers, cameras=cameras)
    actions = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    with LeRobotWriter(tmp_path / "data", spec) as writer:
        for scale in (1, 2):
            columns = {"observation.state": np.zeros((20, 4), np.float32), "action": scale * actions}
            images = {name: np.zeros((20, 64, 64, 3), np.uint8) for name in cameras}
            writer.add_episode(EpisodeData(images=images, columns=columns, task="push"))
    backend = ReplaySource(str(tmp_path / "data"), robot, episode=1).open()
    assert backend.served.robot == robot
    assert "data: the last 4 of 20 actions fill no chunk and are not played" in caplog.text
    found, _ = recorded_actions(tmp_path / "data", robot, 1)
    np.testing.assert_allclose(found, 2 * actions)
    with pytest.raises(ValueError, match="name the robot with --robot"):
        ReplaySource(str(tmp_path / "data")).open()
    with pytest.raises(ValueError, match="data: --episode: found 2, expected 0 to 1"):
        ReplaySource(str(tmp_path / "data"), robot, episode=2).open()


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    for content in (b"", b"\x00" * 100, b"\xff" * 100, packb({"a": 1})):
        (tmp_path / "x.wamrec").write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.wamrec"):
            recorded_actions(tmp_path / "x.wamrec", None)


def test_a_recording_that_was_cut_off_is_read_up_to_there(recorded: Path, tmp_path: Path) -> None:
    whole = sorted(recorded.glob("*.wamrec"))[0].read_bytes()
    (tmp_path / "cut.wamrec").write_bytes(whole[:-10])
    assert len(list(read_recording(tmp_path / "cut.wamrec"))) == 3  # the head and two exchanges


def test_the_oldest_recordings_make_room(tmp_path: Path) -> None:
    robot = METAWORLD_SAWYER
    recorder = Recorder(tmp_path, Served("m", "r", robot, 8, True, False), budget_bytes=1_000_000)
    actions = np.zeros((8, 4), np.float32)
    for number in range(40):
        answer = Answer(actions, 8, Choice((0,), "first"), f"robot-{number:02}", 0, 0)
        while recorder.backlog > 10:  # this test is about the budget, not about a slow disk
            pass
        recorder.keep(Exchange("openpi", b"x" * 100_000, b"", answer))
    recorder.close()
    files = sorted(file.name for file in tmp_path.iterdir())
    assert recorder.dropped == 0
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1_000_000
    assert 5 <= len(files) <= 9 and "robot-39" in files[-1] and not any("robot-00" in name for name in files)


def test_a_disk_that_fails_is_told_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The folder goes away under films that are still to be written: all that comes is dropped, and it closes."""
    recorder = Recorder(tmp_path / "gone", Served("m", "r", METAWORLD_SAWYER, 8, True, True))
    dream = np.zeros((4, 16, 16, 3), np.uint8)
    answer = Answer(np.zeros((8, 4), np.float32), 8, Choice((0,), "first"), "robot", 0, 0, dream=dream)
    recorder.keep(Exchange("openpi", b"x", b"", answer))
    while recorder.backlog or not list((tmp_path / "gone").glob("*")):
        time.sleep(0.01)
    shutil.rmtree(tmp_path / "gone")
    for number in range(1, 100):
        while recorder.backlog > 10:
            time.sleep(0.001)
        recorder.keep(Exchange("openpi", b"x", b"", replace(answer, episode=number)))
    began = time.monotonic()
    recorder.close()
    assert time.monotonic() - began < 30
    assert recorder.dropped >= 99 and "No such file" in caplog.text


# ---------------------------------------------------------------- echo


@pytest.fixture(scope="module")
def echo() -> Iterator[Running]:
    with serving(EchoSource(load_embodiment("droid-franka"))) as running:
        yield running


def test_echo_tells_a_robot_to_stay_where_it_is(echo: Running) -> None:
    with Client(f"{echo.url}/wam") as client:
        example = dict(client.metadata["example_observation"])
        example["observation/state"] = np.arange(8, dtype=np.float32)
        actions = client.ask(example)["actions"]
    assert actions.shape == (24, 8) and np.array_equal(actions, np.tile(np.arange(8.0), (24, 1)))


def test_what_holding_still_means() -> None:
    state = np.arange(4, dtype=np.float32)
    assert hold(METAWORLD_SAWYER, state).tolist() == [0, 0, 0, 0]  # moved by differences
    assert hold(load_embodiment("droid-franka"), np.arange(8, dtype=np.float32)).tolist() == list(range(8))


def test_a_released_roboarena_conversation_byte_for_byte(echo: Running) -> None:
    """Everything that the released client sends and receives, from handshake to reset, over a real socket."""
    import msgpack
    from tests.serve.dialects.test_websocket_dialects import array, droid_request

    with Client(echo.url) as client:
        assert client.hello == msgpack.packb(
            {
                "image_resolution": [180, 320],
                "needs_wrist_camera": True,
                "n_external_cameras": 2,
                "needs_stereo_camera": False,
                "needs_session_id": True,
                "action_space": "joint_position",
            }
        )
        held = np.tile(np.array([0, 1, 2, 3, 4, 5, 6, 0], np.float32), (24, 1))
        for step in range(3):
            request = droid_request(endpoint="infer", session_id=f"episode-{step}")
            wire = msgpack.packb({k: array(v) if isinstance(v, np.ndarray) else v for k, v in request.items()})
            assert client.send(wire) == msgpack.packb(array(held))
        assert client.send(msgpack.packb({"endpoint": "reset"})) == "reset successful"
