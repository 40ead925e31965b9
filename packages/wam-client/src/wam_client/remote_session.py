"""A memory on the server as a `Session` of `Phases`, so that an `Executor` can be driven by a policy far away.

    client = Client()
    chunk, stride = client.metadata["horizon"], client.metadata["video_stride"]
    think = Phases([RemoteSession(client, str(i)) for i in range(2)], chunk, stride)
    think.reset(seed=0)
    with ThreadWorker(think) as worker:
        executor = Executor(worker, rest, Timing(every=think.every))
        run(robot, executor, WallClock(), period=1 / client.metadata["control_hz"], ticks=1000)

A chunk that cannot be had, because the model died and is being started again, is a failed thought: the robot plays its
plan to the end, holds, and goes on when the next thought succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence

from wam_client.client import Client
from wam_client.protocol import Actions, Look, Reply


class RemoteSession:
    """One of several episodes on a client; `env` tells them apart.

    tells: say what is being executed meanwhile, for models that were trained to continue it.
    """

    def __init__(self, client: Client, env: str | None = None, *, tells: bool = False) -> None:
        self._client, self._env, self._tells = client, env, tells

    def reset(self, seed: int) -> None:
        self._client.reset(seed, self._env)

    def act(self, observations: Sequence[Look], executing: Actions) -> Reply:
        """Raises what `Client.act` raises."""
        longest = max(0, int(self._client.metadata.get("horizon", len(executing) + 1)) - 1)
        return self._client.act(observations, executing[:longest] if self._tells else None, self._env)
