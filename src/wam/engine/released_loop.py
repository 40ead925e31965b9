"""The closed loop exactly as DreamZero's released code runs it, so that its weights give its numbers.

It differs from `WorldActionModel.denoise` in what the released network was used with: the first frame's latents beside
the noisy ones (`FirstFrame`), image features, timesteps cut to whole numbers, states that read what their actions read,
guidance against a negative prompt on the video alone, and steps that repeat the last velocity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from wam.engine.guidance import batched
from wam.engine.memory import join_contexts
from wam.engine.step_cache import RELEASED_STEPS, CosineSteps, FixedSteps, Levels, StepCache
from wam.flow.sampler import Imagined, integrate
from wam.flow.solvers import UniPC, unipc_schedule
from wam.model.attention import ANCHOR, Layout
from wam.model.kv_cache import KVCache
from wam.model.passes import chunk_pass, chunk_sigma, clean_pass
from wam.model.transformer import Context, Geometry, Pass, Transformer, Velocity
from wam.world_action_model import Network, VelocityOf

NEGATIVE_PROMPT = (
    "Vibrant colors, overexposed, static, blurry details, text, subtitles, style, artwork, painting, image, still, "
    "grayscale, dull, worst quality, low quality, JPEG artifacts, ugly, mutilated, extra fingers, bad hands, bad face, "
    "deformed, disfigured, mutated limbs, fused fingers, stagnant image, cluttered background, three legs, many people "
    "in the background, walking backwards."
)
"""What the released sampler guides away from (Wan's)."""


@dataclass(frozen=True)
class ReleasedSampler:
    """How the released code denoises a chunk.

    skip: how many of 16 steps ask the network (a key of `RELEASED_STEPS`), or "dynamic" for the cosine rule.
    video_final: noise level at which the video stops ("decouple_inference_noise" uses 0.8); actions always reach 0.
    """

    steps: int = 16
    shift: float = 5.0
    guidance: float = 5.0
    video_final: float = 0.0
    skip: int | Literal["dynamic"] = 8

    def step_cache(self) -> StepCache:
        if self.skip == "dynamic":
            return StepCache(CosineSteps(), order=0)
        if self.skip not in RELEASED_STEPS:
            raise ValueError(f"skip={self.skip!r}: expected 'dynamic' or one of {sorted(RELEASED_STEPS)}")
        return StepCache(FixedSteps(RELEASED_STEPS[self.skip]), order=0)


@dataclass(frozen=True)
class ReleasedChunk:
    """video (B, z, K, h, w) and action (B, N, A), both in model units; steps_run: the steps that asked the network."""

    video: Tensor
    action: Tensor
    steps_run: tuple[int, ...]


class ReleasedLoop:
    """One session: `remember` real latents, `denoise` the next chunk. The caller resets by making a new loop."""

    def __init__(
        self,
        transformer: Transformer,
        prompts: list[Context],
        grid: tuple[int, int],
        sampler: ReleasedSampler | None = None,
        first_frame: Tensor | None = None,
        network: Network | None = None,
    ) -> None:
        """prompts: positive, then negative unless guidance is 1. grid: rows and columns of video tokens per frame.

        first_frame: (1, 20, F, h, w), mask and latents that go beside the noisy ones, by latent frame; None without.
        network: what runs in place of the transformer, a compiled one for instance.
        """
        self.transformer, self.grid, self.first_frame = transformer.eval(), grid, first_frame
        self.sampler, self.network = sampler or ReleasedSampler(), network or transformer
        weight, frame_tokens = transformer.patch_embedding.weight, grid[0] * grid[1]
        self.context = join_contexts(prompts)
        self.cache = KVCache(transformer.config, len(prompts), frame_tokens, dtype=weight.dtype, device=weight.device)
        self._known: list[tuple[Layout, Geometry]] = []  # of the last layout over what is remembered
        expected = 1 if self.sampler.guidance == 1.0 else 2
        if len(prompts) != expected:
            raise ValueError(
                f"found {len(prompts)} prompts; guidance={self.sampler.guidance} needs {expected} (positive, negative)"
            )

    @torch.no_grad()
    def remember(self, latents: Tensor, chunk: int) -> None:
        """Write real frames: the anchor (1, z, 1, h, w) as chunk ANCHOR, later two latent frames per chunk."""
        seen = self._beside(latents, chunk).expand(len(self.cache), -1, -1, -1, -1)
        self._ask(0, clean_pass(seen, chunk, self.transformer.config, self.grid))
        self.cache.commit(chunk)
        self._known.clear()

    @torch.no_grad()
    def denoise(self, video: Tensor, action: Tensor, state: Tensor, chunk: int) -> ReleasedChunk:
        """From noise (1, z, K, h, w) and (1, N, A) and the normalised state (1, 1, S) to the chunk; the cache stays."""
        s, c = self.sampler, self.transformer.config
        solvers = tuple(UniPC(unipc_schedule(s.steps, s.shift, end)) for end in (s.video_final, 0.0))
        told = tuple(whole_timestep(solver.sigmas) for solver in solvers)
        first = chunk_pass(self._beside(video, chunk), action, state, (told[0][0], told[1][0]), chunk, c, self.grid)
        sigma = chunk_sigma(told[0], told[1], c.frames_per_chunk).to(video.device)
        velocity = s.step_cache().over(self.velocity(), Levels(told[0].tolist(), told[1].tolist()))

        def answer(step: int, video: Tensor | None, action: Tensor) -> tuple[Tensor | None, Tensor | None]:
            assert video is not None
            levels = sigma[step].expand(len(action), -1)
            inputs = replace(first, sigma=levels, video=self._beside(video, chunk), action=action)
            v = velocity(step, inputs)
            return v.video, v.action

        done = integrate(Imagined(video, action), (solvers[0], solvers[1]), answer)
        assert done.video is not None
        return ReleasedChunk(done.video, done.action, tuple(velocity.steps_run))

    def velocity(self) -> VelocityOf:
        """Of a denoising step, guided where there are two prompts, both in one pass; the memory is only read."""
        return self._ask if len(self.cache) == 1 else batched(self._ask, self.sampler.guidance)

    def _ask(self, step: int, inputs: Pass) -> Velocity:
        """The network under every prompt, a row each; all have seen the same frames."""
        if not self._known or self._known[0][0] is not inputs.layout:
            geometry = self.transformer.geometry(inputs.layout, self.cache, state_reads=inputs.state is not None)
            self._known[:] = [(inputs.layout, geometry)]
        return self.network(inputs, self.context, self.cache, geometry=self._known[0][1])

    def _beside(self, video: Tensor, chunk: int) -> Tensor:
        """Put the first frame's channels beside those of the video, at the chunk's latent frames."""
        start = 0 if chunk == ANCHOR else 1 + chunk * self.transformer.config.frames_per_chunk
        return beside(video, self.first_frame, start)


def beside(video: Tensor, first_frame: Tensor | None, start: int) -> Tensor:
    """Video (B, z, F, h, w) whose first latent frame is `start`, with the channels of first_frame beside it, if any.

    Beyond the frames that first_frame has, its last ones (the released rule).
    """
    if first_frame is None:
        return video
    frames = video.shape[2]
    start = min(start, first_frame.shape[2] - frames)
    return torch.cat([video, first_frame[: video.shape[0], :, start : start + frames]], dim=1)


def whole_timestep(sigma: Tensor) -> Tensor:
    """The level that the released network is told: its timestep 1000 sigma is cut to a whole number."""
    return torch.floor(1000 * sigma) / 1000
