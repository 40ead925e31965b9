"""An engine small enough for tests, and what a robot would show it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tests.models import EMBODIMENT, TINY, tiny_model

from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.robot.observation import Observation
from wam.world_action_model import WorldActionConfig


class WordLengths:
    """A text encoder small enough for a test: the length of each word."""

    text_len, text_dim = TINY.text_len, TINY.transformer.text_dim

    def encode(self, prompts: Sequence[str]) -> torch.Tensor:
        out = torch.zeros(len(prompts), self.text_len, self.text_dim)
        for row, prompt in enumerate(prompts):
            for i, word in enumerate(prompt.split()[: self.text_len]):
                out[row, i] = len(word)
        return out


def tiny_engine(config: EngineConfig | None = None, model: WorldActionConfig = TINY) -> Engine:
    """The same weights every time."""
    torch.manual_seed(0)
    sizes = NanoTokenizerConfig(z_channels=4, width=(8, 8), depth=(1, 1), canvas_height=32, canvas_width=32)
    return Engine(tiny_model(model), NanoTokenizer(sizes).eval(), WordLengths(), config)


def looks(count: int, seed: int = 0, instruction: str = "push the button") -> list[Observation]:
    """Pictures and states at random."""
    rng = np.random.default_rng(seed)
    return [
        Observation(
            {"front": rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)},
            rng.normal(size=3).astype(np.float32),
            instruction,
            i / EMBODIMENT.control_hz,
        )
        for i in range(count)
    ]
