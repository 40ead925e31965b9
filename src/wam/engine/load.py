"""A policy from a folder: the model's config and weights with its tokenizer beside them, or an adapter to a base."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from wam.checkpoints.model_folder import SHIPPED, load_model, tokenizer_of
from wam.checkpoints.source import REPOSITORY
from wam.checkpoints.source import resolve as resolve_source
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.text import MiniLMTextEncoder
from wam.engine.compiled import Compile
from wam.engine.config import EngineConfig
from wam.engine.engine import Engine
from wam.engine.guidance import GuidanceMode
from wam.engine.quantize import Weights, quantize
from wam.engine.split_process import partner_of, start_partner
from wam.engine.step_cache import step_cache_of
from wam.engine.wam_policy import WamPolicy
from wam.flow.sampler import Sampler


def resolve(checkpoint: Path | str) -> Path:
    """A folder as it is, that of a shipped model, or of a Hub id ("owner/name", "owner/name@revision"), fetched once.

    Raises FileNotFoundError naming what there is, and SourceNotFoundError when the Hub does not deliver.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    if (SHIPPED / checkpoint).is_dir():
        return SHIPPED / checkpoint
    if REPOSITORY.match(str(checkpoint).partition("@")[0]) and not folder.exists():
        return resolve_source(str(checkpoint)).folder
    shipped = sorted(path.name for path in SHIPPED.glob("*/")) if SHIPPED.is_dir() else []
    raise FileNotFoundError(
        f"{checkpoint}: no such folder, no shipped model of that name (these are {shipped}), and no Hub id, which "
        "would be owner/name"
    )


def load_policy(
    checkpoint: Path | str,
    *,
    steps: int = 1,
    solver: Literal["euler", "unipc"] = "euler",
    shift: float = 1.0,
    guidance: float = 1.0,
    video_final: float = 0.0,
    temperature: float = 1.0,
    memory: Literal["slide", "none"] = "slide",
    execute: int | None = None,
    decode_video: bool = False,
    robot: str | None = None,
    guidance_mode: GuidanceMode = "batched",
    step_cache: str | None = None,
    weights: Weights = "float32",
    joint_pass: bool = True,
    compile: Compile = "off",
    device: str = "cpu",
) -> WamPolicy:
    """Load a folder written by `wam train`, a Hub id, or a shipped model by name.

    Options as in `Sampler` and `EngineConfig`.  guidance_mode: "split" starts a second process, on a GPU of its own if
    device is one.  step_cache: see `step_cache_of`.  weights: see `quantize`.  device: of the model and its tokenizer,
    which come there before weights are made smaller or anything is compiled; the text encoder stays on the CPU.
    """
    folder = resolve(checkpoint)
    model = load_model(folder).to(device)
    quantize(model.transformer, weights)
    tokenizer = NanoTokenizer.from_pretrained(tokenizer_of(folder)).to(device)
    text_encoder = MiniLMTextEncoder(text_len=model.config.text_len)
    sampler = Sampler(
        steps=steps,
        solver=solver,
        shift=shift,
        guidance=guidance,
        video_final=video_final,
        temperature=temperature,
    )
    config = EngineConfig(
        sampler=sampler,
        memory=memory,
        execute=execute,
        decode_video=decode_video,
        robot=robot,
        joint_pass=joint_pass,
        compile=compile,
        guidance_mode=guidance_mode,
        step_cache=None if step_cache is None else step_cache_of(step_cache),
    )
    partner = None
    if guidance_mode == "split":
        partner = start_partner(folder, device=partner_of(device), weights=weights, joint=config.joint_pass)
    return WamPolicy(Engine(model, tokenizer, text_encoder, config, partner))
