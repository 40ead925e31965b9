"""What a training run says about itself on held-out episodes: losses, and action error beside constant-hold."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wam.data.mixture import Mixture
from wam.model.attention import ANCHOR
from wam.world_action_model import Sampler, WorldActionModel

WINDOWS = 128


def validate(
    model: WorldActionModel, held_out: Mixture, prompts: Tensor, seed: int = 0
) -> dict[str, float] | dict[str, dict[str, float]]:
    """The scores of the only data set, or those of each by its name."""
    scores = {
        member.name: score(model, held_out, place, prompts, seed) for place, member in enumerate(held_out.members)
    }
    return scores if len(scores) > 1 else next(iter(scores.values()))


@torch.no_grad()
def score(model: WorldActionModel, held_out: Mixture, place: int, prompts: Tensor, seed: int = 0) -> dict[str, float]:
    """Losses and, in units of each action's standard deviation, the root-mean-square error of sampled chunks.

    The same windows, noise and levels every time. `hold` is the error of repeating the mean action of the data, that of
    a policy that never looks.
    """
    rng, source, slot = np.random.default_rng(seed), held_out.members[place].source, held_out.members[place].slot
    chosen = rng.choice(len(source), size=min(WINDOWS, len(source)), replace=False)
    batch = held_out.collate(place, source.windows(np.sort(chosen), rng))
    text = prompts[batch.text_id]
    losses = model.loss(batch, text, torch.Generator().manual_seed(seed))
    scores = {"video": losses.video.item(), "action": losses.action.item()}
    usable = batch.loss_valid[:, 0] & batch.action_valid[:, 0].all(-1) & batch.has_action
    if not bool(usable.any()):
        return scores
    wanted = batch.action[usable, : batch.action_valid.shape[-1]]
    cache = model.new_cache(batch=int(usable.sum()))
    context = model.context(text[usable])
    model.remember(cache, context, batch.anchor[usable], ANCHOR)
    for steps in (1, 4):
        generator = torch.Generator().manual_seed(seed)
        out = model.denoise(
            cache, context, batch.state[usable, 0], 0, Sampler(steps=steps), generator, batch.anchor[usable], slot=slot
        )
        scores[f"action_error_{steps}"] = (out.action.float() - wanted).square().mean().sqrt().item()
    scores["action_error_hold"] = wanted.square().mean().sqrt().item()
    return scores
