"""Several environments in lock step, each a session of its own on one engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from wam.engine import Engine, Session
from wam.robot.observation import Observation

logger = logging.getLogger(__name__)

Looks = Sequence[Observation]  # one of each environment
Actions = np.ndarray  # float32 (N, A)


class ClosedLoop:
    """From one reset to the next. seed: of the noise of the i-th environment."""

    def __init__(self, engine: Engine, seed: Callable[[int], int]) -> None:
        self.engine, self._seed = engine, seed
        self.sessions: list[Session] = []
        self._looks: list[Looks] = []
        self._told = False

    def observe(self, looks: Looks) -> None:
        """Note a look that is taken while a chunk is being executed, every `engine.video_stride` control steps.

        Raises ValueError when the number of environments has changed.
        """
        self._require_same(looks)
        self._looks.append(looks)

    def decide(self, looks: Looks, executing: Actions | None = None) -> Actions:
        """The next chunk of every environment, (B, N, A) in robot units.

        looks: the present. The memory goes on when the looks before it were noted; otherwise it starts anew here.
        executing: (n, A), what all of them do in the first control steps of it in any case.
        """
        self._require_same(looks)
        if not self.sessions:
            self.sessions = [self.engine.open(self._seed(i)) for i in range(len(looks))]
        seen = [*self._looks, looks]
        self._looks = []
        if len(seen) != self._looks_per_chunk and self.sessions[0].begun:
            self._begin_anew(len(seen))
        given = seen if self.sessions[0].begun else [looks]
        chunks = self.engine.steps(
            self.sessions, [list(own) for own in zip(*given, strict=True)], [executing] * len(looks)
        )
        return np.stack([chunk.actions for chunk in chunks])

    @property
    def _looks_per_chunk(self) -> int:
        return self.engine.execute // self.engine.video_stride

    def _begin_anew(self, found: int) -> None:
        """Forget what was seen, and keep each session's source of noise."""
        self.sessions = [Session(session.generator) for session in self.sessions]
        if not self._told:
            self._told = True
            logger.warning(
                "a chunk was asked for after %d looks instead of %d, so the memory starts anew from the present frame "
                "(told once); call `observe` every %d control steps, or use `select_action`, which does",
                found,
                self._looks_per_chunk,
                self.engine.video_stride,
            )

    def _require_same(self, looks: Looks) -> None:
        if self.sessions and len(looks) != len(self.sessions):
            raise ValueError(
                f"found {len(looks)} environments, there were {len(self.sessions)} before; call reset() between "
                "episodes"
            )
