"""Where a run can continue: weights, averaged weights, optimiser, sampler position, random state.

A checkpoint is one folder of safetensors and JSON that appears all at once under its final name; the last `KEEP` stay.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wam.train.schedule import AveragedWeights

logger = logging.getLogger(__name__)
KEEP = 2


def save(
    folder: Path,
    model: nn.Module,
    averaged: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    progress: dict[str, Any],
) -> Path:
    """Write `folder/step-00001234`; progress is plain JSON and must hold "step"."""
    final = folder / f"step-{progress['step']:08d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_contiguous(model.state_dict()), partial / "weights.safetensors")
    save_file(_contiguous(averaged.state_dict()), partial / "averaged.safetensors")
    save_file(_optimizer_tensors(optimizer), partial / "optimizer.safetensors")
    (partial / "progress.json").write_text(json.dumps(progress))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in sorted(folder.glob("step-*"))[:-KEEP]:
        shutil.rmtree(old)
    return final


def newest(folder: Path) -> Path | None:
    """The last complete checkpoint, or None."""
    found = sorted(folder.glob("step-*"))
    return found[-1] if found else None


def load(path: Path, model: nn.Module, averaged: AveragedWeights, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put everything back and return the progress. Raises ValueError naming the file that does not fit."""
    for name, target in (("weights", model.load_state_dict), ("averaged", _into(averaged))):
        try:
            target(load_file(path / f"{name}.safetensors"))
        except Exception as error:
            raise ValueError(
                f"{path / name}.safetensors: does not fit this run ({error}); delete {path} to continue from the "
                "checkpoint before it, or give another --out"
            ) from error
    _restore_optimizer(optimizer, load_file(path / "optimizer.safetensors"))
    progress: dict[str, Any] = json.loads((path / "progress.json").read_text())
    logger.info("continuing from %s at step %d", path, progress["step"])
    return progress


def _into(averaged: AveragedWeights) -> Any:
    return lambda weights: averaged.load(weights[name] for name in averaged.names)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments by parameter number, e.g. "17.exp_avg"."""
    state = optimizer.state_dict()["state"]
    return _contiguous(
        {f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}
    )


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
