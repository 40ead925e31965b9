"""Run by the Python of `.venv-openpi`: the real openpi-client plays an episode against a running `wam serve`.

python with_real_openpi.py frames PORT EPISODE.npz     all frames of a chunk with every request
python with_real_openpi.py broker PORT EPISODE.npz     openpi's own way: its ActionChunkBroker, one frame per request

The simulator's side comes from a recording. That is the closed loop as long as every action is the recorded one, which
is checked at every step.
"""

import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

CHUNK, STRIDE = 8, 2


def observation(episode: dict, rows) -> dict:
    """rows: one row, or several for several frames."""
    return {
        "observation/images/top": episode["top"][rows],
        "observation/images/side": episode["side"][rows],
        "observation/state": episode["state"][rows],
        "prompt": str(episode["prompt"]),
    }


def frames(policy: WebsocketClientPolicy, episode: dict) -> int:
    actions, done = episode["actions"], 0
    while done < len(actions):
        rows = [0] if done == 0 else list(range(done - CHUNK + STRIDE, done + 1, STRIDE))
        extra = {"seed": int(episode["seed"]), "reset": True} if done == 0 else {}
        reply = policy.infer({**observation(episode, rows), **extra})
        assert reply["actions"].shape == (CHUNK, 4) and reply["actions"].dtype == np.float32
        assert "infer_ms" in reply["server_timing"]
        expected = actions[done : done + CHUNK]
        np.testing.assert_array_equal(reply["actions"][: len(expected)], expected)
        done += CHUNK
    return min(done, len(actions))


def broker(policy: WebsocketClientPolicy, episode: dict) -> int:
    broker = ActionChunkBroker(policy, action_horizon=CHUNK)
    for row, expected in enumerate(episode["actions"]):
        extra = {"seed": int(episode["seed"]), "reset": True} if row == 0 else {}
        answer = broker.infer({**observation(episode, row), **extra})
        np.testing.assert_array_equal(answer["actions"], expected)
    return len(episode["actions"])


def main(way: str, port: str, path: str) -> None:
    with np.load(path) as file:
        episode = dict(file)
    policy = WebsocketClientPolicy("127.0.0.1", int(port))
    metadata = policy.get_server_metadata()
    assert metadata["action_names"] == ["delta_x", "delta_y", "delta_z", "gripper_effort"]
    policy.infer(metadata["example_observation"])
    steps = {"frames": frames, "broker": broker}[way](policy, episode)
    try:
        policy.infer({"prompt": "no pictures"})
    except RuntimeError as problem:
        assert "BadRequest" in str(problem)
    else:
        raise AssertionError("a request without pictures was answered")
    sys.stdout.write(f"{steps} steps\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
