"""One episode: observe, act, execute, look again, until success or the end.

The loop renders only when somebody looks at the pictures, because rendering is what an evaluation spends its time on.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wam.engine.policy import ActionChunk, Policy
from wam.robot.canvas import compose
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment
from wam.robot.observation import Observation

Frames = npt.NDArray[np.uint8]  # (F, H, W, 3)


class Environment(Protocol):
    """What a rollout asks of a simulator (or of a robot that can put its scene back)."""

    @property
    def task(self) -> str: ...

    @property
    def action_repeat(self) -> int:
        """Simulator steps per control step."""

    def reset(self, seed: int) -> Observation:
        """Start the episode that `seed` stands for; the same seed gives the same initial state."""

    def step(self, action: npt.NDArray[np.float32]) -> bool:
        """One control step without rendering; returns whether the task has been solved so far."""

    def observe(self) -> Observation:
        """Render."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class EpisodeResult:
    """What happened in one episode.

    steps: control steps executed; chunks: calls of the policy.
    act_seconds: wall time of every call of the policy, (chunks,). The first call also reads the sentence, and may load
    and compile things, so `later_act_seconds` leaves it out, as do the policy's stages below.
    seconds: mean per chunk and stage: the policy's own stages, then "act" (the whole call), "simulate", "render".
    actions: float32 (steps, A), as sent; chunk_starts: the step at which each chunk began.
    frames: uint8 (F, H, W, 3), the real canvas, or None when not recorded; frame_steps: the step of each frame.
    dreams: uint8 (F, H, W, 3), what the policy had imagined frame i to be (dreams[0] is the real first frame), or None.
    states: float32 (F, S), the robot's state at each frame, or None when not recorded.
    plans: of every call all actions that it answered, float32 (N, A); stages: and its seconds per stage.
    solved_at: the step after which the task was solved, or None.
    clock: how the robot's clock was kept (the counts of `wam.realtime.Report`); empty when the world waited.
    """

    task: str
    instruction: str
    seed: int
    success: bool
    steps: int
    act_seconds: tuple[float, ...]
    seconds: Mapping[str, float]
    actions: npt.NDArray[np.float32]
    chunk_starts: tuple[int, ...]
    frames: Frames | None = None
    frame_steps: tuple[int, ...] = ()
    dreams: Frames | None = None
    states: npt.NDArray[np.float32] | None = None
    plans: tuple[npt.NDArray[np.float32], ...] = ()
    stages: tuple[Mapping[str, float], ...] = ()
    solved_at: int | None = None
    clock: Mapping[str, int] = field(default_factory=dict)

    @property
    def chunks(self) -> int:
        return len(self.act_seconds)

    @property
    def later_act_seconds(self) -> tuple[float, ...]:
        """Of all calls but the first; of the first when there is no other."""
        return self.act_seconds[1:] or self.act_seconds

    @property
    def chunks_per_second(self) -> float:
        """How many chunks the policy decides per second of its own time, once it runs; without simulation."""
        total = sum(self.later_act_seconds)
        return len(self.later_act_seconds) / total if total > 0 else float("inf")


def noise_seed(task: str, seed: int) -> int:
    """The seed of the policy's noise: fixed by the episode, alike for every policy and any number of workers."""
    return int.from_bytes(hashlib.sha256(f"{task}/{seed}".encode()).digest()[:4], "big")


def rollout(
    env: Environment,
    policy: Policy,
    seed: int,
    *,
    max_env_steps: int = 500,
    record: bool = False,
    embodiment: Embodiment = METAWORLD_SAWYER,
) -> EpisodeResult:
    """Run one episode in closed loop.

    max_env_steps: simulator steps after which the episode has failed (`action_repeat` of them per control step).
    record: keep the canvas every `embodiment.video_stride` control steps, and the dream when the policy decodes it.
    A policy with a true attribute `blind` reads no pictures: it is given no looks after the first, and nothing is
    rendered unless `record`.
    Raises ValueError when a seeing policy's `execute` is not a multiple of its `video_stride`.
    """
    _check_cadence(policy)
    episode = RunningEpisode(env, max_env_steps, record=record, embodiment=embodiment)
    observations = [episode.start(seed)]
    policy.reset(noise_seed(env.task, seed))
    while not episode.over:
        chunk = episode.decide(partial(policy.act, observations))
        observations = _execute(episode, policy, chunk)
    return episode.result(seed)


def is_blind(policy: Policy) -> bool:
    """Whether the policy works without pictures (baselines do)."""
    return bool(getattr(policy, "blind", False))


def _execute(episode: RunningEpisode, policy: Policy, chunk: ActionChunk) -> list[Observation]:
    """Run the first actions of the chunk; returns the looks taken meanwhile."""
    if len(chunk.actions) < policy.execute:
        raise ValueError(
            f"the policy returned {len(chunk.actions)} actions, but its 'execute' is {policy.execute}; "
            "execute at most one chunk"
        )
    looks = []
    for done, action in enumerate(chunk.actions[: policy.execute], start=1):
        wanted = (episode.steps + 1) % policy.video_stride == 0 and not is_blind(policy)
        look = episode.step(action, imagined(chunk, done), wanted)
        if look is not None:
            looks.append(look)
        if episode.over:
            break
    return looks


@dataclass
class RunningEpisode:
    """A world being acted in, and everything that `EpisodeResult` reports, while it grows.

    past_success: go on when the task has been solved, until the steps are used up.
    """

    env: Environment
    max_env_steps: int
    record: bool
    embodiment: Embodiment
    past_success: bool = False
    steps: int = 0
    success: bool = False
    solved_at: int | None = None
    instruction: str = ""
    actions: list[npt.NDArray[np.float32]] = field(default_factory=list)
    chunk_starts: list[int] = field(default_factory=list)
    act_seconds: list[float] = field(default_factory=list)
    stages: list[Mapping[str, float]] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    frames: list[Frames] = field(default_factory=list)
    frame_steps: list[int] = field(default_factory=list)
    dreams: list[Frames | None] = field(default_factory=list)
    states: list[npt.NDArray[np.float32]] = field(default_factory=list)
    plans: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(
                f"max_env_steps is {self.max_env_steps}, less than one control step of {self.env.action_repeat}"
            )

    @property
    def limit(self) -> int:
        """Control steps after which the episode has failed."""
        return self.max_env_steps // self.env.action_repeat

    @property
    def over(self) -> bool:
        return (self.success and not self.past_success) or self.steps >= self.limit

    def start(self, seed: int) -> Observation:
        first = self.env.reset(seed)
        self.instruction = first.instruction
        if self.record:
            self._keep(first, None)
        return first

    def decide(self, act: Callable[[], ActionChunk]) -> ActionChunk:
        """Call the policy, and note how long it took."""
        began = time.perf_counter()
        chunk = act()
        self.act_seconds.append(time.perf_counter() - began)
        self.chunk_starts.append(self.steps)
        self.stages.append(chunk.seconds)
        self.plans.append(chunk.actions)
        return chunk

    def step(self, action: npt.NDArray[np.float32], dream: Frames | None, wanted: bool) -> Observation | None:
        """One control step. dream: what this moment was imagined to look like.  wanted: look afterwards.

        Returns the look, unless the episode is over.
        """
        with self._clock("simulate"):
            self.success = bool(self.env.step(action))
        self.steps += 1
        if self.success and self.solved_at is None:
            self.solved_at = self.steps
        self.actions.append(np.asarray(action, dtype=np.float32))
        wanted = wanted and not self.over
        filmed = self.record and (self.over or self.steps % self.embodiment.video_stride == 0)
        if not wanted and not filmed:
            return None
        with self._clock("render"):
            observation = self.env.observe()
        if filmed:
            self._keep(observation, dream)
        return observation if wanted else None

    def result(self, seed: int, clock: Mapping[str, int] | None = None) -> EpisodeResult:
        return EpisodeResult(
            task=self.env.task,
            instruction=self.instruction,
            seed=seed,
            success=self.success,
            steps=self.steps,
            act_seconds=tuple(self.act_seconds),
            seconds=self._mean_seconds(),
            actions=np.array(self.actions, dtype=np.float32).reshape(self.steps, -1),
            chunk_starts=tuple(self.chunk_starts),
            frames=np.stack(self.frames) if self.record else None,
            frame_steps=tuple(self.frame_steps),
            dreams=self._dreamed(),
            states=np.stack(self.states) if self.record else None,
            plans=tuple(self.plans),
            stages=tuple(self.stages),
            solved_at=self.solved_at,
            clock=clock or {},
        )

    def _mean_seconds(self) -> dict[str, float]:
        """Per chunk: the policy's stages and their whole without the first chunk, the world's part with it."""
        later = self.stages[1:] or self.stages
        act = self.act_seconds[1:] or self.act_seconds
        names = dict.fromkeys(name for chunk in later for name in chunk)
        own = {name: sum(chunk.get(name, 0.0) for chunk in later) / len(later) for name in names}
        world = {name: seconds / len(self.stages) for name, seconds in sorted(self.spent.items(), reverse=True)}
        return {**own, "act": sum(act) / len(act), **world}

    def _keep(self, observation: Observation, dream: Frames | None) -> None:
        self.frames.append(compose(observation.images, self.embodiment))
        self.frame_steps.append(self.steps)
        self.dreams.append(dream)
        self.states.append(np.array(observation.state, dtype=np.float32))

    def _dreamed(self) -> Frames | None:
        """Dreams beside the frames; the first frame is given, not imagined. A chunk without a dream stays black."""
        if not self.record or all(dream is None for dream in self.dreams):
            return None
        black = np.zeros_like(self.frames[0])
        return np.stack([self.frames[0], *(black if dream is None else dream for dream in self.dreams[1:])])

    @contextmanager
    def _clock(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.spent[stage] = self.spent.get(stage, 0.0) + time.perf_counter() - began


def imagined(chunk: ActionChunk, done: int) -> Frames | None:
    """The dreamed frame for the moment after `done` actions: T frames cover the N actions of the chunk evenly."""
    if chunk.dream is None:
        return None
    frames, actions = len(chunk.dream), len(chunk.actions)
    index = -(-done * frames // actions) - 1  # ceil: a look between two dreamed frames is compared with the later one
    frame: Frames = chunk.dream[min(index, frames - 1)]
    return frame


def _check_cadence(policy: Policy) -> None:
    if not is_blind(policy) and policy.execute % policy.video_stride:
        raise ValueError(
            f"the policy executes {policy.execute} actions but looks every {policy.video_stride} steps; "
            "make 'execute' a multiple of 'video_stride', so that every decision sees the present"
        )
