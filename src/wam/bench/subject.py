"""What is planned: a published size or a folder of one's own, with the components that run beside the transformer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wam.bench.flops import Tokens
from wam.bench.memory import Format, cache_tokens
from wam.checkpoints.model_folder import tokenizer_of
from wam.checkpoints.presets import PRESETS, skeleton
from wam.data.files import read_json
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.engine.load import resolve
from wam.model.config import TransformerConfig
from wam.model.transformer import Transformer
from wam.world_action_model import WorldActionConfig


@dataclass(frozen=True)
class Encoder:
    """A text or image encoder. tokens: rows of features that it hands over.  flops: of one prompt or picture."""

    name: str
    parameters: int
    tokens: int
    flops: int


@dataclass(frozen=True)
class Vae:
    """A streaming video encoder; convolutions cost per pixel, its one attention layer per pair of cells.

    first, group: FLOPs per pixel of the canvas for the first frame, and for a group of 4 frames.
    working, state: bytes per pixel, in bf16, while a group is encoded, and between two groups.
    """

    name: str
    parameters: int
    spatial_factor: int
    first: int
    group: int
    attention_width: int = 0
    working: int = 0
    state: int = 0

    def encode_flops(self, pixels: int, groups: int, *, first: bool) -> int:
        """FLOPs of `groups` times 4 frames, after a first frame or not; the attention is per latent frame."""
        cells = pixels // self.spatial_factor**2
        attention = 4 * cells**2 * self.attention_width
        return pixels * (groups * self.group + first * self.first) + (groups + first) * attention


# Counted with torch's FlopCounterMode on meta-constructed networks of diffusers and transformers; tests repeat it.
WAN_21 = Vae("Wan 2.1 VAE", 126_892_531, 8, 6_656_864, 20_011_424, attention_width=384, working=5788, state=2808)
WAN_22 = Vae("Wan 2.2 VAE", 704_688_668, 16, 4_643_752, 13_963_112, attention_width=640, working=3080, state=1177)
UMT5 = Encoder("umT5-XXL encoder", 5_680_910_336, 512, 4_844_723_109_888)
CLIP = Encoder("CLIP ViT-H/14", 632_076_800, 257, 324_143_836_160)
MINILM_PARAMETERS = 22_713_216


@dataclass(frozen=True)
class Subject:
    """A model to plan for.

    canvas: pixels (height, width) of one picture.  grid: rows and columns of video tokens per latent frame.
    first_frame: whether the first frame's latents go beside the noisy ones; then a whole window is encoded for them.
    streams: the VAE goes on where it stopped; else every chunk is encoded anew, its first frame twice (as released).
    steps: calls of the network per chunk and branch.  branches: 2 with guidance, the prompt and the negative one.
    chunk_seconds: how long a chunk lasts on the robot, where the model is of one robot.
    """

    name: str
    config: TransformerConfig
    canvas: tuple[int, int]
    grid: tuple[int, int]
    text: Encoder
    image: Encoder | None
    vae: Vae
    weights: Format
    first_frame: bool
    streams: bool
    steps: int
    branches: int
    dream: bool = True
    chunk_seconds: float | None = None

    @property
    def frame_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def pixels(self) -> int:
        return self.canvas[0] * self.canvas[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and the cache."""
        return torch.float32 if self.weights == "float32" else torch.bfloat16

    @property
    def image_tokens(self) -> int:
        return 0 if self.image is None else self.image.tokens

    def transformer(self) -> Transformer:
        """The network without memory for its weights; the same one every time, not to be changed."""
        return _skeleton(self.config)

    def clean(self, frames: int) -> Tokens:
        """The pass that writes `frames` real latent frames into the cache."""
        return self._pass(clean=frames * self.frame_tokens, levels=1)

    def denoising(self) -> Tokens:
        """The pass that a denoising step runs."""
        c = self.config
        noisy = c.frames_per_chunk * self.frame_tokens if self.dream else 0
        return self._pass(noisy=noisy, actions=c.actions_per_chunk, states=1, levels=c.frames_per_chunk + 1)

    def window(self, batch: int) -> Tokens:
        """The pass of a training step: windows as long as the memory, teacher-forced (`WorldActionModel.loss`)."""
        c, chunks = self.config, self.config.memory or 1
        video = chunks * c.frames_per_chunk
        shown = 1 + (chunks - 1) * c.frames_per_chunk if c.autoregressive else 1
        clean, noisy = shown * self.frame_tokens, video * self.frame_tokens if self.dream else 0
        length = clean + noisy + chunks * (c.actions_per_chunk + 1)
        return Tokens(
            clean=clean,
            noisy=noisy,
            actions=chunks * c.actions_per_chunk,
            states=chunks,
            levels=1 + video + chunks,
            keys=length,
            text=self.text.tokens,
            image=self.image_tokens,
            batch=batch,
        )

    def _pass(self, *, levels: int, clean: int = 0, noisy: int = 0, actions: int = 0, states: int = 0) -> Tokens:
        keys = cache_tokens(self.config, self.frame_tokens) + clean + noisy + actions + states
        return Tokens(clean, noisy, actions, states, levels, keys, self.text.tokens, self.image_tokens)


def subject(name: str, canvas: tuple[int, int] | None = None, steps: int | None = None, guided: bool = True) -> Subject:
    """A preset by name, else a folder of weights or a shipped model.

    canvas, steps, guided replace what the preset was released with; a folder brings its own canvas. Raises ValueError
    naming what does not fit, FileNotFoundError for a name that is neither.
    """
    if name in PRESETS:
        return _published(name, PRESETS[name].transformer, canvas, steps, guided)
    try:
        folder = resolve(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; presets are {sorted(PRESETS)}") from None
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder}: no config.json; expected a folder written by wam train or wam convert")
    fields = read_json(file)
    if fields.get("format") == "wam":
        return _published(folder.name, TransformerConfig(**fields["transformer"]), canvas, steps, guided)
    if canvas is not None:
        raise ValueError(f"canvas: {name} was trained on a canvas of its own; leave the option out")
    return _trained(folder, WorldActionConfig.from_dict(fields), steps)


@lru_cache(maxsize=4)
def _skeleton(config: TransformerConfig) -> Transformer:
    return skeleton(config)


def _published(
    name: str, config: TransformerConfig, canvas: tuple[int, int] | None, steps: int | None, guided: bool
) -> Subject:
    """A published size with the components that belong to it, run as the released code does."""
    vae = WAN_22 if config.out_channels == 48 else WAN_21
    height, width = canvas or ((160, 320) if vae is WAN_22 else (352, 640))
    cell = vae.spatial_factor * config.patch
    if height % cell or width % cell or min(height, width) < cell:
        raise ValueError(f"canvas is {height}x{width}; {name} needs multiples of {cell} pixels")
    return Subject(
        name=name,
        config=config,
        canvas=(height, width),
        grid=(height // cell, width // cell),
        text=UMT5,
        image=None if config.image_dim is None else CLIP,
        vae=vae,
        weights="bf16",
        first_frame=config.in_channels > config.out_channels,
        streams=False,
        steps=8 if steps is None else steps,
        branches=2 if guided else 1,
        chunk_seconds={"dreamzero-droid": 1.6, "dreamzero-agibot": 0.8}.get(name),  # 24 actions at 15 and 30 Hz
    )


def _trained(folder: Path, model: WorldActionConfig, steps: int | None) -> Subject:
    """A model of `wam train`, run as `load_policy` does."""
    vae = _nano_vae(tokenizer_of(folder))
    text = Encoder("MiniLM-L6 text encoder", MINILM_PARAMETERS, model.text_len, _minilm_flops(model.text_len))
    return Subject(
        name=folder.name,
        config=model.transformer,
        canvas=(model.latent[1] * vae.spatial_factor, model.latent[2] * vae.spatial_factor),
        grid=model.grid,
        text=text,
        image=None,
        vae=vae,
        weights="float32",
        first_frame=False,
        streams=True,
        steps=1 if steps is None else steps,
        branches=1,
        dream=model.dream,
        chunk_seconds=model.embodiments[0].chunk_seconds,
    )


def _minilm_flops(tokens: int) -> int:
    """6 blocks of width 384 with feed-forward layers of 1536."""
    return 6 * (2 * tokens * (4 * 384**2 + 2 * 384 * 1536) + 4 * tokens**2 * 384)


def _nano_vae(folder: Path) -> Vae:
    """The small tokenizer beside a model, its products counted in a run. What it needs to work, a few MB, is not."""
    tokenizer = NanoTokenizer.from_pretrained(folder)
    height, width = tokenizer.config.canvas
    with FlopCounterMode(display=False) as of_first:
        _, state = tokenizer.encode_first(torch.zeros(1, 3, 1, height, width))
    with FlopCounterMode(display=False) as of_group:
        tokenizer.encode_next(state, torch.zeros(1, 3, 4, height, width))
    return Vae(
        "nano video tokenizer",
        sum(parameter.numel() for parameter in tokenizer.parameters()),
        tokenizer.spatial_factor,
        of_first.get_total_flops() // (height * width),
        of_group.get_total_flops() // (height * width),
    )
