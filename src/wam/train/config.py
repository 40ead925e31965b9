"""What one training run is: data, model, noise, optimiser, budget. Saved beside the weights that it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from wam.flow.noise import NoiseConfig


@dataclass(frozen=True)
class NetworkSize:
    """The dial of size. The rest of the transformer's shape follows from the embodiment and the tokenizer."""

    dim: int = 256
    heads: int = 4
    layers: int = 6
    patch: int = 4
    memory: int = 2
    """Clean chunks that stay visible besides the anchor."""
    autoregressive: bool = True
    """False: the bidirectional ablation."""


@dataclass(frozen=True)
class WindowConfig:
    """How training windows are cut from episodes."""

    chunks: int = 3
    """Chunks of the longest window (M)."""
    gap_probability: float = 0.3
    """Share of windows whose anchor lies further back than the first chunk, as it does once the memory has slid."""
    labelled_share: float = 1.0
    """Share of the episodes that keep their actions; the others are video only."""
    labelled_part: float | None = None
    """Part of every batch that is drawn from the episodes that keep their actions; None: as often as they come, 1: the
    video-only episodes are left out."""
    validation_share: float = 0.03
    """Share of the episodes held out for validation."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, a flat part and a cosine to zero."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 200
    flat_share: float = 0.3
    """Share of the budget after which the learning rate starts to fall."""
    clip_norm: float = 1.0
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones that are saved as the model."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a World Action Model on a LeRobot data set.

    Example: wam train --data data/nano --tokenizer runs/tokenizer --out runs/nano --minutes 60
    """

    data: Path
    """LeRobot data set (folder), or a YAML file that mixes several; see `wam.train.sources`."""
    tokenizer: Path
    """Folder of the video tokenizer."""
    out: Path
    """Folder of the run: model/, checkpoints/, log.jsonl, loss.png."""
    embodiment: str = "metaworld-sawyer"
    """The data set's robot: a shipped name or a YAML file."""
    size: NetworkSize = field(default_factory=NetworkSize)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    windows: WindowConfig = field(default_factory=WindowConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    dream: bool = True
    """False trains on actions alone: the same network without video tokens to denoise ("BC")."""
    video_weight: float = 0.3
    see_previous: bool = False
    """Give every noisy frame the last real frame as further channels."""
    text_dropout: float = 0.1
    """Share of samples trained without their sentence, so that guidance has an unconditional branch."""
    batch: int = 32
    """Windows per step and process."""
    minutes: float | None = None
    """Stop after this much time spent in training (over all resumes)."""
    steps: int | None = None
    """Stop after this many steps. Give steps or minutes, or both."""
    seed: int = 0
    threads: int | None = None
    """Threads of this process; all cores by default."""
    precision: Literal["bf16", "no"] = "bf16"
    compile: bool = False
    """Compile the transformer's blocks (a minute of waiting, a third faster on a CPU)."""
    checkpoint_minutes: float = 5.0
    validation_minutes: float = 5.0
    log_every: int = 20
    init: Path | None = None
    """Start from the weights of this model folder (fine-tuning, or the Flash stage)."""
    json: tyro.conf.OmitArgPrefixes[bool] = False
    """Print one line of JSON at the end."""
