"""Adapters merged into weights on disk: W + (alpha / rank) B A, tensor by tensor, whatever the size of the model.

The result is the base with other values: the same names, types and files beside the weights. Tensors are
    merged    if they have an adapter
    replaced  if they were trained as a whole (action modules, which may hold more robots than the base's)
    added     as replaced, where the base is a video model that never had them
and otherwise copied. Memory holds one tensor at a time; the result appears at once, when it is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from wam.checkpoints.errors import ForeignCheckpointError
from wam.checkpoints.files import SHARD, TensorFiles, open_tensors
from wam.checkpoints.identity import identity
from wam.checkpoints.lora_files import LOWER, UPPER, StoredAdapter, read_adapter
from wam.checkpoints.model_folder import CONFIG, ROBOT, read_config, require_same_trunk
from wam.checkpoints.names import ADAPTERS, from_diffusers, from_wan, merge_adapters, to_wan
from wam.checkpoints.recognise import Piece, recognise
from wam.checkpoints.save import require_free
from wam.checkpoints.shards import layout, require_space, write, write_json
from wam.model.config import TransformerConfig

OWN_PREFIX = "transformer."  # of a WorldActionModel's weights, which are called as ours behind it
RECORD, ORIGIN = "merge.json", "training.json"
Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class MergeReport:
    """What became of the base's tensors, and the identities of the base and of the result."""

    merged: int
    replaced: int
    added: int
    copied: int
    base: str
    result: str


def merge_files(
    base: Path | str,
    adapter: Path | str,
    out: Path | str,
    *,
    alpha: float | None = None,
    progress: Progress = lambda done, total: None,
) -> MergeReport:
    """Write `out`: the base checkpoint with the adapter merged into its transformer.

    base: a folder or file that `wam inspect` knows, in any dialect.  alpha: for released adapters without config.json.

    Raises WrongBaseError if the adapter belongs to other weights, OutputError if something else is in the way,
    DiskSpaceError, or another CheckpointError naming the file.
    """
    base, out = Path(base), Path(out)
    require_free(out)
    piece, stored = _transformer_of(base), read_adapter(adapter, alpha=alpha)
    described = piece.prefix == OWN_PREFIX and (stored.path / CONFIG).is_file()
    if described:
        require_same_trunk(stored.path, read_config(stored.path), read_config(base))
    merged = Merged(TransformerFiles(piece), stored, grown=described)
    plan = layout(merged.meta, _stem(merged.files))
    rest = _rest(base, merged.files) if base.is_dir() else []
    require_space(out, plan.bytes + sum(file.stat().st_size for file in rest))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    weights = partial / _inside(piece, base)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, plan.bytes)

    write(weights, merged, plan, advance)
    written = weights if len(plan.shards) > 1 else weights / plan.shards[0].file
    result = TransformerFiles(replace(piece, path=written))
    report = merged.report(identity(result))
    if base.is_dir():
        for source in rest:
            target = partial / source.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        _rename_identity(partial, report)
    for name in (CONFIG, ORIGIN) if described else (ROBOT, ORIGIN):  # which robots it knows, how they were learned
        if (stored.path / name).is_file():
            shutil.copyfile(stored.path / name, partial / name)
    write_json(partial / RECORD, {"adapter": merged.adapter.path.name, **asdict(report)})
    if out.exists():
        out.rmdir()  # it is empty, as `require_free` has seen
    os.replace(partial, out)
    return report


# ---------------------------------------------------------------- tensors


class TransformerFiles(Mapping[str, Tensor]):
    """The tensors of a transformer in files, by our names but in the shapes of the files.

    names: ours -> the files'.
    """

    def __init__(self, piece: Piece) -> None:
        self.files, self._piece = open_tensors(piece.path), piece
        bare = {
            n.removeprefix(piece.prefix): x.meta() for n, x in self.files.info.items() if n.startswith(piece.prefix)
        }
        ours = (from_diffusers if piece.names == "diffusers" else from_wan)(bare)
        self.names = {own: piece.prefix + name for own, name in zip(ours, bare, strict=True)}
        for own, name in self.names.items():
            dtype = self.files.info[name].dtype
            if ADAPTERS.has(own):
                raise ForeignCheckpointError(
                    f"{piece.path}: carries an adapter itself ({name!r}); `wam convert` it first"
                )
            if not dtype.is_floating_point or dtype.itemsize == 1:
                raise ForeignCheckpointError(
                    f"{self.files.info[name].file}: {name!r} is stored as {dtype}; merge into the float32 or bfloat16 "
                    "weights, and quantise afterwards"
                )

    def spelled(self, own: list[str]) -> list[str]:
        """How these files would call further weights; diffusers has no names for action modules, so ours stay."""
        if self._piece.names == "diffusers" or self._piece.prefix == OWN_PREFIX:
            return [self._piece.prefix + name for name in own]
        nothing = next(iter(self.files.info.values())).meta()  # only names count, and the config only for the patch
        return list(to_wan(dict.fromkeys(own, nothing), TransformerConfig(), self._piece.prefix))

    def __getitem__(self, name: str) -> Tensor:
        return self.files[self.names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Merged:
    """Everything in the base's files under their own names, with the adapter merged; computed when asked for.

    A `wam.checkpoints.lazy.Lazy`. grown: whole modules may have other shapes than the base's.

    Raises WrongBaseError unless the adapter belongs to these weights.
    """

    def __init__(self, base: TransformerFiles, adapter: StoredAdapter, grown: bool = False) -> None:
        self.files, self.adapter, self.base = base.files, adapter, base
        meta = {own: self.files.info[name].meta() for own, name in base.names.items()}
        if grown:
            whole = (own for own in adapter.tensors if own in meta and adapter.config.whole.has(own))
            meta |= {own: adapter.tensors[own].to("meta", meta[own].dtype) for own in whole}
        adapter.require_fit(from_wan(meta))  # which only flattens the patch embedding: the names are ours
        adapter.require_base(identity(base, leave_out=(adapter.config.whole,)))
        self.meta = {**self.files.meta, **{base.names[own]: x for own, x in meta.items()}}
        self._own = {name: own for own, name in base.names.items()}
        added = [own for own in adapter.tensors if adapter.config.whole.has(own) and own not in meta]
        dtype = next(tensor.dtype for own, tensor in meta.items() if own.endswith(".self_attn.q.weight"))
        for own, name in zip(added, base.spelled(added), strict=True):
            self._own[name] = own
            self.meta[name] = adapter.tensors[own].to("meta", dtype)
        self._added = len(added)

    def __getitem__(self, name: str) -> Tensor:
        own, expected = self._own.get(name), self.meta[name]
        if own is None:
            return self.files[name]
        if self.adapter.config.whole.has(own):
            return self.adapter.tensors[own].to(expected.dtype).reshape(expected.shape)
        halves = [own.removesuffix(".weight") + ending for ending in (LOWER, UPPER)]
        if not own.endswith(".weight") or halves[0] not in self.adapter.tensors:
            return self.files[name]
        group = {own: self.files[name], **{half: self.adapter.tensors[half] for half in halves}}
        return merge_adapters(group, scale=self.adapter.config.scale)[own]

    def report(self, result: str) -> MergeReport:
        merged = sum(name.endswith(LOWER) for name in self.adapter.tensors)
        replaced = sum(map(self.adapter.config.whole.has, self.adapter.tensors)) - self._added
        copied = len(self.files) - merged - replaced
        return MergeReport(merged, replaced, self._added, copied, identity(self.base), result)


# ---------------------------------------------------------------- files


def _transformer_of(base: Path) -> Piece:
    found = recognise(base)
    if found.kind == "adapter" or "transformer" not in found.pieces:
        held = "an adapter" if found.kind == "adapter" else f"{sorted(found.pieces)} and no transformer"
        raise ForeignCheckpointError(f"{base}: holds {held}; give the weights that the adapter was trained on")
    return found.pieces["transformer"]


def _inside(piece: Piece, base: Path) -> Path:
    """The folder of the transformer's weights, as seen from the base."""
    folder = piece.path if piece.path.is_dir() else piece.path.parent
    return folder.relative_to(base) if base.is_dir() else Path()


def _stem(files: TensorFiles) -> str:
    """How the weight files are called without number and ending."""
    name = next(iter(files.shards)).name
    match = SHARD.match(name)
    return match["stem"] if match else name.rsplit(".", 1)[0]


def _rest(base: Path, files: TensorFiles) -> list[Path]:
    """Everything beside the weights: configuration, tokenizer, other components."""
    weights = {*files.shards, files.path}
    indices = {file.parent / f"{_stem(files)}.safetensors.index.json" for file in files.shards}
    return [file for file in sorted(base.rglob("*")) if file.is_file() and file not in weights | indices]


def _rename_identity(folder: Path, report: MergeReport) -> None:
    """Our own format states its identity, in the configuration and on the model card."""
    for name in ("config.json", "README.md"):
        file = folder / name
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(report.base, report.result), encoding="utf-8")
