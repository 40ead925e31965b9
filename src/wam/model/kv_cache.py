"""What the robot remembers: keys and values of real frames, preallocated and written in place.

Places: [anchor | ring of `memory` chunks | scratch]. A pass writes its own keys into the scratch, attends to everything
in front of and inside it, and, if it was a clean pass, `commit` moves the scratch into the ring over the oldest chunk.
Keys are stored after rotation with their absolute position, so the ring needs no order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from wam.model.attention import ANCHOR, EMPTY, Kind, Layout
from wam.model.config import TransformerConfig


class KVCache:
    """Keys and values for B sessions; memory is bounded by construction."""

    def __init__(
        self,
        config: TransformerConfig,
        batch: int,
        frame_tokens: int,
        *,
        memory: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """frame_tokens: video tokens of one latent frame. memory: chunks in the ring, by default `config.memory`."""
        self.memory = memory or config.memory
        if self.memory is None:
            raise ValueError("a cache needs a bounded memory: give memory=CHUNKS, since the model's config has none")
        self.frame_tokens = frame_tokens
        self.chunk_tokens = frame_tokens * config.frames_per_chunk
        self.kept = frame_tokens + self.memory * self.chunk_tokens
        scratch = self.chunk_tokens + config.actions_per_chunk + 1
        shape = (config.layers, batch, config.heads, self.kept + scratch, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.chunk = torch.full((batch, self.kept), EMPTY, dtype=torch.long, device=device)
        zeros = torch.zeros(self.kept, dtype=torch.long, device=device)
        self._places = Layout(zeros + int(Kind.CLEAN), self.chunk, zeros, zeros, zeros, zeros)

    def reset(self) -> None:
        """Forget everything."""
        self.chunk.fill_(EMPTY)

    def layout_with(self, layout: Layout) -> Layout:
        """The keys that a pass sees: everything kept, then its own tokens."""
        batch = max(self.chunk.shape[0], layout.chunk.shape[0])
        chunk = torch.cat([self.chunk.expand(batch, -1), layout.chunk.expand(batch, -1)], dim=1)
        kind = torch.cat([self._places.kind, layout.kind])
        return replace(self._places, kind=kind, chunk=chunk)

    def extender(self, layer: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """For one layer: put the pass's keys and values (B, H, L, D) into the scratch, return all that it may see."""

        def extend(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
            end = self.kept + key.shape[2]
            if end > self.keys.shape[3]:
                raise ValueError(
                    f"a pass of {key.shape[2]} tokens does not fit the scratch of {self.keys.shape[3] - self.kept}"
                )
            self.keys[layer, :, :, self.kept : end] = key
            self.values[layer, :, :, self.kept : end] = value
            return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

        return extend

    def commit(self, chunk: int) -> None:
        """Keep the clean video of the last pass as this chunk (ANCHOR for the first frame), over the oldest one."""
        count = self.frame_tokens if chunk == ANCHOR else self.chunk_tokens
        assert self.memory is not None
        start = 0 if chunk == ANCHOR else self.frame_tokens + (chunk % self.memory) * self.chunk_tokens
        source, target = slice(self.kept, self.kept + count), slice(start, start + count)
        self.keys[:, :, :, target] = self.keys[:, :, :, source]
        self.values[:, :, :, target] = self.values[:, :, :, source]
        self.chunk[:, target] = chunk
