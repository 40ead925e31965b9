"""wam data encode: run the tokenizer and the text encoder over a data set once, so that training never has to.

Example:
    wam data encode data/kitchen --tokenizer runs/tokenizer
    wam data encode data/kitchen --tokenizer runs/tokenizer --embodiment kitchen.yaml --precision float32
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:  # the encoders take seconds to import, and other sub-verbs do without
    from wam.data.lerobot_reader import LeRobotDataset
    from wam.robot.embodiment import Embodiment

LATENTS = "latents"
"""Folder of the caches, beside the data."""


@dataclass(frozen=True)
class Encode:
    """Encode all pictures and instructions. Cut off, it goes on where it was; finished, it says so at once.

    The caches are named by what they depend on (data, weights of the encoders, canvas and rates, precision), so they
    are never used for anything else.
    """

    path: tyro.conf.Positional[str]
    """Folder of the data set, or its id on the Hub."""
    tokenizer: Path
    """Folder of the video tokenizer, as `wam train-tokenizer` writes it."""
    revision: str | None = None
    """Commit of a data set on the Hub."""
    embodiment: str = "metaworld-sawyer"
    """The robot, for the canvas and the prompt: a YAML file, or the name of a shipped one."""
    out: Path | None = None
    """Folder of the caches; `latents` in the data set when left out."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Arithmetic of the tokenizer; auto: that of a cache that is there, else bf16 where the hardware multiplies it.
    Latents are stored as float16 in any case."""
    batch: int = 64
    """Rows per call of the tokenizer, at least 1."""
    device: str = "cpu"
    """Where the tokenizer runs: cpu, cuda, cuda:1."""
    on_broken: Literal["stop", "skip"] = "stop"
    """What to do about an episode whose pictures cannot be read; `stop` tries again what was skipped before."""
    text: bool = True
    """Encode the instructions too."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(config: Encode) -> None:
    """Encode pictures, then instructions, and say where both are."""
    from wam.data.latent_cache import encode_dataset
    from wam.data.lerobot_reader import LeRobotDataset
    from wam.encoders.nano_tokenizer import NanoTokenizer
    from wam.robot.embodiment import load_embodiment

    console = Console(stderr=True)
    robot = load_embodiment(config.embodiment)
    dataset = LeRobotDataset(config.path, revision=config.revision, on_broken=config.on_broken)
    out = config.out or dataset.root / LATENTS
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:

        def bar(name: str) -> Callable[[int, int], None]:
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        cache = encode_dataset(
            dataset,
            NanoTokenizer.from_pretrained(config.tokenizer).to(config.device),
            robot,
            out,
            batch=config.batch,
            progress=bar("encoding pictures (episodes)"),
            device=config.device,
            precision=config.precision,
            on_broken=config.on_broken,
        )
        text = _encode_text(dataset, robot, out, bar("encoding instructions")) if config.text else None
    size = sum(file.stat().st_size for file in cache.folder.iterdir())
    said = f"pictures: {cache.folder} ({len(cache.anchor)} rows, {size / 1e6:.1f} MB)"
    console.print(said, markup=False, soft_wrap=True)
    if cache.broken:
        console.print(f"skipped: episodes {', '.join(map(str, sorted(cache.broken)))}; their pictures cannot be read")
    if text is not None:
        console.print(f"instructions: {text}", markup=False, soft_wrap=True)
    if config.json:
        found = {"latents": str(cache.folder), "rows": len(cache.anchor), "text": str(text) if text else None}
        print(json.dumps(found | {"skipped": sorted(cache.broken)}))


def _encode_text(dataset: LeRobotDataset, robot: Embodiment, out: Path, progress: Callable[[int, int], None]) -> Path:
    """The cache file with all prompts of the data set."""
    from wam.data.text_cache import encode_prompts
    from wam.encoders.text import MINILM_NAME, MiniLMTextEncoder, minilm_folder

    weights = hashlib.sha256((minilm_folder() / "model.safetensors").read_bytes()).hexdigest()[:16]
    sentences = dict.fromkeys(task for episode in dataset.meta.episodes for task in episode.tasks)
    prompts = [robot.prompt(sentence) for sentence in sentences]
    return encode_prompts(prompts, MiniLMTextEncoder.for_prompts(prompts), f"{MINILM_NAME} {weights}", out, progress)
