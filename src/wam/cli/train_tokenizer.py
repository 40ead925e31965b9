"""wam train-tokenizer: train the small video tokenizer on the pictures of a LeRobot data set.

Example:
    wam train-tokenizer --data data/nano --out runs/tokenizer --minutes 10
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wam.data.files import write_atomic, write_json
from wam.data.lerobot_reader import LeRobotDataset
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.robot.embodiment import Embodiment, load_embodiment
from wam.train.tokenizer import REPORT_FILE, StepReport, TokenizerTrainer, TokenizerTraining
from wam.train.tokenizer_frames import FrameStore, load_frames, split_episodes
from wam.train.tokenizer_validation import montage, validate

MONTAGE_FILE = "montage.png"


@dataclass(frozen=True)
class TrainTokenizer:
    """Train the small video tokenizer on the pictures of a LeRobot data set.

    The output folder receives the tokenizer (`config.json`, `model.safetensors`), `log.jsonl`, `report.json` with the
    PSNR on held-out episodes, and `montage.png`: real frames above their reconstructions. Look at it before you go on.

    Example: wam train-tokenizer --data data/nano --out runs/tokenizer --minutes 10
    """

    data: Path
    """LeRobot data set: a folder, or an id on the Hub."""
    out: Path
    """Folder for the tokenizer, its log and its checkpoint."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    training: tyro.conf.OmitArgPrefixes[TokenizerTraining] = field(default_factory=TokenizerTraining)
    width: tuple[int, int] = NanoTokenizerConfig.width
    """Channels on the H/4 and on the H/8 grid."""
    depth: tuple[int, int] = NanoTokenizerConfig.depth
    """Residual blocks on the H/4 and on the H/8 grid."""
    z_channels: int = NanoTokenizerConfig.z_channels
    """Channels of the latents."""
    embodiment: str = "metaworld-sawyer"
    """The robot, for the canvas and the video stride: a YAML file, or the name of a shipped one."""
    max_episodes: int | None = None
    """Use only so many episodes, evenly spaced; all when left out."""
    validation_episodes: int = 24
    """Episodes held out for the PSNR and the montage; of few episodes a fifth."""
    threads: int = 2
    """CPU threads; 1 on a machine that others use."""
    resume: bool = False
    """Go on from the checkpoint in the output folder."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: TrainTokenizer) -> None:
    """Load the pictures, train, measure, save."""
    torch.set_num_threads(config.threads)
    console = Console(stderr=True, markup=False)
    robot = load_embodiment(config.embodiment)
    with _progress(console) as progress:
        train, held_out = _load(config, robot, progress)
        trainer = _trainer(config, robot, train)
        bar = progress.add_task("training", total=1.0)

        def show(report: StepReport) -> None:
            text = f"step {report.step}  loss {report.loss:.4f}"
            progress.update(bar, completed=report.progress, description=text)

        trainer.run(show)
    tokenizer = trainer.finish()
    tokenizer.save_pretrained(config.out)
    picture = Image.fromarray(montage(tokenizer, held_out))
    write_atomic(config.out / MONTAGE_FILE, lambda temporary: picture.save(temporary, format="png"))
    report = _report(config, trainer, tokenizer, held_out)
    write_json(config.out / REPORT_FILE, report)
    console.print(f"{config.out}: {report['steps']} steps, {report['steps_per_second']} steps/s, PSNR {report['psnr']}")
    console.print(f"look at {config.out / MONTAGE_FILE}: real frames above reconstructions")
    if config.json:
        print(json.dumps(report))


def _load(config: TrainTokenizer, robot: Embodiment, progress: Progress) -> tuple[FrameStore, FrameStore]:
    """Training and held-out frames."""
    dataset = LeRobotDataset(str(config.data), revision=config.revision)
    chosen = list(range(dataset.num_episodes))
    if config.max_episodes is not None and config.max_episodes < len(chosen):
        chosen = np.linspace(0, len(chosen) - 1, config.max_episodes).astype(int).tolist()
    train, held_out = split_episodes(len(chosen), config.validation_episodes)
    bar = progress.add_task("reading frames", total=len(chosen))

    def load(part: list[int]) -> FrameStore:
        return load_frames(dataset, robot, [chosen[i] for i in part], lambda _: progress.advance(bar))

    return load(train), load(held_out)


def _trainer(config: TrainTokenizer, robot: Embodiment, store: FrameStore) -> TokenizerTrainer:
    """A fresh trainer, or one that goes on from its checkpoint."""
    height, width = robot.canvas_height, robot.canvas_width
    model = NanoTokenizerConfig(config.z_channels, config.width, config.depth, height, width)
    trainer = TokenizerTrainer(model, config.training, store, config.out)
    if config.resume and not trainer.resume():
        raise FileNotFoundError(f"{config.out}: no checkpoint to resume from; leave out --resume to start afresh")
    return trainer


def _report(
    config: TrainTokenizer, trainer: TokenizerTrainer, tokenizer: NanoTokenizer, held_out: FrameStore
) -> dict[str, object]:
    """The numbers of this run, with what is needed to judge them."""
    return {
        "psnr": validate(tokenizer, held_out),
        "steps": trainer.step,
        "seconds": round(trainer.seconds, 1),
        "steps_per_second": round(trainer.step / max(trainer.seconds, 1e-9), 3),
        "parameters": sum(parameter.numel() for parameter in tokenizer.parameters()),
        "milliseconds": latency(tokenizer),
        "train_episodes": trainer.store.num_episodes,
        "train_frames": len(trainer.store.frames),
        "validation_episodes": held_out.num_episodes,
        "model": asdict(tokenizer.config),
        "training": asdict(config.training),
        "threads": config.threads,
        "load": round(os.getloadavg()[0], 2),
        "out": str(config.out),
    }


def latency(tokenizer: NanoTokenizer, repeats: int = 50) -> dict[str, float]:
    """Median milliseconds of one streaming call, batch 1, on the threads that are set."""
    frames = torch.zeros(1, 3, 4, *tokenizer.config.canvas)
    latent, encoding = tokenizer.encode_first(frames[:, :, :1])
    _, decoding = tokenizer.decode_first(latent)
    calls: dict[str, Callable[[], object]] = {
        "encode_first": lambda: tokenizer.encode_first(frames[:, :, :1]),
        "encode_next": lambda: tokenizer.encode_next(encoding, frames),
        "decode_first": lambda: tokenizer.decode_first(latent),
        "decode_next": lambda: tokenizer.decode_next(decoding, latent),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        for _ in range(repeats):
            began = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: round(float(np.median(values)), 2) for name, values in times.items()}


def _progress(console: Console) -> Progress:
    text = TextColumn("{task.description}")
    return Progress(text, BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=console)
