"""What the robot remembers: keys and values of real frames, preallocated and written in place.

Places: [anchor | ring of `memory` chunks | scratch]. A pass writes its own keys into the scratch, attends to everything
in front of and inside it, and, if it was a clean pass, `commit` moves the scratch into the ring over the oldest chunk.
Keys are stored after rotation with their absolute position, so the ring needs no order.

Rows are sessions (or prompts of one): each has its own place in time. `rows` looks at some of them without a copy,
`load` and `take` move memories between a session's own cache and one in which several sessions run together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from wam.model.attention import ANCHOR, EMPTY, Kind, Layout
from wam.model.config import TransformerConfig


class KVCache:
    """Keys and values for B rows; memory is bounded by construction."""

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        frame_tokens: int,
        *,
        memory: int | None = None,
        joint: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """frame_tokens: video tokens of one latent frame.  memory: chunks in the ring, by default `config.memory`.

        joint: room for passes that remember one chunk and denoise the next (`passes.joined`).
        """
        memory = config.memory if memory is None else memory
        if memory is None:
            raise ValueError("a cache needs a bounded memory: give memory=CHUNKS, since the model's config has none")
        if memory < 1:
            raise ValueError(f"memory={memory}: a cache has room for one chunk at least")
        self.memory = memory
        self.frame_tokens = frame_tokens
        self.chunk_tokens = frame_tokens * config.frames_per_chunk
        self.kept = frame_tokens + self.memory * self.chunk_tokens
        scratch = (2 if joint else 1) * self.chunk_tokens + config.actions_per_chunk + 1
        shape = (config.layers, batch, config.heads, self.kept + scratch, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.chunk = torch.full((batch, self.kept), EMPTY, dtype=torch.long, device=device)

    def __len__(self) -> int:
        return self.keys.shape[1]

    @property
    def groups(self) -> tuple[int, ...]:
        """Tokens of each place in front of the scratch: the anchor, then chunk by chunk."""
        return (self.frame_tokens, *[self.chunk_tokens] * self.memory)

    def rows(self, which: slice) -> KVCache:
        """Some of the rows, in place: what is written there is written here."""
        seen = copy.copy(self)
        seen.keys, seen.values, seen.chunk = self.keys[:, which], self.values[:, which], self.chunk[which]
        return seen

    def reset(self) -> None:
        """Forget everything."""
        self.chunk.fill_(EMPTY)

    def layout_with(self, layout: Layout) -> Layout:
        """The keys that a pass sees: everything kept, then its own tokens."""
        batch = max(len(self), layout.chunk.shape[0])
        chunk = torch.cat([self.chunk.expand(batch, -1), layout.chunk.expand(batch, -1)], dim=1)
        nothing = torch.zeros(self.kept, dtype=torch.long, device=self.chunk.device)
        kept = Layout(nothing + int(Kind.CLEAN), self.chunk, nothing, nothing, nothing, nothing)
        return replace(kept, kind=torch.cat([kept.kind, layout.kind]), chunk=chunk)

    def extender(self, layer: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """For one layer: put the pass's keys and values (B, H, L, D) into the scratch, return all that it may see."""

        keys, values, start = self.keys[layer], self.values[layer], self.kept

        def extend(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            end = start + key.shape[2]
            if end > keys.shape[2]:
                raise ValueError(f"a pass of {key.shape[2]} tokens does not fit the scratch of {keys.shape[2] - start}")
            keys[:, :, start:end] = key
            values[:, :, start:end] = value
            return keys[:, :, :end], values[:, :, :end]

        return extend

    def commit(self, chunk: int | Sequence[int]) -> None:
        """Keep the clean video of the last pass as this chunk (ANCHOR for the first frame), over the oldest one.

        chunk: its number, or one for each row.
        """
        if isinstance(chunk, int):
            target = self._places(chunk)
            source = slice(self.kept, self.kept + target.stop - target.start)
            self.keys[:, :, :, target] = self.keys[:, :, :, source]
            self.values[:, :, :, target] = self.values[:, :, :, source]
            self.chunk[:, target] = chunk
            return
        for row, number in enumerate(chunk):
            self.rows(slice(row, row + 1)).commit(number)

    def load(self, other: KVCache) -> None:
        """Become a copy of what as many rows of another cache remember."""
        self.keys[:, :, :, : self.kept] = other.keys[:, :, :, : self.kept]
        self.values[:, :, :, : self.kept] = other.values[:, :, :, : self.kept]
        self.chunk.copy_(other.chunk)

    def take(self, other: KVCache, chunk: int) -> None:
        """Copy one chunk, or the anchor, from as many rows of another cache; the anchor begins a new memory."""
        if chunk == ANCHOR:
            self.reset()
        places = self._places(chunk)
        self.keys[:, :, :, places] = other.keys[:, :, :, places]
        self.values[:, :, :, places] = other.values[:, :, :, places]
        self.chunk[:, places] = chunk

    def _places(self, chunk: int) -> slice:
        """Where a chunk lies in front of the scratch."""
        if chunk == ANCHOR:
            return slice(0, self.frame_tokens)
        start = self.frame_tokens + (chunk % self.memory) * self.chunk_tokens
        return slice(start, start + self.chunk_tokens)
