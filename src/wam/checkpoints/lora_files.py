"""Adapters on disk: which weights they change, which they replace, and which base they belong to.

Two layouts are read, one is written:
    ours       what peft writes (`adapter_config.json`, `adapter_model.safetensors`) with `wam_adapter.json` beside it,
               which holds the identity of the base. peft itself loads such a folder; a peft folder without our record
               is read too, but nothing says then what it was trained on.
    DreamZero  `config.json` and `model.safetensors` with the trainable weights alone ("save_lora_only"). It records
               neither its base nor, without `config.json`, its alpha.
Nothing in either is executed, and nothing is a pickle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from wam.checkpoints.errors import CheckpointError, ForeignCheckpointError, MissingPartError, OutputError
from wam.checkpoints.files import open_tensors
from wam.checkpoints.names import ADAPTERS, WRAPPED_PREFIX, Part, compare, from_wan
from wam.checkpoints.presets import PRESETS

PEFT_CONFIG, PEFT_WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "wam_adapter.json"
FORMAT = "wam-adapter"
LOWER, UPPER = ".lora_A.weight", ".lora_B.weight"  # endings of our names: A (rank, in) and B (out, rank)


class WrongBaseError(CheckpointError):
    """An adapter was to be put on other weights than those it was trained on."""


@dataclass(frozen=True)
class LoraConfig:
    """Which layers get an adapter, W + (alpha / rank) B A, and which modules are trained and saved as a whole.

    The defaults are those of DreamZero's training: every projection of self- and cross-attention (not those of the
    image), both feed-forward layers, and all action modules in full.

    targets: endings of the names of linear layers, as peft reads them ("q", "ffn.0", "self_attn.q").
    full: top-level modules.  dropout: on an adapter's input, in training.
    """

    rank: int = 4
    alpha: float = 4.0
    targets: tuple[str, ...] = ("q", "k", "v", "o", "ffn.0", "ffn.2")
    full: tuple[str, ...] = ("state_encoder", "action_encoder", "action_decoder")
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.targets:
            raise ValueError(f"LoraConfig: rank={self.rank}, targets={self.targets}; expected rank >= 1 and a target")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def whole(self) -> Part:
        """The weights that the adapter brings whole, so that those of the base do not matter."""
        pattern = "|".join(map(re.escape, self.full))
        return Part(rf"^({pattern})\." if self.full else r"(?!)", "trained as a whole and saved with the adapter")

    def targeted(self, module: str) -> bool:
        """Whether this layer, named as in the transformer, gets an adapter."""
        return any(module == target or module.endswith(f".{target}") for target in self.targets)


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter as it lies on disk.

    base: identity of the weights it was trained on, `config.whole` left out; None if the files do not say.
    tensors: by our names: `blocks.0.ffn.0.lora_A.weight`, and the whole weights of `config.full`.
    """

    path: Path
    config: LoraConfig
    base: str | None
    tensors: Mapping[str, Tensor]

    def require_base(self, found: str) -> None:
        """Raises WrongBaseError if the files name another base than this identity."""
        if self.base is not None and self.base != found:
            raise WrongBaseError(
                f"{self.path}: was trained on the base with identity {self.base[:16]}, but this base has "
                f"{found[:16]}; load the adapter on the checkpoint that it was trained on, not on a merged, further "
                "trained or quantised copy of it"
            )

    def require_fit(self, base: Mapping[str, Tensor]) -> None:
        """Raises WrongBaseError unless names and shapes are exactly those of this base (our names; may be meta)."""
        brought = {name: tensor for name, tensor in self.tensors.items() if self.config.whole.has(name)}
        known = {name: tensor for name, tensor in base.items() if self.config.whole.has(name)}
        expected: dict[str, Tensor] = {**brought, **known}  # a video model has no action modules to compare with
        for name, weight in base.items():
            module, _, ending = name.rpartition(".")
            if ending == "weight" and self.config.targeted(module):
                outputs, inputs = weight.shape
                expected[module + LOWER] = torch.empty(self.config.rank, inputs, device="meta")
                expected[module + UPPER] = torch.empty(outputs, self.config.rank, device="meta")
        try:
            compare(self.tensors, expected).require_ok(str(self.path))
        except ValueError as error:
            raise WrongBaseError(f"{error}; {self._proposal()}") from error

    def _proposal(self) -> str:
        """Which published networks have the shapes of this adapter."""
        width = next((x.shape[1] for n, x in self.tensors.items() if n.endswith(f".self_attn.q{LOWER}")), 0)
        layers = 1 + max((int(n.split(".")[1]) for n in self.tensors if n.startswith("blocks.")), default=-1)
        fitting = [n for n, p in PRESETS.items() if (p.transformer.dim, p.transformer.layers) == (width, layers)]
        return f"the adapter has {layers} blocks of width {width}, as {' or '.join(fitting) or 'no published model'}"


# ---------------------------------------------------------------- writing


def write_adapter(
    folder: Path, config: LoraConfig, base: str, tensors: Mapping[str, Tensor], *, place: str | None = None
) -> None:
    """Write the folder at once. base: the base's identity; place: where it is.

    Raises OutputError if something other than an adapter is there.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise OutputError(f"{folder}: exists and holds no adapter ({RECORD}); choose another folder or remove it")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    stored = {WRAPPED_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(stored, partial / PEFT_WEIGHTS, metadata={"format": "pt"})
    options = {"modules_to_save": list(config.full) or None, "base_model_name_or_path": place}
    as_peft(config, **options).save_pretrained(str(partial))
    record = {"format": FORMAT, "version": 1, "base": base, "config": asdict(config)}
    (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def as_peft(config: LoraConfig, **options: Any) -> Any:
    """peft's form of the configuration."""
    import peft  # takes seconds, and most commands need no adapter

    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft writes int, its arithmetic is that of floats
        target_modules=list(config.targets),
        lora_dropout=config.dropout,
        **options,
    )


# ---------------------------------------------------------------- reading


def read_adapter(path: Path | str, *, alpha: float | None = None) -> StoredAdapter:
    """Open an adapter of either layout; values stay on disk until they are used.

    alpha: for files that do not say (the effective weight is W + (alpha / rank) B A).
    Raises a CheckpointError naming the file and what it lacks, and OSError.
    """
    path = Path(path)
    if (path / PEFT_CONFIG).is_file():
        return _read_peft(path, alpha)
    return _read_dreamzero(path, alpha)


def _read_peft(folder: Path, alpha: float | None) -> StoredAdapter:
    if not (folder / PEFT_WEIGHTS).is_file():
        raise MissingPartError(
            f"{folder}: no {PEFT_WEIGHTS}; a pickle (adapter_model.bin) is not read, ask for safetensors"
        )
    fields = _json(folder / PEFT_CONFIG)
    _require_plain(fields, folder / PEFT_CONFIG)
    stated = float(fields["lora_alpha"])
    tensors = from_wan(open_tensors(folder / PEFT_WEIGHTS))
    config, base = _config(tensors, folder, stated), None
    if (folder / RECORD).is_file():
        record = _json(folder / RECORD)
        if record.get("format") != FORMAT or record.get("version") != 1:
            raise ForeignCheckpointError(
                f"{folder / RECORD}: is not {FORMAT} version 1 but {record.get('format')!r} {record.get('version')!r}"
            )
        own = record["config"]
        config = LoraConfig(**{**own, "targets": tuple(own["targets"]), "full": tuple(own["full"])})
        base = str(record["base"])
    if alpha is not None and alpha != config.alpha:
        raise ForeignCheckpointError(f"{folder}: its alpha is {config.alpha:g}, not {alpha:g}; leave alpha out")
    return StoredAdapter(folder, config, base, tensors)


def _require_plain(fields: Mapping[str, Any], file: Path) -> None:
    """Only W + (alpha / rank) B A, the same everywhere: whatever means more would be left out silently."""
    if fields.get("peft_type") != "LORA" or "lora_alpha" not in fields:
        raise ForeignCheckpointError(
            f"{file}: peft_type is {fields.get('peft_type')!r}, expected 'LORA' and a lora_alpha"
        )
    plain: dict[str, tuple[Any, ...]] = {"bias": (None, "none"), "fan_in_fan_out": (None, False)}
    plain["init_lora_weights"] = (None, True, False, "gaussian")  # the others change the base weights, too
    for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "lora_bias", "trainable_token_indices"):
        plain[name] = (None, False, {}, [])
    for name, allowed in plain.items():
        if fields.get(name) not in allowed:
            raise ForeignCheckpointError(
                f"{file}: {name} is {fields[name]!r}, but only plain LoRA is supported; merge it with peft first"
            )


def _read_dreamzero(path: Path, alpha: float | None) -> StoredAdapter:
    folder = path if path.is_dir() else path.parent
    tensors = from_wan(open_tensors(path))
    stated = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    head = stated.get("action_head_cfg", {}).get("config", {})
    alpha = head.get("lora_alpha") if alpha is None else alpha
    if alpha is None:
        raise MissingPartError(
            f"{path}: nothing says its alpha (expected action_head_cfg.config.lora_alpha in config.json); give alpha, "
            "DreamZero's training has alpha = rank = 4"
        )
    config = _config(tensors, path, float(alpha))
    if head.get("lora_rank", config.rank) != config.rank:
        raise ForeignCheckpointError(
            f"{folder / 'config.json'}: lora_rank is {head['lora_rank']}, but the adapters have rank {config.rank}; "
            "these files do not belong together"
        )
    return StoredAdapter(path, config, None, tensors)


def _config(tensors: Mapping[str, Tensor], path: Path, alpha: float) -> LoraConfig:
    """What the weights themselves say: rank, targets inside a block, and whole modules."""
    lower = [name for name in tensors if name.endswith(LOWER)]
    if not lower:
        raise ForeignCheckpointError(
            f"{path}: holds no LoRA adapter (no name ends in {LOWER}); load it as a checkpoint"
        )
    ranks = {tensors[name].shape[0] for name in lower}
    if len(ranks) != 1:
        raise ForeignCheckpointError(f"{path}: adapters have different ranks {sorted(ranks)}, expected one")
    rest = [name for name in tensors if not ADAPTERS.has(name)]
    if any(name.startswith("blocks.") for name in rest):
        raise ForeignCheckpointError(
            f"{path}: holds base weights beside its adapters; it is a whole checkpoint, load it as one"
        )
    targets = sorted({re.sub(r"^blocks\.\d+\.", "", name.removesuffix(LOWER)) for name in lower})
    return LoraConfig(ranks.pop(), alpha, tuple(targets), tuple(sorted({name.split(".")[0] for name in rest})))


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ForeignCheckpointError(f"{file}: is not JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise ForeignCheckpointError(f"{file}: holds a {type(content).__name__}, expected an object")
    return content
