"""Published weights -> networks that run, in any dialect, without ever holding more than the model and one shard.

A network is built without memory (torch's meta device), held against the files by name and shape, and only then filled,
shard by shard, each weight converted to its final type as it is read. Nothing is loaded if anything does not fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from wam.checkpoints.checked import CheckedTransformer, checked_component, checked_transformer
from wam.checkpoints.errors import MissingPartError
from wam.checkpoints.identity import identity
from wam.checkpoints.lazy import Translated
from wam.checkpoints.licence import Licence, announce
from wam.checkpoints.model_folder import read_robot
from wam.checkpoints.presets import skeleton
from wam.checkpoints.recognise import PARTS, Piece
from wam.checkpoints.source import Source, resolve
from wam.checkpoints.statistics import Metadata, read_metadata, robot_of
from wam.encoders.clip import ClipImageEncoder
from wam.encoders.umt5 import Umt5TextEncoder
from wam.model.config import TransformerConfig
from wam.model.transformer import Transformer
from wam.robot.embodiment import Embodiment

if TYPE_CHECKING:  # diffusers takes seconds to import
    from wam.encoders.wan_vae import WanVideoTokenizer

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # component, bytes done, bytes in all
Device = torch.device | str


def silent(component: str, done: int, total: int) -> None:
    """No progress."""


@dataclass(frozen=True)
class PublishedModel:
    """Everything that a checkpoint holds, ready to run. A component is None when it was not asked for, or not there.

    metadata: statistics of robots as DreamZero writes them, {} for plain video models.  fitted: the robot that the
    weights were adapted to, if they were.  identity: names the weights of the transformer (`wam.checkpoints.identity`),
    modules that started untrained left out.
    """

    transformer: Transformer
    source: str
    licence: Licence
    identity: str
    preset: str | None = None
    vae: WanVideoTokenizer | None = None
    text_encoder: Umt5TextEncoder | None = None
    image_encoder: ClipImageEncoder | None = None
    metadata: Metadata | None = None
    fitted: Embodiment | None = None

    @property
    def config(self) -> TransformerConfig:
        return self.transformer.config

    @property
    def robots(self) -> tuple[str, ...]:
        """Tags of the robots that the weights were trained for."""
        return tuple(self.metadata or ())

    def robot(self, tag: str) -> Embodiment:
        """With its statistics. Raises UnknownEmbodimentError naming the robots there are."""
        if self.fitted is not None and tag == self.fitted.name:
            return self.fitted
        return robot_of(self.metadata or {}, tag, self.source)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> PublishedModel:
        """A folder, a Hub id or a preset; `options` as in `load_published`."""
        return load_published(source, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Safetensors, config, statistics of robots and a model card; see `save_published`."""
        from wam.checkpoints.save import save_published  # it imports this file

        save_published(self, folder)


def load_published(
    source: str | Path | Source,
    *,
    components: Collection[str] = PARTS,
    dtype: torch.dtype | None = torch.bfloat16,
    device: Device = "cpu",
    places: Mapping[str, Device] = MappingProxyType({}),
    progress: Progress = silent,
) -> PublishedModel:
    """A folder, a preset or a repository -> networks. The licence goes to the log.

    components: which of "transformer", "vae", "text_encoder", "image_encoder" to load; the transformer always is.
    dtype: of all of them; None keeps each weight as it is stored.
    device: of all of them, but for those that have another one in `places`.
    """
    unknown = set(components) - set(PARTS)
    if unknown:
        raise MissingPartError(f"component {sorted(unknown)[0]!r} is unknown; expected some of {PARTS}")
    place = source if isinstance(source, Source) else resolve(source, components={*components, "transformer"})
    checked = checked_transformer(place)
    announce(checked.licence, place.name)
    transformer = _load_transformer(checked, dtype, places.get("transformer", device), progress)
    frozen = {
        part: _load_component(piece, dtype, places.get(part, device), progress)
        for part, piece in place.found.pieces.items()
        if part in components and part != "transformer"
    }
    metadata = None if place.found.metadata is None else read_metadata(place.found.metadata)
    return PublishedModel(
        transformer=transformer,
        source=place.name,
        licence=checked.licence,
        identity=identity(checked.weights if dtype == torch.float16 else transformer, leave_out=checked.new),
        preset=checked.preset,
        vae=_vae(frozen["vae"]) if "vae" in frozen else None,
        text_encoder=_text_encoder(frozen["text_encoder"], place) if "text_encoder" in frozen else None,
        image_encoder=ClipImageEncoder(cast(Any, frozen["image_encoder"])) if "image_encoder" in frozen else None,
        metadata=metadata,
        fitted=read_robot(place.folder),
    )


def load_transformer(
    source: str | Path | Source,
    config: TransformerConfig | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: Device = "cpu",
    progress: Progress = silent,
) -> Transformer:
    """The transformer of a checkpoint in any dialect, with LoRA matrices beside whole weights merged.

    config: what the weights have to fit; found in the files when left out. Action modules (and an image branch that
    `config` asks for) may be absent from the files: they start as in training from nothing, and the log says so.
    dtype: None keeps each weight as it is stored.

    Raises a `CheckpointError`; MismatchError when a weight is missing, unexpected or of the wrong shape.
    """
    place = source if isinstance(source, Source) else resolve(source, components=("transformer",))
    return _load_transformer(checked_transformer(place, config), dtype, device, progress)


def load_text_encoder(source: Source, *, dtype: torch.dtype | None = None, device: Device = "cpu") -> Umt5TextEncoder:
    """The text encoder of a checkpoint alone. Raises MissingPartError when it has none."""
    piece = source.found.pieces.get("text_encoder")
    if piece is None:
        raise MissingPartError(f"{source.asked}: has no text_encoder; found {sorted(source.found.pieces)}")
    return _text_encoder(_load_component(piece, dtype, device, silent), source)


def _load_transformer(
    checked: CheckedTransformer, dtype: torch.dtype | None, device: Device, progress: Progress
) -> Transformer:
    transformer = skeleton(checked.config)
    _fill(transformer, checked.weights, dtype, device, lambda done, total: progress("transformer", done, total))
    if checked.report.new:
        _start(transformer, checked.report.new, dtype, device)
    return transformer.requires_grad_(True)


# ---------------------------------------------------------------- filling


def _fill(
    module: nn.Module,
    weights: Translated,
    dtype: torch.dtype | None,
    device: Device,
    progress: Callable[[int, int], None],
) -> None:
    """Hang converted copies of the weights into a module on the meta device, in the order of the files."""
    total = sum(x.numel() * x.dtype.itemsize for x in weights.meta.values())
    owners, done = dict(module.named_modules()), 0
    for name, announced in weights.meta.items():
        _hang(owners, name, weights[name].to(device=device, dtype=dtype, copy=True))
        done += announced.numel() * announced.dtype.itemsize
        progress(done, total)


def _hang(owners: Mapping[str, nn.Module], name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = owners[owner]
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
    else:
        module._buffers[leaf] = tensor


def _start(transformer: Transformer, new: Mapping[str, str], dtype: torch.dtype | None, device: Device) -> None:
    """Untrained modules, initialised as in a model of one block that is thrown away afterwards."""
    stored = next(p.dtype for p in transformer.parameters() if not p.is_meta)
    owners = dict(transformer.named_modules())
    for index in range(transformer.config.layers):
        inside = [name for name in new if name.startswith(f"blocks.{index}.")] + (
            [name for name in new if not name.startswith("blocks.")] if index == 0 else []
        )
        if inside:
            fresh = Transformer(replace(transformer.config, layers=1)).state_dict()
            for name in inside:
                value = fresh[name.replace(f"blocks.{index}.", "blocks.0.", 1)]
                _hang(owners, name, value.to(device=device, dtype=dtype or stored, copy=True))
    log.warning("%d weights start untrained: %s", len(new), "; ".join(sorted(set(new.values()))))


# ---------------------------------------------------------------- frozen networks


def _load_component(piece: Piece, dtype: torch.dtype | None, device: Device, progress: Progress) -> nn.Module:
    network, weights, module = checked_component(piece)
    aliases = {name.removeprefix(network.old_prefix): name for name in module.state_dict()}
    renamed = Translated(weights, lambda tensors: {aliases[name]: tensor for name, tensor in tensors.items()})
    _fill(module, renamed, dtype, device, lambda done, total: progress(piece.part, done, total))
    if network.tied:
        cast(Any, module).tie_weights()
    _fill_counters(module, device)
    return module.requires_grad_(False).eval()


def _fill_counters(module: nn.Module, device: Device) -> None:
    """What no file holds: position numbers 0, 1, 2, ..."""
    for owner in module.modules():
        if "position_ids" in owner._buffers:
            owner._buffers["position_ids"] = torch.arange(cast(Any, owner).num_positions, device=device).expand(1, -1)


def _vae(network: nn.Module) -> WanVideoTokenizer:
    from wam.encoders.wan_vae import WanVideoTokenizer

    return WanVideoTokenizer(cast(Any, network))


def _text_encoder(network: nn.Module, place: Source) -> Umt5TextEncoder:
    if place.found.tokenizer is None:
        raise MissingPartError(
            f"{place.asked}: has a text encoder, but no tokenizer; put that of google/umt5-xxl into its folder "
            "'tokenizer', or load the other components only"
        )
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(place.found.tokenizer, local_files_only=True)
    return Umt5TextEncoder(cast(Any, network), words)
