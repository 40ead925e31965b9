"""Stored weights held against the network that they are for, by name, shape and type, before a single one is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from wam.checkpoints.component_names import Component
from wam.checkpoints.component_sizes import component_skeleton
from wam.checkpoints.errors import MismatchError, MissingPartError, TruncatedFileError
from wam.checkpoints.lazy import Translated, require_floats
from wam.checkpoints.licence import UNKNOWN, Licence, licence_of
from wam.checkpoints.names import ACTION_MODULES, IMAGE_BRANCH, LoadReport, Part, compare
from wam.checkpoints.presets import skeleton
from wam.checkpoints.recognise import Piece
from wam.checkpoints.source import Source
from wam.checkpoints.statistics import read_tags
from wam.checkpoints.weights import component_weights, config_of, preset_of, transformer_weights
from wam.model.config import TransformerConfig

MAY_START_NEW = (ACTION_MODULES, IMAGE_BRANCH)  # video models lack the first, Wan 2.2 also the second


@dataclass(frozen=True)
class CheckedTransformer:
    """Weights under our names that fit a configuration; `report.new` lists the modules that they do not contain.

    preset: the published model that they are, as far as can be told.  licence: where the folder states none, its.
    """

    weights: Translated
    config: TransformerConfig
    report: LoadReport
    preset: str | None
    licence: Licence

    @property
    def new(self) -> tuple[Part, ...]:
        """The parts that start untrained."""
        return tuple(part for part in MAY_START_NEW if any(part.has(name) for name in self.report.new))


def checked_transformer(place: Source, config: TransformerConfig | None = None) -> CheckedTransformer:
    """The transformer of a checkpoint, against `config` or what the checkpoint itself says.

    Raises MissingPartError when there is none, WrongDtypeError, or MismatchError with the first of each fault.
    """
    if place.found.kind == "adapter":
        raise MissingPartError(
            f"{place.asked}: holds a LoRA adapter only; load the base that it was trained on and put the adapter on "
            "it, or merge both with wam merge-lora"
        )
    if "transformer" not in place.found.pieces:
        raise MissingPartError(f"{place.asked}: holds {' and '.join(place.found.pieces)}, but no transformer")
    weights = transformer_weights(place.found.pieces["transformer"])
    require_floats(weights, place.asked)
    config = config_of(place.found, weights.meta) if config is None else config
    report = compare(weights.meta, skeleton(config).state_dict(), new=_absent(weights))
    require_fit(report, place.asked)
    preset = place.preset or preset_of(weights.meta, config, read_tags(place.found.metadata))
    licence = place.licence if place.licence.name != UNKNOWN else licence_of(place.folder, preset)
    return CheckedTransformer(weights, config, report, preset, licence)


def _absent(weights: Translated) -> tuple[Part, ...]:
    """Whole parts may be absent; a part of which something is there has to be complete."""
    return tuple(part for part in MAY_START_NEW if not any(part.has(name) for name in weights))


def checked_component(piece: Piece) -> tuple[Component, Translated, nn.Module]:
    """A frozen network's names, its weights under its library's names, and the network without memory."""
    module, network = network_of(piece), cast(Component, piece.network)
    weights = component_weights(piece)
    require_floats(weights, str(piece.path))
    expected = network.from_library({name: tensor.to("meta") for name, tensor in module.state_dict().items()})
    require_fit(compare(weights.meta, expected), str(piece.path))
    return network, weights, module


def require_fit(report: LoadReport, source: str) -> None:
    """Raises MismatchError with the first of each fault."""
    try:
        report.require_ok(source)
    except ValueError as error:
        raise MismatchError(str(error)) from error


def network_of(piece: Piece) -> nn.Module:
    """The frozen network of a piece without its weights: as its own config.json says, else in its published size."""
    if piece.network is None:
        raise MissingPartError(f"{piece.path}: not a network that this project knows")
    if not piece.fields or piece.names == "wan":
        return component_skeleton(piece.network)
    with torch.device("meta"):
        return _from_fields(piece.network, piece.fields)


def _from_fields(network: Component, fields: Mapping[str, Any]) -> nn.Module:
    """Settings of our own three classes; whatever classes the file names are not looked at."""
    try:
        if network.folder == "vae":
            from diffusers import AutoencoderKLWan

            return cast(nn.Module, cast(Any, AutoencoderKLWan).from_config(dict(fields)))
        import transformers

        if network.folder == "text_encoder":
            return transformers.UMT5EncoderModel(transformers.UMT5Config.from_dict(dict(fields)))
        vision = fields.get("vision_config", fields)
        return transformers.CLIPVisionModel(transformers.CLIPVisionConfig.from_dict(dict(vision)))
    except (TypeError, ValueError, KeyError) as error:
        raise TruncatedFileError(f"{network.folder}/config.json: cannot be used ({error})") from error
