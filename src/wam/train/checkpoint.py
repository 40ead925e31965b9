"""Where a run can continue: a folder of safetensors and JSON that appears all at once, under the number of its step.

    checkpoints/step-00001234/weights.safetensors  averaged.safetensors  optimizer.safetensors  progress.json

What learns is in there, and nothing else: a LoRA run's checkpoint is small. No random state is: what is random in
training follows from seed, step and window (`wam.train.chance`).
"""

from __future__ import annotations

import functools
import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from wam.checkpoints.errors import CheckpointError
from wam.checkpoints.files import open_tensors
from wam.data.files import move_into_place, write_atomic, write_json

logger = logging.getLogger(__name__)
PROGRESS = "progress.json"
NAME = re.compile(r"step-\d{8}")


@dataclass(frozen=True)
class Checkpoint:
    """files: tensors by name, read when asked for, by file ("weights").  progress: plain JSON with "step"."""

    path: Path
    files: Mapping[str, Mapping[str, Tensor]]
    progress: dict[str, Any]


def save(
    folder: Path, files: Mapping[str, Mapping[str, Tensor]], progress: Mapping[str, Any], keep: int | None = None
) -> Path:
    """Write `folder/step-00001234`, on the disk before it has its name; then delete all but the newest `keep`."""
    final = folder / f"step-{progress['step']:08d}"
    partial, replaced = folder / f".{final.name}.partial", folder / f".{final.name}.replaced"
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in files.items():
        write_atomic(partial / f"{name}.safetensors", functools.partial(save_file, dict(tensors)))
    write_json(partial / PROGRESS, progress)
    if final.exists():
        final.rename(replaced)
    move_into_place(partial, final)
    shutil.rmtree(replaced, ignore_errors=True)
    for old in _found(folder)[: -keep if keep else 0]:
        shutil.rmtree(old)
    return final


def newest(folder: Path) -> Path | None:
    """The last complete checkpoint, or None."""
    return next(reversed(_found(folder)), None)


def read(path: Path, names: tuple[str, ...]) -> Checkpoint:
    """Open one checkpoint. Raises CheckpointError or OSError naming the file that is missing or damaged."""
    files = {name: open_tensors(path / f"{name}.safetensors") for name in names}
    return Checkpoint(path, files, read_progress(path))


def read_progress(path: Path) -> dict[str, Any]:
    """The JSON of a checkpoint."""
    try:
        progress = json.loads((path / PROGRESS).read_text(encoding="utf-8"))
        if not isinstance(progress, dict) or "step" not in progress:
            raise ValueError('no "step" in it')
    except ValueError as error:
        raise CheckpointError(f"{path / PROGRESS}: cannot be read ({error})") from error
    return progress


def last_progress(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest JSON that can be read, and its file. Raises CheckpointError when there is none."""
    for path in reversed(_found(folder)):
        try:
            return path / PROGRESS, read_progress(path)
        except (CheckpointError, OSError) as error:
            logger.warning("%s", error)
    raise CheckpointError(f"{folder}: no checkpoint to go on from; give the folder of a run that has one")


def set_aside_damaged(folder: Path, names: tuple[str, ...]) -> None:
    """Rename the newest checkpoints that cannot be read to damaged-..., with a warning, until one can.

    Raises CheckpointError when checkpoints were there and none can be read: a run never starts over silently.
    """
    first = newest(folder)
    while (path := newest(folder)) is not None:
        try:
            read(path, names)
            return
        except (CheckpointError, OSError) as error:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            logger.warning("checkpoint %s is damaged and now called %s: %s", path, aside.name, error)
    if first is not None:
        raise CheckpointError(f"{folder}: no checkpoint can be read; delete the folder to start the run over")


def _found(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name))
