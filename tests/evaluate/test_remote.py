"""Policies behind servers play the episodes that ours play; the servers are real ones."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.client.live import REPOSITORY, Live, wam_serve
from wam.evaluate.remote import Address, RemoteSource
from wam.evaluate.rollout import rollout
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment, load_embodiment
from wam.robot.observation import Observation
from wam_client import PolicyError

DROID, LIBERO = load_embodiment("droid-franka"), load_embodiment("libero-panda")
ENVIRONMENT = REPOSITORY / ".venv-openpi"


class Room:
    """A world without physics: notes the actions, and shows a picture whose brightness is the step."""

    task, action_repeat = "wait", 1

    def __init__(self, robot: Embodiment, size: tuple[int, int], prompt: str = "wait") -> None:
        self.robot, self.size, self.prompt = robot, size, prompt
        self.actions: list[np.ndarray] = []
        self.looks = 0

    def reset(self, seed: int) -> Observation:
        self.actions.clear()
        return self.observe()

    def step(self, action: np.ndarray) -> bool:
        self.actions.append(action)
        return False

    def observe(self) -> Observation:
        self.looks += 1
        picture = np.full((*self.size, 3), len(self.actions), np.uint8)
        state = np.full(self.robot.state_dim, len(self.actions), np.float32)
        return Observation(
            dict.fromkeys(self.robot.cameras, picture), state, self.prompt, len(self.actions) / self.robot.control_hz
        )

    def close(self) -> None: ...


def source(live: Live, dialect: str, robot: Embodiment, **options: object) -> RemoteSource:
    port = live.zmq_port if dialect == "gr00t" else live.port
    assert port is not None
    made = RemoteSource(Address(dialect, "127.0.0.1", port), robot, **options)  # type: ignore[arg-type]
    return pickle.loads(pickle.dumps(made))  # as it reaches a worker process


@pytest.fixture(scope="module")
def sawyer() -> Iterator[Live]:
    with wam_serve("--echo", "metaworld-sawyer") as live:
        yield live


@pytest.fixture(scope="module")
def franka() -> Iterator[Live]:
    with wam_serve("--echo", "droid-franka", "--zmq-port", "0") as live:
        yield live


def test_our_own_server(sawyer: Live) -> None:
    room = Room(METAWORLD_SAWYER, (64, 64))
    policy = source(sawyer, "wam", METAWORLD_SAWYER)()(room)
    assert (policy.execute, policy.video_stride) == (8, 2)
    result = rollout(room, policy, 0, max_env_steps=24)
    assert (result.chunks, room.looks) == (3, 1 + 4 + 4 + 3)
    assert set(result.seconds) >= {"remote", "act"}
    described = source(sawyer, "wam", METAWORLD_SAWYER).describe()
    assert described["policy"] == f"wam://127.0.0.1:{sawyer.port}"
    assert described["server"]["embodiment"] == "metaworld-sawyer" and "example_observation" not in described["server"]


def test_a_copy_has_a_memory_of_its_own(sawyer: Live) -> None:
    first = source(sawyer, "wam", METAWORLD_SAWYER)()(Room(METAWORLD_SAWYER, (64, 64)))
    second = copy.copy(first)
    look = Room(METAWORLD_SAWYER, (64, 64)).observe()
    first.act([look])
    second.act([look])  # were it the first one's, one frame would be too few
    assert first._remote._client.conversation.session != second._remote._client.conversation.session


def test_a_server_of_another_robot_is_refused(sawyer: Live, franka: Live) -> None:
    with pytest.raises(ValueError, match=r"cameras of its robot 'droid-franka' are .*, those of 'metaworld-sawyer'"):
        source(franka, "wam", METAWORLD_SAWYER).connect()
    with pytest.raises(ValueError, match="remembers whole chunks of 8"):
        source(sawyer, "wam", METAWORLD_SAWYER, execute=4).connect()


def test_our_server_in_openpis_words(sawyer: Live) -> None:
    room = Room(METAWORLD_SAWYER, (64, 64))
    policy = source(sawyer, "openpi", METAWORLD_SAWYER, execute=6)()(room)
    result = rollout(room, policy, 0, max_env_steps=24)
    assert (policy.execute, result.chunks, room.looks) == (6, 4, 4)


def test_only_our_server_is_told_what_is_being_executed(sawyer: Live) -> None:
    look = Room(METAWORLD_SAWYER, (64, 64)).observe()
    executing = np.full((2, 4), 0.5, np.float32)
    assert source(sawyer, "wam", METAWORLD_SAWYER)()(None).act([look], executing).actions.shape == (8, 4)
    with pytest.raises(PolicyError, match=r"'executing': found shape \(2, 3\)"):
        source(sawyer, "wam", METAWORLD_SAWYER)()(None).act([look], executing[:, :3])
    with pytest.raises(ValueError, match="openpi's dialect cannot say what is being executed"):
        source(sawyer, "openpi", METAWORLD_SAWYER)()(None).act([look], executing)


def test_our_server_in_roboarenas_words(franka: Live) -> None:
    room = Room(DROID, (90, 160))
    policy = source(franka, "roboarena", DROID)()(room)
    results = [rollout(room, policy, seed, max_env_steps=60, embodiment=DROID) for seed in (0, 1)]
    assert [result.chunks for result in results] == [3, 3]  # of 24 actions, all executed
    held = np.array(results[1].actions)
    assert held.shape == (60, 8)
    assert held[:24, 0].tolist() == [0] * 24 and held[24:48, 0].tolist() == [24] * 24  # it holds the state it was sent


def test_our_server_in_gr00ts_words(franka: Live, tmp_path: Path) -> None:
    room = Room(DROID, (90, 160))
    remote = source(franka, "gr00t", DROID, execute=8)
    assert remote.describe()["server"]["modalities"]["action"] == ["joint_position", "gripper_position"]
    result = rollout(room, remote()(room), 0, max_env_steps=16, embodiment=DROID)
    assert result.chunks == 2
    assert np.array(result.actions)[[0, 8], 3].tolist() == [0, 8]
    with pytest.raises(ValueError, match="needs camera 'exterior_image_1_left', robot 'metaworld-sawyer'"):
        source(franka, "gr00t", METAWORLD_SAWYER).connect()
    (tmp_path / "keys.yaml").write_text(
        "images: {video.exterior_image_1_left: top, video.exterior_image_2_left: side, video.wrist_image_left: side}\n"
        "state: {state.joint_position: [hand_x, hand_y, hand_z, hand_x, hand_y, hand_z, hand_x],\n"
        "        state.gripper_position: [gripper_opening]}\n"
        "prompt: language.annotation.human.task_description\nactions: [1, 2, 3, 7]\nexecute: 6\n"
    )
    mapped = source(franka, "gr00t", METAWORLD_SAWYER, keys=tmp_path / "keys.yaml")
    room = Room(METAWORLD_SAWYER, (64, 64))
    result = rollout(room, mapped()(room), 0, max_env_steps=12)
    assert result.chunks == 2 and np.array(result.actions).shape == (12, 4)
    no_picture = {"state.joint_position": np.zeros(7), "language.annotation.human.task_description": "wait"}
    with pytest.raises(PolicyError, match="camera 'exterior_image_1_left'"):
        mapped.connect()._client.get_action(no_picture)


# ---------------------------------------------------------------- openpi's own codec on the other side


@contextmanager
def openpi_server() -> Iterator[int]:
    subprocess.run(["bash", "scripts/make_openpi_env.sh", str(ENVIRONMENT)], cwd=REPOSITORY, check=True)
    command = [ENVIRONMENT / "bin/python", Path(__file__).with_name("openpi_server.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


@pytest.mark.slow
def test_a_server_of_openpi() -> None:
    with openpi_server() as port:
        room = Room(LIBERO, (128, 128))
        remote = RemoteSource(Address("openpi", "127.0.0.1", port), LIBERO, execute=5)
        result = rollout(room, remote()(room), 0, max_env_steps=10, embodiment=LIBERO)
        assert result.actions[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        assert remote.describe()["server"] == {"policy": "pi05_libero"}
        policy = remote()(room)
        with pytest.raises(PolicyError, match="observation/what_is_missing"):
            policy.act([Room(LIBERO, (128, 128), "fail").observe()])
        assert len(policy.act([room.observe()]).actions) == 10  # it connects again


@pytest.mark.slow
def test_pictures_are_resized_as_by_openpi(tmp_path: Path) -> None:
    from wam.evaluate.remote_keys import resize_with_pad

    subprocess.run(["bash", "scripts/make_openpi_env.sh", str(ENVIRONMENT)], cwd=REPOSITORY, check=True)
    rng = np.random.default_rng(0)
    pictures = {
        f"{h}x{w}": rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((180, 320), (97, 64), (48, 48))
    }
    np.savez(tmp_path / "in.npz", **pictures)
    code = (
        "import sys, numpy as np; from openpi_client.image_tools import resize_with_pad\n"
        "with np.load(sys.argv[1]) as f: np.savez(sys.argv[2], **{k: resize_with_pad(f[k], 224, 200) for k in f})"
    )
    command = [ENVIRONMENT / "bin/python", "-c", code, tmp_path / "in.npz", tmp_path / "out.npz"]
    subprocess.run(command, check=True)
    with np.load(tmp_path / "out.npz") as theirs:
        for name, picture in pictures.items():
            np.testing.assert_array_equal(resize_with_pad(picture, 224, 200), theirs[name])


# ---------------------------------------------------------------- the nano model, served and in process


@pytest.fixture(scope="module")
def nano() -> Iterator[Live]:
    with wam_serve("nano-metaworld", "--threads", "1", "--batch", "1", "--zmq-port", "0") as live:
        yield live


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["wam", "openpi", "roboarena", "gr00t"])
def test_the_nano_model_behind_a_server_plays_the_same_episodes(nano: Live, dialect: str, tmp_path: Path) -> None:
    """In the words of others one frame is sent per chunk, and the nano model starts anew from it, as without memory."""
    pytest.importorskip("metaworld")
    from wam.engine import load_policy
    from wam.sim.metaworld import MetaWorldEnv

    keys = tmp_path / "keys.yaml"  # RoboArena has no words for this robot
    keys.write_text(
        "images: {observation/top: top, observation/side: side}\n"
        "state: {observation/hand: [hand_x, hand_y, hand_z, gripper_opening]}\n"
    )
    options = {"keys": keys} if dialect == "roboarena" else {}
    far = source(nano, dialect, METAWORLD_SAWYER, **options)()
    near = load_policy("nano-metaworld", memory="slide" if dialect == "wam" else "none")
    for task in ("drawer-close", "push"):
        world = MetaWorldEnv(task)
        here, there = (rollout(world, policy, 1_000_003, max_env_steps=200) for policy in (near, far(world)))
        world.close()
        np.testing.assert_array_equal(there.actions, here.actions)
        assert (there.success, there.steps) == (here.success, here.steps)


@pytest.mark.slow
def test_wam_eval_of_a_server_is_wam_eval_of_its_model(
    nano: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wam.cli.main import main

    plan = ["--tasks", "drawer-close", "--episodes", "2", "--split", "val", "--workers", "1"]
    for name, policy in (("near", ["nano-metaworld"]), ("far", ["--policy", f"wam://127.0.0.1:{nano.port}"])):
        monkeypatch.setattr("sys.argv", ["wam", "eval", *policy, *plan, "--out", str(tmp_path / name)])
        main()
    near, far = (
        [json.loads(line) for line in (tmp_path / name / "episodes.jsonl").read_text().splitlines()]
        for name in ("near", "far")
    )
    assert len(far) == 2
    for here, there in zip(near, far, strict=True):
        assert {k: here[k] for k in ("task", "seed", "success", "steps")} == {
            k: there[k] for k in ("task", "seed", "success", "steps")
        }
    assert "wam://127.0.0.1" in (tmp_path / "far" / "summary.json").read_text()
