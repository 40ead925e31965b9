"""Between a robot's vectors and the model's: grippers to 0 .. 1, relative actions, scaling, padding.

robot units  --to_model-->  model units (what the network sees and the loss measures)  --to_robot-->  robot units
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from wam.robot.embodiment import Embodiment, EmbodimentError, Part, indexed
from wam.robot.normalization import Normalizer


@dataclass(frozen=True)
class Units:
    """The conversions of one embodiment; its statistics must be known.

    Shapes: states (..., S), actions (..., N, A) of the chunk that begins at that state; model vectors are padded to
    the embodiment's widths.
    """

    embodiment: Embodiment

    def __post_init__(self) -> None:
        if self.embodiment.statistics is None:
            raise EmbodimentError(
                f"embodiment {self.embodiment.name!r}: field 'statistics' is missing, so its numbers cannot be scaled; "
                "take them from the data (`wam data stats`) or from the model that was trained on them"
            )

    def state_to_model(self, state: Tensor) -> Tensor:
        """(..., S) -> (..., state width)."""
        return F.pad(self._state.normalize(_opened(state, self.embodiment.state)), (0, self._state_padding))

    def action_to_model(self, action: Tensor, state: Tensor) -> Tensor:
        """(..., N, A) -> (..., N, action width)."""
        known = as_learned(self.embodiment, action, state)
        return F.pad(self._action.normalize(known), (0, self._action_padding))

    def action_to_robot(self, action: Tensor, state: Tensor) -> Tensor:
        """(..., N, action width) -> (..., N, A)."""
        e = self.embodiment
        known = self._action.restore(action[..., : e.action_dim])
        mine, theirs = _relative_to(e)
        known[..., mine] += _opened(state, e.state)[..., None, theirs]
        return _closed(known, e.action)

    def state_after(self, state: Tensor, action: Tensor) -> Tensor:
        """(..., S) and the actions (..., N, A) executed from there -> (..., S), where the robot then should be.

        What is commanded to a position (a relative action is the difference to one) is where it was sent last; nothing
        is known of the rest, which stays.
        """
        mine, theirs = _relative_to(self.embodiment)
        after = _opened(state, self.embodiment.state).clone()
        after[..., theirs] = _opened(action, self.embodiment.action)[..., -1, mine]
        return _closed(after, self.embodiment.state)

    @property
    def middle_state(self) -> Tensor:
        """(S,), what is zeros to the model: the state where none is known, as in training on video alone."""
        return _closed(self._state.restore(torch.zeros(self.embodiment.state_dim)), self.embodiment.state)

    @property
    def action_dims(self) -> Tensor:
        """bool (action width,): which dimensions are real."""
        return torch.arange(self.embodiment.action_dim + self._action_padding) < self.embodiment.action_dim

    # ---------------------------------------------------------------- what follows from the embodiment

    @cached_property
    def _state(self) -> Normalizer:
        return _normalizer(self.embodiment, "state")

    @cached_property
    def _action(self) -> Normalizer:
        return _normalizer(self.embodiment, "action")

    @property
    def _state_padding(self) -> int:
        return (self.embodiment.state_width or self.embodiment.state_dim) - self.embodiment.state_dim

    @property
    def _action_padding(self) -> int:
        return (self.embodiment.action_width or self.embodiment.action_dim) - self.embodiment.action_dim


def as_learned(embodiment: Embodiment, action: Tensor, state: Tensor) -> Tensor:
    """Actions (..., N, A) of the chunk that begins at `state` (..., S), as statistics see them: not yet scaled."""
    known = _opened(action, embodiment.action).clone()
    mine, theirs = _relative_to(embodiment)
    known[..., mine] -= _opened(state, embodiment.state)[..., None, theirs]
    return known


def opened_state(embodiment: Embodiment, state: Tensor) -> Tensor:
    """States (..., S) as statistics see them: grippers from 0 open to 1 closed."""
    return _opened(state, embodiment.state)


def _relative_to(embodiment: Embodiment) -> tuple[list[int], list[int]]:
    """The relative dimensions of the action, and the dimensions of the state that they are relative to."""
    state = {part.name: indices for part, indices in indexed(embodiment.state)}
    relative = [(part, indices) for part, indices in indexed(embodiment.action) if part.relative]
    return [i for _, indices in relative for i in indices], [i for part, _ in relative for i in state[part.name]]


def _opened(x: Tensor, parts: tuple[Part, ...]) -> Tensor:
    """Raw gripper values -> 0 open, 1 closed."""
    for part, indices in indexed(parts):
        if part.gripper is not None:
            opened, closed = part.gripper
            x = x.clone()
            x[..., list(indices)] = ((x[..., list(indices)] - opened) / (closed - opened)).clamp(0, 1)
    return x


def _closed(x: Tensor, parts: tuple[Part, ...]) -> Tensor:
    """The inverse of `_opened`, in place."""
    for part, indices in indexed(parts):
        if part.gripper is not None:
            opened, closed = part.gripper
            x[..., list(indices)] = opened + x[..., list(indices)] * (closed - opened)
    return x


def _normalizer(embodiment: Embodiment, vector: str) -> Normalizer:
    moments = getattr(embodiment.statistics, vector)
    if embodiment.normalization == "quantiles":
        return Normalizer.from_quantiles(moments)
    return Normalizer.from_mean_std(moments)
