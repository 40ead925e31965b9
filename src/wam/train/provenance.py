"""Where a run's weights come from: configuration, data, base weights, command. And whether a run may be continued.

Continuing is refused when something changed that would change the numbers. Paths may change; what lies there may not:
a data set, its latents and the frozen weights are known by their fingerprints.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wam import __version__
from wam.checkpoints.identity import identity
from wam.data.mixture import Member
from wam.evaluate.results import differences
from wam.train.config import TrainConfig
from wam.train.fields import parsed
from wam.world_action_model import WorldActionModel

FREE = frozenset(
    {
        *("data", "revision", "tokenizer", "embodiment", "out", "init"),  # where things lie: see their fingerprints
        *("minutes", "steps"),  # how long; of all of them only these move the learning rate
        *("batch", "optimizer.accumulate"),  # their product may not change, says the sampler
        *("parallel", "activation_checkpointing", "compile", "threads"),  # the same numbers up to rounding
        *(
            "checkpoint_minutes",
            "keep_checkpoints",
            "models_every",
            "validation_minutes",
            "validation",
            "log_every",
            "track",
            "wandb",
        ),
        *("resume", "json"),
    }
)
"""Options that a continued run may change."""


def provenance(config: TrainConfig, model: WorldActionModel, members: Sequence[Member]) -> dict[str, Any]:
    """Everything that decides a run's numbers, as plain JSON. The model as it is before its first step, not sharded."""
    frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
    return {
        "config": described(config),
        "model": _plain(model.config.to_dict()),
        "base": identity(frozen) if frozen else None,
        "data": {member.name: _revision(member) for member in members},
    }


def command() -> dict[str, str]:
    """What was typed, and the version of the code that it ran."""
    program = Path(sys.argv[0]).stem.replace("main", "wam")  # also as `python -m wam.cli.main`
    return {"command": shlex.join([program, *sys.argv[1:]]), "version": __version__}


def described(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain JSON values."""
    return _plain(dataclasses.asdict(config))


def read_config(fields: Mapping[str, Any], source: Path) -> TrainConfig:
    """Inverse of `described`; what is missing has its default. Raises ValueError naming an unknown field."""
    return parsed(TrainConfig, fields, str(source))


def refuse_changes(saved: Mapping[str, Any], now: Mapping[str, Any], source: Path) -> None:
    """Raises ValueError naming every field of `provenance` that differs from the saved one and is not free to.

    Data sets are compared in their order, since their folders may have been renamed.
    """
    saved = {name: saved.get(name) for name in now}
    if len(saved["data"] or {}) == len(now["data"]):
        saved["data"] = dict(zip(now["data"], saved["data"].values(), strict=True))
    saved["config"] = described(read_config(saved["config"] or {}, source))
    changed = [
        f"{name} is {after!r}, was {before!r}"
        for name, (before, after) in differences(saved, now).items()
        if not _is_free(name)
    ]
    if changed:
        more = f" (and {len(changed) - 5} more)" if len(changed) > 5 else ""
        raise ValueError(
            f"{source}: this run cannot be continued, because {'; '.join(changed[:5])}{more}. Change it back, or give "
            "another --out to begin a run of its own"
        )


def _is_free(name: str) -> bool:
    option = name.removeprefix("config.")
    return name.startswith("config.") and any(option == free or option.startswith(f"{free}.") for free in FREE)


def _revision(member: Member) -> dict[str, Any]:
    source = member.source
    return {
        "fingerprint": source.cache.dataset,
        "latents": source.cache.key,
        "windows": len(source),
        "weight": member.weight,
        "labelled_part": member.labelled_part,
        **({"skipped": sorted(source.skipped)} if source.skipped else {}),
    }


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(fields, default=str))
    return plain
