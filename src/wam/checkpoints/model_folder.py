"""The folder of a World Action Model: all of its weights, or an adapter that names its base.

whole      config.json, model.safetensors, tokenizer/
adapter    config.json, adapter_config.json, adapter_model.safetensors, wam_adapter.json: megabytes. peft's field
           `base_model_name_or_path` says where the base is, as seen from this folder, or the name of a shipped model;
           the record holds the base's identity, and any other base is refused. config.json describes the whole model:
           it may know robots, and be as wide, as the base is not.

Both load as a plain `WorldActionModel`; a base may be an adapter's folder itself. An adapter to weights that somebody
else published has robot.yaml in place of config.json; `wam merge-lora` makes weights of it.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from wam.checkpoints.errors import MissingPartError
from wam.checkpoints.lora import Adapter, WrongBaseError, load_adapter, merge, save_adapter
from wam.checkpoints.lora_files import PEFT_CONFIG, PEFT_WEIGHTS, RECORD
from wam.checkpoints.recognise import read_fields
from wam.checkpoints.shards import write_json
from wam.model.transformer import Transformer
from wam.robot.embodiment import Embodiment
from wam.world_action_model import WorldActionConfig, WorldActionModel

CONFIG, TOKENIZER, ROBOT = "config.json", "tokenizer", "robot.yaml"
SHIPPED = Path(__file__).parents[1] / "shipped"  # small models that come with the package


def is_adapter(folder: Path) -> bool:
    """Whether this is the folder of an adapter."""
    return (folder / PEFT_CONFIG).is_file()


def read_config(folder: Path) -> WorldActionConfig:
    """Raises MissingPartError when there is no config.json, ValueError when it is not a World Action Model's."""
    if not (folder / CONFIG).is_file():
        raise MissingPartError(f"{folder}: no {CONFIG}; expected a folder that `wam train` wrote")
    return WorldActionConfig.from_dict(read_fields(folder / CONFIG))


def load_model(folder: Path) -> WorldActionModel:
    """A whole model, or an adapter merged into its base.

    Raises WrongBaseError when the base is not the one that the adapter was trained on, another CheckpointError or
    OSError when something is missing.
    """
    if not is_adapter(folder):
        return WorldActionModel.from_pretrained(folder)
    base, config = load_model(base_of(folder)), read_config(folder)
    require_same_trunk(folder, config, base.config)
    model = WorldActionModel(config)
    trunk = {name: x for name, x in base.state_dict().items() if x.shape == model.get_parameter(name).shape}
    model.load_state_dict(trunk, strict=False)  # the rest are codecs, which the adapter brings whole
    load_adapter(model.transformer, folder)
    merge(model.transformer)
    return model


def save_adapted(model: WorldActionModel, adapter: Adapter, base: Path, folder: Path) -> None:
    """Write the adapter in this model and what it says of its base; config.json comes last.

    base: folder of the model it was put on.  Raises ValueError when the base's weights are no longer what they were.
    """
    _write_adapter(model.transformer, adapter, _place(base, folder), folder)
    write_json(folder / CONFIG, model.config.to_dict())


def save_robot_adapter(transformer: Transformer, adapter: Adapter, base: str, robot: Embodiment, folder: Path) -> None:
    """Write an adapter to published weights, and the robot that they act for with it; robot.yaml comes last.

    base: what the weights are called: a folder, a Hub id or a preset.  robot: with the statistics of its numbers.
    """
    _write_adapter(transformer, adapter, _place(Path(base), folder) if Path(base).exists() else base, folder)
    robot.to_yaml(folder / f"{ROBOT}.partial")
    os.replace(folder / f"{ROBOT}.partial", folder / ROBOT)


def _write_adapter(transformer: Transformer, adapter: Adapter, place: str, folder: Path) -> None:
    """The adapter's files among others in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".adapter-") as scratch:
        save_adapter(transformer, adapter, Path(scratch) / "adapter", place=place)
        for name in (PEFT_WEIGHTS, PEFT_CONFIG, RECORD):
            os.replace(Path(scratch) / "adapter" / name, folder / name)


def read_robot(folder: Path) -> Embodiment | None:
    """The robot that published weights were adapted to, if they were."""
    return Embodiment.from_yaml(folder / ROBOT) if (folder / ROBOT).is_file() else None


def published_base(folder: Path) -> str:
    """What an adapter calls the published weights that it belongs to: a folder, a Hub id or a preset.

    Raises MissingPartError when it does not say.
    """
    named = _named_base(folder)
    return str(folder / named) if (folder / named).exists() else named


def base_of(folder: Path) -> Path:
    """The folder of the base that an adapter names. Raises MissingPartError when it does not, or it is not there."""
    named = _named_base(folder)
    for place in (folder / named, SHIPPED / named):
        if (place / CONFIG).is_file():
            return place.resolve()
    raise MissingPartError(
        f"{folder}: its base {named!r} is not there; put it back, or merge the adapter with "
        f"`wam merge-lora BASE {folder} OUT` and use OUT"
    )


def _named_base(folder: Path) -> str:
    named = read_fields(folder / PEFT_CONFIG).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise MissingPartError(
            f"{folder / PEFT_CONFIG}: names no base; merge the adapter with `wam merge-lora BASE {folder} OUT`"
        )
    return named


def tokenizer_of(folder: Path) -> Path:
    """The folder of the video tokenizer: an adapter uses that of its base."""
    return tokenizer_of(base_of(folder)) if is_adapter(folder) else folder / TOKENIZER


def require_same_trunk(folder: Path, config: WorldActionConfig, base: WorldActionConfig) -> None:
    """Raises WrongBaseError unless an adapter's model differs from its base in its robots alone."""
    found, own = base.transformer, config.transformer
    known = replace(found, embodiments=own.embodiments, action_dim=own.action_dim, state_dim=own.state_dim)
    if known != own or base.latent != config.latent:
        differing = [name for name in vars(own) if getattr(own, name) != getattr(known, name)] or ["latent"]
        raise WrongBaseError(
            f"{folder / CONFIG}: was trained on a base with another {differing[0]!r}; load the adapter on the model "
            "that it was trained on"
        )


def _place(base: Path, folder: Path) -> str:
    """How the base is called in the folder: never by a path of this machine that is not needed."""
    if base.resolve().parent == SHIPPED.resolve():
        return base.name
    return Path(os.path.relpath(base.resolve(), folder.resolve())).as_posix()
