"""Remember and denoise in one pass: real frames go through the network together with the first step of the next chunk.

Training does the same (clean and noisy video side by side, under the mask of `attention.visible`), so the numbers stay
what they are. It pays where a pass costs the same whatever it carries: on small models, whose time goes into reading
weights and starting kernels, a chunk of one denoising step costs one pass instead of two.
"""

from __future__ import annotations

from collections.abc import Sequence

from wam.model.kv_cache import KVCache
from wam.model.passes import joined
from wam.model.transformer import Pass, Velocity
from wam.world_action_model import VelocityOf


def remembering(velocity: VelocityOf, seen: Pass, cache: KVCache, chunk: int | Sequence[int]) -> VelocityOf:
    """`velocity`, whose first step also remembers.

    seen: the clean pass of what was seen, with as many rows as the passes that are asked about.  cache: which
    `velocity` reads, made with `joint=True`.  chunk: what was seen, for `KVCache.commit`.
    """

    def ask(step: int, inputs: Pass) -> Velocity:
        if step > 0:
            return velocity(step, inputs)
        answer = velocity(step, joined(seen, inputs))
        cache.commit(chunk)
        return answer

    return ask
