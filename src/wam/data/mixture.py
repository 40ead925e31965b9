"""Several data sets in one batch: other robots, other people's recordings, video without actions.

Every batch holds a fixed number of windows of each member, in proportion to the weights, so that what a run has seen
depends on seed and step alone and a resumed run goes on exactly. Ranks share each member's order and take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wam.data.errors import DatasetError
from wam.data.window_sampler import WindowSampler
from wam.data.windows import WindowBatch, WindowIndex, WindowSource, in_model_units
from wam.robot.embodiment import Embodiment
from wam.robot.units import Units


@dataclass(frozen=True)
class Member:
    """One data set of a mixture.

    source: its windows, in robot units.  weight: its part of every batch, relative to the others.
    units: conversions of its robot, whose codec is in `slot`; None for video without actions.  embodiment: whose
    pictures they are, and how a sentence becomes a prompt.  labelled_part: part of its windows that come from episodes
    with actions; None: as often as they come.  encode: makes latents of windows over pictures; None: they have latents.
    """

    name: str
    source: WindowSource
    units: Units | None
    slot: int = 0
    weight: float = 1.0
    embodiment: Embodiment | None = None
    labelled_part: float | None = None
    encode: Callable[[WindowBatch], WindowBatch] | None = None

    def prompt(self, sentence: str) -> str:
        return sentence if self.embodiment is None else self.embodiment.prompt(sentence)


class Mixture:
    """An endless iterator over batches in model units, its members' windows one after the other.

    Args:
        members: at least one; all with the same canvas and chunk.
        batch_size: windows per batch and rank.
        seed, rank, world_size: see `WindowSampler`.

    Raises:
        DatasetError: a member gets no window of a batch, members do not fit each other, or all are video only.
    """

    def __init__(
        self, members: Sequence[Member], batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.members = tuple(members)
        self.counts = shares([member.weight for member in members], batch_size)
        for member, count in zip(self.members, self.counts, strict=True):
            if count == 0:
                raise DatasetError(
                    f"mixture: weight {member.weight:g} of {member.name!r} gives it no window in a batch of "
                    f"{batch_size}; raise its weight or the batch"
                )
        known = [member.units for member in self.members if member.units is not None]
        if not known:
            raise DatasetError("mixture: every member is video only; at least one must have actions")
        self._real = known[0].action_dims
        self._state_width = known[0].embodiment.state_width or known[0].embodiment.state_dim
        self._samplers = {
            (place, name): WindowSampler(member.source, count, seed + 7919 * place + part, rank, world_size, anchors)
            for place, member in enumerate(self.members)
            for part, (name, count, anchors) in enumerate(_parts(member, self.counts[place]))
        }
        starts = torch.tensor([0, *(len(member.source.sentences) for member in self.members)]).cumsum(0)
        self._first_sentence = starts[:-1].tolist()

    def __iter__(self) -> Iterator[WindowBatch]:
        return self

    def __next__(self) -> WindowBatch:
        parts = [self.collate(place, next(sampler)) for (place, _), sampler in self._samplers.items()]
        return parts[0] if len(parts) == 1 else joined(parts)

    def collate(self, place: int, index: WindowIndex) -> WindowBatch:
        """Windows of the member in this place, in model units."""
        member = self.members[place]
        batch = member.source.collate(index)
        if member.encode is not None:
            batch = member.encode(batch)
        batch = replace(batch, text_id=batch.text_id + self._first_sentence[place])
        if member.units is not None:
            return in_model_units(batch, member.units, member.slot)
        return _without_actions(batch, len(self._real), self._state_width, member.slot)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers from which `load_state_dict` goes on."""
        return {name: sampler.state_dict() for (_, name), sampler in self._samplers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError when there are other members; only their names, which are those of folders, may be new."""
        names = [name for _, name in self._samplers]
        if [name.partition("/")[2] for name in state] != [name.partition("/")[2] for name in names]:
            raise ValueError(f"mixture: the saved members are {list(state)}, now they are {names}; keep them to resume")
        for saved, sampler in zip(state.values(), self._samplers.values(), strict=True):
            sampler.load_state_dict(saved)


def prompts_of(members: Sequence[Member]) -> list[str]:
    """What `text_id` counts in a mixture: the prompts of every member's sentences, member by member.

    Where nothing was said the prompt is empty, without the robot's template: no sentence, as the policy reads it.
    """
    return [member.prompt(said) if said else "" for member in members for said in member.source.sentences]


def shares(weights: Sequence[float], batch_size: int) -> list[int]:
    """Whole windows per member that add up to the batch: rounded down, the largest remainders first."""
    if not weights or min(weights) < 0 or sum(weights) <= 0:
        raise DatasetError(f"mixture: weights are {list(weights)}; expected at least one, none negative, not all zero")
    exact = [weight / sum(weights) * batch_size for weight in weights]
    counts = [int(part) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: counts[place] - exact[place])
    for place in by_remainder[: batch_size - sum(counts)]:
        counts[place] += 1
    return counts


def _parts(member: Member, count: int) -> list[tuple[str, int, np.ndarray | None]]:
    """(name, windows per batch, anchors to draw from) for each group of a member's episodes that is drawn by itself."""
    labelled = member.source.labelled_anchors()
    if member.labelled_part is None or len(labelled) == len(member.source):
        return [(member.name, count, None)]
    with_actions, without = shares([member.labelled_part, 1 - member.labelled_part], count)
    if 0.0 < member.labelled_part < 1.0 and 0 in (with_actions, without):
        raise DatasetError(
            f"{member.name}: labelled_part {member.labelled_part} of {count} windows per batch and process is "
            f"{with_actions} with actions and {without} without; give larger batches, or a part of 0 or 1"
        )
    others = np.setdiff1d(np.arange(len(member.source)), labelled)
    parts = [(f"{member.name}/labelled", with_actions, labelled), (f"{member.name}/video", without, others)]
    return [part for part in parts if part[1] > 0]


def joined(parts: Sequence[WindowBatch]) -> WindowBatch:
    """One batch of several. Raises DatasetError naming the field whose shapes do not fit."""
    columns: dict[str, Tensor] = {}
    for field in fields(WindowBatch):
        values = [getattr(part, field.name) for part in parts]
        if all(value is None for value in values):
            continue
        shapes = {tuple(value.shape[1:]) for value in values}
        if len(shapes) != 1:
            raise DatasetError(
                f"mixture: windows differ in {field.name}: {sorted(shapes)}; members need the same canvas, tokenizer "
                "and chunk, and embodiments the same state_width and action_width"
            )
        columns[field.name] = torch.cat(values)
    return WindowBatch(**columns)


def _without_actions(batch: WindowBatch, action_width: int, state_width: int, slot: int) -> WindowBatch:
    """Video only: nothing of what the data set may call state or action is looked at. slot: whose codec reads zeros."""
    count, rows, chunks = len(batch.state), batch.action.shape[1], batch.state.shape[1]
    return replace(
        batch,
        action=torch.zeros(count, rows, action_width),
        state=torch.zeros(count, chunks, state_width),
        has_action=torch.zeros_like(batch.has_action),
        action_dims=torch.zeros(count, action_width, dtype=torch.bool),
        embodiment=torch.full_like(batch.embodiment, slot),
    )
