"""Training of the nano tokenizer: see the pictures, weigh the pixels that matter, reconstruct them.

One step: clips of 1 + 4 n frames -> raw latents -> normalised per channel over the batch -> a little noise ->
reconstruction.
The loss is |e| + e^2 per pixel, weighted towards what a robot must see: things that differ from the background,
that move, that are small and vivid (a puck, a goal mark), and the last frame of each group, which is the robot's
present.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from wam.data.files import write_atomic
from wam.encoders.folders import readable
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.encoders.video import FRAMES_PER_LATENT, frames_to_video
from wam.model.precision import Precision, arithmetic, compute_dtype
from wam.train.schedule import require_limits
from wam.train.tokenizer_frames import FrameStore

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.safetensors"
LOG_FILE = "log.jsonl"
REPORT_FILE = "report.json"
CALIBRATION_BATCHES = 32
PRINCIPAL_FRAMES = 1000  # frames from which the linear start is computed
DIFFERENCE = 0.25  # of a video in [-1, 1]: a pixel that differs by this much counts fully as "different"
VIVID = 1.0  # chroma (largest minus smallest channel) of a video in [-1, 1] above which a colour is vivid
NEIGHBOURHOOD = 15  # pixels: within such a square, a vivid object that fills little of it is small


@dataclass(frozen=True)
class PixelWeights:
    """How much a pixel counts. Every pixel counts 1, plus:"""

    foreground: float = 6.0
    """Where the picture differs from the background."""
    motion: float = 6.0
    """Where it differs from the frame before."""
    small: float = 12.0
    """On small objects of a saturated colour."""
    last: float = 2.0
    """Factor for the first frame and the last frame of each group."""


@dataclass(frozen=True)
class TokenizerTraining:
    """How to train."""

    minutes: float | None = 10.0
    """End after so many minutes of training (None: no such limit); the learning rate follows the clock."""
    steps: int | None = None
    """End after so many steps (None: no such limit); the limit that is reached first counts."""
    batch: int = 8
    """Clips per step. Small: on a CPU, many small steps beat few large ones."""
    groups: int = 1
    """Groups of 4 frames per clip, after its first frame."""
    learning_rate: float = 2e-3
    """Peak of the learning rate (AdamW); 4e-3 is already worse."""
    warmup: float = 0.03
    """Part of the run over which the learning rate rises."""
    latent_noise: float = 0.04
    """Standard deviation of the noise added to normalised latents: makes small latent errors harmless."""
    forget: float = 0.25
    """How often a group is decoded without the latent before it, so that each latent stands on its own."""
    ema: float = 0.998
    """Decay of the moving average of the weights, which is the result."""
    weights: PixelWeights = field(default_factory=PixelWeights)
    """How much which pixels count."""
    precision: Precision = "auto"
    """Arithmetic; auto: bf16 (twice as fast) where the hardware multiplies it, else float32."""
    seed: int = 0
    """Of initial weights, choice of clips and noise."""
    log_every: int = 20
    """Steps between lines of the log."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        require_limits(self.minutes, self.steps)

    @property
    def clip_length(self) -> int:
        """Raw frames of a training clip."""
        return 1 + FRAMES_PER_LATENT * self.groups

    def progress(self, step: int, seconds: float) -> float:
        """Part of the run that is over, 0 to 1."""
        by_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        by_steps = step / self.steps if self.steps is not None else 0.0
        return min(1.0, max(by_time, by_steps))

    def rate(self, progress: float) -> float:
        """Learning rate: linear warm-up, then a cosine down to 2 % of the peak."""
        if progress < self.warmup:
            return self.learning_rate * (0.05 + 0.95 * progress / self.warmup)
        part = (progress - self.warmup) / (1 - self.warmup)
        return self.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))


@dataclass(frozen=True)
class StepReport:
    """What one step says to whoever watches."""

    step: int
    seconds: float
    progress: float
    loss: float
    learning_rate: float


def pixel_weights(video: Tensor, background: Tensor, weights: PixelWeights) -> Tensor:
    """Weight of each pixel of `video` (B, 3, T, H, W), given the background (3, H, W): (B, 1, T, H, W), at least 1."""
    foreground = difference(video, background.unsqueeze(1))
    moved = functional.pad(difference(video[:, :, 1:], video[:, :, :-1]), (0, 0, 0, 0, 1, 0))
    rank = torch.ones(video.shape[2], device=video.device)
    rank[::FRAMES_PER_LATENT] = weights.last
    total = (
        1 + weights.foreground * foreground + weights.motion * moved + weights.small * small_vivid(video, foreground)
    )
    return total * rank.view(1, 1, -1, 1, 1)


def difference(a: Tensor, b: Tensor) -> Tensor:
    """How much two videos (B, 3, T, H, W) differ per pixel, 0 to 1: (B, 1, T, H, W)."""
    return ((a - b).abs().amax(1, keepdim=True) / DIFFERENCE).clamp(max=1.0)


def small_vivid(video: Tensor, foreground: Tensor) -> Tensor:
    """Small objects of a saturated colour, 0 to 1 per pixel: vivid foreground, divided by how much of it is around."""
    chroma = video.amax(1, keepdim=True) - video.amin(1, keepdim=True)
    vivid = ((chroma - VIVID) / 0.25).clamp(0, 1) * foreground
    around = vivid.flatten(0, 2).unsqueeze(1)
    for size in ((NEIGHBOURHOOD, 1), (1, NEIGHBOURHOOD)):  # a square mean is a mean over rows, then over columns
        around = functional.avg_pool2d(around, size, stride=1, padding=(size[0] // 2, size[1] // 2))
    return vivid * (0.1 / around.clamp(min=0.1)).view_as(vivid)


def reconstruction_loss(output: Tensor, video: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of |e| + e^2 over all pixels, a scalar."""
    error = (output.float() - video).abs()
    return ((error + error.square()).mean(1, keepdim=True) * weight).sum() / weight.sum()


class TokenizerTrainer:
    """The tokenizer, its moving average, its optimiser and its data; `run` trains, `finish` gives the result."""

    def __init__(self, model: NanoTokenizerConfig, settings: TokenizerTraining, store: FrameStore, out: Path) -> None:
        if model.canvas != store.canvas:
            raise ValueError(
                f"the tokenizer's canvas is {model.canvas}, but the frames are {store.canvas}; make them equal"
            )
        torch.manual_seed(settings.seed)
        self.settings, self.store, self.out = settings, store, Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.tokenizer = NanoTokenizer(model)
        self.tokenizer.background.copy_(frames_to_video(store.median()[None])[:, 0])
        self._start_linear()
        self.average = {name: p.detach().clone() for name, p in self.tokenizer.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            self.tokenizer.parameters(), lr=settings.learning_rate, weight_decay=0.01, fused=True
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.starts = store.clip_starts(settings.clip_length)
        self.step = 0
        self.seconds = 0.0

    def _start_linear(self) -> None:
        """The linear maps start as the principal components of frames from all over the data."""
        frames = frames_to_video(self.store.spread(PRINCIPAL_FRAMES)[:, None])
        weight = pixel_weights(frames, self.tokenizer.background, self.settings.weights)
        self.tokenizer.start_from_principal_components(frames, weight)

    def run(self, on_step: Callable[[StepReport], None] | None = None) -> None:
        """Train until the budget is spent; logs and checkpoints on the way."""
        while self.settings.progress(self.step, self.seconds) < 1:
            report = self.train_step()
            if self.step % self.settings.log_every == 0:
                self.write_log(asdict(report))
            if self.step % self.settings.checkpoint_every == 0:
                self.save_checkpoint()
            if on_step is not None:
                on_step(report)
        self.save_checkpoint()

    def train_step(self) -> StepReport:
        """One clip batch forward and backward, one optimiser step."""
        began = time.perf_counter()
        progress = self.settings.progress(self.step, self.seconds)
        rate = self.settings.rate(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.loss(self.sample())
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.tokenizer.parameters(), 1.0)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        self.seconds += time.perf_counter() - began
        return StepReport(self.step, self.seconds, self.settings.progress(self.step, self.seconds), loss.item(), rate)

    def sample(self) -> Tensor:
        """A batch of random clips (B, 3, T, H, W) in [-1, 1]."""
        picks = torch.randint(len(self.starts), (self.settings.batch,), generator=self.generator)
        return frames_to_video(self.store.clips(self.starts[picks], self.settings.clip_length))

    def loss(self, video: Tensor) -> Tensor:
        """Reconstruction loss of a batch of clips, with latents normalised over the batch and noise on them."""
        tokenizer, settings = self.tokenizer, self.settings
        with arithmetic(compute_dtype(settings.precision, video.device), video.device):
            raw = tokenizer.analyse(video).float()
            variance, mean = torch.var_mean(raw, (0, 2, 3, 4), keepdim=True)
            latents = (raw - mean) * (variance + 1e-6).rsqrt()
            latents = latents + settings.latent_noise * torch.randn(latents.shape, generator=self.generator)
            keep = torch.rand(latents.shape[0], generator=self.generator) >= settings.forget
            previous = latents[:, :, :-1] * keep.view(-1, 1, 1, 1, 1)
            first, rest = latents[:, :, :1], latents[:, :, 1:]
            output = torch.cat([tokenizer.synthesise_first(first), tokenizer.synthesise_next(previous, rest)], dim=2)
        return reconstruction_loss(output, video, pixel_weights(video, tokenizer.background, settings.weights))

    @torch.no_grad()
    def finish(self) -> NanoTokenizer:
        """A tokenizer with the averaged weights and latent statistics measured on training clips."""
        tokenizer = NanoTokenizer(self.tokenizer.config)
        tokenizer.load_state_dict({**self.tokenizer.state_dict(), **self.average})
        generator = torch.Generator().manual_seed(self.settings.seed)
        batches = []
        for _ in range(CALIBRATION_BATCHES):
            picks = torch.randint(len(self.starts), (self.settings.batch,), generator=generator)
            clips = self.store.clips(self.starts[picks], self.settings.clip_length)
            batches.append(tokenizer.analyse(frames_to_video(clips)))
        raw = torch.cat(batches).transpose(0, 1).flatten(1)
        tokenizer.latent_mean.copy_(raw.mean(1))
        tokenizer.latent_std.copy_(raw.std(1).clamp(min=1e-3))
        return tokenizer.requires_grad_(False).eval()

    def write_log(self, line: dict[str, Any]) -> None:
        """Append one JSON line to the run's log."""
        with (self.out / LOG_FILE).open("a") as file:
            file.write(json.dumps(line) + "\n")

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def save_checkpoint(self) -> None:
        """Write everything that `resume` needs to one safetensors file, atomically."""
        tensors = {f"model.{k}": v for k, v in self.tokenizer.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for name, parameter in self.tokenizer.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["generator"] = self.generator.get_state()
        meta = {
            "step": str(self.step),
            "seconds": str(self.seconds),
            "model": json.dumps(asdict(self.tokenizer.config)),
        }
        content = {k: v.detach().contiguous() for k, v in tensors.items()}
        write_atomic(self.out / CHECKPOINT_FILE, lambda temporary: save_file(content, temporary, metadata=meta))

    def resume(self) -> bool:
        """Go on from the checkpoint in `out`, if there is one. Raises ValueError when it belongs to another model."""
        path = self.out / CHECKPOINT_FILE
        if not path.is_file():
            return False
        with readable(path), safe_open(path, framework="pt") as file:
            meta = file.metadata()
            ours = json.loads(json.dumps(asdict(self.tokenizer.config)))
            if json.loads(meta["model"]) != ours:
                raise ValueError(
                    f"{path}: field model is {meta['model']}, expected {json.dumps(ours)}; use another output folder"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self._restore(tensors)
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])
        return True

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        def part(prefix: str) -> Iterator[tuple[str, Tensor]]:
            return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))

        self.tokenizer.load_state_dict(dict(part("model.")))
        loaded = dict(part("average."))
        self.average = {name: loaded[name] for name in self.average}  # in the order of the parameters
        parameters = dict(self.tokenizer.named_parameters())
        for key_and_name, value in part("optimizer."):
            key, name = key_and_name.split(".", 1)
            like = parameters[name]
            self.optimizer.state[like][key] = value.clone() if value.ndim == 0 else torch.empty_like(like).copy_(value)
        self.generator.set_state(tensors["generator"])

    def _update_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.tokenizer.parameters()), 1 - decay)
