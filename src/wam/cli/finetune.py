"""wam finetune: adapt published weights to a robot, with adapters in every block and the codec in full.

Examples:
    wam finetune dreamzero-droid --data data/kitchen --robot kitchen.yaml --out runs/kitchen --steps 2000
    wam finetune ~/weights/DreamZero-DROID --data data/droid --robot oxe_droid --out runs/droid --minutes 600 --batch 2
    torchrun --nproc-per-node 8 -m wam.cli.main finetune dreamzero-droid --parallel fsdp2 --data ...
    wam merge-lora ~/weights/DreamZero-DROID runs/kitchen/model merged && wam serve merged    # and then act

The same command goes on from its last checkpoint. `wam plan --preset dreamzero-droid --train` says what fits on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from wam.checkpoints.model_folder import ROBOT
from wam.cli.train import Run, run
from wam.flow.noise import NoiseConfig
from wam.model.precision import Precision
from wam.train.config import AdaptConfig, OptimizerConfig, TrainConfig, ValidationConfig, WandbConfig, WindowConfig
from wam.train.finetune import build_finetune
from wam.train.parallel import Parallel, Processes


@dataclass(frozen=True)
class FineTune:
    """Adapt published weights to a robot; noise and optimiser are by default those of the released training."""

    base: tyro.conf.Positional[str]
    """A folder, a Hub id or a preset; see `wam inspect`."""
    data: Path
    """LeRobot data set (a folder, or an id on the Hub), or a YAML file that mixes several; see `wam.train.sources`."""
    out: Path
    """Folder of the run: model/, checkpoints/, log.jsonl, loss.png."""
    robot: str | None = None
    """A YAML file, a shipped name, or the tag of a robot that the weights know, such as oxe_droid. A YAML file of data
    sets names its own."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    rank: int = 16
    """Of the adapters; the released training has 4."""
    alpha: float = 16.0
    """Scale of the adapters times their rank."""
    statistics: Literal["keep", "recompute"] = "keep"
    """Of a robot that the weights know: keep theirs, or take them from the data."""
    chunks: int = 4
    """Chunks of the longest window, as many as the weights remember."""
    validation_share: float = 0.03
    """Share of the episodes held out for validation, one of each data set at least; 0: no validation."""
    noise: NoiseConfig = NoiseConfig("coupled", 5.0, 5.0, action_at_noise=0.0, weighting="bump")
    optimizer: OptimizerConfig = OptimizerConfig(1e-4, 1e-5, (0.95, 0.999), warmup_steps=100, flat_share=0.0, ema=0.99)
    video_weight: float = 1.0
    batch: int = 1
    """Windows that a process sees at once; a step has batch x optimizer.accumulate x processes."""
    steps: int | None = None
    """Stop after this many steps. Give steps or minutes, or both."""
    minutes: float | None = None
    """Stop after this much time spent in training (over all resumes)."""
    seed: int = 0
    threads: int | None = None
    """Threads of this process; all cores by default."""
    precision: Precision = "auto"
    """Arithmetic of the network; auto: bf16 where the hardware multiplies it, else float32."""
    parallel: Parallel = "ddp"
    """With several processes: whole copies of the model, or a shard of every weight each."""
    activation_checkpointing: bool = True
    """Keep no activations inside the blocks and compute them again in the backward pass."""
    compile: bool = False
    """Compile the transformer's blocks."""
    checkpoint_minutes: float = 10.0
    models_every: int | None = None
    """Also save the adapter every so many steps, OUT/models/step-00001234."""
    validation_minutes: float = 30.0
    validation_windows: int = 8
    """Held-out windows of each data set whose losses are measured."""
    log_every: int = 10
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where the run reports besides log.jsonl (`pip install -e ".[track]"`)."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    json: tyro.conf.OmitArgPrefixes[bool] = False
    """Print one line of JSON at the end."""

    def training(self) -> TrainConfig:
        """As a run of `wam train` that starts from these weights."""
        known = {field.name for field in fields(TrainConfig)}
        return TrainConfig(
            **{field.name: getattr(self, field.name) for field in fields(self) if field.name in known},
            init=Path(self.base),
            embodiment=self._embodiment(),
            adapt=AdaptConfig("lora", self.rank, self.alpha, statistics=self.statistics),
            windows=WindowConfig(self.chunks, gap_probability=0.0, validation_share=self.validation_share),
            validation=ValidationConfig(self.validation_windows, steps=(), samples=0),
            text_dropout=0.0,  # guidance compares with a negative prompt, not with none
        )

    def _embodiment(self) -> str:
        """Raises ValueError for a robot that is missing, or said twice."""
        mixed = self.data.suffix in {".yaml", ".yml"}
        if mixed != (self.robot is None):
            asked = f"{self.data} names the robots itself; leave it out" if mixed else "say whose data they are"
            raise ValueError(f"--robot is {self.robot}: {asked}")
        return self.robot or ""


def main(config: FineTune) -> None:
    """Train to the end of the budget; a run that was stopped continues, one that is finished says so."""
    processes = Processes(config.precision)
    console = Console(stderr=True, markup=False, quiet=not processes.main)
    run(Run(config.training(), build_finetune, last=ROBOT, preparing="loading weights"), processes, console)
