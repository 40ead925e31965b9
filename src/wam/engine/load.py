"""A policy from a folder: the model's config and weights with its tokenizer beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.text import MiniLMTextEncoder
from wam.engine.wam_policy import LoopConfig, Memory, WamPolicy
from wam.world_action_model import Sampler, WorldActionModel

TOKENIZER_FOLDER = "tokenizer"
SHIPPED = Path(__file__).parents[1] / "shipped"  # small models that come with the package


def resolve(checkpoint: Path | str) -> Path:
    """A folder as it is, or the folder of a shipped model. Raises FileNotFoundError naming what there is."""
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    if (SHIPPED / checkpoint).is_dir():
        return SHIPPED / checkpoint
    shipped = sorted(path.name for path in SHIPPED.glob("*/")) if SHIPPED.is_dir() else []
    raise FileNotFoundError(f"{checkpoint}: no such folder, and no shipped model of that name; shipped are {shipped}")


def load_policy(
    checkpoint: Path | str,
    *,
    steps: int = 1,
    solver: Literal["euler", "unipc"] = "euler",
    guidance: float = 1.0,
    video_final: float = 0.0,
    memory: Memory = "slide",
    execute: int | None = None,
    decode_video: bool = False,
    robot: str | None = None,
) -> WamPolicy:
    """Load a folder written by `wam train`, or a shipped model by name; options as in `Sampler` and `LoopConfig`."""
    folder = resolve(checkpoint)
    model = WorldActionModel.from_pretrained(folder)
    tokenizer = NanoTokenizer.from_pretrained(folder / TOKENIZER_FOLDER)
    text_encoder = MiniLMTextEncoder(text_len=model.config.text_len)
    sampler = Sampler(steps=steps, solver=solver, guidance=guidance, video_final=video_final)
    return WamPolicy(model, tokenizer, text_encoder, LoopConfig(sampler, memory, execute, decode_video, robot))
