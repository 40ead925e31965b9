"""The World Action Model: one network that imagines the next chunk of video and chooses the actions in it.

Loss and sampler stand side by side. Training sees whole windows through a mask (`loss`); acting sees one chunk over a
cache of real frames (`remember`, then `denoise`). Imagined frames never enter the cache.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wam.flow.noise import NoiseConfig, interpolate, loss_weight, sample_levels, sample_prefix, target_velocity
from wam.flow.sampler import Given, Imagined, Sampler, integrate
from wam.model.attention import Layout
from wam.model.config import TransformerConfig, patch_grid
from wam.model.kv_cache import KVCache
from wam.model.passes import chunk_pass, chunk_sigma, clean_pass, in_dtype, window_layout
from wam.model.transformer import Context, Geometry, Pass, Transformer, Velocity
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
    beside: further channels that the windows bring for every frame (mask and first picture of Wan's image-to-video
    models). Such a model is trained here; `wam.engine.released_policy` acts with it.
    """

    transformer: TransformerConfig
    embodiments: tuple[Embodiment, ...]
    latent: tuple[int, int, int]
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    dream: bool = True
    video_weight: float = 0.3
    text_len: int = 16
    see_previous: bool = False
    beside: int = 0

    def __post_init__(self) -> None:
        expected = self.latent[0] * (2 if self.see_previous else 1) + self.beside
        if self.transformer.in_channels != expected:
            raise ValueError(
                f"config: transformer.in_channels is {self.transformer.in_channels}, but latents of {self.latent[0]} "
                f"channels with see_previous={self.see_previous} and beside={self.beside} need {expected}"
            )
        if self.transformer.embodiments != len(self.embodiments):
            raise ValueError(
                f"config: transformer.embodiments is {self.transformer.embodiments}, but embodiments lists "
                f"{[robot.name for robot in self.embodiments]}"
            )
        patch_grid(self.latent[1:], self.transformer.patch)
        for robot in self.embodiments:
            _check_fits(robot, self.transformer)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of video tokens in one latent frame."""
        return patch_grid(self.latent[1:], self.transformer.patch)

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
    beside (B, channels, 1 + M K, h, w): what stands beside the frames, for models that have such channels, else None.
    image (B, n, image_dim): features of the first picture, for models with an image branch, else None.
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
    @property
    def beside(self) -> Tensor | None: ...
    @property
    def image(self) -> Tensor | None: ...


@dataclass(frozen=True)
class Draws:
    """What chance decides about a batch of windows, on the CPU.

    video_level, action_level (B, M): noise levels of each chunk.  prefix (B, M): how many of its first actions are
    given, clean and not to be learned.  video_noise, action_noise: shaped as the windows'.
    """

    video_level: Tensor
    action_level: Tensor
    prefix: Tensor
    video_noise: Tensor
    action_noise: Tensor


@dataclass(frozen=True)
class Counts:
    """Over how many latent frames and actions a loss is a mean, each ()."""

    video: Tensor
    action: Tensor


@dataclass(frozen=True)
class Losses:
    """total = action + video_weight * video; the parts are mean squared velocity errors.

    windows: (B, 4), without gradient: each window's sums of video and of action errors, and over how many they go.
    """

    total: Tensor
    video: Tensor
    action: Tensor
    windows: Tensor


Network = Callable[..., Velocity]
"""A `Transformer`, or whatever is called as one."""

VelocityOf = Callable[[int, Pass], Velocity]
"""Number of the sampler's step and the pass of that step -> velocities. What remembers, guides, skips or compiles hides
behind it, so that `denoise` knows nothing of it."""


class WorldActionModel(nn.Module):
    """Transformer, normalisers and the two ways to use them: `loss` on windows, `remember` and `denoise` in a loop."""

    def __init__(self, config: WorldActionConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config.transformer)

    # ---------------------------------------------------------------- training: windows -> noise -> loss

    def loss(self, windows: Windows, text: Tensor, generator: torch.Generator) -> Losses:
        """The loss under noise and levels drawn from `generator`, on the CPU."""
        return self(windows, text, self.draw(windows, [generator] * len(windows.chunk_valid)))

    def draw(self, windows: Windows, generators: Sequence[torch.Generator]) -> Draws:
        """Noise and levels, window by window: with a generator each, a window's draws depend on no other window."""
        chunks, per_chunk, drawn = windows.chunk_valid.shape[1], self.config.transformer.actions_per_chunk, []
        for video, action, generator in zip(windows.video, windows.action, generators, strict=True):
            levels = sample_levels(self.config.noise, 1, chunks, generator)
            prefix = sample_prefix(self.config.noise, 1, chunks, per_chunk, generator)
            drawn.append((*levels, prefix, *(torch.randn(1, *x.shape, generator=generator) for x in (video, action))))
        return Draws(*(torch.cat(parts) for parts in zip(*drawn, strict=True)))

    def counts(self, windows: Windows, draws: Draws) -> Counts:
        """Over how much the loss of these windows is a mean: known before the network is asked."""
        seen, acts = self._taught(windows, draws)
        return Counts(seen.sum(), acts.sum())

    def forward(self, windows: Windows, text: Tensor, draws: Draws, counts: Counts | None = None) -> Losses:
        """Teacher-forced flow matching over whole windows (paper equation 3, algorithm 1).

        text: (B, Lt, text_dim) prompt features.  counts: of the larger batch of which these windows are a part (other
        processes, other micro-batches); the losses of all parts then add up to the loss of the whole.
        """
        config, c = self.config, self.config.transformer
        chunks, device = windows.chunk_valid.shape[1], text.device
        video_level, action_level = draws.video_level.to(device), draws.action_level.to(device)
        action_level = torch.where(windows.has_action[:, None], action_level, torch.ones_like(action_level))

        labelled = windows.has_action[:, None, None]
        action = torch.where(labelled, windows.action, torch.zeros_like(windows.action))
        state = torch.where(labelled, windows.state, torch.zeros_like(windows.state))
        video_noise, action_noise = draws.video_noise.to(device), draws.action_noise.to(device)
        video_sigma = video_level.repeat_interleave(c.frames_per_chunk, 1)
        action_sigma = action_level.repeat_interleave(c.actions_per_chunk, 1) * ~self._given(windows, draws).flatten(1)
        noisy_video = interpolate(windows.video, video_noise, video_sigma[:, None, :, None, None])
        noisy_action = interpolate(action, action_noise, action_sigma[:, :, None])

        context_video, noisy_video = self._with_channels(windows, self._clean_context(windows), noisy_video)
        per_level = 1 if config.noise.prefix_share else c.actions_per_chunk
        layout = window_layout(c, config.grid, chunks, config.dream, c.actions_per_chunk // per_level)
        inputs = Pass(
            layout=layout.to(device).shifted(windows.chunk_index[:, 0]),
            sigma=torch.cat([torch.zeros_like(video_level[:, :1]), video_sigma, action_sigma[:, ::per_level]], dim=1),
            embodiment=windows.embodiment,
            video=torch.cat([context_video, noisy_video], dim=2) if config.dream else context_video,
            action=noisy_action,
            state=state,
        )
        predicted = self.transformer(inputs, self.transformer.context(text, windows.image))

        seen, acts = self._taught(windows, draws)
        action_error = (predicted.action.float() - target_velocity(action, action_noise)).square()
        real = windows.action_dims[:, None, :]
        action_error = (action_error * real).sum(-1) / real.sum(-1).clamp(min=1)
        action_error = action_error * loss_weight(config.noise, action_sigma) * acts
        video_error = torch.zeros_like(seen, dtype=action_error.dtype)
        if config.dream:
            video_error = (predicted.video.float() - target_velocity(windows.video, video_noise)).square()
            video_error = video_error.mean(dim=(1, 3, 4)) * loss_weight(config.noise, video_sigma) * seen
        counts = counts or Counts(seen.sum(), acts.sum())
        video_loss, action_loss = _mean(video_error, counts.video), _mean(action_error, counts.action)
        windows_sums = [x.detach().sum(1) for x in (video_error, action_error, seen, acts)]
        total = action_loss + config.video_weight * video_loss
        return Losses(total, video_loss, action_loss, torch.stack(windows_sums, dim=1))

    def _taught(self, windows: Windows, draws: Draws) -> tuple[Tensor, Tensor]:
        """Which latent frames (B, M K) and actions (B, M N) the loss is about."""
        chunks = windows.chunk_valid & windows.loss_valid
        seen = chunks.repeat_interleave(self.config.transformer.frames_per_chunk, 1) & windows.video_valid
        acts = chunks[:, :, None] & windows.action_valid & windows.has_action[:, None, None]
        return seen, (acts & ~self._given(windows, draws)).flatten(1)

    def _given(self, windows: Windows, draws: Draws) -> Tensor:
        """Which actions are known, bool (B, M, N)."""
        device = windows.has_action.device
        prefix = draws.prefix.to(device) * windows.has_action[:, None]
        return torch.arange(self.config.transformer.actions_per_chunk, device=device) < prefix[:, :, None]

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

    def _with_channels(self, windows: Windows, clean: Tensor, noisy: Tensor) -> tuple[Tensor, Tensor]:
        """The frames of a window with the channels of `see_previous` and `beside`, as far as the model has them."""
        clean, noisy = self._with_previous(clean, None), self._with_previous(noisy, self._before_each_chunk(windows))
        if windows.beside is None:
            return clean, noisy
        seen, dreamt = windows.beside[:, :, : clean.shape[2]], windows.beside[:, :, 1:]
        return torch.cat([clean, seen], dim=1), torch.cat([noisy, dreamt], dim=1)

    def _with_previous(self, video: Tensor, previous: Tensor | None) -> Tensor:
        """Video (B, z, F, h, w) with the channels of `see_previous`, if the model has them."""
        if not self.config.see_previous:
            return video
        return torch.cat([video, torch.zeros_like(video) if previous is None else previous.expand_as(video)], dim=1)

    # ------------------------------------------------------- acting: remember real frames, denoise the next chunk

    def units(self, slot: int = 0) -> Units:
        """What turns the numbers of the robot in this slot into model units and back."""
        return Units(self.config.embodiments[slot])

    def new_cache(
        self, batch: int = 1, memory: int | None = None, dtype: torch.dtype | None = None, *, joint: bool = False
    ) -> KVCache:
        """An empty memory of `batch` rows on the model's device; see `KVCache`."""
        weight = self.transformer.patch_embedding.weight
        rows, columns = self.config.grid
        return KVCache(
            self.config.transformer,
            batch,
            rows * columns,
            memory=memory,
            joint=joint,
            dtype=dtype or weight.dtype,
            device=weight.device,
        )

    def context(self, text: Tensor) -> Context:
        """Prompt features (B, Lt, text_dim) -> keys and values for every block; once per prompt."""
        weight = self.transformer.patch_embedding.weight
        return self.transformer.context(text.to(weight.device, weight.dtype))

    @torch.no_grad()
    def remember(
        self,
        cache: KVCache,
        context: Context,
        latents: Tensor,
        chunk: int | Sequence[int],
        network: Network | None = None,
    ) -> None:
        """Write real frames into the cache at sigma 0: the anchor (B, z, 1, h, w), or a chunk (B, z, K, h, w).

        chunk: ANCHOR, a number, or a number for each row.  network: see `velocity`.  The prompt stays on, as in
        training: keys of deeper blocks depend on it.
        """
        self.velocity(cache, context, network)(0, self.clean(latents, chunk))
        cache.commit(chunk)

    def clean(self, latents: Tensor, chunk: int | Sequence[int]) -> Pass:
        """Real frames as a pass, for `remember`."""
        numbers = chunk if isinstance(chunk, int) else torch.tensor(chunk)
        video = self._with_previous(latents.contiguous(), None)  # one order in memory: compiled code asks for the same
        return clean_pass(video, numbers, self.config.transformer, self.config.grid)

    def velocity(self, cache: KVCache, context: Context, network: Network | None = None) -> VelocityOf:
        """The network as a `VelocityOf`: a prompt, over what is remembered under it until the next `remember`.

        network: what runs in place of the transformer, a compiled one for instance.
        """
        run, dtype = network or self.transformer, self.transformer.patch_embedding.weight.dtype
        known: list[tuple[Layout, Geometry]] = []  # of the last layout: all steps of a chunk have the same

        def ask(step: int, inputs: Pass) -> Velocity:
            if not known or known[0][0] is not inputs.layout:
                known[:] = [(inputs.layout, self.transformer.geometry(inputs.layout, cache))]
            return run(in_dtype(inputs, dtype), context, cache, geometry=known[0][1])

        return ask

    def noise(self, generator: torch.Generator, batch: int = 1) -> Imagined:
        """What a chunk begins as, drawn on the CPU so that it is the same on every device."""
        c, (z, height, width) = self.config.transformer, self.config.latent
        device = self.transformer.patch_embedding.weight.device
        video = torch.randn(batch, z, c.frames_per_chunk, height, width, generator=generator)
        action = torch.randn(batch, c.actions_per_chunk, c.action_dim, generator=generator)
        return Imagined(video.to(device) if self.config.dream else None, action.to(device))

    @torch.no_grad()
    def denoise(
        self,
        velocity: VelocityOf,
        noise: Imagined,
        state: Tensor,
        chunk: int | Tensor,
        sampler: Sampler,
        previous: Tensor | None = None,
        given: Given | None = None,
        slot: int = 0,
    ) -> Imagined:
        """Denoise video and actions of one chunk together (algorithm 2); what is remembered is only read.

        state: (B, S) in model units, the present.  chunk: its number, or numbers (B,).  previous: (B, z, 1, h, w), the
        last real latent frame, which a model with `see_previous` needs.  given: what is known of the chunk already.
        slot: of the robot.
        """
        config, c, given = self.config, self.config.transformer, given or Given()
        self._check_known(given, previous)
        prefix, solvers = given.actions, sampler.solvers()
        noise = replace(noise, action=sampler.temperature * noise.action)
        video_sigma, action_sigma = (solver.sigmas for solver in solvers)
        if given.video is not None:
            video_sigma = torch.zeros_like(video_sigma)
        if prefix == c.actions_per_chunk:
            action_sigma, prefix = torch.zeros_like(action_sigma), 0
        first = chunk_pass(
            noise.video,
            noise.action,
            state[:, None],
            (video_sigma[0], action_sigma[0]),
            chunk,
            c,
            config.grid,
            slot,
            prefix,
        )
        sigma = chunk_sigma(video_sigma, action_sigma, c.frames_per_chunk, prefix).to(state.device)

        def answer(step: int, video: Tensor | None, action: Tensor) -> tuple[Tensor | None, Tensor | None]:
            seen = None if video is None else self._with_previous(video, previous)
            levels = sigma[step].expand(len(state), -1)
            v = velocity(step, replace(first, sigma=levels, video=seen, action=action))
            return v.video, v.action

        return integrate(noise, solvers, answer, given)

    def _check_known(self, given: Given, previous: Tensor | None) -> None:
        config, count = self.config, self.config.transformer.actions_per_chunk
        if config.see_previous and previous is None:
            raise ValueError(
                "this model sees the previous frame: give denoise(previous=...), the last real latent frame"
            )
        if given.video is not None and not config.dream:
            raise ValueError("given.video: this model was trained on actions alone (dream=False); leave it out")
        if given.actions > count:
            raise ValueError(f"given.action: found {given.actions} actions, a chunk has {count}")
        if given.actions == count and (given.video is not None or not config.dream):
            raise ValueError("given: the whole chunk is known; leave out what is to be denoised")

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
        try:
            fields = json.loads((folder / "config.json").read_text())
        except ValueError as error:
            raise ValueError(f"{folder / 'config.json'}: not JSON ({error}); copy or train it again") from error
        model = cls(WorldActionConfig.from_dict(fields))
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


def _mean(error: Tensor, count: Tensor) -> Tensor:
    """Of errors that are zero where they do not count, over `count` of them."""
    return error.sum() / count.clamp(min=1)
