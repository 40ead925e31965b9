"""The worker's part of a conversation, over a socket pair and without a process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from wam.engine.policy import ActionChunk
from wam.robot.embodiment import METAWORLD_SAWYER
from wam.robot.observation import Observation
from wam.serve.link import WorkerEnd
from wam.serve.metadata import Served
from wam.serve.released import PolicyBackend
from wam.serve.worker import Worker


class Counting:
    """A policy whose actions say how often it has acted; it does not like "refuse"."""

    execute, video_stride = 8, 2

    def __init__(self) -> None:
        self.acted = 0

    def reset(self, seed: int) -> None: ...

    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        if observations[-1].instruction == "refuse":
            raise ValueError("the policy does not like this")
        self.acted += 1
        return ActionChunk(np.full((8, 4), self.acted, np.float32))


def job(number: int, session: int, instruction: str) -> dict[str, Any]:
    seen = {"images": {"top": np.zeros((1, 8, 8, 3), np.uint8)}, "state": np.zeros(4), "times": np.zeros(1)}
    told = {"instruction": instruction, "anew": False, "executing": None}
    return {"job": number, "session": session, "seed": 0, **seen, **told}


def test_a_refused_robot_does_not_make_the_others_act_twice() -> None:
    """Three requests wait together for a policy that decides for one robot at a time, and the last does not fit."""
    ours, theirs = socket.socketpair()
    server = WorkerEnd(ours)
    for number, instruction in enumerate(("work", "work", "refuse")):
        server.send(job(number, session=number, instruction=instruction))
    backend = PolicyBackend(Served("m", "r", METAWORLD_SAWYER, 8, remembers=True, dreams=False), Counting)

    def live() -> None:
        with suppress(EOFError):
            Worker(WorkerEnd(theirs), backend, batch=8).run()

    thread = threading.Thread(target=live)
    thread.start()
    first, second, third = (server.receive() for _ in range(3))
    ours.close()
    thread.join(10)
    assert [answer["actions"][0, 0] for answer in (first, second)] == [1, 1]
    assert [answer["batch"] for answer in (first, second)] == [1, 1]
    assert third == {"failed": 2, "message": "the policy does not like this"}
