"""Classifier-free guidance as wrappers of the velocity: two passes in turn, one pass over two rows, two processes.

All give v = v_none + scale (v_prompt - v_none) on the video; actions follow the prompt alone (`guided`). "split" asks
another process, see `split.py`; it computes what "in turn" computes, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

from torch import Tensor

from wam.model.attention import Layout
from wam.model.transformer import Pass, Velocity
from wam.world_action_model import VelocityOf, guided

GuidanceMode = Literal["sequential", "batched", "split"]


class Elsewhere(Protocol):
    """Something that computes velocities of a video at the same time as we do."""

    def begin(self, inputs: Pass) -> Callable[[], Tensor | None]:
        """Start on a pass; calling what comes back waits for the velocity of its video (None without video)."""


def in_turn(prompted: VelocityOf, unprompted: VelocityOf, scale: float) -> VelocityOf:
    """Two passes, one after the other."""
    return lambda step, inputs: guided(prompted(step, inputs), unprompted(step, inputs), scale)


def batched(both: VelocityOf, scale: float) -> VelocityOf:
    """One pass. both: over rows of which two belong to each of ours, under its sentence and under the empty one."""
    known: list[tuple[Layout, Layout]] = []  # the last layout and its double: all steps of a chunk have the same

    def ask(step: int, inputs: Pass) -> Velocity:
        if not known or known[0][0] is not inputs.layout:
            known[:] = [(inputs.layout, _twice(inputs.layout))]
        answer = both(step, doubled(inputs, known[0][1]))
        return guided(_every_second(answer, 0), _every_second(answer, 1), scale)

    return ask


def split(prompted: VelocityOf, unprompted: Elsewhere, scale: float) -> VelocityOf:
    """Two passes at the same time."""

    def ask(step: int, inputs: Pass) -> Velocity:
        wait = unprompted.begin(inputs)
        answer = prompted(step, inputs)
        return guided(answer, Velocity(wait(), None), scale)

    return ask


def doubled(inputs: Pass, layout: Layout) -> Pass:
    """Every row twice, one after the other. layout: of the result."""
    names = ("sigma", "embodiment", "video", "action", "state")
    rows = {name: tensor.repeat_interleave(2, 0) for name in names if (tensor := getattr(inputs, name)) is not None}
    return replace(inputs, layout=layout, **rows)


def _twice(layout: Layout) -> Layout:
    """Rows that agree are one row, and stay so."""
    return layout if len(layout.chunk) == 1 else replace(layout, chunk=layout.chunk.repeat_interleave(2, 0))


def _every_second(velocity: Velocity, first: int) -> Velocity:
    video, action = velocity.video, velocity.action
    return Velocity(None if video is None else video[first::2], None if action is None else action[first::2])
