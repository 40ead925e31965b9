"""Policies that decide for one robot at a time, such as released weights: a policy for each session, one after another.

The networks are shared; what a session remembers is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from wam.engine.policy import ActionChunk, Policy
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation
from wam.serve.backends import Turn
from wam.serve.metadata import Served

if TYPE_CHECKING:  # they take seconds to import, in the process that holds no model
    from wam.engine.load_released import Fit
    from wam.engine.released_policy import PolicyConfig


class PolicyBackend:
    """Sessions that are computed one after another, a step for each, so that none acts when another is refused."""

    together = False

    def __init__(self, served: Served, make: Callable[[], Policy], warm: int = 0) -> None:
        """make: a policy for a new session; a single observation must let it begin anew.
        warm: chunks that are computed before anybody waits for one, since the first ones compile."""
        self.served, self._make, self._warm = served, make, warm

    def open(self, seed: int) -> Policy:
        policy = self._make()
        policy.reset(seed)
        return policy

    def steps(self, turns: Sequence[Turn]) -> list[ActionChunk]:
        (turn,) = turns
        if turn.executing is not None:
            raise ValueError("'executing': this policy cannot hold actions that are being executed")
        return [turn.memory.act(turn.looks)]

    def warm_up(self, sessions: int) -> None:
        """The first chunks of an episode in the dark, where they compile."""
        policy, dark = self.open(0), _dark(self.served.robot)
        for chunk in range(self._warm):
            policy.act([dark] * (self.served.cadence.frames if chunk else 1))


def _dark(robot: Embodiment) -> Observation:
    """What a robot sees in the dark, standing at zero."""
    black = np.zeros((robot.view_height, robot.view_width, 3), np.uint8)
    return Observation(dict.fromkeys(robot.cameras, black), np.zeros(robot.state_dim, np.float32), "", 0.0)


@dataclass(frozen=True)
class ReleasedSource:
    """Weights that DreamZero published, in any layout that `wam inspect` knows; by default as their own server runs
    them.

    robot: the tag of a robot that the weights know, such as "oxe_droid"; the first that is described when left out.
    device: where they work.  fit: where parts are and in which format.  config: how they run.
    """

    checkpoint: str
    robot: str | None = None
    device: str = "cpu"
    fit: Fit | None = None
    config: PolicyConfig | None = None
    threads: int | None = None

    def open(self) -> PolicyBackend:
        import torch

        from wam.engine.load_released import load_released

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        with _bars() as progress:
            model = load_released(self.checkpoint, self.robot, self.device, self.fit, self.config, progress)
        first = model.policy()
        served = Served(
            model.name,
            model.identity[:12],
            model.robot,
            first.execute,
            remembers=True,
            dreams=model.config.decode_video,
            frames=model.config.frames,
            stride=first.video_stride,
        )
        compiles = self.fit is not None and self.fit.compile != "off"
        window = model.model.config.memory or 0  # chunks until the memory begins anew; each is another graph
        return PolicyBackend(served, model.policy, warm=1 + window if compiles else 0)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each component that is loaded; gone when all are."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bars: dict[str, TaskID] = {}

        def watch(component: str, done: int, total: int) -> None:
            if component not in bars:
                bars[component] = progress.add_task(component, total=total)
            progress.update(bars[component], completed=done)

        yield watch
