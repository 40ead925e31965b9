"""Tensors on disk without loading them: one safetensors file, a sharded folder, or a `.pth`, all seen the same way.

Names, shapes and types come from headers, so a 65 GB checkpoint opens in milliseconds. Values are mapped into memory,
one shard at a time: looking at a tensor reads its pages, and pages can always be given back.

A `.pth` is a pickle, which may contain code. It is read with torch's `weights_only`, which builds tensors and nothing
else, and refuses the file otherwise.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wam.checkpoints.errors import (
    CheckpointError,
    ForeignCheckpointError,
    MissingShardError,
    TruncatedFileError,
    UnsafeFileError,
)

DTYPES = {  # as safetensors spells them
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
SPELLINGS = {dtype: spelling for spelling, dtype in DTYPES.items()}
PICKLES = (".pth", ".pt")
MAGIC = (b"PK", b"\x80")  # how an archive of torch begins, and its older format
SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")
LARGEST_HEADER = 100_000_000  # bytes; safetensors' own limit
AGAIN = "copy or download it again"


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a stored tensor without reading it, and the file that holds it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path

    @property
    def parameters(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.parameters * self.dtype.itemsize

    def meta(self) -> Tensor:
        """A tensor of this shape and type without memory."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


class TensorFiles(Mapping[str, Tensor]):
    """Stored tensors by name, in the order of the files. Asking for one maps it; only one shard is held open.

    A tensor that was handed out keeps its shard mapped; copy it (or convert it) before letting go.
    """

    def __init__(self, path: Path, info: Mapping[str, TensorInfo]) -> None:
        self.path = path
        self.info = info
        self._open: tuple[Path, Any] | None = None

    @property
    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], torch.dtype]]:
        return {name: (info.shape, info.dtype) for name, info in self.info.items()}

    @cached_property
    def meta(self) -> Mapping[str, Tensor]:
        """The same tensors without memory."""
        return {name: info.meta() for name, info in self.info.items()}

    @property
    def shards(self) -> Mapping[Path, tuple[str, ...]]:
        """Files and the names in each, in reading order: going through them shard by shard opens each file once."""
        found: dict[Path, list[str]] = {}
        for name, info in self.info.items():
            found.setdefault(info.file, []).append(name)
        return {file: tuple(names) for file, names in found.items()}

    @property
    def bytes(self) -> int:
        return sum(info.bytes for info in self.info.values())

    def close(self) -> None:
        """Give the open shard back; asking for a tensor opens it again."""
        self._open = None

    def __getitem__(self, name: str) -> Tensor:
        file = self.info[name].file
        if self._open is None or self._open[0] != file:
            self._open = None  # before the next one is opened: never two shards at once
            self._open = (file, _tensors_of(file))
        return self._open[1][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.info)

    def __len__(self) -> int:
        return len(self.info)


def open_tensors(path: Path | str) -> TensorFiles:
    """One `.safetensors`, `.pth` or `.index.json` file, or a folder with exactly one set of weights.

    Raises a `CheckpointError`: TruncatedFileError, MissingShardError, UnsafeFileError, or ForeignCheckpointError when
    there are no weights.
    """
    path = Path(path)
    files = _files_of(path)
    info: dict[str, TensorInfo] = {}
    for file in files:
        for name, entry in _header(file).items():
            if name in info:
                raise ForeignCheckpointError(
                    f"{file}: tensor {name!r} is also in {info[name].file.name}; these are two sets of weights, "
                    "give the one to use"
                )
            info[name] = entry
    index = _index_of(path)
    if index is not None:
        _agrees(index, info)
    return TensorFiles(path, info)


# ---------------------------------------------------------------- which files


def _files_of(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        return _shards_in_index(path) if path.name.endswith(".index.json") else (path,)
    if not path.is_dir():
        raise ForeignCheckpointError(
            f"{path}: no such file or folder; expected a .safetensors or .pth file, or a folder"
        )
    index = _index_of(path)
    if index is not None:
        return _shards_in_index(index)
    found = sorted(path.glob("*.safetensors")) or sorted(f for end in PICKLES for f in path.glob(f"*{end}"))
    shards = [match for file in found if (match := SHARD.match(file.name)) is not None]
    if found and len(shards) == len(found) and len({match["stem"] for match in shards}) == 1:
        return _all_numbers(path, shards)
    if len(found) != 1:
        names = [file.name for file in found]
        expected = "expected one .safetensors file, shards with their .index.json, or one .pth file"
        raise ForeignCheckpointError(f"{path}: found {names or 'no weights'}; {expected}")
    return (found[0],)


def _index_of(path: Path) -> Path | None:
    """The index of a sharded folder, if it has one."""
    if path.is_file():
        return path if path.name.endswith(".index.json") else None
    found = sorted(path.glob("*.safetensors.index.json"))
    if len(found) > 1:
        names = [file.name for file in found]
        raise ForeignCheckpointError(
            f"{path}: {len(found)} indices, {names}; give the one to use instead of the folder"
        )
    return found[0] if found else None


def _shards_in_index(index: Path) -> tuple[Path, ...]:
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if Path(name).name != name:
            raise UnsafeFileError(f"{index}: names the shard {name!r}; a shard must lie beside its index")
        if not (index.parent / name).is_file():
            raise MissingShardError(f"{index.parent / name}: does not exist, but {index.name} names it; {AGAIN}")
    return tuple(index.parent / name for name in names)


def _weight_map(index: Path) -> dict[str, str]:
    try:
        entries = json.loads(index.read_text())["weight_map"]
        assert entries and all(isinstance(value, str) for value in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise TruncatedFileError(
            f"{index}: no index of shards (field 'weight_map' is not readable); {AGAIN}"
        ) from error
    return dict(entries)


def _agrees(index: Path, info: Mapping[str, TensorInfo]) -> None:
    """Every name of the index must be in the shard that it says."""
    for name, shard in _weight_map(index).items():
        if name not in info or info[name].file.name != shard:
            raise MissingShardError(f"{index}: tensor {name!r} is not in {shard}, where the index says it is; {AGAIN}")


def _all_numbers(folder: Path, shards: list[re.Match[str]]) -> tuple[Path, ...]:
    """Shards without an index are complete when their numbers are."""
    stem, count = shards[0]["stem"], int(shards[0]["count"])
    files = [folder / f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    for file in files:
        if not file.is_file():
            raise MissingShardError(f"{file}: does not exist, but {shards[0][0]} does; {AGAIN}")
    return tuple(files)


# ---------------------------------------------------------------- safetensors


def _header(file: Path) -> dict[str, TensorInfo]:
    """Names, shapes and types, in the order in which the values lie in the file."""
    if file.suffix in PICKLES:
        return {name: TensorInfo(tuple(x.shape), x.dtype, file) for name, x in _unpickled(file).items()}
    entries, start = _raw_header(file)
    entries.pop("__metadata__", None)
    with _readable(file):
        ordered = sorted(entries.items(), key=lambda entry: entry[1]["data_offsets"][0])
        for name, entry in ordered:
            if entry["dtype"] not in DTYPES:
                raise ForeignCheckpointError(
                    f"{file}: tensor {name!r} has dtype {entry['dtype']}; known are {list(DTYPES)}"
                )
        info = {n: TensorInfo(tuple(map(int, e["shape"])), DTYPES[e["dtype"]], file) for n, e in ordered}
        end = start
        for name, entry in ordered:
            first, last = entry["data_offsets"]
            if (start + first, last - first) != (end, info[name].bytes):
                raise TruncatedFileError(f"{file}: tensor {name!r} is not where its shape says; {AGAIN}")
            end = start + last
    size = file.stat().st_size
    if size != end:
        raise TruncatedFileError(f"{file}: has {size:,} bytes, its header promises {end:,}; {AGAIN}")
    return info


def read_metadata(file: Path) -> dict[str, str]:
    """The free text that a safetensors file carries in its header."""
    return dict(_raw_header(file)[0].get("__metadata__") or {})


def _raw_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header and the position where values begin."""
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
        if length > LARGEST_HEADER:
            raise TruncatedFileError(
                f"{file}: no safetensors header at its start; {AGAIN} (a Git LFS pointer is a small text file)"
            )
        text = stream.read(length)
    with _readable(file):
        entries = dict(json.loads(text))
    return entries, 8 + length


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes a TruncatedFileError that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise TruncatedFileError(f"{file}: its header cannot be read ({error!r}); {AGAIN}") from error


class _Safetensors:
    """The values of one safetensors file, mapped."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._handle: Any = safe_open(file, framework="pt")
        except SafetensorError as error:
            raise TruncatedFileError(f"{file}: cannot be read ({error}); {AGAIN}") from error

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._handle.get_tensor(name)
        return tensor


# ---------------------------------------------------------------- pickles, without executing them


def _unpickled(file: Path) -> dict[str, Tensor]:
    """A `.pth` of tensors; mapped when torch wrote it as an archive, read as a whole when it is older than that."""
    with file.open("rb") as stream:
        if not stream.read(2).startswith(MAGIC):
            raise TruncatedFileError(f"{file}: torch did not write this; {AGAIN}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        asked = re.search(r"Unsupported (?:global|class|function)\S* (?:GLOBAL )?(\S+)", str(error))
        raise UnsafeFileError(
            f"{file}: holds more than tensors{f', {asked[1]} among it' if asked else ''}, and unpickling that may "
            "execute code; nothing was executed. Ask its author for safetensors"
        ) from error
    except Exception as error:  # torch's reader raises many types for a damaged file
        raise TruncatedFileError(f"{file}: cannot be read ({error}); {AGAIN}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = content if isinstance(content, dict) else {}
    if tensors and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()):
        return dict(tensors)
    raise ForeignCheckpointError(f"{file}: holds {type(content).__name__}; expected a dict of tensors by name")


def _tensors_of(file: Path) -> Mapping[str, Tensor] | _Safetensors:
    return _unpickled(file) if file.suffix in PICKLES else _Safetensors(file)
