"""How weights that DreamZero published run: the options of `wam serve` for them, which `wam plan` writes out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

import tyro

from wam.cli.loop import Loop
from wam.engine.load_released import Fit
from wam.engine.released_loop import ReleasedSampler
from wam.engine.released_policy import PolicyConfig

SHARED = ("robot", "decode_video", "device")
"""Options of `Loop` that mean the same for published weights."""
EVERY_STEP = 16


@dataclass(frozen=True)
class Published:
    """Weights that DreamZero published; the defaults are the released server's."""

    steps: int = 16
    """Denoising steps per chunk."""
    calls: int | Literal["dynamic"] | None = None
    """How many of 16 steps ask the network, or "dynamic"; 8 when left out. Of another number of steps all do."""
    guidance: float = 5.0
    """Classifier-free guidance scale; 1 = off, which halves the work."""
    video_final: float = 0.0
    """Noise level at which the video stops (the released option is 0.8); actions always reach 0."""
    frames: Literal[4, 8] = 4
    """Looks per chunk: 4 as the released server takes, or 8 at the rate of the training videos."""
    fit: Annotated[Fit, tyro.conf.arg(name="")] = Fit()

    def policy(self, loop: Loop) -> PolicyConfig:
        calls = self.calls if self.calls is not None else 8 if self.steps == EVERY_STEP else EVERY_STEP
        sampler = ReleasedSampler(self.steps, guidance=self.guidance, video_final=self.video_final, skip=calls)
        sampler.step_cache()  # is it a number that the released code has?
        return PolicyConfig(sampler, frames=self.frames, decode_video=loop.decode_video)


def refuse_foreign(checkpoint: str, loop: Loop, published: Published, ours: bool) -> None:
    """Raises ValueError naming an option that the model would not listen to."""
    said = [*_changed(published, "fit"), *_changed(published.fit)] if ours else _changed(loop, *SHARED)
    for option in said:
        wrong, right = (f"published.{option}", option) if ours else (option, f"published.{option}")
        whose = "a model of `wam train`" if ours else "weights that somebody else published"
        raise ValueError(f"--{wrong}: {checkpoint} is {whose}; such options are --{right} there, if it has them")


def _changed(options: Loop | Published | Fit, *apart: str) -> list[str]:
    """The options that are not at their default, as they are typed; apart: fields that are not asked about."""
    named = (field for field in fields(options) if field.name not in apart)
    return [field.name.replace("_", "-") for field in named if getattr(options, field.name) != field.default]
