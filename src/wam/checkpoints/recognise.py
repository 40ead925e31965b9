"""What is this folder? Its dialect, and where each component's weights are, from file names and headers alone.

wam        ours: config.json with "format": "wam", transformer/, vae/, text_encoder/, image_encoder/, tokenizer/
original   Wan's: diffusion_pytorch_model*.safetensors, Wan2.*_VAE.pth, models_t5*.pth, models_clip*.pth
diffusers  transformer/, vae/, text_encoder/, image_encoder/, tokenizer/
dreamzero  shards whose names begin with action_head., holding all components; experiment_cfg/metadata.json
adapter    LoRA matrices, perhaps with action modules: worth nothing without the base that they were trained on; ours
           also describes the model that both make
nano       a WorldActionModel of this project, with its video tokenizer
single     one component in one file or folder
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wam.checkpoints.component_names import COMPONENTS, Component, component_of
from wam.checkpoints.errors import ForeignCheckpointError, MissingPartError, TruncatedFileError
from wam.checkpoints.files import PICKLES, SHARD, TensorFiles, open_tensors
from wam.checkpoints.lora_files import PEFT_CONFIG
from wam.checkpoints.names import ADAPTERS, CODEC, DREAMZERO_PREFIX, WRAPPED_PREFIX, dialect
from wam.checkpoints.statistics import METADATA

Kind = Literal["wam", "original", "diffusers", "dreamzero", "adapter", "nano", "single"]
Names = Literal["wan", "diffusers"]  # "wan": Wan's own, or ours; "diffusers": diffusers' and transformers'
Part = Literal["transformer", "vae", "text_encoder", "image_encoder"]
PARTS: tuple[Part, ...] = ("transformer", "vae", "text_encoder", "image_encoder")
FORMAT, CONFIG = "wam", "config.json"
INSIDE = "action_head."  # in front of every name in a DreamZero file
TOKENIZERS = ("tokenizer", "google/umt5-xxl")
_SIGNS = ("blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight")  # every transformer has one of these
_ORIGINAL = {
    "transformer": "diffusion_pytorch_model",
    "vae": "Wan2.?_VAE",
    "text_encoder": "models_t5",
    "image_encoder": "models_clip",
}


@dataclass(frozen=True)
class Piece:
    """Where the weights of one component are.

    names: whose names they have there.  prefix: in front of them, in a file of several components.
    fields: of the component's own config.json, {} when there is none.  network: which of the frozen networks it is;
    None for the transformer and for components that are not Wan's.
    """

    part: str
    path: Path
    names: Names
    prefix: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    network: Component | None = None


@dataclass(frozen=True)
class Recognised:
    """What a folder or file is. fields: of its config.json, {} when there is none."""

    path: Path
    kind: Kind
    pieces: Mapping[str, Piece]
    fields: Mapping[str, Any]
    tokenizer: Path | None = None
    metadata: Path | None = None


def recognise(path: Path) -> Recognised:
    """Look at file names, then at the names of tensors.

    Raises ForeignCheckpointError when these are no weights that this project knows, or another `CheckpointError` of
    `open_tensors`.
    """
    fields = read_fields(path / CONFIG) if path.is_dir() else {}
    if fields.get("format") == FORMAT:
        return _folders(path, "wam", fields, "wan")
    if describes_ours(fields) and not (path / PEFT_CONFIG).is_file():
        return _nano(path, fields)
    if _names_a_folder(path, "transformer"):
        return _folders(path, "diffusers", fields, "diffusers")
    if path.is_dir() and _original_file(path, "transformer") is not None:
        return _original(path, fields)
    return _by_names(path, fields)


def describes_ours(fields: Mapping[str, Any]) -> bool:
    """Whether this is the config.json of a model of `wam train`, whole or an adapter."""
    return fields.keys() >= {"transformer", "latent"}


def read_fields(file: Path) -> dict[str, Any]:
    """A JSON object, {} when the file does not exist. Nothing in it is executed, whatever it says."""
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise TruncatedFileError(f"{file}: no JSON object ({error}); copy or download it again") from error


# ---------------------------------------------------------------- a folder per component: ours and diffusers'


def _folders(path: Path, kind: Kind, fields: Mapping[str, Any], names: Names) -> Recognised:
    pieces = {"transformer": Piece("transformer", path / "transformer", names, fields=_fields_in(path / "transformer"))}
    for part in PARTS[1:]:
        if _names_a_folder(path, part):
            folder = path / part
            pieces[part] = Piece(
                part, folder, "diffusers", fields=_fields_in(folder), network=component_of(open_tensors(folder))
            )
    return Recognised(path, kind, pieces, fields, _tokenizer(path), _metadata(path))


def _names_a_folder(path: Path, part: str) -> bool:
    return any((path / part).glob("*.safetensors*"))


def _fields_in(folder: Path) -> dict[str, Any]:
    return read_fields(folder / CONFIG)


# ---------------------------------------------------------------- a file per component: Wan's


def _original(path: Path, fields: Mapping[str, Any]) -> Recognised:
    pieces: dict[str, Piece] = {}
    for part in PARTS:
        file = _original_file(path, part)
        if file is None:
            continue
        tensors = open_tensors(file)
        own = fields if part == "transformer" else {}
        network = None if part == "transformer" else component_of(tensors)
        pieces[part] = Piece(part, file, dialect(tensors) if part == "transformer" else "wan", "", own, network)
    if not _is_transformer(open_tensors(pieces["transformer"].path)):
        return _by_names(path, fields)
    return Recognised(path, "original", pieces, fields, _tokenizer(path), _metadata(path))


def _original_file(path: Path, part: str) -> Path | None:
    """The index of its shards, else its only file; the folder when there are shards without an index."""
    stem = _ORIGINAL[part]
    endings = (".safetensors.index.json", ".safetensors", *PICKLES)
    found = next((files for end in endings if (files := sorted(path.glob(f"{stem}*{end}")))), None)
    if found is None:
        return None
    return path if SHARD.match(found[0].name) else found[0]


# ---------------------------------------------------------------- whatever it is, its names tell


def _by_names(path: Path, fields: Mapping[str, Any]) -> Recognised:
    tensors = open_tensors(path)
    adapters = [name for name in tensors if ADAPTERS.has(name)]
    plain = [name for name in tensors if not ADAPTERS.has(name)]
    if adapters and all(CODEC.match(_bare(name)) for name in plain):
        piece = Piece("transformer", path, "wan", fields=fields)
        return Recognised(path, "adapter", {"transformer": piece}, fields, None, _metadata(path))
    if any(name.startswith(INSIDE) for name in tensors):
        return Recognised(path, "dreamzero", _inside(path, tensors, fields), fields, _tokenizer(path), _metadata(path))
    if _is_transformer(tensors):
        piece = Piece("transformer", path, dialect(tensors), fields=fields)
        return Recognised(path, "single", {"transformer": piece}, fields)
    network = component_of(tensors)
    if network is None:
        examples = ", ".join(repr(name) for name in list(tensors)[:3])
        raise ForeignCheckpointError(
            f"{path}: {len(tensors)} tensors, none of Wan, DreamZero or this project (first: {examples}); "
            "expected a transformer, a Wan video VAE, umT5-XXL or CLIP ViT-H/14"
        )
    names: Names = "wan" if network.is_wan(tensors) else "diffusers"
    return Recognised(path, "single", {network.folder: Piece(network.folder, path, names, "", fields, network)}, fields)


def _inside(path: Path, tensors: TensorFiles, fields: Mapping[str, Any]) -> dict[str, Piece]:
    """The components of a DreamZero file."""
    pieces = {"transformer": Piece("transformer", path, "wan", DREAMZERO_PREFIX, fields)}
    for prefix in dict.fromkeys(component.prefix for component in COMPONENTS):
        inside = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        if inside:
            part = next(component.folder for component in COMPONENTS if component.prefix == prefix)
            pieces[part] = Piece(part, path, "wan", prefix, network=component_of(inside))
    if not any(name.startswith(DREAMZERO_PREFIX) for name in tensors):
        raise MissingPartError(f"{path}: no tensor begins with {DREAMZERO_PREFIX!r}; this file has no transformer")
    return pieces


def _bare(name: str) -> str:
    return name.removeprefix(DREAMZERO_PREFIX).removeprefix(WRAPPED_PREFIX)


def _is_transformer(names: Iterable[str]) -> bool:
    return any(_bare(name).replace(".base_layer.", ".") in _SIGNS for name in names)


# ---------------------------------------------------------------- nano, and what lies beside weights


def _nano(path: Path, fields: Mapping[str, Any]) -> Recognised:
    piece = Piece(
        "transformer", path / "model.safetensors", "wan", "transformer.", {"transformer": fields["transformer"]}
    )
    pieces = {"transformer": piece}
    if (path / "tokenizer" / "model.safetensors").is_file():
        pieces["vae"] = Piece("vae", path / "tokenizer", "wan", fields=_fields_in(path / "tokenizer"))
    return Recognised(path, "nano", pieces, fields)


def _tokenizer(path: Path) -> Path | None:
    return _first(path, TOKENIZERS, Path.is_dir)


def _metadata(path: Path) -> Path | None:
    return _first(path, (METADATA, f"experiment_cfg/{METADATA}"), Path.is_file)


def _first(path: Path, names: Iterable[str], there: Callable[[Path], bool]) -> Path | None:
    return next((path / name for name in names if path.is_dir() and there(path / name)), None)
