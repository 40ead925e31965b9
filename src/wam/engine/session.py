"""One robot's episode on an engine: what it has seen so far, under which sentence, and its own source of noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from wam.engine.memory import Memory
from wam.model.attention import ANCHOR

Known = TypeVar("Known")


@dataclass
class Session:
    """Made by `Engine.open` and changed by `Engine.step` alone. Bounded, however long the episode lasts.

    generator: draws the noise of this session and of no other.
    instruction: the sentence that `memory` was read under; None before the first look.
    chunk: number of the newest chunk that was seen, ANCHOR while that is the first frame.
    encoder_state: where the stream of pictures goes on.  anchor (1, z, 1, h, w), recent [(chunk, (1, z, K, h, w))]: the
    real latents behind what the memory holds, so that a new sentence can read them again.
    state: (1, S) of the present, in robot units.  time: of the present, in seconds on the robot's clock.
    imaginary: a copy of a robot's session, in which imagined frames may be remembered.
    """

    generator: torch.Generator
    instruction: str | None = None
    memory: Memory | None = None
    chunk: int = ANCHOR
    encoder_state: Any = None
    anchor: Tensor | None = None
    recent: list[tuple[int, Tensor]] = field(default_factory=list)
    state: Tensor | None = None
    time: float | None = None
    imaginary: bool = False

    def fork(self) -> Session:
        """An imaginary copy, with the same memory and the same noise to come; neither changes the other."""
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        memory = None if self.memory is None else self.memory.copy()
        return replace(self, generator=generator, memory=memory, recent=list(self.recent), imaginary=True)

    @property
    def begun(self) -> bool:
        """Whether it has seen anything yet."""
        return self.anchor is not None

    @property
    def newest(self) -> Tensor:
        """The latents seen last: the anchor frame, or a chunk."""
        return self.recent[-1][1] if self.recent else _seen(self.anchor)

    @property
    def last_latent(self) -> Tensor:
        """The last real latent frame, (1, z, 1, h, w)."""
        return self.newest[:, :, -1:]

    @property
    def present(self) -> Tensor:
        """The present state (1, S)."""
        return _seen(self.state)

    @property
    def remembered(self) -> Memory:
        return _seen(self.memory)

    @property
    def stream(self) -> Any:
        """Where real pictures go on. Raises ValueError where the last ones were imagined."""
        if self.begun and self.encoder_state is None:
            raise ValueError(
                "the last pictures that this session remembers were imagined, so real ones cannot follow them; fork "
                "the robot's session again"
            )
        return _seen(self.encoder_state)

    def forget(self) -> None:
        """The next look begins anew, as the first one did; the sentence, and the noise to come, stay what they are."""
        self.chunk, self.encoder_state, self.anchor, self.recent = ANCHOR, None, None, []
        self.state, self.time = None, None

    def saw(self, latents: Tensor, encoder_state: Any, state: Tensor, time: float, *, anew: bool) -> None:
        """A chunk has been seen, or (anew) an anchor frame; what the memory will no longer hold is dropped."""
        self.encoder_state, self.state, self.time = encoder_state, state, time
        if anew:
            self.chunk, self.anchor, self.recent = ANCHOR, latents, []
        else:
            self.chunk += 1
            self.recent = [*self.recent, (self.chunk, latents)][-self.remembered.cache.memory :]


def _seen(value: Known | None) -> Known:
    if value is None:
        raise ValueError("the session has seen nothing yet; step with an observation first")
    return value
