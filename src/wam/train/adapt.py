"""What of a model learns: everything, adapters, or the heads; and of the codecs only those of the run's robots.

full    every weight
lora    adapters on the projections and feed-forward layers of every block (the released targets)
heads   the head of the video
each with the codec (state and action encoder, action decoder) of the robots that are asked for. Codecs of other robots
are constants: no gradient, no weight decay and no video-only window can move them, whatever else learns.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wam.checkpoints.lora import Adapter, LoraConfig, add_lora
from wam.model.codec import EmbodimentLinear
from wam.train.config import AdaptConfig
from wam.world_action_model import WorldActionModel

CODECS = ("state_encoder", "action_encoder", "action_decoder")
HEADS = (*CODECS, "head")


def choose_what_learns(model: WorldActionModel, config: AdaptConfig, slots: Collection[int]) -> Adapter | None:
    """Leave `requires_grad` on what learns; slots: robots whose codecs do. Returns the adapter, if there is one."""
    transformer, adapter = model.transformer, None
    if config.what == "lora":
        adapter = add_lora(transformer, LoraConfig(config.rank, config.alpha, full=CODECS))
    elif config.what == "heads":
        transformer.requires_grad_(False)
        for name in HEADS:
            transformer.get_submodule(name).requires_grad_(True)
    if set(slots) != set(range(transformer.config.embodiments)):
        for layer in _codec_layers(transformer):
            for name in ("weight", "bias"):
                parametrize.register_parametrization(layer, name, SomeSlots(getattr(layer, name), sorted(slots)))
    return adapter


def whole_codecs(model: WorldActionModel) -> None:
    """Put codecs of which some slots learned together again, in place: plain weights of all robots."""
    for layer in _codec_layers(model.transformer):
        for name in ("weight", "bias"):
            if parametrize.is_parametrized(layer, name):
                parametrize.remove_parametrizations(layer, name)


class SomeSlots(nn.Module):
    """A weight of all robots, (E, ...), of which only those in `slots` are parameters, (e, ...)."""

    slots: Tensor
    fixed: Tensor

    def __init__(self, weight: Tensor, slots: list[int]) -> None:
        super().__init__()
        self.register_buffer("slots", torch.tensor(slots))
        self.register_buffer("fixed", weight.detach().clone())

    def forward(self, learned: Tensor) -> Tensor:
        return self.fixed.to(learned.dtype).index_copy(0, self.slots, learned)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight[self.slots]


def _codec_layers(transformer: nn.Module) -> list[EmbodimentLinear]:
    return [layer for layer in transformer.modules() if isinstance(layer, EmbodimentLinear)]
