"""One episode in which the world does not wait for the policy.

The robot's clock is virtual: a thought is said to take so many ticks, whatever it takes here. So the same episode comes
out on every machine, busy or not, and delays that this machine does not have can be tried. Everything else is the
executor that drives real robots (`wam.realtime`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from wam.engine.policy import ActionChunk, Policy
from wam.evaluate.baselines import standing
from wam.evaluate.rollout import Environment, EpisodeResult, RunningEpisode, imagined, noise_seed
from wam.realtime import (
    Executor,
    Join,
    Phases,
    Request,
    Rest,
    SavitzkyGolay,
    SimulatedWorker,
    SmoothJoin,
    Timing,
    VirtualClock,
    run,
)
from wam.robot.embodiment import METAWORLD_SAWYER, Embodiment
from wam.robot.observation import Observation


@dataclass(frozen=True)
class RealTime:
    """How an episode is played on the robot's clock; to be called like `rollout`.

    delay: how long a thought takes, as a share of a chunk; None = as long as it takes on this machine.
    every: control steps between thoughts; None = half a chunk.
    prefix: tell the policy what is being executed, so that it holds that clean. For models that learned to
    (`NoiseConfig.prefix_share`); others are not used to clean actions.
    blend: control steps over which a new chunk fades in.  smooth: filter every chunk as the paper does.
    coast: what is left of the last motion at a tick without a plan (`wam.realtime.Timing`).
    rest: how the robot stands still; None: as `wam.evaluate.baselines.standing` says of its embodiment.
    """

    delay: float | None = None
    every: int | None = None
    prefix: bool = False
    blend: int = 0
    smooth: bool = False
    coast: float = 0.0
    rest: Rest | None = None

    def __post_init__(self) -> None:
        if self.delay is not None and self.delay < 0:
            raise ValueError(f"delay is {self.delay}; expected a share of a chunk, 0 or more")

    def __call__(
        self,
        env: Environment,
        policy: Policy,
        seed: int,
        *,
        max_env_steps: int = 500,
        record: bool = False,
        embodiment: Embodiment = METAWORLD_SAWYER,
    ) -> EpisodeResult:
        """Run one episode; see `rollout`.

        Raises ValueError when the policy cannot be asked so often, and whatever it raises: an evaluation is no robot
        that had better hold still.
        """
        episode = RunningEpisode(env, max_env_steps, record=record, embodiment=embodiment)
        phases = self._phases(policy, episode, embodiment)
        clock = VirtualClock()
        worker = SimulatedWorker(phases, clock, partial(self._ticks, episode, embodiment))
        timing = Timing(every=phases.every, coast=self.coast, first_delay=self._expected(embodiment))
        first = episode.start(seed)
        rest = self.rest or standing(embodiment, first.state)
        executor = Executor(worker, rest, timing, self._join(rest))
        phases.reset(noise_seed(env.task, seed))
        robot = _Robot(episode, executor, first, math.gcd(phases.every, policy.video_stride))
        run(robot, executor, clock, period=1.0, ticks=episode.limit)
        return episode.result(seed, asdict(executor.report))

    # ---------------------------------------------------------------- parts

    def _phases(self, policy: Policy, episode: RunningEpisode, embodiment: Embodiment) -> Phases[Observation]:
        """Sessions enough to be asked so often. Copies of a policy share its model; `reset` parts their memories."""
        every = self.every or max(1, embodiment.actions_per_chunk // 2)
        if policy.execute % every:
            raise ValueError(
                f"every={every}: a policy that executes {policy.execute} steps can be asked every "
                f"{[n for n in range(1, policy.execute + 1) if policy.execute % n == 0]} steps"
            )
        longest = embodiment.actions_per_chunk - 1 if self.prefix else 0
        sessions = [_Session(copy.copy(policy), episode, longest) for _ in range(policy.execute // every)]
        return Phases(sessions, policy.execute, policy.video_stride)

    def _ticks(self, episode: RunningEpisode, embodiment: Embodiment, request: Request[Observation]) -> float:
        """How many ticks the last thought took."""
        if self.delay is None:
            return (episode.act_seconds or [0.0])[-1] * embodiment.control_hz
        return self.delay * embodiment.actions_per_chunk

    def _expected(self, embodiment: Embodiment) -> int:
        """Ticks of delay before anything was measured."""
        return 0 if self.delay is None else math.ceil(self.delay * embodiment.actions_per_chunk)

    def _join(self, rest: Rest) -> Join:
        return SmoothJoin(self.blend, SavitzkyGolay() if self.smooth else None, rest.keep)


@dataclass
class _Session:
    """A policy as a session of `Phases`; notes when it was asked and how long it took.

    prefix: at most so many actions are told of those that are executed meanwhile.
    """

    policy: Policy
    episode: RunningEpisode
    prefix: int

    def reset(self, seed: int) -> None:
        self.policy.reset(seed)

    def act(self, observations: Sequence[Observation], executing: npt.NDArray[np.float32]) -> ActionChunk:
        if self.prefix and len(executing):
            told: Any = self.policy  # such as WamPolicy
            return self.episode.decide(partial(told.act, observations, executing[: self.prefix]))
        return self.episode.decide(partial(self.policy.act, observations))


@dataclass
class _Robot:
    """The simulated world as a robot with a clock of its own."""

    episode: RunningEpisode
    executor: Executor[Observation]
    present: Observation | None
    look_every: int

    def look(self, tick: int) -> Observation | None:
        return self.present

    def execute(self, action: npt.NDArray[np.float32]) -> bool:
        if self.executor.error is not None:
            raise self.executor.error
        wanted = (self.episode.steps + 1) % self.look_every == 0
        self.present = self.episode.step(action, self._dream(), wanted)
        return self.episode.over

    def _dream(self) -> npt.NDArray[np.uint8] | None:
        thought = self.executor.playing
        if thought is None or not isinstance(thought.answer, ActionChunk):
            return None
        done = self.episode.steps + 1 - thought.request.tick
        return imagined(thought.answer, min(done, len(thought.answer.actions)))
