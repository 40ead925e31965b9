"""How an engine runs: every saving is an option of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wam.engine.compiled import Compile
from wam.engine.guidance import GuidanceMode
from wam.engine.split import Partner
from wam.engine.step_cache import StepCache
from wam.flow.sampler import Sampler
from wam.robot.embodiment import Embodiment
from wam.world_action_model import WorldActionConfig


@dataclass(frozen=True)
class EngineConfig:
    """How an engine runs.

    memory: "slide" keeps the anchor and the last chunks; "none" starts anew from the present frame at every chunk.
    execute: control steps to execute before looking again; None = the whole chunk. "slide" needs the whole chunk.
    decode_video: decode the dream into pictures (costs time; the actions do not need it).
    robot: which of the embodiments that the model knows; the first when left out.
    joint_pass: remember in the pass of the first denoising step; see `joint_pass.py`.
    compile: run the transformer through torch.compile; see `compiled.py`. The first steps then take long (`warm_up`).
    guidance_mode: how the two passes of guidance are computed; see `guidance.py`. "split" needs a partner.
    step_cache: continue velocities on some steps instead of asking the network; see `step_cache.py`.
    """

    sampler: Sampler = Sampler()
    memory: Literal["slide", "none"] = "slide"
    execute: int | None = None
    decode_video: bool = False
    robot: str | None = None
    joint_pass: bool = True
    compile: Compile = "off"
    guidance_mode: GuidanceMode = "batched"
    step_cache: StepCache | None = None

    @property
    def slides(self) -> bool:
        return self.memory == "slide"

    def steps_of(self, robot: Embodiment) -> int:
        """Control steps to execute of every chunk."""
        return robot.actions_per_chunk if self.execute is None else self.execute

    def check(self, model: WorldActionConfig, robot: Embodiment, partner: Partner | None) -> None:
        """Raises ValueError for what contradicts itself, the model or the robot."""
        if (self.guidance_mode == "split") != (partner is not None):
            raise ValueError(
                f"guidance_mode={self.guidance_mode!r} with partner={partner}: a partner "
                "(`split_process.start_partner`) and guidance_mode='split' go together"
            )
        if self.sampler.guidance != 1.0 and not model.dream:
            raise ValueError(
                f"guidance={self.sampler.guidance:g}: it guides the video, and this model was trained on actions alone "
                "(dream=False); leave it at 1"
            )
        if self.slides and not model.transformer.autoregressive:
            raise ValueError(
                "memory='slide': this model is bidirectional (autoregressive=False) and sees no remembered chunk; use "
                "memory='none'"
            )
        steps, whole = self.steps_of(robot), robot.actions_per_chunk
        if self.slides and steps != whole:
            raise ValueError(
                f"execute={steps}: a sliding memory takes whole chunks of {whole} steps; use memory='none' to replan "
                "earlier"
            )
        if not 1 <= steps <= whole:
            raise ValueError(f"execute={steps}: a chunk has 1 to {whole} steps")
