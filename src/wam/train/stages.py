"""Several runs in one configuration, each from the model of the one before: pretrain -> post-train -> Flash.

- name: pretrain
  minutes: 60
- name: post-train
  data: data/kitchen.yaml         # any option of `wam train`, nested as its name says
  adapt: {what: lora}
  optimizer: {learning_rate: 2.0e-4}
  minutes: 20
- name: flash
  noise: {mode: flash}            # the video nearly noise: acting in one step
  minutes: 10

What a stage does not name is as on the command line. Stage i is a run of its own in OUT/i-NAME: when the command is
given again, a finished stage is skipped and a stopped one goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, get_type_hints

from wam.data.files import read_yaml
from wam.train.config import TrainConfig
from wam.train.fields import typed
from wam.train.trainer import MODEL

T = TypeVar("T")
WHOLE_RUN = {"out", "init", "stages", "resume", "size", "see_previous", "tokenizer", "precision", "threads", "json"}
"""Options that belong to all stages together: they are given on the command line."""


@dataclass(frozen=True)
class Stage:
    """One run of several; config.out is its own folder, config.init the model of the stage before."""

    name: str
    config: TrainConfig


def read_stages(config: TrainConfig) -> list[Stage]:
    """The stages of `config.stages` in their order.

    Raises ValueError naming the file, the stage and the field that is unknown, missing or of another type.
    """
    assert config.stages is not None
    listed = read_yaml(config.stages)
    if not isinstance(listed, list) or not listed or not all(isinstance(fields, dict) for fields in listed):
        raise ValueError(f"{config.stages}: expected a list of stages, each with a name and options")
    stages: list[Stage] = []
    common, before = replace(config, stages=None), config.init
    for number, fields in enumerate(listed, start=1):
        name = _name(fields, f"{config.stages}: stage {number}", [stage.name for stage in stages])
        source = f"{config.stages}: stage {name!r}"
        out = config.out / f"{number}-{name}"
        changed = changed_by(common, {key: value for key, value in fields.items() if key != "name"}, source)
        stages.append(Stage(name, replace(changed, out=out, init=before)))
        before = out / MODEL
    return stages


def changed_by(config: T, fields: Mapping[str, Any], source: str, prefix: str = "") -> T:
    """A dataclass with some fields changed; mappings change the fields of a field that is a dataclass itself."""
    hints = get_type_hints(type(config))
    values = {}
    for name, value in fields.items():
        dotted = f"{prefix}{name}"
        if dotted in WHOLE_RUN:
            raise ValueError(f"{source}: field {dotted!r} belongs to all stages; give it on the command line")
        if name not in hints:
            known = sorted(set(hints) - (set() if prefix else WHOLE_RUN))
            raise ValueError(f"{source}: unknown field {dotted!r}; known fields are {known}")
        before = getattr(config, name)
        if dataclasses.is_dataclass(before) and isinstance(value, Mapping):
            values[name] = changed_by(before, value, source, f"{dotted}.")
        else:
            values[name] = typed(hints[name], value, f"{source}: field {dotted!r}")
    return replace(config, **values)  # type: ignore[type-var]


def _name(fields: Mapping[str, Any], source: str, others: list[str]) -> str:
    name = fields.get("name")
    if not isinstance(name, str) or not name or "/" in name or name in others:
        raise ValueError(f"{source}: field 'name' is {name!r}; expected a name of its own, which also names its folder")
    return name
