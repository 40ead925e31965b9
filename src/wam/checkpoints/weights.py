"""One component of a checkpoint under the names that run here, whatever its files call it, and what size it is.

The transformer has our names, the frozen networks those of their libraries. LoRA matrices beside whole weights are
merged on the way.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from wam.checkpoints.component_names import COMPONENTS, Component
from wam.checkpoints.errors import ForeignCheckpointError, MissingPartError
from wam.checkpoints.files import open_tensors
from wam.checkpoints.lazy import Lazy, Translated, merged, without_prefix
from wam.checkpoints.names import (
    ACTION_MODULES,
    ADAPTERS,
    IMAGE_BRANCH,
    LoadReport,
    Part,
    compare,
    from_diffusers,
    from_wan,
)
from wam.checkpoints.presets import PRESETS, from_dreamzero, skeleton
from wam.checkpoints.recognise import Piece, Recognised
from wam.model.config import TransformerConfig

HEAD_DIM = 128  # of every published Wan
TRAINED_FOR = {"oxe_droid": "dreamzero-droid", "agibot": "dreamzero-agibot"}  # robot -> published model
CLOSE = 0.5  # a preset is recognised when this part of its weights is there in its shapes
_OTHERS = tuple({component.prefix for component in COMPONENTS})


@dataclass(frozen=True)
class Looks:
    """The preset that weights resemble most, and how they differ from it."""

    preset: str
    report: LoadReport


def component_weights(piece: Piece) -> Translated:
    """A frozen network under its library's names.

    Raises ForeignCheckpointError when it is none of the networks that Wan's models use.
    """
    network = piece.network
    if network is None:
        raise ForeignCheckpointError(f"{piece.path}: not one of {[c.name for c in COMPONENTS]}; its names are others")
    files = open_tensors(piece.path)
    inside = without_prefix(files, piece.prefix) if piece.prefix else files
    needed = [name for name in inside.meta if not _is_unused(network, name, inside.meta)]
    rename = network.from_wan if piece.names == "wan" else network.from_library
    return Translated(inside, rename, names=needed)


def _is_unused(network: Component, name: str, names: Collection[str]) -> bool:
    """Left there on purpose, or the second copy of a tensor."""
    return any(part.has(name) for part in network.unused) or network.tied.get(name) in names


def transformer_weights(piece: Piece, *, merge: bool = True) -> Translated:
    """The transformer under our names, adapters beside whole weights merged into them.

    Raises MissingPartError when adapters have to be merged, but no config says how strongly.
    """
    files = open_tensors(piece.path)
    rename = from_diffusers if piece.names == "diffusers" else from_wan
    if piece.prefix == "transformer.":  # a WorldActionModel
        inside: Lazy = without_prefix(files, piece.prefix)
        return Translated(inside, rename)
    own = [name for name in files if not name.startswith(_OTHERS)]
    weights = Translated(files, rename, names=own)
    if not merge or not any(ADAPTERS.has(name) for name in weights):
        return weights
    return merged(weights, adapter_scale(piece.fields, str(piece.path)))


def adapter_scale(fields: Mapping[str, Any], source: str) -> float:
    """alpha / rank, from a DreamZero or a peft configuration."""
    inside = _head_config(fields) or fields
    rank = inside.get("lora_rank", inside.get("r"))
    alpha = inside.get("lora_alpha")
    if not isinstance(rank, (int, float)) or not isinstance(alpha, (int, float)) or rank <= 0:
        raise MissingPartError(
            f"{source}: has LoRA adapters, but its config.json does not say lora_rank and lora_alpha; add both"
        )
    return float(alpha) / float(rank)


def _head_config(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """`action_head_cfg.config` of a DreamZero config.json, {} for other files."""
    inner = fields.get("action_head_cfg")
    inner = inner.get("config") if isinstance(inner, Mapping) else None
    return inner if isinstance(inner, Mapping) else {}


# ---------------------------------------------------------------- sizes


def config_of(found: Recognised, meta: Mapping[str, Tensor]) -> TransformerConfig:
    """What the folder's configuration says; where it says little, what the shapes of its weights say.

    meta: the transformer under our names. Raises ForeignCheckpointError naming what cannot be told.
    """
    own = found.pieces["transformer"].fields.get("transformer") or found.fields.get("transformer")
    if isinstance(own, Mapping):
        return TransformerConfig(**own)
    inner = _head_config(found.fields).get("diffusion_model_cfg")
    if isinstance(inner, Mapping):
        try:
            image = meta["img_emb.proj.0.weight"].shape[0] if "img_emb.proj.0.weight" in meta else None
            return replace(from_dreamzero(inner, image=image is not None), image_dim=image)
        except ValueError:  # fields that only the training's defaults know
            return config_from_shapes(meta, inner.get("num_heads"), str(found.path))
    fields = found.pieces["transformer"].fields
    return config_from_shapes(meta, fields.get("num_heads", fields.get("num_attention_heads")), str(found.path))


def config_from_shapes(meta: Mapping[str, Tensor], heads: int | None, source: str) -> TransformerConfig:
    """Sizes from the shapes of weights; what shapes do not show is as in every published model."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in meta:
            raise ForeignCheckpointError(f"{source}: weight {name!r} is missing, so the model's size cannot be told")
        return tuple(meta[name].shape)

    dim, patches = shape("patch_embedding.weight")
    blocks = [int(match[1]) for name in meta if (match := re.match(r"blocks\.(\d+)\.", name))]
    published = PRESETS["wan2.1-i2v-14b"].transformer
    if heads is None and dim % HEAD_DIM:
        raise ForeignCheckpointError(
            f"{source}: width {dim} is no multiple of {HEAD_DIM}, and no config.json says how many heads there are"
        )
    sizes = {
        "dim": dim,
        "heads": dim // HEAD_DIM if heads is None else int(heads),
        "layers": 1 + max(blocks, default=0),
        "ffn_dim": shape("blocks.0.ffn.0.weight")[0],
        "in_channels": patches // published.patch**2,
        "out_channels": shape("head.head.weight")[0] // published.patch**2,
        "text_dim": shape("text_embedding.0.weight")[1],
        "time_dim": shape("time_embedding.0.weight")[1],
        "image_dim": shape("img_emb.proj.0.weight")[0] if "img_emb.proj.0.weight" in meta else None,
    }
    if "state_encoder.layer1.weight" in meta:
        robots, state_dim, hidden = shape("state_encoder.layer1.weight")
        action_dim = shape("action_encoder.layer1.weight")[1]
        sizes |= {"embodiments": robots, "state_dim": state_dim, "codec_hidden": hidden, "action_dim": action_dim}
    return TransformerConfig(**{**vars(published), **sizes})


def looks_like(meta: Mapping[str, Tensor], hints: Collection[str] = ()) -> Looks | None:
    """The preset that most weights fit, by name and shape; None when none is close. hints: presets that win a tie.

    The first block and the ends of the network tell which presets are worth comparing weight by weight.
    """
    order = [*(name for name in hints if name in PRESETS), *(name for name in PRESETS if name not in hints)]
    resemblance = {name: _resemblance(meta, PRESETS[name].transformer) for name in order}
    best: Looks | None = None
    for name in order:
        if resemblance[name] < max(resemblance.values()):
            continue
        expected = skeleton(PRESETS[name].transformer).state_dict()
        report = compare(meta, expected, new=new_parts(name))
        enough = report.loaded >= CLOSE * len(expected)
        if enough and (best is None or _faults(report) < _faults(best.report)):
            best = Looks(name, report)
        if best is not None and not _faults(best.report):
            break
    return best


def _resemblance(meta: Mapping[str, Tensor], config: TransformerConfig) -> int:
    """How many of the telling shapes are those of a configuration."""
    telling = {
        "patch_embedding.weight": (config.dim, config.in_channels * config.patch**2),
        "head.head.weight": (config.out_channels * config.patch**2, config.dim),
        "blocks.0.ffn.0.weight": (config.ffn_dim, config.dim),
        "blocks.0.self_attn.q.weight": (config.dim, config.dim),
        f"blocks.{config.layers - 1}.self_attn.q.weight": (config.dim, config.dim),
    }
    image = any(IMAGE_BRANCH.has(name) for name in meta) == (config.image_dim is not None)
    return image + sum(name in meta and tuple(meta[name].shape) == shape for name, shape in telling.items())


def _faults(report: LoadReport) -> int:
    return len(report.missing) + len(report.unexpected) + len(report.wrong_shape)


def preset_of(meta: Mapping[str, Tensor], config: TransformerConfig, tags: Collection[str]) -> str | None:
    """The published model that these weights seem to be: a plain video model, or DreamZero's of a robot.

    None for other sizes, and for action modules trained for nobody knows which robot.
    """
    fitting = [name for name, entry in PRESETS.items() if entry.transformer == config and entry.repository]
    if any(ACTION_MODULES.has(name) for name in meta):
        return next((TRAINED_FOR[tag] for tag in tags if TRAINED_FOR.get(tag) in fitting), None)
    return next((name for name in fitting if PRESETS[name].new_modules), None)


def new_parts(preset: str | None) -> tuple[Part, ...]:
    """What the published files of a preset lack; these modules start untrained."""
    return (ACTION_MODULES,) if preset is not None and PRESETS[preset].new_modules else ()
