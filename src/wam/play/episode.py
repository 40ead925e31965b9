"""An episode one control step at a time, which a person may interrupt with another sentence, and all there is to see.

Numpy only. `SteeredEpisode` is `wam.evaluate.rollout` turned inside out: its caller takes each step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from wam.engine.policy import ActionChunk, Policy
from wam.evaluate.dreams import DreamQuality, psnr
from wam.evaluate.rollout import EpisodeResult, Frames, RunningEpisode, imagined, noise_seed
from wam.robot.observation import Observation

Phase = Literal["opening", "ready", "running", "paused", "over", "failed"]
SHOWN_CHUNKS = 24  # as many calls, and their actions, as the plots look back


@dataclass(frozen=True)
class Snapshot:
    """All that there is to see of an episode at one moment; nothing in it changes any more.

    version: grows with every change.  task, number: the scene and its initial state.  sentence: what is asked for now;
    `read` says whether the model has read it yet.  error: why the phase is "failed".
    step, limit: control steps taken, and after how many the episode ends.  chunk: calls of the model so far.
    present: uint8 (H, W, 3), the real canvas now.  foreseen: what this moment was dreamed to look like, or None.
    dream: uint8 (T, H, W, 3), what was dreamed for the chunk being executed.  real: uint8 (t, H, W, 3), t <= T,
    what has been seen of it so far, or None.
    actions: float32 (N, A), the chunk, of which `done` are executed.  sent: float32 (steps, A), executed last.
    seconds: per call, the last one last, the time of every stage of the model.
    quality: how well the last whole chunk was dreamed, or None.
    """

    version: int = 0
    phase: Phase = "opening"
    task: str = ""
    number: int = 0
    sentence: str = ""
    read: bool = False
    error: str = ""
    step: int = 0
    limit: int = 1
    success: bool = False
    chunk: int = 0
    present: Frames | None = None
    foreseen: Frames | None = None
    dream: Frames | None = None
    real: Frames | None = None
    sent: npt.NDArray[np.float32] | None = None
    actions: npt.NDArray[np.float32] | None = None
    done: int = 0
    seconds: tuple[Mapping[str, float], ...] = ()
    quality: DreamQuality | None = None


@dataclass
class SteeredEpisode:
    """A policy in a world, step by step, under the sentence of the moment.

    running: the world and its records.  sentence: what to ask for at the next chunk; it may be replaced at any time.
    said: (control step, sentence) of every sentence that the model has read.
    """

    running: RunningEpisode
    policy: Policy
    seed: int
    sentence: str = ""
    said: list[tuple[int, str]] = field(default_factory=list)
    chunk: ActionChunk | None = None
    done: int = 0
    quality: DreamQuality | None = None
    _looks: list[Observation] = field(default_factory=list)
    _begun_at: int = 0  # index of the frame at which the chunk began

    @classmethod
    def begin(cls, running: RunningEpisode, policy: Policy, seed: int, sentence: str | None) -> SteeredEpisode:
        """Put the scene into the initial state of `seed`; the task's own sentence when none is given."""
        first = running.start(seed)
        policy.reset(noise_seed(running.env.task, seed))
        running.instruction = first.instruction if sentence is None else sentence
        return cls(running, policy, seed, running.instruction, _looks=[first])

    @property
    def over(self) -> bool:
        return self.running.over

    @property
    def chunk_over(self) -> bool:
        """Whether the next step begins with a call of the model."""
        return self.chunk is None or self.done == self.policy.execute

    def advance(self) -> None:
        """One control step; first of all a new chunk where the last one has been executed.

        Raises ValueError when the policy and the world do not fit together.
        """
        if self.chunk_over:
            self._decide()
        assert self.chunk is not None
        self.done += 1
        wanted = (self.running.steps + 1) % self.policy.video_stride == 0
        look = self.running.step(self.chunk.actions[self.done - 1], imagined(self.chunk, self.done), wanted)
        if look is not None:
            self._looks.append(look)
        if self.chunk_over:
            self.quality = self._quality()

    def result(self) -> EpisodeResult:
        """What happened so far. Raises ValueError before the first chunk."""
        if not self.running.plans:
            raise ValueError("nothing has happened yet in this episode")
        return self.running.result(self.seed)

    def show(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot with this episode in it."""
        running, chunk = self.running, self.chunk
        seen = running.frames[self._begun_at + 1 :] if chunk is not None else []
        length = 0 if chunk is None else len(chunk.actions)
        return replace(
            snapshot,
            task=running.env.task,
            sentence=self.sentence,
            read=bool(self.said) and self.said[-1][1] == self.sentence,
            step=running.steps,
            limit=running.limit,
            success=running.success,
            chunk=len(running.plans),
            present=running.frames[-1],
            foreseen=running.dreams[-1],
            dream=None if chunk is None else chunk.dream,
            real=np.stack(seen) if seen else None,
            sent=np.array(running.actions[-SHOWN_CHUNKS * length :], dtype=np.float32) if running.actions else None,
            actions=None if chunk is None else chunk.actions,
            done=self.done,
            seconds=tuple(running.stages[-SHOWN_CHUNKS:]),
            quality=self.quality,
        )

    def _decide(self) -> None:
        looks = [replace(look, instruction=self.sentence) for look in self._looks]
        if not self.said or self.said[-1][1] != self.sentence:
            self.said.append((self.running.steps, self.sentence))
        self.chunk = self.running.decide(partial(self.policy.act, looks))
        self.done, self._looks, self._begun_at = 0, [], len(self.running.frames) - 1

    def _quality(self) -> DreamQuality | None:
        """Of the chunk that has just ended."""
        frames, start = self.running.frames, self._begun_at
        pairs = [(d, f) for d, f in zip(self.running.dreams[start + 1 :], frames[start + 1 :], strict=True)]
        dreamed = [dream for dream, _ in pairs if dream is not None]
        if not pairs or len(dreamed) < len(pairs):
            return None
        real = np.stack([frame for _, frame in pairs])
        return DreamQuality(psnr(np.stack(dreamed), real), psnr(np.broadcast_to(frames[start], real.shape), real))
