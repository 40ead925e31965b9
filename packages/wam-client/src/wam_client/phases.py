"""Ask a policy that remembers whole chunks more often than once per chunk.

A World Action Model with a memory counts in chunks: it was trained on the frames of chunk 0, chunk 1, ... and decides
when a chunk is complete. Its answer covers exactly the chunk that follows, so when it arrives late nothing is left of
the chunk before to fill the gap. Hence several sessions, each on a chunk grid of its own:

    tick          0       4       8       12      16
    session 0     |--- chunk 0 ---|--- chunk 1 ---|
    session 1             |--- chunk 0 ---|--- chunk 1 ---

Each is asked when a chunk of its own grid is complete, and remembers all of it, as in training. Together they answer
every `every` ticks with chunks that overlap by `chunk - every` ticks: an answer may take that long. They share the
model; what each costs is its own small memory. A policy without memory starts anew at every look, so that its sessions
are one and the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from wam_client.executor import Actions, Chunk, Look, Request

LookIn = TypeVar("LookIn", contravariant=True)


class Session(Protocol[LookIn]):
    """One memory of a policy."""

    def reset(self, seed: int) -> None:
        """Forget everything; `seed` fixes the noise."""

    def act(self, observations: Sequence[LookIn], executing: Actions) -> Chunk:
        """Decide. observations: the present alone after `reset`, else all looks of the chunk just over, the present
        last.  executing (n, A): what will be done at the first ticks of the answer in any case."""


@dataclass
class _Phase(Generic[LookIn]):
    session: Session[LookIn]
    last: int | None = None  # the tick of its last answer
    starts: int = 0  # how often it had to start anew


class Phases(Generic[Look]):
    """Several sessions as one `Think` of a worker.

    sessions: chunk / every of them.  chunk: ticks between the answers of one session.  stride: ticks between the looks
    that it wants.  A session whose chunk is incomplete (because an answer took too long, say) starts anew from the
    present look.
    """

    def __init__(self, sessions: Sequence[Session[Look]], chunk: int, stride: int) -> None:
        if not sessions or chunk % len(sessions):
            raise ValueError(f"{len(sessions)} sessions cannot share a chunk of {chunk} ticks evenly")
        if chunk % stride:
            raise ValueError(f"a chunk of {chunk} ticks is no multiple of the {stride} ticks between looks")
        self.every = chunk // len(sessions)
        self._chunk, self._stride, self._seed = chunk, stride, 0
        self._phases = [_Phase(session) for session in sessions]
        self._seen: deque[tuple[int, Look]] = deque(maxlen=chunk)

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self._seed = seed
        self._phases = [_Phase(phase.session) for phase in self._phases]
        self._seen.clear()

    def __call__(self, request: Request[Look]) -> Chunk:
        """Raises what the session raises; then that session starts anew the next time."""
        self._seen.extend(request.looks)
        number = request.tick // self.every % len(self._phases)
        phase = self._phases[number]
        looks = self._complete_chunk(request.tick) if phase.last == request.tick - self._chunk else None
        phase.last = None
        if looks is None:
            looks = [request.looks[-1][1]]
            phase.session.reset(self._seed_of(number, phase.starts))
            phase.starts += 1
        chunk = phase.session.act(looks, request.executing)
        phase.last = request.tick
        return chunk

    def _complete_chunk(self, tick: int) -> list[Look] | None:
        """The looks of the chunk that ends at this tick, or None when one of them is missing."""
        seen = dict(self._seen)
        wanted = range(tick - self._chunk + self._stride, tick + 1, self._stride)
        return [seen[moment] for moment in wanted] if all(moment in seen for moment in wanted) else None

    def _seed_of(self, number: int, starts: int) -> int:
        """The episode's own seed for the first start of the first session; others follow from it."""
        return (self._seed + 7919 * number + 104729 * starts) % 2**32
