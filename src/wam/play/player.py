"""The thread in which the model and the simulator live: others send it commands and look at snapshots.

One thread, because a simulator's graphics context belongs to the thread that made it, and an engine takes one step at a
time. Nobody waits for it: a command is noted and obeyed before the next control step, and `snapshot` is always there.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from wam.engine.policy import Policy
from wam.evaluate.rollout import Environment, RunningEpisode
from wam.play.episode import Phase, Snapshot, SteeredEpisode
from wam.robot.embodiment import Embodiment

logger = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds to wait for the thread at the end


@dataclass(frozen=True)
class Stage:
    """Where a player plays.

    open_scene: a task's environment, called in the player's thread.  seed_of: number of an initial state -> its seed.
    max_env_steps: simulator steps after which an episode ends.
    finished: told about every episode that ends or is given up after its first chunk, in the player's thread.
    """

    open_scene: Callable[[str], Environment]
    embodiment: Embodiment
    seed_of: Callable[[int], int] = int
    max_env_steps: int = 500
    finished: Callable[[SteeredEpisode], None] = lambda episode: None


class Player:
    """A policy that a person lets play. Every method may be called from any thread and returns at once.

    What goes wrong in a scene is logged and shown (phase "failed"); choosing a scene again goes on from there.
    """

    def __init__(self, policy: Policy, stage: Stage, *, speed: float = 0.25) -> None:
        """speed: of the robot's clock; 1 is real time."""
        self._policy, self._stage = policy, stage
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._shown = Snapshot()
        self._env: Environment | None = None
        self._episode: SteeredEpisode | None = None
        self._phase: Phase = "opening"
        self._number, self._error = 0, ""
        self._sentence: str | None = None
        self.speed, self.past_success, self._one_chunk = speed, False, False
        self._due, self._open = 0.0, True
        self._thread = threading.Thread(target=self._live, name="player", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- what people do

    def snapshot(self) -> Snapshot:
        return self._shown

    def choose(self, task: str, number: int = 0, sentence: str | None = None) -> None:
        """Open a task's scene in initial state `number`, under its own sentence or another one, and wait."""
        self._commands.put(partial(self._choose, task, number, sentence))

    def start(self) -> None:
        """Begin, or go on; after the end of an episode, once more from the same initial state."""
        self._commands.put(partial(self._start, one_chunk=False))

    def one_chunk(self) -> None:
        """Go on to the end of the chunk, where dream and reality can be compared."""
        self._commands.put(partial(self._start, one_chunk=True))

    def pause(self) -> None:
        self._commands.put(self._pause)

    def reset(self) -> None:
        """The same initial state, and wait."""
        self._commands.put(self._reset)

    def say(self, sentence: str) -> None:
        """Ask for something else: at the next chunk, the model reads its memory again under this sentence."""
        self._commands.put(partial(self._say, sentence))

    def set_speed(self, speed: float) -> None:
        """How fast the robot's clock runs, 1 = real time; never faster than model and simulator can.

        Raises ValueError for a speed that is not above 0.
        """
        if not speed > 0:
            raise ValueError(f"speed is {speed}, expected a number above 0")
        self._commands.put(partial(self._set_speed, speed))

    def set_past_success(self, past_success: bool) -> None:
        """Whether an episode goes on when its task has been solved."""
        self._commands.put(partial(self._set_past_success, past_success))

    def close(self) -> None:
        """End the thread, and with it the simulator."""
        self._commands.put(self._close)
        self._thread.join(_PATIENCE)

    # ---------------------------------------------------------------- the thread

    def _live(self) -> None:
        while self._open:
            try:
                self._obey()
                if self._phase == "running":
                    self._advance()
            except Exception as error:  # whatever a scene or a policy raises: people see it, and may choose again
                logger.exception("task %r failed", self._shown.task)
                self._phase, self._error = "failed", f"{type(error).__name__}: {error}"
            self._publish()
        if self._env is not None:
            self._env.close()

    def _obey(self) -> None:
        """Do what was asked for; returns when the next step is due."""
        while self._open:
            patience = max(0.0, self._due - time.monotonic()) if self._phase == "running" else None
            try:
                self._commands.get(timeout=patience)()
            except queue.Empty:
                return
            self._publish()

    def _advance(self) -> None:
        episode = self._playing
        period = 1 / (self._stage.embodiment.control_hz * self.speed)
        self._due = max(self._due + period, time.monotonic())  # time that was lost is not caught up with
        episode.advance()
        if episode.over:
            self._phase = "over"
            self._stage.finished(episode)
        elif self._one_chunk and episode.chunk_over:
            self._phase = "paused"

    def _publish(self) -> None:
        shown = replace(
            self._shown, version=self._shown.version + 1, phase=self._phase, number=self._number, error=self._error
        )
        self._shown = shown if self._episode is None else self._episode.show(shown)

    # ---------------------------------------------------------------- commands, in the thread

    def _choose(self, task: str, number: int, sentence: str | None) -> None:
        self._give_up()
        self._episode, self._error, self._phase = None, "", "opening"
        self._shown = Snapshot(self._shown.version + 1, task=task, number=number, sentence=sentence or "")
        if self._env is None or self._env.task != task:
            if self._env is not None:
                self._env.close()
                self._env = None
            self._env = self._stage.open_scene(task)
        self._number, self._sentence = number, sentence
        self._begin(self._env)

    def _begin(self, env: Environment) -> None:
        stage = self._stage
        running = RunningEpisode(env, stage.max_env_steps, True, stage.embodiment, past_success=self.past_success)
        self._episode = SteeredEpisode.begin(running, self._policy, stage.seed_of(self._number), self._sentence)
        self._phase = "ready"

    def _start(self, one_chunk: bool) -> None:
        if self._phase == "over":
            self._reset()
        if self._phase in ("ready", "paused", "running"):
            if self._phase != "running":
                self._due = time.monotonic()
            self._phase, self._one_chunk = "running", one_chunk

    def _pause(self) -> None:
        if self._phase == "running":
            self._phase = "paused"

    def _reset(self) -> None:
        if self._env is not None:
            self._give_up()
            self._error = ""
            self._begin(self._env)

    def _say(self, sentence: str) -> None:
        self._sentence = sentence
        if self._episode is not None:
            self._episode.sentence = sentence

    def _set_speed(self, speed: float) -> None:
        self.speed, self._due = speed, time.monotonic()

    def _set_past_success(self, past_success: bool) -> None:
        self.past_success = past_success
        if self._episode is not None and not self._episode.over:
            self._episode.running.past_success = past_success

    def _close(self) -> None:
        self._give_up()
        self._open = False

    def _give_up(self) -> None:
        """An episode that was interrupted is told of too."""
        episode = self._episode
        if episode is not None and not episode.over and episode.running.plans:
            self._stage.finished(episode)

    @property
    def _playing(self) -> SteeredEpisode:
        if self._episode is None:
            raise RuntimeError("no scene is open")
        return self._episode
