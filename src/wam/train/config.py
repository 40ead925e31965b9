"""What one training run is: data, model, noise, optimiser, budget. Saved beside the weights that it makes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from wam.flow.noise import NoiseConfig
from wam.model.precision import Precision


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
    """False: the bidirectional ablation; it acts on the present frame alone and is trained with --windows.chunks 1."""


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
    """Share of the episodes held out for validation, one of each data set at least; 0: no validation."""


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
    accumulate: int = 1
    """Micro-batches of `batch` windows per step and process; n of them give the step of an n times larger batch."""


@dataclass(frozen=True)
class ValidationConfig:
    """What is measured on held-out episodes, see `wam.train.validation`, and shown of them, see `wam.train.samples`."""

    windows: int = 32
    """Held-out windows of each data set."""
    levels: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    """Noise levels at which the losses are measured."""
    steps: tuple[int, ...] = (1, 4)
    """Network calls with which actions are imagined, to be compared with the recorded ones; none: losses alone."""
    samples: int = 4
    """Stretches of held-out episodes that are dreamed for people to look at; 0: none."""
    sample_chunks: int = 6
    """Chunks of such a stretch."""
    keep_samples: int = 8
    """Pictures and films that stay in samples/, the newest."""


@dataclass(frozen=True)
class WandbConfig:
    """Where `--track wandb` reports to."""

    project: str = "wam"
    entity: str | None = None
    """Team or user; None: the default of the account."""
    mode: Literal["online", "offline"] = "online"
    """offline: no account and no network; `wandb sync` sends the run later."""


@dataclass(frozen=True)
class AdaptConfig:
    """What of the initial model is trained. Codecs of robots that are not in the data never change."""

    what: Literal["full", "lora", "heads"] = "full"
    """full: every weight; lora: adapters in every block, and the codec; heads: the codec and the head of the video."""
    rank: int = 16
    """Of the adapters."""
    alpha: float = 16.0
    """Scale of the adapters times their rank."""
    robots: tuple[str, ...] = ()
    """Whose codec is trained; without names, that of every robot in the data."""
    statistics: Literal["keep", "recompute"] = "keep"
    """Of a robot that the initial model knows: keep the model's, or take them from the data."""
    widen: bool = False
    """Widen the model's states and actions for a robot with more dimensions; other robots compute what they did."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a World Action Model on a LeRobot data set.

    Example: wam train --data data/nano --tokenizer runs/tokenizer --out runs/nano --minutes 60
    """

    data: Path
    """LeRobot data set (a folder, or an id on the Hub), or a YAML file that mixes several; see `wam.train.sources`."""
    out: Path
    """Folder of the run: model/, checkpoints/, log.jsonl, loss.png; with --stages, a folder of these for each stage."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    tokenizer: Path | None = None
    """Folder of the video tokenizer; left out with --init: that of the initial model."""
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
    """Windows that a process sees at once; a step has batch x optimizer.accumulate x processes."""
    minutes: float | None = None
    """Stop after this much time spent in training (over all resumes)."""
    steps: int | None = None
    """Stop after this many steps. Give steps or minutes, or both."""
    seed: int = 0
    threads: int | None = None
    """Threads of this process; all cores by default."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto: bf16 where the hardware multiplies it, else float32."""
    parallel: Literal["ddp", "fsdp2"] = "ddp"
    """With several processes (`torchrun --nproc-per-node 8 -m wam.cli.main train ...`): whole copies of the model, or a
    shard of every weight each."""
    activation_checkpointing: bool = False
    """Keep no activations inside the blocks and compute them again in the backward pass: slower, much less memory."""
    compile: bool = False
    """Compile the transformer's blocks (a minute of waiting, a third faster on a CPU)."""
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    """The newest ones; older ones are deleted."""
    models_every: int | None = None
    """Also save the averaged weights every so many steps as a model of its own, OUT/models/step-00001234, to evaluate
    what was learned until then."""
    validation_minutes: float = 5.0
    log_every: int = 20
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the run reports besides log.jsonl (`pip install -e ".[track]"`)."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    init: Path | None = None
    """Start from this model: a folder, or the name of a shipped one. Its size and its tokenizer stay."""
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    stages: Path | None = None
    """YAML file of stages, each of which starts from the one before; see `wam.train.stages`."""
    resume: Path | None = None
    """Go on with the run in this folder, configured as it was; of the other options give only what shall change."""
    json: tyro.conf.OmitArgPrefixes[bool] = False
    """Print one line of JSON at the end."""
