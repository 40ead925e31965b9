"""The World Action Model: one network that imagines the next chunk of video and chooses the actions in it.

Loss and sampler stand side by side. Training sees whole windows through a mask (`loss`); acting sees one chunk over a
cache of real frames (`remember`, then `denoise`). Imagined frames never enter the cache.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wam.flow.noise import NoiseConfig, interpolate, loss_weight, sample_levels, target_velocity
from wam.flow.solvers import Euler, Solver, UniPC, sigma_schedule, unipc_schedule
from wam.model.attention import ANCHOR, Kind, Layout, concatenate, step_layout, video_layout
from wam.model.config import TransformerConfig
from wam.model.kv_cache import KVCache
from wam.model.transformer import Context, Pass, Transformer, Velocity
from wam.robot.embodiment import Embodiment
from wam.robot.units import Units


@dataclass(frozen=True)
class WorldActionConfig:
    """Everything that rebuilds the model around its weights.

    embodiments: the robots it knows, with the statistics of their numbers; a robot's place is the slot of its codec.
    latent: (channels, height, width) of one latent frame.  dream: False trains and runs the same network on actions
    alone, without noisy video tokens (the "BC" control).  video_weight: of the video loss, the action loss has 1.
    see_previous: every noisy frame is given the last real frame before its chunk as further channels (as image-to-video
    models are given the first frame), so that what stands still need not be imagined; clean frames get zeros there.
    """

    transformer: TransformerConfig
    embodiments: tuple[Embodiment, ...]
    latent: tuple[int, int, int]
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    dream: bool = True
    video_weight: float = 0.3
    text_len: int = 16
    see_previous: bool = False

    def __post_init__(self) -> None:
        expected = self.latent[0] * (2 if self.see_previous else 1)
        if self.transformer.in_channels != expected:
            raise ValueError(
                f"config: transformer.in_channels is {self.transformer.in_channels}, but latents of {self.latent[0]} "
                f"channels with see_previous={self.see_previous} need {expected}"
            )
        if self.transformer.embodiments != len(self.embodiments):
            raise ValueError(
                f"config: transformer.embodiments is {self.transformer.embodiments}, but embodiments lists "
                f"{[robot.name for robot in self.embodiments]}"
            )
        for robot in self.embodiments:
            _check_fits(robot, self.transformer)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of video tokens in one latent frame."""
        return self.latent[1] // self.transformer.patch, self.latent[2] // self.transformer.patch

    def slot(self, name: str | None = None) -> int:
        """The codec of a robot; without a name, of the first. Raises ValueError naming those there are."""
        names = [robot.name for robot in self.embodiments]
        if name is None:
            return 0
        if name not in names:
            raise ValueError(f"robot {name!r} is not among those this model knows: {names}")
        return names.index(name)

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "embodiments": [robot.to_dict() for robot in self.embodiments]}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> WorldActionConfig:
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(f"config.json: unknown field {unknown[0]!r}; known fields are {sorted(known)}")
        return cls(
            **{
                **fields,
                "transformer": TransformerConfig(**fields["transformer"]),
                "embodiments": tuple(
                    Embodiment.from_dict(robot, "config.json: embodiments") for robot in fields["embodiments"]
                ),
                "latent": tuple(fields["latent"]),
                "noise": NoiseConfig(**fields["noise"]),
            }
        )


class Windows(Protocol):
    """A batch of training windows of up to M chunks, as `wam.data.windows` delivers them (model units).

    anchor (B, z, 1, h, w); video (B, z, M K, h, w); action (B, M N, A); state (B, M, S).
    chunk_index (B, M): number of each chunk since the anchor.  chunk_valid (B, M): the window reaches that far.
    loss_valid (B, M): the chunk's present is in the context.  video_valid (B, M K), action_valid (B, M, N): what really
    exists, rather than repeats the end of the episode.
    has_action (B,): False for video without actions.  embodiment (B,): slot of the robot.  action_dims (B, A): which
    dimensions are that robot's, rather than padding.
    """

    @property
    def anchor(self) -> Tensor: ...
    @property
    def video(self) -> Tensor: ...
    @property
    def action(self) -> Tensor: ...
    @property
    def state(self) -> Tensor: ...
    @property
    def chunk_index(self) -> Tensor: ...
    @property
    def chunk_valid(self) -> Tensor: ...
    @property
    def loss_valid(self) -> Tensor: ...
    @property
    def video_valid(self) -> Tensor: ...
    @property
    def action_valid(self) -> Tensor: ...
    @property
    def has_action(self) -> Tensor: ...
    @property
    def embodiment(self) -> Tensor: ...
    @property
    def action_dims(self) -> Tensor: ...


@dataclass(frozen=True)
class Losses:
    """total = action + video_weight * video; the parts are mean squared velocity errors."""

    total: Tensor
    video: Tensor
    action: Tensor


@dataclass(frozen=True)
class Sampler:
    """How a chunk is denoised.

    steps: network calls.  solver: "euler" or "unipc" (with the released schedule).
    guidance: 1 = off, else v = v_none + guidance (v_prompt - v_none) on the video; actions follow the prompt alone.
    video_final: noise level at which the video stops; 0 = fully imagined, 1 = stays pure noise.
    shift: moves the levels of both towards noise.
    """

    steps: int = 4
    solver: Literal["euler", "unipc"] = "euler"
    guidance: float = 1.0
    video_final: float = 0.0
    shift: float = 1.0

    def solvers(self, device: torch.device) -> tuple[Solver, Solver]:
        """Fresh solvers for (video, actions)."""
        if self.solver == "unipc":
            return (
                UniPC(unipc_schedule(self.steps, self.shift, self.video_final).to(device)),
                UniPC(unipc_schedule(self.steps, self.shift).to(device)),
            )
        return (
            Euler(sigma_schedule(self.steps, self.shift, self.video_final).to(device)),
            Euler(sigma_schedule(self.steps, self.shift).to(device)),
        )


@dataclass(frozen=True)
class Imagined:
    """One denoised chunk: video latents (B, z, K, h, w), None without dreaming; actions (B, N, A) in model units."""

    video: Tensor | None
    action: Tensor


class WorldActionModel(nn.Module):
    """Transformer, normalisers and the two ways to use them: `loss` on windows, `remember` and `denoise` in a loop."""

    def __init__(self, config: WorldActionConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config.transformer)

    # ---------------------------------------------------------------- training: windows -> noise -> loss

    def forward(self, windows: Windows, text: Tensor, generator: torch.Generator) -> Losses:
        """`loss`, under the name that data parallelism wraps."""
        return self.loss(windows, text, generator)

    def loss(self, windows: Windows, text: Tensor, generator: torch.Generator) -> Losses:
        """Teacher-forced flow matching over whole windows (paper equation 3, algorithm 1).

        text: (B, Lt, text_dim) prompt features.  generator: draws noise and levels, on the CPU.
        """
        config, c = self.config, self.config.transformer
        batch, chunks = windows.chunk_valid.shape
        device = text.device
        levels = sample_levels(config.noise, batch, chunks, generator)
        video_level, action_level = (level.to(device) for level in levels)
        action_level = torch.where(windows.has_action[:, None], action_level, torch.ones_like(action_level))

        labelled = windows.has_action[:, None, None]
        action = torch.where(labelled, windows.action, torch.zeros_like(windows.action))
        state = torch.where(labelled, windows.state, torch.zeros_like(windows.state))
        video_noise, action_noise = (_noise_like(x, generator) for x in (windows.video, action))
        video_sigma = video_level.repeat_interleave(c.frames_per_chunk, 1)
        action_sigma = action_level.repeat_interleave(c.actions_per_chunk, 1)
        noisy_video = interpolate(windows.video, video_noise, video_sigma[:, None, :, None, None])
        noisy_action = interpolate(action, action_noise, action_sigma[:, :, None])

        context_video = self._with_previous(self._clean_context(windows), None)
        noisy_video = self._with_previous(noisy_video, self._before_each_chunk(windows))
        layout = window_layout(config, chunks).to(device).shifted(windows.chunk_index[:, 0])
        inputs = Pass(
            layout=layout,
            sigma=torch.cat([torch.zeros_like(video_level[:, :1]), video_sigma, action_level], dim=1),
            embodiment=windows.embodiment,
            video=torch.cat([context_video, noisy_video], dim=2) if config.dream else context_video,
            action=noisy_action,
            state=state,
        )
        predicted = self.transformer(inputs, self.transformer.context(text))

        counts = windows.chunk_valid & windows.loss_valid
        acts = (counts[:, :, None] & windows.action_valid & labelled).flatten(1)
        action_error = (predicted.action.float() - target_velocity(action, action_noise)).square()
        real = windows.action_dims[:, None, :]
        action_error = (action_error * real).sum(-1) / real.sum(-1).clamp(min=1)
        action_loss = _masked_mean(action_error * loss_weight(config.noise, action_sigma), acts)
        video_loss = torch.zeros_like(action_loss)
        if config.dream:
            seen = counts.repeat_interleave(c.frames_per_chunk, 1) & windows.video_valid
            video_error = (predicted.video.float() - target_velocity(windows.video, video_noise)).square()
            video_error = video_error.mean(dim=(1, 3, 4))
            video_loss = _masked_mean(video_error * loss_weight(config.noise, video_sigma), seen)
        return Losses(action_loss + config.video_weight * video_loss, video_loss, action_loss)

    def _clean_context(self, windows: Windows) -> Tensor:
        """What teacher forcing shows: the anchor and every chunk but the last, which nobody may look at."""
        if not self.config.transformer.autoregressive:
            return windows.anchor
        shown = windows.video.shape[2] - self.config.transformer.frames_per_chunk
        return torch.cat([windows.anchor, windows.video[:, :, :shown]], dim=2)

    def _before_each_chunk(self, windows: Windows) -> Tensor:
        """(B, z, M K, h, w): for every frame of a chunk, the last real frame before that chunk."""
        per_chunk = self.config.transformer.frames_per_chunk
        before = torch.cat([windows.anchor, windows.video], dim=2)[:, :, :-1:per_chunk]
        return before.repeat_interleave(per_chunk, dim=2)

    def _with_previous(self, video: Tensor, previous: Tensor | None) -> Tensor:
        """Video (B, z, F, h, w) with the channels of `see_previous`, if the model has them."""
        if not self.config.see_previous:
            return video
        return torch.cat([video, torch.zeros_like(video) if previous is None else previous.expand_as(video)], dim=1)

    # ------------------------------------------------------- acting: remember real frames, denoise the next chunk

    def units(self, slot: int = 0) -> Units:
        """What turns the numbers of the robot in this slot into model units and back."""
        return Units(self.config.embodiments[slot])

    def new_cache(self, batch: int = 1, memory: int | None = None, dtype: torch.dtype | None = None) -> KVCache:
        """An empty memory for `batch` sessions on the model's device."""
        weight = self.transformer.patch_embedding.weight
        rows, columns = self.config.grid
        return KVCache(
            self.config.transformer,
            batch,
            rows * columns,
            memory=memory,
            dtype=dtype or weight.dtype,
            device=weight.device,
        )

    def context(self, text: Tensor) -> Context:
        """Prompt features (B, Lt, text_dim) -> keys and values for every block; once per prompt."""
        return self.transformer.context(text)

    @torch.no_grad()
    def remember(self, cache: KVCache, context: Context, latents: Tensor, chunk: int) -> None:
        """Write real frames into the cache at sigma 0: the anchor (B, z, 1, h, w), or a chunk (B, z, K, h, w).

        The prompt stays on, as in training: keys of deeper blocks depend on it.
        """
        video = self._with_previous(latents, None)
        inputs = clean_pass(video, chunk, self.config.transformer, self.config.grid)
        self.transformer(inputs, context, cache)
        cache.commit(chunk)

    @torch.no_grad()
    def denoise(
        self,
        cache: KVCache,
        context: Context,
        state: Tensor,
        chunk: int,
        sampler: Sampler,
        generator: torch.Generator,
        previous: Tensor | None = None,
        unconditional: tuple[KVCache, Context] | None = None,
        slot: int = 0,
    ) -> Imagined:
        """Denoise video and actions of one chunk together (algorithm 2); the cache is only read.

        state: (B, S) in model units, the present.  previous: (B, z, 1, h, w), the last real latent frame, which a model
        with `see_previous` needs.  unconditional: cache and context of the empty prompt, for guidance.  slot: of the
        robot.
        """
        config, c = self.config, self.config.transformer
        if config.see_previous and previous is None:
            raise ValueError(
                "this model sees the previous frame: give denoise(previous=...), the last real latent frame"
            )
        batch, device = state.shape[0], state.device
        z, height, width = config.latent
        video = torch.randn(batch, z, c.frames_per_chunk, height, width, generator=generator).to(device)
        action = torch.randn(batch, c.actions_per_chunk, c.action_dim, generator=generator).to(device)
        video_solver, action_solver = sampler.solvers(device)
        for index in range(sampler.steps):
            inputs = chunk_pass(
                self._with_previous(video, previous) if config.dream else None,
                action,
                state[:, None],
                (video_solver.sigmas[index], action_solver.sigmas[index]),
                chunk,
                c,
                config.grid,
                slot,
            )
            v = self.transformer(inputs, context, cache)
            if unconditional is not None and sampler.guidance != 1.0:
                v = guided(v, self.transformer(inputs, unconditional[1], unconditional[0]), sampler.guidance)
            action = action_solver.step(action, v.action, index)
            if config.dream:
                video = video_solver.step(video, v.video, index)
        return Imagined(video if config.dream else None, action)

    # ---------------------------------------------------------------- one thing on disk

    def save_pretrained(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors, each atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors.partial")
        (folder / "model.safetensors.partial").replace(folder / "model.safetensors")
        partial = folder / "config.json.partial"
        partial.write_text(json.dumps(self.config.to_dict(), indent=2))
        partial.replace(folder / "config.json")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> WorldActionModel:
        """Rebuild from a folder; missing or unexpected weights are named."""
        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder}: no {name}; expected a folder written by save_pretrained")
        model = cls(WorldActionConfig.from_dict(json.loads((folder / "config.json").read_text())))
        try:
            weights = load_file(folder / "model.safetensors")
        except Exception as error:  # safetensors raises its own types for truncated files
            raise ValueError(
                f"{folder / 'model.safetensors'}: cannot be read ({error}); copy or train it again"
            ) from error
        missing, unexpected = model.load_state_dict(
            {name: tensor.float() for name, tensor in weights.items()}, strict=False
        )
        if missing or unexpected:
            raise ValueError(
                f"{folder / 'model.safetensors'}: {len(missing)} weights are missing (first: {missing[:1]}), "
                f"{len(unexpected)} unexpected (first: {unexpected[:1]}); they belong to another config.json"
            )
        return model


def guided(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """Classifier-free guidance on the video alone: v = v_none + scale (v_prompt - v_none)."""
    assert conditional.video is not None and unconditional.video is not None
    return Velocity(unconditional.video + scale * (conditional.video - unconditional.video), conditional.action)


# -------------------------------------------------------------------- the order of tokens, and their sigma slots


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept between calls, so it must be of use to training too
def window_layout(config: WorldActionConfig, chunks: int) -> Layout:
    """[clean video | noisy video | actions | states] of a window of M chunks.

    Sigma slots: 0 is clean, 1..MK the noisy frames, MK + 1.. the chunks' actions, whose slot their state shares.
    """
    c, (rows, columns) = config.transformer, config.grid
    numbers = list(range(chunks))
    shown = [ANCHOR, *numbers[:-1]] if c.autoregressive else [ANCHOR]
    first_action = 1 + chunks * c.frames_per_chunk
    action_slots = [first_action + i for i in numbers for _ in range(c.actions_per_chunk)]
    parts = [video_layout(Kind.CLEAN, shown, c.frames_per_chunk, rows, columns, slot=0)]
    if config.dream:
        parts.append(video_layout(Kind.NOISY, numbers, c.frames_per_chunk, rows, columns, slot=1))
    parts.append(step_layout(Kind.ACTION, numbers, c.actions_per_chunk, action_slots))
    parts.append(step_layout(Kind.STATE, numbers, 1, [first_action + i for i in numbers]))
    return concatenate(parts)


def clean_pass(video: Tensor, chunk: int, config: TransformerConfig, grid: tuple[int, int]) -> Pass:
    """Real video (B, in_channels, F, h, w) of one chunk, or of the anchor, at sigma 0."""
    batch, device = video.shape[0], video.device
    return Pass(
        layout=clean_layout(config, grid, chunk).to(device),
        sigma=torch.zeros(batch, 1, device=device),
        embodiment=torch.zeros(batch, dtype=torch.long, device=device),
        video=video,
    )


def chunk_pass(
    video: Tensor | None,
    action: Tensor,
    state: Tensor,
    sigmas: tuple[Tensor, Tensor],
    chunk: int,
    config: TransformerConfig,
    grid: tuple[int, int],
    slot: int = 0,
) -> Pass:
    """[noisy video | actions | state] of one chunk; sigmas: levels of (video, actions), each () or (B,).

    slot: of the robot's codec.
    """
    batch, device = action.shape[0], action.device
    layout = chunk_layout(config, grid, video is not None).to(device)
    return Pass(
        layout=layout.shifted(torch.full((1,), chunk, device=device)),
        sigma=torch.stack([sigmas[0]] * config.frames_per_chunk + [sigmas[1]], dim=-1).expand(batch, -1),
        embodiment=torch.full((batch,), slot, device=device),
        video=video,
        action=action,
        state=state,
    )


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # kept between calls, so it must be of use to training too
def chunk_layout(config: TransformerConfig, grid: tuple[int, int], with_video: bool) -> Layout:
    """[noisy video | actions | state] of chunk 0. Sigma slots: 0..K - 1 its frames, K its actions and their state."""
    slot = config.frames_per_chunk
    parts = [
        step_layout(Kind.ACTION, [0], config.actions_per_chunk, [slot] * config.actions_per_chunk),
        step_layout(Kind.STATE, [0], 1, [slot]),
    ]
    if with_video:
        parts.insert(0, video_layout(Kind.NOISY, [0], config.frames_per_chunk, *grid, slot=0))
    return concatenate(parts)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # kept between calls, so it must be of use to training too
def clean_layout(config: TransformerConfig, grid: tuple[int, int], chunk: int) -> Layout:
    """The clean video of one chunk, or of the anchor."""
    return video_layout(Kind.CLEAN, [chunk], config.frames_per_chunk, *grid, slot=0)


def _check_fits(robot: Embodiment, config: TransformerConfig) -> None:
    """A robot's vectors and chunks must be those of the network."""
    found = {
        "state_dim": robot.state_width or robot.state_dim,
        "action_dim": robot.action_width or robot.action_dim,
        "frames_per_chunk": robot.frames_per_chunk,
        "actions_per_chunk": robot.actions_per_chunk,
    }
    for name, value in found.items():
        if value != getattr(config, name):
            raise ValueError(
                f"config: robot {robot.name!r} needs {name}={value}, the transformer has "
                f"{getattr(config, name)}; choose its widths and its chunk to fit"
            )


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x.device)


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    return (error * mask).sum() / mask.sum().clamp(min=1)
