"""The World Action Model behind the policy: from a base, or from a checkpoint that LeRobot wrote.

A checkpoint holds, besides LeRobot's own files, `world_action_model.json` (what rebuilds the network) and `tokenizer/`,
so that it needs no base any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from lerobot_policy_wam.configuration_wam import WamConfig
from wam.checkpoints.model_folder import TOKENIZER, load_model, read_config, tokenizer_of
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.text import MiniLMTextEncoder, TextEncoder, text_features
from wam.engine.load import resolve
from wam.world_action_model import WorldActionConfig, WorldActionModel

WORLD = "world_action_model.json"


@dataclass(frozen=True)
class World:
    """A model, and what stays frozen around it."""

    model: WorldActionModel
    tokenizer: NanoTokenizer
    text_encoder: MiniLMTextEncoder

    @classmethod
    def from_base(cls, config: WamConfig) -> World:
        folder = resolve(config.base)
        model = load_model(folder) if config.initial == "base" else WorldActionModel(read_config(folder))
        return cls._around(model, tokenizer_of(folder))

    @classmethod
    def from_checkpoint(cls, folder: Path) -> World:
        """With weights that are still to be loaded. Raises FileNotFoundError naming the file that is missing."""
        path = folder / WORLD
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not there; expected a checkpoint that lerobot-train wrote of this policy")
        config = WorldActionConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
        return cls._around(WorldActionModel(config), folder / TOKENIZER)

    @classmethod
    def _around(cls, model: WorldActionModel, tokenizer: Path) -> World:
        return cls(model, NanoTokenizer.from_pretrained(tokenizer), MiniLMTextEncoder(text_len=model.config.text_len))

    @property
    def senses(self) -> Senses:
        return Senses(self.tokenizer.requires_grad_(False).eval(), self.text_encoder)

    def save_beside(self, folder: Path) -> None:
        """What LeRobot's own files lack."""
        (folder / WORLD).write_text(json.dumps(self.model.config.to_dict(), indent=2), encoding="utf-8")
        self.tokenizer.save_pretrained(folder / TOKENIZER)

    def save(self, folder: Path) -> None:
        """As `wam train` does: for `wam eval`, `wam serve` and `load_policy`."""
        self.tokenizer.save_pretrained(folder / TOKENIZER)
        self.model.save_pretrained(folder)


@dataclass(frozen=True)
class Senses:
    """What turns pictures and sentences into what the model knows. Frozen, and no part of a checkpoint's weights."""

    tokenizer: NanoTokenizer
    text_encoder: TextEncoder

    def text(self, sentences: list[str], dropout: float, generator: torch.Generator) -> torch.Tensor:
        """(B, Lt, text_dim); this share of them left out."""
        keep = torch.rand(len(sentences), generator=generator) >= dropout
        return text_features(self.text_encoder, sentences) * keep[:, None, None]
