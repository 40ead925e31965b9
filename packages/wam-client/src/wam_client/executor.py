"""A robot that never waits: while the current chunk plays, the newest look is being thought about.

The robot's own loop calls `Executor.act` once per control step (a *tick*) and always gets an action at once. Thinking
happens elsewhere, behind a `Worker`. Whatever comes back carries the tick of its first action, so it is laid over the
time line where it belongs; the part of it that is already past is dropped.

What the robot will do until an answer can be there is known when the question is asked. It goes along as
`Request.executing`, so that a policy can hold it clean and continue it (real-time chunking: arXiv 2506.07339, held
clean as in 2512.05964; the asynchronous loop: arXiv 2602.15922, section 3.2.2).

Delays are counted in ticks that the robot has played, not in seconds: then they are right for a simulator that runs
fast or slow as well, and a robot that stood still for want of a plan skips nothing when the plan arrives.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Action = npt.NDArray[np.float32]  # (A,)
Actions = npt.NDArray[np.float32]  # (n, A)
Look = TypeVar("Look")

_REMEMBERED = 1024  # ticks of the past, and looks that nobody has thought about yet; more than any chunk is long


# ---------------------------------------------------------------- what goes back and forth


class Chunk(Protocol):
    """What a policy answers."""

    @property
    def actions(self) -> Actions:
        """(N, A), the first one for the tick of the look that was thought about."""


@dataclass(frozen=True)
class Request(Generic[Look]):
    """A question to the policy.

    tick: of the newest look, and so of the first action of the answer.
    looks: (tick, look), in order of time, everything since the last question.
    executing: (n, A), what the robot does at ticks `tick .. tick + n - 1` whatever the answer will be; n is the delay
    that is expected. Empty while the robot stands still for want of a plan.
    """

    tick: int
    looks: tuple[tuple[int, Look], ...]
    executing: Actions


@dataclass(frozen=True)
class Thought(Generic[Look]):
    """A question with its answer: a chunk, or what went wrong instead."""

    request: Request[Look]
    answer: Chunk | Exception


class Worker(Protocol[Look]):
    """Thinks without blocking, about one question at a time; `wam_client.workers` has some."""

    @property
    def busy(self) -> bool:
        """Whether there is a question whose answer has not been fetched."""

    def submit(self, request: Request[Look]) -> None:
        """Start to think; only when not busy."""

    def poll(self) -> Thought[Look] | None:
        """The answer once it is there, and once only."""


class Join(Protocol):
    """How a new chunk takes over from the old one."""

    def __call__(self, past: Actions, old: Actions, new: Actions) -> Actions:
        """What to play from now on, (m, A).

        past (p, A): what was played at the ticks of the new chunk that are over.  old (o, A): what would come next
        without it, o >= 0.  new (m, A): what the new chunk wants from now on.
        """


def switch(past: Actions, old: Actions, new: Actions) -> Actions:
    """Obey the new chunk at once."""
    return new


# ---------------------------------------------------------------- how to behave


@dataclass(frozen=True)
class Rest:
    """How the robot stands still.

    action: (A,), sent before there is anything else; for commands that are positions, those of the present.
    keep: dimensions that stay at the last value sent (positions, grippers); the others return to `action` (speeds,
    differences).
    """

    action: tuple[float, ...]
    keep: tuple[int, ...] = ()

    def after(self, last: Action | None) -> Action:
        still = np.array(self.action, dtype=np.float32)
        if last is not None:
            kept = list(self.keep)
            still[kept] = last[kept]
        return still


@dataclass(frozen=True)
class Timing:
    """When to think, and what to do when an answer is missing.

    every: a thought starts from a look whose tick is a multiple of this.
    quantile, window: the delay that is expected next is this quantile of so many last ones.
    first_delay: ticks expected before anything was measured.
    coast: at a tick without a plan, the share of the last motion that is left: 0 holds at once, 1 continues as before,
    0.7 slows down.  patience: after so many of them in a row, and after a failure, it holds in any case.
    """

    every: int = 1
    quantile: float = 0.95
    window: int = 32
    first_delay: int = 0
    coast: float = 0.0
    patience: int = 20

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is {self.every}; expected at least 1 tick between thoughts")
        for name in ("quantile", "coast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected a number from 0 to 1")
        if self.window < 1 or self.first_delay < 0 or self.patience < 0:
            raise ValueError(f"{self}: window is at least 1, first_delay and patience at least 0")


@dataclass(frozen=True)
class Report:
    """What has happened so far.

    ticks: actions given.  waiting: of them before the first plan.  missed: later ones without a plan.
    thoughts: chunks that came back.  late: of them after the prefix they were given.  stale: of them too late for any
    of their actions.  failed: exceptions and unusable answers.  delay: the ticks that are expected for the next one.
    """

    ticks: int = 0
    waiting: int = 0
    missed: int = 0
    thoughts: int = 0
    late: int = 0
    stale: int = 0
    failed: int = 0
    delay: int = 0


class DelayEstimate:
    """A running quantile of delays in ticks. The very first one, which often loads and compiles, is soon forgotten."""

    def __init__(self, timing: Timing) -> None:
        self._timing, self._count = timing, 0
        self._recent: deque[int] = deque(maxlen=timing.window)

    def add(self, ticks: int) -> None:
        if self._count == 1:
            self._recent.clear()
        self._recent.append(ticks)
        self._count += 1

    @property
    def ticks(self) -> int:
        if not self._recent:
            return self._timing.first_delay
        return int(np.quantile(self._recent, self._timing.quantile, method="higher"))


# ---------------------------------------------------------------- the executor


@dataclass(frozen=True)
class _Plan(Generic[Look]):
    """Actions from tick `start` on, and the thought that they come from."""

    start: int
    actions: Actions
    thought: Thought[Look]

    def at(self, tick: int) -> Action | None:
        inside = 0 <= tick - self.start < len(self.actions)
        return self.actions[tick - self.start] if inside else None


class Executor(Generic[Look]):
    """One action per tick, at once, whatever the policy does.

    Belongs to the thread of the robot's loop. It never raises because of the policy: a failure is logged, counted and
    kept in `error`; the running chunk is played to its end, and then the robot holds until a thought succeeds.
    """

    def __init__(self, worker: Worker[Look], rest: Rest, timing: Timing = Timing(), join: Join = switch) -> None:
        self.error: Exception | None = None
        self._worker, self._rest, self._timing, self._join = worker, rest, timing, join
        self._delay = DelayEstimate(timing)
        self._looks: deque[tuple[int, Look]] = deque(maxlen=_REMEMBERED)
        self._played: deque[tuple[int, Action]] = deque(maxlen=_REMEMBERED)
        self._stood: deque[int] = deque(maxlen=_REMEMBERED)  # ticks without a plan at which it did not move on
        self._plan: _Plan[Look] | None = None
        self._last: Action | None = None
        self._next = 0
        self._missing = 0  # ticks without a plan, in a row
        self._count = dict.fromkeys(("waiting", "missed", "thoughts", "late", "stale", "failed"), 0)

    def act(self, tick: int, look: Look | None = None) -> Action:
        """The action (A,) of this tick.

        tick: 0, 1, 2, ... without gaps.  look: what the robot sees at the beginning of this tick, if it looks now.
        Raises ValueError when a tick is left out or repeated, which only a mistake of the caller can cause.
        """
        if tick != self._next:
            raise ValueError(f"tick {tick}: expected {self._next}; call act() once per control step, from 0")
        self._next += 1
        self._fetch(tick)
        if look is not None:
            self._looks.append((tick, look))
        if self._ask(tick):
            self._fetch(tick)  # a policy that needs no time answers for this very tick
        action = None if self._plan is None else self._plan.at(tick)
        self._last = self._without_plan() if action is None else self._by_plan(tick, action)
        return self._last.copy()

    @property
    def playing(self) -> Thought[Look] | None:
        """Where the present plan comes from."""
        return None if self._plan is None else self._plan.thought

    @property
    def report(self) -> Report:
        return Report(ticks=self._next, delay=self._delay.ticks, **self._count)

    # ---------------------------------------------------------------- playing

    def _by_plan(self, tick: int, action: Action) -> Action:
        self._missing = 0
        self._played.append((tick, action))
        return action

    def _without_plan(self) -> Action:
        """Hold, slow down or go on as before."""
        self._missing += 1
        self._count["waiting" if self._plan is None else "missed"] += 1
        if self._count["missed"] == 1:
            logger.warning("tick %d: the next chunk is not there yet (further misses are only counted)", self._next - 1)
        still = self._rest.after(self._last)
        share = self._share_of_motion()
        action = still if self._last is None else still + np.float32(share) * (self._last - still)
        if share >= 0.5:  # it keeps moving, so the plan's time goes on
            self._played.append((self._next - 1, action))
        else:
            self._stood.append(self._next - 1)
        return action

    def _share_of_motion(self) -> float:
        may_coast = self._plan is not None and self.error is None and self._missing <= self._timing.patience
        return self._timing.coast if may_coast else 0.0

    # ---------------------------------------------------------------- asking

    def _ask(self, tick: int) -> bool:
        """Hand the newest look that may be thought about to an idle worker; returns whether it was."""
        if self._worker.busy:
            return False
        due = next((seen for seen, _ in reversed(self._looks) if seen % self._timing.every == 0), None)
        if due is None:
            return False
        looks = []
        while self._looks and self._looks[0][0] <= due:
            looks.append(self._looks.popleft())
        self._worker.submit(Request(due, tuple(looks), self._committed(due, tick)))
        return True

    def _committed(self, first: int, now: int) -> Actions:
        """What is played from tick `first` until an answer is expected: a little past perhaps, then the plan."""
        past = dict(self._played)
        actions = []
        for tick in range(first, first + self._delay.ticks):
            action = past.get(tick) if tick < now or self._plan is None else self._plan.at(tick)
            if action is None:
                break
            actions.append(action)
        return np.array(actions, dtype=np.float32).reshape(-1, len(self._rest.action))

    # ---------------------------------------------------------------- taking over

    def _fetch(self, tick: int) -> None:
        thought = self._worker.poll()
        if thought is None:
            return
        try:
            actions = self._checked(thought)
            self._take_over(tick, thought, actions)
        except Exception as error:
            self.error = error
            self._count["failed"] += 1
            logger.error("tick %d: no answer to the look of tick %d: %r", tick, thought.request.tick, error)
            return
        self.error = None

    def _checked(self, thought: Thought[Look]) -> Actions:
        if isinstance(thought.answer, Exception):
            raise thought.answer
        actions = np.asarray(thought.answer.actions, dtype=np.float32)
        width = len(self._rest.action)
        if actions.ndim != 2 or actions.shape[1] != width or not len(actions):
            raise ValueError(f"actions: found shape {actions.shape}, expected (N, {width}) with N >= 1")
        if not np.isfinite(actions).all():
            raise ValueError("actions: some are not finite")
        return actions

    def _take_over(self, tick: int, thought: Thought[Look], actions: Actions) -> None:
        """Lay the chunk over the time line; while the robot stood still for want of a plan, its time stood still."""
        request = thought.request
        stood = sum(moment >= request.tick for moment in self._stood)
        self._count["thoughts"] += 1
        self._delay.add(tick - request.tick)
        over = tick - request.tick - stood  # actions of the chunk whose ticks are past
        self._count["late"] += over > len(request.executing)
        if over >= len(actions):
            self._count["stale"] += 1
            return
        played = [action for moment, action in self._played if moment >= request.tick]
        past = np.array(played, dtype=np.float32).reshape(-1, actions.shape[1])
        old = actions[:0] if self._plan is None else self._plan.actions[tick - self._plan.start :]
        self._plan = _Plan(tick, self._join(past, old, actions[over:]), thought)
