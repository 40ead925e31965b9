"""The model that a run starts from: what it fixes, which robots it knows, and how it learns of another.

Size, tokenizer and the extra channels of an initial model stay: asking for others is an error, and what is left at its
default is taken from the model. Noise, `dream`, `video_weight` and everything about windows are this run's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wam.checkpoints.model_folder import CONFIG, load_model, tokenizer_of
from wam.checkpoints.presets import PRESETS
from wam.checkpoints.recognise import describes_ours, read_fields
from wam.data.latent_cache import tokenizer_fingerprint
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.engine.load import resolve
from wam.robot.embodiment import Embodiment, EmbodimentError
from wam.train.config import AdaptConfig, NetworkSize, TrainConfig
from wam.world_action_model import WorldActionConfig, WorldActionModel

WHERE = ("camera_keys", "statistics", "state_width", "action_width")
"""What may differ between two descriptions of one robot: where numbers lie, how they are scaled and padded."""


@dataclass(frozen=True)
class Start:
    """An initial model and its folder."""

    folder: Path
    model: WorldActionModel

    @classmethod
    def load(cls, init: Path) -> Start:
        """init: a folder, a whole model or an adapter, or the name of a shipped model.

        Raises ValueError for weights that this project did not train.
        """
        foreign = ValueError(f"--init {init}: no model of `wam train`; adapt published weights with `wam finetune`")
        if str(init) in PRESETS:
            raise foreign
        folder = resolve(init)
        fields = read_fields(folder / CONFIG)
        if fields and not describes_ours(fields):
            raise foreign
        return cls(folder, load_model(folder))

    @property
    def config(self) -> WorldActionConfig:
        return self.model.config

    @property
    def size(self) -> NetworkSize:
        """As the options of a run would say it."""
        names = [field.name for field in dataclasses.fields(NetworkSize)]
        return NetworkSize(**{name: getattr(self.config.transformer, name) for name in names})


def settled(config: TrainConfig, start: Start | None) -> TrainConfig:
    """The options with what follows from the initial model filled in.

    Raises ValueError naming an option that contradicts it or another option, or one that is missing without it.
    """
    found = _without_start(config) if start is None else _as_in(start, config)
    if not found.size.autoregressive and found.windows.chunks > 1:
        raise ValueError(
            f"--windows.chunks is {found.windows.chunks}, expected 1: a bidirectional model (--size.no-autoregressive) "
            "acts on one chunk after the present frame, and windows of several, which see each other, do not teach that"
        )
    return found


def _without_start(config: TrainConfig) -> TrainConfig:
    """The options of a training from random weights."""
    if config.tokenizer is None:
        raise ValueError("--tokenizer is missing: give the folder of the video tokenizer, or a model with --init")
    if config.adapt.what != "full" or config.adapt.robots:
        raise ValueError(
            f"--adapt.what {config.adapt.what}: there is nothing to adapt; give the model to start from with --init"
        )
    return config


def _as_in(start: Start, config: TrainConfig) -> TrainConfig:
    """The options with the size and the tokenizer of the initial model."""
    size = start.size
    for name, usual in vars(NetworkSize()).items():
        _require_kept(f"size.{name}", getattr(config.size, name), usual, getattr(size, name), start)
    _require_kept("see-previous", config.see_previous, False, start.config.see_previous, start)
    own = tokenizer_of(start.folder)
    if config.tokenizer is not None:
        _require_same_tokenizer(config.tokenizer, own)
    return replace(config, size=size, see_previous=start.config.see_previous, tokenizer=config.tokenizer or own)


def known_robots(start: WorldActionConfig, found: Sequence[Embodiment], adapt: AdaptConfig) -> tuple[Embodiment, ...]:
    """The robots of the initial model in their slots, and those that only the data has behind them, all equally wide.

    found: robots of the data, with the statistics of the data.  Raises EmbodimentError naming the field of a robot that
    is described otherwise than the model knows it, or the vector that does not fit.
    """
    widths = {name: _width(start, found, name, adapt.widen) for name in ("state", "action")}
    by_name = {robot.name: robot for robot in found}
    robots = []
    for robot in start.embodiments:
        same = by_name.pop(robot.name, None)
        if same is not None:
            require_same_robot(robot, same, "the initial model knows")
            if adapt.statistics == "recompute":
                robot = replace(robot, statistics=same.statistics)
        robots.append(robot)
    return tuple(_padded(robot, widths) for robot in (*robots, *by_name.values()))


def grown(start: WorldActionModel, config: WorldActionConfig) -> WorldActionModel:
    """A model of this configuration with the weights of the initial one, and untrained codecs for further robots.

    Where vectors are wider than they were, the weights of known robots are zero there: they compute what they did.
    """
    model = WorldActionModel(config)
    old = start.state_dict()
    model.load_state_dict({name: _placed(old[name], fresh) for name, fresh in model.state_dict().items()})
    return model


# ---------------------------------------------------------------- checks and pieces


def _require_kept(option: str, given: object, usual: object, own: object, start: Start) -> None:
    if given not in (usual, own):
        raise ValueError(
            f"--{option} is {given}, but the model in --init {start.folder} has {own}; leave the option out, or train "
            "from nothing without --init"
        )


def _require_same_tokenizer(given: Path, own: Path) -> None:
    found, expected = (tokenizer_fingerprint(NanoTokenizer.from_pretrained(folder)) for folder in (given, own))
    if found != expected:
        raise ValueError(
            f"--tokenizer {given} has fingerprint {found}, but the model in --init was trained with {expected} "
            f"({own}); leave the option out: a model understands the latents of its own tokenizer only"
        )


def _width(start: WorldActionConfig, found: Sequence[Embodiment], vector: str, widen: bool) -> int:
    """How wide states or actions are going to be."""
    own: int = getattr(start.transformer, f"{vector}_dim")
    widest = max(found, key=lambda robot: getattr(robot, f"{vector}_dim"))
    needed: int = getattr(widest, f"{vector}_dim")
    if needed > own and not widen:
        raise EmbodimentError(
            f"embodiment {widest.name!r}: its {vector} has {needed} dimensions, the initial model has room for {own}; "
            "give --adapt.widen to make room, or start from a model with wider vectors"
        )
    return max(own, needed)


def _padded(robot: Embodiment, widths: dict[str, int]) -> Embodiment:
    """The robot with vectors of these widths."""
    changed: dict[str, Any] = {
        f"{vector}_width": width
        for vector, width in widths.items()
        if width != (getattr(robot, f"{vector}_width") or getattr(robot, f"{vector}_dim"))
    }
    return replace(robot, **changed)


def require_same_robot(known: Embodiment, found: Embodiment, who: str) -> None:
    """Raises EmbodimentError naming the field in which two descriptions of a robot differ. who: has the known one."""
    for field in dataclasses.fields(Embodiment):
        before, now = (_meaning(getattr(robot, field.name)) for robot in (known, found))
        if field.name not in WHERE and before != now:
            raise EmbodimentError(
                f"embodiment {found.name!r}: field {field.name!r} is {now!r}, but {who} a robot of this name with "
                f"{before!r}; make them the same, or give the robot another name to get a codec of its own"
            )


def _meaning(value: Any) -> Any:
    """Parts without the columns that they come from."""
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return tuple(replace(part, key=None, start=None) for part in value)
    return value


def _placed(old: Tensor, fresh: Tensor) -> Tensor:
    """Old weights in a tensor that may have further slots in front, and may be wider."""
    if old.shape == fresh.shape:
        return old
    placed = fresh.clone()
    placed[: len(old)] = 0
    placed[tuple(map(slice, old.shape))] = old
    return torch.as_tensor(placed)
