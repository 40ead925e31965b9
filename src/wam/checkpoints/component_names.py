"""What other projects call the frozen networks around the transformer: exact, two-way and strict, as `names` is for it.

Two dialects of each network:
    wan      the original files; DreamZero's checkpoints put a prefix in front (`action_head.vae.model.`)
    library  the modules that run here: `UMT5EncoderModel` and `CLIPVisionModel` of transformers, `AutoencoderKLWan` of
             diffusers
The tensors are the same, but for CLIP: Wan keeps q, k and v in one tensor, and leading axes of size 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from wam.checkpoints.names import LoadReport, Part, Tensors, compare

Table = Mapping[str, str | tuple[str, ...]]
ENDINGS = ("", ".weight", ".bias", ".gamma")


@dataclass(frozen=True)
class Piece:
    """A library tensor as a piece of Wan's: rows `index` of `count` equal groups of rows of the tensor `wan`."""

    wan: str
    index: int
    count: int


@dataclass(frozen=True, eq=False)  # there is one object per network; tables cannot be hashed
class Component:
    """The names of one frozen network.

    folder: where diffusers repositories, and ours, keep its weights.
    prefix: in front of Wan's names in DreamZero files.
    table: Wan's name -> the library's, both without .weight, .bias or .gamma; several where Wan fuses them, row by row.
    unused: parts of files without counterpart, left there on purpose.
    leading: how many axes of size 1 Wan's tensor has in front of the library's.
    tied: library names of a second copy -> the name under which the tensor is kept.
    old_prefix: in front of the library's names in older files and versions of the library.
    """

    name: str
    folder: str
    prefix: str
    table: Table
    unused: tuple[Part, ...] = ()
    leading: Mapping[str, int] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    old_prefix: str = ""

    def own(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """What belongs to this component: everything, or of a DreamZero file the names with the prefix, without it."""
        inside = {name.removeprefix(self.prefix): x for name, x in tensors.items() if name.startswith(self.prefix)}
        return inside or dict(tensors)

    def from_wan(self, tensors: Tensors) -> dict[str, Tensor]:
        """Original or DreamZero names -> the library's; names without counterpart stay, so that a report lists them.

        Works shard by shard: every tensor is translated on its own. Pieces are views of the tensor that they come from.
        """
        theirs: dict[str, Tensor] = {}
        for name, tensor in self.own(tensors).items():
            found = _look_up(self.table, name)
            names, ending = ((name,), "") if found is None else (_several(found[0]), found[1])
            pieces = _split(tensor, len(names), self.leading.get(name, 0))
            theirs |= {piece_name + ending: piece for piece_name, piece in zip(names, pieces, strict=True)}
        return theirs

    def to_wan(self, tensors: Tensors, prefix: str = "") -> dict[str, Tensor]:
        """The library's names -> original names (prefix "") or DreamZero's (prefix `component.prefix`).

        Raises ValueError naming a tensor without counterpart, or a piece of a fused one that is missing.
        """
        groups: dict[str, dict[int, Tensor]] = {}
        sizes: dict[str, int] = {}
        for name, tensor in self.from_library(tensors).items():
            found = _look_up(self._pieces, name)
            if found is None:
                raise ValueError(f"{self.name}: {name!r} has no counterpart in Wan's files")
            piece, ending = found
            groups.setdefault(piece.wan + ending, {})[piece.index] = tensor
            sizes[piece.wan + ending] = piece.count
        for name, pieces in groups.items():
            if len(pieces) < sizes[name]:
                raise ValueError(f"{self.name}: {name!r} needs {sizes[name]} tensors (q, k, v), found {len(pieces)}")
        return {prefix + name: self._fused(name, pieces) for name, pieces in groups.items()}

    def from_library(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Names of any version of the library -> those of the newest, and every tied tensor once."""
        plain = {name.removeprefix(self.old_prefix): tensor for name, tensor in tensors.items()}
        kept = {name: tensor for name, tensor in plain.items() if name not in self.tied}
        return kept | {
            self.tied[name]: x for name, x in plain.items() if name in self.tied and self.tied[name] not in kept
        }

    def from_any(self, tensors: Tensors) -> dict[str, Tensor]:
        """Names of either dialect -> the library's."""
        own = self.own(tensors)
        return self.from_wan(own) if self.is_wan(own) else self.from_library(own)

    def is_wan(self, names: Iterable[str]) -> bool:
        """Whether these are Wan's names, the prefix of DreamZero removed."""
        return any(_look_up(self.table, name) is not None for name in names)

    def knows(self, name: str) -> bool:
        """Whether a name of either dialect is mapped, tied to one that is, or deliberately unused."""
        plain = name.removeprefix(self.old_prefix)
        mapped = any(_look_up(table, plain) is not None for table in (self.table, self._pieces))
        return mapped or plain in self.tied or any(part.has(name) for part in self.unused)

    def compare(self, tensors: Tensors, module: nn.Module) -> LoadReport:
        """Hold weights of either dialect against a module; nothing is copied, so both may be on the meta device."""
        return compare(self.from_any(tensors), self.from_library(module.state_dict()), unused=self.unused)

    @cached_property
    def _pieces(self) -> dict[str, Piece]:
        """The table, read backwards."""
        rows = ((wan, _several(names)) for wan, names in self.table.items())
        return {name: Piece(wan, index, len(names)) for wan, names in rows for index, name in enumerate(names)}

    def _fused(self, name: str, pieces: Mapping[int, Tensor]) -> Tensor:
        tensor = pieces[0] if len(pieces) == 1 else torch.cat([pieces[index] for index in sorted(pieces)])
        return tensor.reshape((1,) * self.leading.get(name, 0) + tuple(tensor.shape))


def load_component(
    component: Component, module: nn.Module, tensors: Tensors, *, source: str, assign: bool = False
) -> LoadReport:
    """Fill a module of the library with weights of either dialect.

    assign: hang the tensors themselves into the module instead of copying them; the only way for a module on the meta
    device. Raises ValueError, before touching the module, if anything is missing, unexpected or of a wrong shape.
    """
    report = component.compare(tensors, module)
    report.require_ok(source)
    found = component.from_any(tensors)
    canonical = {name: name.removeprefix(component.old_prefix) for name in module.state_dict()}
    weights = {name: found[component.tied.get(plain, plain)] for name, plain in canonical.items()}
    module.load_state_dict(weights, strict=True, assign=assign)
    if component.tied:
        module.tie_weights()  # type: ignore[operator]  # transformers' own: one parameter again, under both names
    return report


def component_of(names: Iterable[str]) -> Component | None:
    """Whose names these are, in either dialect: the component that knows all of them, or None."""
    asked = list(names)
    fits = (c for c in COMPONENTS if asked and all(c.knows(name.removeprefix(c.prefix)) for name in asked))
    return next(fits, None)


def _look_up(table: Mapping[str, Any], name: str) -> tuple[Any, str] | None:
    """What the table says about a name, with its ending taken off, and that ending."""
    endings = (ending for ending in ENDINGS if name.endswith(ending))
    return next(((table[stem], end) for end in endings if (stem := name.removesuffix(end)) in table), None)


def _split(tensor: Tensor, count: int, leading: int) -> tuple[Tensor, ...]:
    """Groups of rows, without the leading axes. A tensor of another shape passes as it is: a report will name it."""
    plain = tensor.reshape(tensor.shape[leading:]) if tensor.shape[:leading] == (1,) * leading else tensor
    return plain.tensor_split(count) if count > 1 and plain.ndim else (plain,) * count


def _several(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


# ---------------------------------------------------------------- the text encoder, umT5-XXL

_TEXT_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
UMT5_XXL = Component(
    name="umt5-xxl",
    folder="text_encoder",
    prefix="action_head.text_encoder.",
    table={
        "token_embedding": "shared",
        "norm": "encoder.final_layer_norm",
        **{f"blocks.{n}.{wan}": f"encoder.block.{n}.{name}" for n in range(24) for wan, name in _TEXT_BLOCK.items()},
    },
    unused=(Part(r"^(decoder|lm_head)\.", "the decoder of a whole umT5 model; features come from its encoder"),),
    tied={"encoder.embed_tokens.weight": "shared.weight"},
)


# ---------------------------------------------------------------- the image encoder, CLIP ViT-H/14

_IMAGE_BLOCK: Table = {
    "norm1": "layer_norm1",
    "attn.to_qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}
CLIP_VIT_H14 = Component(
    name="clip-vit-h-14",
    folder="image_encoder",
    prefix="action_head.image_encoder.model.",
    table={
        "visual.cls_embedding": "embeddings.class_embedding",
        "visual.pos_embedding": "embeddings.position_embedding.weight",
        "visual.patch_embedding": "embeddings.patch_embedding",
        "visual.pre_norm": "pre_layrnorm",  # sic
        "visual.post_norm": "post_layernorm",
        **{
            f"visual.transformer.{n}.{wan}": tuple(f"encoder.layers.{n}.{name}" for name in _several(names))
            for n in range(32)
            for wan, names in _IMAGE_BLOCK.items()
        },
    },
    unused=(
        Part(r"^(textual|text_model|text_projection)\.", "CLIP's text tower; features come from the visual one"),
        Part(r"^(visual\.head|visual_projection\.weight)$", "the projection into the space that CLIP shares with text"),
        Part(r"^(log_scale|logit_scale)$", "the temperature of CLIP's training loss"),
        Part(r"(^|\.)embeddings\.position_ids$", "0, 1, 2, ...: not a weight"),
    ),
    leading={"visual.cls_embedding": 2, "visual.pos_embedding": 1},
    old_prefix="vision_model.",
)


# ---------------------------------------------------------------- the video tokenizers of Wan 2.1 and 2.2

_STAGES, _DOWN, _UP = 4, 2, 3  # stages per half; residual blocks per stage on the way down and on the way up
_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_RESAMPLE = {"resample.1": "resample.1", "time_conv": "time_conv"}
_ATTENTION = {"norm": "norm", "to_qkv": "to_qkv", "proj": "proj"}


def _at(wan: str, library: str, inside: Mapping[str, str]) -> dict[str, str]:
    return {f"{wan}.{own}": f"{library}.{theirs}" for own, theirs in inside.items()}


def _around_the_stages() -> dict[str, str]:
    """First and last layers, and the middle of either half: the same in both versions."""
    table = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
    for half in ("encoder", "decoder"):
        table |= _at(half, half, {"conv1": "conv_in", "head.0": "norm_out", "head.2": "conv_out"})
        table |= _at(f"{half}.middle.0", f"{half}.mid_block.resnets.0", _RESIDUAL)
        table |= _at(f"{half}.middle.1", f"{half}.mid_block.attentions.0", _ATTENTION)
        table |= _at(f"{half}.middle.2", f"{half}.mid_block.resnets.1", _RESIDUAL)
    return table


def _stages_21() -> dict[str, str]:
    """Wan 2.1 counts layers through both halves; diffusers does so on the way down only."""
    table: dict[str, str] = {}
    for stage in range(_STAGES):
        for block in range(_DOWN):
            n = stage * (_DOWN + 1) + block
            table |= _at(f"encoder.downsamples.{n}", f"encoder.down_blocks.{n}", _RESIDUAL)
        for block in range(_UP):
            n = stage * (_UP + 1) + block
            table |= _at(f"decoder.upsamples.{n}", f"decoder.up_blocks.{stage}.resnets.{block}", _RESIDUAL)
    for stage in range(_STAGES - 1):  # the last one keeps its size
        down, up = stage * (_DOWN + 1) + _DOWN, stage * (_UP + 1) + _UP
        table |= _at(f"encoder.downsamples.{down}", f"encoder.down_blocks.{down}", _RESAMPLE)
        table |= _at(f"decoder.upsamples.{up}", f"decoder.up_blocks.{stage}.upsamplers.0", _RESAMPLE)
    return table


def _stages_22() -> dict[str, str]:
    """Wan 2.2 counts layers within every stage."""
    table: dict[str, str] = {}
    for stage in range(_STAGES):
        down, up = f"encoder.downsamples.{stage}.downsamples", f"decoder.upsamples.{stage}.upsamples"
        for block in range(_DOWN):
            table |= _at(f"{down}.{block}", f"encoder.down_blocks.{stage}.resnets.{block}", _RESIDUAL)
        for block in range(_UP):
            table |= _at(f"{up}.{block}", f"decoder.up_blocks.{stage}.resnets.{block}", _RESIDUAL)
        if stage < _STAGES - 1:  # the last one keeps its size
            table |= _at(f"{down}.{_DOWN}", f"encoder.down_blocks.{stage}.downsampler", _RESAMPLE)
            table |= _at(f"{up}.{_UP}", f"decoder.up_blocks.{stage}.upsampler", _RESAMPLE)
    return table


_VAE_PREFIX = "action_head.vae.model."
WAN_21_VAE = Component("wan2.1-vae", "vae", _VAE_PREFIX, {**_around_the_stages(), **_stages_21()})
WAN_22_VAE = Component("wan2.2-vae", "vae", _VAE_PREFIX, {**_around_the_stages(), **_stages_22()})

COMPONENTS = (UMT5_XXL, CLIP_VIT_H14, WAN_21_VAE, WAN_22_VAE)
