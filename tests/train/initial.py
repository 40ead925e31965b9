"""A small initial model, and other robots on the same recordings, for tests of adaptation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.train.processes import NoEncoder, tiny_run, write_material

import wam.train.build
from wam.robot.embodiment import Part, load_embodiment
from wam.train.build import build
from wam.train.config import TrainConfig
from wam.train.trainer import MODEL

SAWYER = load_embodiment("metaworld-sawyer")
OTHER = replace(SAWYER, name="other", action=(Part("action", ("a", "b", "c")),))  # its own name and fewer dimensions
WIDE = replace(SAWYER, name="wide", action=(Part("action", tuple("abcdef")),))


def without_text(patch: pytest.MonkeyPatch) -> None:
    """Training without loading the text encoder."""
    patch.setattr("wam.train.build.MiniLMTextEncoder", NoEncoder)


def write_base(root: Path) -> Path:
    """material, robots as YAML files, and a trained model in root/base/model."""
    write_material(root)
    for robot in (OTHER, WIDE):
        robot.to_yaml(root / f"{robot.name}.yaml")
    build(tiny_run(root, root / "base", steps=2)).run()
    return root


def train_without_text(config: TrainConfig) -> None:
    """A whole run, in a process of its own."""
    wam.train.build.MiniLMTextEncoder = NoEncoder  # type: ignore[assignment, misc]
    assert build(config).run()


def further(root: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run of two steps that starts from the base; its robot is the new one."""
    plain = {"init": root / "base" / MODEL, "embodiment": str(root / "other.yaml"), "steps": 2, "tokenizer": None}
    return tiny_run(root, out, **{**plain, "size": TrainConfig(data=root, out=root).size, **changes})


def mixture(path: Path, *entries: dict[str, Any]) -> Path:
    """A YAML file of data sets."""
    path.write_text(yaml.safe_dump(list(entries)))
    return path
