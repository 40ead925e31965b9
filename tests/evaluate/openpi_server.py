"""Run by the Python of `.venv-openpi`: a server with openpi's manners on the real codec of openpi-client.

python openpi_server.py       prints its port; every action is the state that was sent, plus the step of the chunk

openpi's server is no package that can be installed. It does what this one does: metadata first, a map with `actions`
and `server_timing` for every request, and for a fault the traceback as text, then the end of the connection.
"""

import sys
import time
import traceback

import numpy as np
from openpi_client import msgpack_numpy
from websockets.sync.server import serve

HORIZON = 10


def infer(observation: dict) -> dict:
    for key in ("observation/image", "observation/wrist_image"):
        assert observation[key].dtype == np.uint8 and observation[key].shape == (224, 224, 3), key
    state = observation["observation/state"]
    assert isinstance(observation["prompt"], str) and state.dtype == np.float32
    if observation["prompt"] == "fail":
        raise KeyError("observation/what_is_missing")
    return {"actions": state[None, :7].astype(np.float64) + np.arange(HORIZON)[:, None]}


def converse(socket) -> None:
    packer = msgpack_numpy.Packer()
    socket.send(packer.pack({"policy": "pi05_libero"}))
    for frame in socket:
        began = time.monotonic()
        try:
            answer = infer(msgpack_numpy.unpackb(frame))
        except Exception:
            socket.send(traceback.format_exc())
            socket.close(1011, "Internal server error. Traceback included in previous frame.")
            return
        answer["server_timing"] = {"infer_ms": 1000 * (time.monotonic() - began)}
        socket.send(packer.pack(answer))


if __name__ == "__main__":
    with serve(converse, "127.0.0.1", 0, compression=None, max_size=None) as server:
        sys.stdout.write(f"{server.socket.getsockname()[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
