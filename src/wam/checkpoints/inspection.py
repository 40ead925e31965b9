"""What is this checkpoint? All that headers and small files tell, in about a second, and a strict report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wam.checkpoints.checked import MAY_START_NEW, network_of
from wam.checkpoints.errors import CheckpointError
from wam.checkpoints.files import TensorFiles, open_tensors
from wam.checkpoints.licence import Licence, licence_of
from wam.checkpoints.lora_files import read_adapter
from wam.checkpoints.model_folder import read_robot
from wam.checkpoints.names import ADAPTERS, LoadReport, compare, from_wan
from wam.checkpoints.presets import PRESETS, skeleton
from wam.checkpoints.recognise import Piece
from wam.checkpoints.source import Source, resolve
from wam.checkpoints.statistics import read_metadata
from wam.checkpoints.weights import (
    TRAINED_FOR,
    adapter_scale,
    component_weights,
    config_of,
    looks_like,
    transformer_weights,
)
from wam.model.config import TransformerConfig
from wam.robot.released import TAGS

KINDS = {
    "wam": "a checkpoint of this project",
    "original": "files of the original Wan repositories",
    "diffusers": "a diffusers repository",
    "dreamzero": "a DreamZero checkpoint, all components in one set of shards",
    "adapter": "a LoRA adapter alone: it needs the base that it was trained on",
    "nano": "a nano World Action Model of this project",
    "single": "weights of a single component",
}


@dataclass(frozen=True)
class PartFacts:
    """One component as it is stored. bytes: of its tensors; dtypes: number of tensors per type."""

    part: str
    network: str
    files: tuple[str, ...]
    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]


@dataclass(frozen=True)
class Fit:
    """How a component differs from the network it is for. fault: why it cannot be compared at all, "" if it can."""

    part: str
    against: str
    report: LoadReport | None
    fault: str = ""

    @property
    def ok(self) -> bool:
        return self.report is not None and self.report.ok


@dataclass(frozen=True)
class AdapterFacts:
    """rank and scale of LoRA matrices; base: which weights they need, as far as the files say."""

    matrices: int
    rank: int
    scale: float | None
    base: str


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is. preset: the one it resembles.  embodiments: robots with statistics; described or not."""

    source: Source
    licence: Licence
    preset: str | None
    config: TransformerConfig | None
    parts: tuple[PartFacts, ...]
    fits: tuple[Fit, ...]
    embodiments: Mapping[str, bool]
    adapter: AdapterFacts | None = None

    @property
    def ok(self) -> bool:
        return all(fit.ok for fit in self.fits)

    def to_dict(self) -> dict[str, Any]:
        return {
            "source": self.source.name,
            "kind": self.source.found.kind,
            "revision": self.source.revision,
            "licence": asdict(self.licence),
            "preset": self.preset,
            "config": None if self.config is None else asdict(self.config),
            "parts": [asdict(part) for part in self.parts],
            "fits": [_plain(fit) for fit in self.fits],
            "embodiments": dict(self.embodiments),
            "adapter": None if self.adapter is None else asdict(self.adapter),
            "ok": self.ok,
        }


def inspect(asked: str | Path) -> Inspection:
    """Raises a `CheckpointError` when the files cannot be read, or are no weights that this project knows."""
    source = resolve(asked)
    found = source.found
    metadata = {} if found.metadata is None else read_metadata(found.metadata)
    fitted = read_robot(source.folder)
    robots = {tag: tag in TAGS for tag in metadata} | ({} if fitted is None else {fitted.name: True})
    if found.kind == "nano":
        robots = {str(robot["name"]): True for robot in found.fields["embodiments"]}
    parts = tuple(_facts(piece) for piece in found.pieces.values())
    adapter = _adapter(source) if _has_adapters(source) else None
    if found.kind == "adapter":
        return Inspection(source, source.licence, source.preset, None, parts, (), robots, adapter)
    preset, config, fits = source.preset, None, []
    for part, piece in found.pieces.items():
        if part == "transformer":
            preset, config, fit = _transformer(source, tuple(metadata))
            fits.append(fit)
        elif found.kind != "nano":
            fits.append(_component(piece))
    licence = source.licence if source.preset == preset else licence_of(source.folder, preset)
    return Inspection(source, licence, preset, config, parts, tuple(fits), robots, adapter)


def _facts(piece: Piece) -> PartFacts:
    files = open_tensors(piece.path)
    inside = _inside(files, piece)
    dtypes: dict[str, int] = {}
    for name in inside:
        spelled = str(files.info[name].dtype).removeprefix("torch.")
        dtypes[spelled] = dtypes.get(spelled, 0) + 1
    return PartFacts(
        part=piece.part,
        network="transformer" if piece.part == "transformer" else piece.network.name if piece.network else "unknown",
        files=tuple(dict.fromkeys(files.info[name].file.name for name in inside)),
        tensors=len(inside),
        parameters=sum(files.info[name].parameters for name in inside),
        bytes=sum(files.info[name].bytes for name in inside),
        dtypes=dtypes,
    )


def _inside(files: TensorFiles, piece: Piece) -> Sequence[str]:
    return [name for name in files if name.startswith(piece.prefix)]


# ---------------------------------------------------------------- strict reports


def _transformer(source: Source, tags: Collection[str]) -> tuple[str | None, TransformerConfig | None, Fit]:
    """Against the preset that it resembles, else against the sizes that the checkpoint itself states."""
    weights = transformer_weights(source.found.pieces["transformer"], merge=False).meta
    plain = {name: tensor for name, tensor in weights.items() if not ADAPTERS.has(name)}
    fault = _not_floats(plain)
    hints = [TRAINED_FOR[tag] for tag in tags if tag in TRAINED_FOR]
    hints += [name for name in PRESETS if name.startswith("dreamzero") and source.found.kind == "dreamzero"]
    looks = looks_like(plain, [*([source.preset] if source.preset else []), *hints])
    if looks is not None:
        config = PRESETS[looks.preset].transformer
        return looks.preset, config, Fit("transformer", looks.preset, looks.report if not fault else None, fault)
    try:
        config = config_of(source.found, plain)
    except CheckpointError as error:
        return None, None, Fit("transformer", "no preset", None, str(error))
    absent = tuple(part for part in MAY_START_NEW if not any(part.has(name) for name in plain))
    report = compare(plain, skeleton(config).state_dict(), new=absent)
    return None, config, Fit("transformer", "its own configuration", None if fault else report, fault)


def _component(piece: Piece) -> Fit:
    try:
        weights, module = component_weights(piece).meta, network_of(piece)
    except CheckpointError as error:
        return Fit(piece.part, "no known network", None, str(error))
    network = piece.network
    assert network is not None  # component_weights has refused it
    expected = network.from_library({name: tensor.to("meta") for name, tensor in module.state_dict().items()})
    fault = _not_floats(weights)
    return Fit(piece.part, network.name, None if fault else compare(weights, expected), fault)


def _not_floats(weights: Mapping[str, Tensor]) -> str:
    wrong = [(name, x.dtype) for name, x in weights.items() if not x.is_floating_point()]
    first = f"tensor {wrong[0][0]!r} has dtype {str(wrong[0][1]).removeprefix('torch.')}" if wrong else ""
    return f"{first}, expected floating-point numbers ({len(wrong)} such tensors)" if wrong else ""


def _plain(fit: Fit) -> dict[str, Any]:
    report = {} if fit.report is None else asdict(fit.report)
    return {"part": fit.part, "against": fit.against, "ok": fit.ok, "fault": fit.fault, **report}


# ---------------------------------------------------------------- adapters


def _has_adapters(source: Source) -> bool:
    piece = source.found.pieces.get("transformer")
    return piece is not None and any(ADAPTERS.has(name) for name in open_tensors(piece.path))


def _adapter(source: Source) -> AdapterFacts:
    """What the files say of LoRA matrices, and which published networks have their widths."""
    piece = source.found.pieces["transformer"]
    stored = open_tensors(piece.path)
    lower = {name: x for name, x in from_wan(stored.meta).items() if name.endswith(".lora_A.weight")}
    layers = 1 + max((int(name.split(".")[1]) for name in lower if name.startswith("blocks.")), default=-1)
    width = next((x.shape[1] for name, x in lower.items() if ".q.lora_A" in name), 0)
    fitting = [name for name, entry in PRESETS.items() if _size(entry.transformer) == (width, layers)]
    rank = next((x.shape[0] for x in lower.values()), 0)
    try:
        if source.found.kind != "adapter":
            return AdapterFacts(len(lower), rank, adapter_scale(piece.fields, source.asked), "in the same files")
        recorded = read_adapter(source.found.path)
        scale, known = recorded.config.scale, "" if recorded.base is None else f", identity {recorded.base[:16]}"
    except CheckpointError:  # nothing says how strongly; the shapes still tell what they belong to
        scale, known = None, ""
    base = f"{' or '.join(fitting) or 'a model'} ({layers} blocks of width {width}{known})"
    return AdapterFacts(len(lower), rank, scale, base)


def _size(config: TransformerConfig) -> tuple[int, int]:
    return config.dim, config.layers
