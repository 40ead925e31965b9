"""The supervisor alone, on the event loop of the test, so that nothing happens between two lines."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import numpy as np
import pytest
from tests.serve.troubles import TroubleSource

from wam.serve.errors import ServeError
from wam.serve.supervisor import Supervisor


def job() -> dict[str, Any]:
    seen = {"images": {"top": np.zeros((1, 8, 8, 3), np.uint8)}, "state": np.zeros(4), "times": np.zeros(1)}
    return {"session": 1, "seed": 0, **seen, "instruction": "work", "anew": True, "executing": None}


def test_a_request_that_comes_while_the_worker_dies_is_told_and_the_next_one_waits() -> None:
    """The worker is dead, the supervisor has not heard of it yet, and a request arrives."""
    told: list[str] = []

    async def live() -> None:
        supervisor = Supervisor(TroubleSource(), on_lost=told.append)
        await supervisor.start()
        try:
            assert supervisor.pid is not None
            os.kill(supervisor.pid, signal.SIGKILL)
            os.waitid(os.P_PID, supervisor.pid, os.WEXITED | os.WNOWAIT)  # the loop stands still meanwhile
            assert supervisor.ready
            with pytest.raises(ServeError, match=r"SessionLost: the model's process died \(exit code -9\)"):
                await supervisor.step(job())
            assert not supervisor.ready and supervisor.pending == 0
            assert (await supervisor.step(job()))["actions"].shape == (8, 4)
            assert supervisor.restarts == 1
        finally:
            await supervisor.stop()

    asyncio.run(asyncio.wait_for(live(), 60))
    assert told[0] == "the model's process died (exit code -9)"
