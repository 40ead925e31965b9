"""One dialect to another, or one type to another, without ever holding the model: one tensor at a time.

Every weight takes the same way: files -> our names -> checked against the network -> final type -> the other dialect's
names -> files. Names and shapes go this way first, without memory, so that nothing is written unless all of it fits.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wam.checkpoints.checked import checked_component, checked_transformer
from wam.checkpoints.errors import MissingPartError
from wam.checkpoints.files import open_tensors
from wam.checkpoints.identity import identity
from wam.checkpoints.lazy import cast
from wam.checkpoints.licence import Licence, announce
from wam.checkpoints.model_folder import read_robot
from wam.checkpoints.recognise import PARTS, Piece
from wam.checkpoints.save import Beside, Facts, Progress, require_free, write_checkpoint
from wam.checkpoints.shards import SHARD_BYTES
from wam.checkpoints.source import Source, resolve
from wam.checkpoints.statistics import Metadata, read_metadata
from wam.checkpoints.targets import Frozen, Plan, Target, library_fields, plan


@dataclass(frozen=True)
class Converted:
    """What was written. dropped: weights, by our names, that the target has no place for."""

    folder: Path
    tensors: int
    bytes: int
    identity: str
    licence: Licence
    dropped: tuple[str, ...]


def convert(
    source: str | Path | Source,
    out: Path | str,
    *,
    to: Target = "wam",
    dtype: torch.dtype | None = None,
    components: Collection[str] = PARTS,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda *_: None,
) -> Converted:
    """Write a checkpoint in another dialect or type.

    dtype: of transformer, text and image encoder; the video VAE, small and sensitive, keeps its own. None keeps all.
    Run again after an interruption, it keeps the shards that are complete.

    Raises a `CheckpointError` before anything is written when the source is unusable, the target is taken, or the disk
    is too full.
    """
    out = Path(out).absolute()
    require_free(out)
    place = source if isinstance(source, Source) else resolve(source, components={*components, "transformer"})
    if place.found.kind == "nano":
        raise MissingPartError(f"{place.asked}: is a nano model, which has one layout only")
    checked = checked_transformer(place)
    announce(checked.licence, place.name)
    frozen = {
        part: _frozen(piece, None if part == "vae" else dtype)
        for part, piece in place.found.pieces.items()
        if part in components and part != "transformer"
    }
    what = plan(to, checked.config, cast(checked.weights, dtype), frozen, shard_bytes)
    metadata = None if place.found.metadata is None else read_metadata(place.found.metadata)
    facts = Facts(place.name, checked.licence, identity(checked.weights), checked.preset, tuple(metadata or ()))
    write_checkpoint(
        out, what, checked.config, facts, _beside(place, metadata), record=_record(place, what, to), progress=progress
    )
    return Converted(
        folder=out,
        tensors=sum(len(files.weights.meta) for files in what.files),
        bytes=sum(x.numel() * x.dtype.itemsize for files in what.files for x in files.weights.meta.values()),
        identity=facts.identity,
        licence=checked.licence,
        dropped=what.dropped,
    )


def _frozen(piece: Piece, dtype: torch.dtype | None) -> Frozen:
    network, weights, module = checked_component(piece)
    fields = dict(piece.fields) if piece.fields and piece.names == "diffusers" else library_fields(module)
    if dtype is not None:
        fields = {name: value for name, value in fields.items() if name not in ("dtype", "torch_dtype")}
    return Frozen(network, cast(weights, dtype), fields)


def _beside(place: Source, metadata: Metadata | None) -> Beside:
    """Statistics, robot, tokenizer and licence go along."""
    tokenizer = place.found.tokenizer
    licences = tuple(sorted(place.folder.glob("LICEN[SC]E*")))
    copy = None if tokenizer is None else lambda folder: shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return Beside(metadata, copy, read_robot(place.folder), licences)


def _record(place: Source, what: Plan, to: Target) -> dict[str, Any]:
    """The same source files, unchanged since, on the way to the same layout and types."""
    stored = sorted({file for piece in place.found.pieces.values() for file in open_tensors(piece.path).shards})
    written = {
        f"{files.folder}/{files.stem}": [[name, str(x.dtype), list(x.shape)] for name, x in files.weights.meta.items()]
        for files in what.files
    }
    digest = hashlib.sha256(json.dumps(written).encode()).hexdigest()
    return {
        "from": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in stored],
        "to": to,
        "tensors": digest,
    }
