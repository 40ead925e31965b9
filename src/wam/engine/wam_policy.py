"""A World Action Model as a `Policy`: one session on an engine."""

from __future__ import annotations

from collections.abc import Sequence

from wam.engine.engine import Actions, Engine
from wam.engine.policy import ActionChunk
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Observation


class WamPolicy:
    """One episode after another on an engine, which it may share with others."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.session = engine.open(seed=0)

    @property
    def embodiment(self) -> Embodiment:
        return self.engine.embodiment

    @property
    def execute(self) -> int:
        return self.engine.execute

    @property
    def video_stride(self) -> int:
        return self.engine.video_stride

    def reset(self, seed: int) -> None:
        self.session = self.engine.open(seed)

    def act(self, observations: Sequence[Observation], executing: Actions | None = None) -> ActionChunk:
        """See `Policy.act`; `executing` as in `Engine.steps`."""
        return self.engine.step(self.session, observations, executing)
