"""Reading golden cases: numbers that another implementation computed, and how far ours are from them.

A case is NAME.json (configuration, and what every tensor means) with NAME.safetensors beside it; it may point to shared
weights and inputs. See `wam parity`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from wam.encoders.folders import readable

Measure = Literal["relative", "absolute", "exact", "share", "quantile"]
NARROW = (torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Check:
    """One comparison. `error` is in units of the measure:

    relative  ||ours - theirs|| / ||theirs||        exact     number of places that differ
    absolute  largest |ours - theirs|               share     share of the places that differ
    quantile  largest distance of two distribution functions (Kolmogorov-Smirnov)
    """

    tensor: str
    measure: Measure
    error: float
    limit: float

    @property
    def ok(self) -> bool:
        return self.error <= self.limit  # False for NaN


def relative(tensor: str, ours: Tensor, theirs: Tensor, limit: float) -> Check:
    return Check(tensor, "relative", _compared(ours, theirs, lambda a, b: (a - b).norm() / b.norm()), limit)


def absolute(tensor: str, ours: Tensor, theirs: Tensor, limit: float) -> Check:
    return Check(tensor, "absolute", _compared(ours, theirs, lambda a, b: (a - b).abs().max()), limit)


def exact(tensor: str, ours: Any, theirs: Any) -> Check:
    """Tensors place by place, anything else as a whole."""
    if not isinstance(ours, Tensor):
        return Check(tensor, "exact", float(ours != theirs), 0.0)
    return Check(tensor, "exact", _compared(ours, theirs, lambda a, b: (a != b).sum()), 0.0)


def _compared(ours: Tensor, theirs: Tensor, measure: Any) -> float:
    """In float64; infinitely wrong if the shapes differ."""
    if ours.shape != theirs.shape:
        return math.inf
    return float(measure(ours.detach().double(), theirs.detach().double()))


@dataclass(frozen=True)
class CaseResult:
    """What became of one case; notes say what it holds that was not compared."""

    case: str
    checks: tuple[Check, ...]
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def worst(self) -> Check:
        """The check that is nearest to its limit, or farthest above it."""
        return max(self.checks, key=lambda check: check.error / (check.limit or 1e-300))


@dataclass(frozen=True)
class GoldenCase:
    """One case on disk. Raises ValueError naming the file that is missing or is not JSON."""

    folder: Path
    name: str

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        path = self.folder / f"{self.name}.json"
        try:
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); expected the description of a golden case") from error
        return facts

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return self._load(f"{self.name}.safetensors")

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return self._load(str(self.facts["weights_file"]))

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self._load(str(self.facts["inputs_file"]))

    def _load(self, file: str) -> dict[str, Tensor]:
        """Narrow floats are stored to save space; their values are exact, so they are widened before use."""
        path = self.folder / file
        if not path.is_file():
            raise ValueError(f"{path}: not found; case {self.name!r} needs it")
        with readable(path):
            tensors = load_file(path)
        return {name: x.float() if x.dtype in NARROW else x for name, x in tensors.items()}


def golden_cases(folder: Path) -> list[GoldenCase]:
    """Every case of a folder, by name. Raises ValueError if there is none."""
    names = sorted(path.stem for path in folder.glob("*.json") if not path.stem.endswith(".inputs"))
    if not names:
        raise ValueError(f"{folder}: no golden case found; expected NAME.json with NAME.safetensors beside it")
    return [GoldenCase(folder, name) for name in names]
