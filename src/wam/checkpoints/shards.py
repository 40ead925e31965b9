"""Write tensors as safetensors shards, one tensor in memory at a time, so that an interrupted run can go on.

A safetensors file is a header (names, shapes, types, positions) and then the values. Since the header is known before
the first value is computed, values stream to the disk one after the other. Every shard appears under its name only when
it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wam.checkpoints.errors import CheckpointError, DiskSpaceError
from wam.checkpoints.files import SPELLINGS, open_tensors
from wam.checkpoints.lazy import Lazy

SHARD_BYTES = 5_000_000_000
SPARE_BYTES = 100_000_000  # for the small files beside the weights
Progress = Callable[[int], None]  # is told of bytes as they are written


@dataclass(frozen=True)
class Shard:
    """One file to write: its name and the tensors in it, on the meta device."""

    file: str
    tensors: Mapping[str, Tensor]

    @property
    def bytes(self) -> int:
        return sum(_bytes(tensor) for tensor in self.tensors.values())


@dataclass(frozen=True)
class Layout:
    """The files of one set of weights, in order."""

    stem: str
    shards: tuple[Shard, ...]

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    def index(self) -> dict[str, object]:
        """What `<stem>.safetensors.index.json` says, as Hugging Face libraries read it."""
        places = {name: shard.file for shard in self.shards for name in shard.tensors}
        return {"metadata": {"total_size": self.bytes}, "weight_map": places}


def layout(meta: Mapping[str, Tensor], stem: str, shard_bytes: int = SHARD_BYTES) -> Layout:
    """Fill shards in order up to `shard_bytes`; a larger tensor gets a shard of its own. One shard has no number."""
    groups: list[dict[str, Tensor]] = [{}]
    filled = 0
    for name, tensor in meta.items():
        if groups[-1] and filled + _bytes(tensor) > shard_bytes:
            groups.append({})
            filled = 0
        groups[-1][name] = tensor
        filled += _bytes(tensor)
    if len(groups) == 1:
        return Layout(stem, (Shard(f"{stem}.safetensors", groups[0]),))
    count = len(groups)
    return Layout(
        stem, tuple(Shard(f"{stem}-{i:05d}-of-{count:05d}.safetensors", group) for i, group in enumerate(groups, 1))
    )


def write(folder: Path, weights: Lazy, plan: Layout, progress: Progress = lambda _: None) -> None:
    """Write the shards that are not there yet, then the index. Peak memory: one tensor (one group of `Translated`)."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in plan.shards:
        if _is_there(folder / shard.file, shard):
            progress(shard.bytes)
        else:
            _write_shard(folder / shard.file, shard, weights, progress)
    if len(plan.shards) > 1:
        write_json(folder / f"{plan.stem}.safetensors.index.json", plan.index())


def write_json(file: Path, content: object) -> None:
    """Indented JSON, whole or not at all."""
    scratch = file.with_name(f".{file.name}.tmp")
    scratch.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(scratch, file)


def require_space(folder: Path, needed: int) -> None:
    """Raises DiskSpaceError unless `needed` bytes (and a little more) are free where `folder` is going to be."""
    present = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(present).free
    if free < needed + SPARE_BYTES:
        raise DiskSpaceError(
            f"{folder}: {needed / 1e9:.1f} GB are needed, but only {free / 1e9:.1f} GB are free on this disk; make "
            "space, choose another folder, or a smaller dtype"
        )


def missing_bytes(folder: Path, plan: Layout) -> int:
    """What is still to be written."""
    return sum(shard.bytes for shard in plan.shards if not _is_there(folder / shard.file, shard))


def _is_there(file: Path, shard: Shard) -> bool:
    """A complete shard with the right names, shapes and types; a shard gets its name only when it is complete."""
    if not file.is_file():
        return False
    try:
        found = open_tensors(file).shapes
    except CheckpointError:
        return False
    return found == {name: (tuple(x.shape), x.dtype) for name, x in shard.tensors.items()}


def _write_shard(file: Path, shard: Shard, weights: Lazy, progress: Progress) -> None:
    scratch = file.with_name(f".{file.name}.tmp")
    with scratch.open("wb") as stream:
        stream.write(header(shard.tensors))
        for name, announced in shard.tensors.items():
            tensor = weights[name]
            if (tensor.shape, tensor.dtype) != (announced.shape, announced.dtype):
                raise CheckpointError(
                    f"{name!r}: announced {announced.shape}, {announced.dtype}, but got {tensor.shape}"
                )
            stream.write(_values(tensor))
            progress(_bytes(tensor))
            del tensor
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scratch, file)


def header(tensors: Mapping[str, Tensor]) -> bytes:
    """The start of a safetensors file for tensors in this order, without gaps, padded to 8 bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + _bytes(tensor)
        entries[name] = {
            "dtype": SPELLINGS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _values(tensor: Tensor) -> memoryview:
    """The raw bytes of a tensor; a copy only when it is not contiguous or not on the CPU."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    bytes_of: np.ndarray = flat.view(torch.uint8).numpy()
    return bytes_of.data


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.dtype.itemsize
