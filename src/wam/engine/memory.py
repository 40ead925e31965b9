"""What sessions remember, under each of their prompts: real frames as keys and values, and the prompts themselves.

A session has one row per prompt: its sentence, and the empty sentence where guidance asks for it. The rows of several
sessions follow one another, so that one pass of the network serves all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from wam.model.kv_cache import KVCache
from wam.model.transformer import Context, KeyValue


class Twin(Protocol):
    """The memory of a session in another process."""

    @property
    def number(self) -> int: ...

    def copy(self) -> Twin: ...


@dataclass(frozen=True)
class Memory:
    """Rows of prompts (`context`) and of what was seen under them (`cache`); `prompts` rows per session.

    twins: for each session, what another process remembers of it under the other prompt, if guidance is split.
    """

    context: Context
    cache: KVCache
    prompts: int = 1
    twins: tuple[Twin, ...] = ()

    @property
    def branches(self) -> list[Memory]:
        """The same sessions, prompt by prompt, in place: the sentence, then the empty one."""
        rows = [slice(prompt, None, self.prompts) for prompt in range(self.prompts)]
        return [Memory(context_rows(self.context, which), self.cache.rows(which)) for which in rows]

    def copy(self) -> Memory:
        """The same prompts over a copy of what was seen."""
        cache = copy.copy(self.cache)
        cache.keys, cache.values, cache.chunk = (kept.clone() for kept in (cache.keys, cache.values, cache.chunk))
        return replace(self, cache=cache, twins=tuple(twin.copy() for twin in self.twins))

    def session(self, number: int) -> Memory:
        """The rows of one session, in place."""
        which = slice(number * self.prompts, (number + 1) * self.prompts)
        return Memory(context_rows(self.context, which), self.cache.rows(which), self.prompts)


def together(memories: Sequence[Memory], room: KVCache) -> Memory:
    """Several sessions' memories as one; `room`, with a row for each of theirs, receives a copy of their caches."""
    start = 0
    for memory in memories:
        stop = start + len(memory.cache)
        room.rows(slice(start, stop)).load(memory.cache)
        start = stop
    twins = tuple(twin for memory in memories for twin in memory.twins)
    return Memory(join_contexts([memory.context for memory in memories]), room, memories[0].prompts, twins)


def context_rows(context: Context, which: slice) -> Context:
    """Some rows of a context, without a copy."""
    text = [(keys[which], values[which]) for keys, values in context.text]
    image = None if context.image is None else [(keys[which], values[which]) for keys, values in context.image]
    return Context(text, image)


def join_contexts(contexts: Sequence[Context]) -> Context:
    """The rows of all, in order."""
    images = [context.image for context in contexts if context.image is not None]
    return Context(_join([context.text for context in contexts]), _join(images) if images else None)


def _join(blocks: Sequence[Sequence[KeyValue]]) -> list[KeyValue]:
    """Per block, the keys and the values of all contexts."""
    return [
        (torch.cat([keys for keys, _ in block]), torch.cat([values for _, values in block]))
        for block in zip(*blocks, strict=True)
    ]
