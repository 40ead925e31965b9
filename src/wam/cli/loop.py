"""The options of a policy's loop, shared by the verbs that run one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wam.engine.quantize import Weights


@dataclass(frozen=True)
class Loop:
    """How a trained policy runs; passed to `wam.engine.load_policy`."""

    steps: int = 1
    """Denoising steps per chunk."""
    solver: Literal["euler", "unipc"] = "euler"
    shift: float = 1.0
    """Moves the noise levels of the steps towards noise; the released sampler is unipc with 5."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 = off."""
    video_final: float = 0.0
    """Noise level at which the video stops: 0 = dream in full, 1 = leave it noise and denoise the actions only."""
    temperature: float = 1.0
    """Scale of the noise that actions begin as; 0 leaves none of it in the actions of a single step."""
    memory: Literal["slide", "none"] = "slide"
    """"slide" remembers the last chunks, "none" starts anew from the present frame at every chunk."""
    execute: int | None = None
    """Control steps to execute of every chunk; the whole chunk when left out."""
    decode_video: bool = False
    """Decode the dream into pictures, so that films show it (slower)."""
    robot: str | None = None
    """Which of the robots that the model knows; the first when left out."""
    joint_pass: bool = True
    """Remember what was seen in the pass of the first denoising step."""
    compile: Literal["off", "blocks", "whole"] = "off"
    """Run the network through torch.compile: block by block (seconds to compile) or as a whole (a minute, faster)."""
    guidance_mode: Literal["sequential", "batched", "split"] = "batched"
    """The two passes of guidance: one after the other, as one batch, or split over two processes."""
    step_cache: str | None = None
    """Steps at which the network is not asked: "cosine", "error", "error=0.02", or the steps to run, "0,1,2,6,10"."""
    weights: Weights = "float32"
    """Format of the network's weights."""
    device: str = "cpu"
    """Where the network runs, such as cuda."""
