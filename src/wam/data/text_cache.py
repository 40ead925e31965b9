"""Features of the instructions of a data set, computed once.

A cache is one safetensors file, `text-KEY.safetensors`: prompt -> features of its own tokens, (L, D). The key stands
for the encoder, its weights and its length; the prompt itself stands for the instruction and the robot's template. So
the same file serves every data set and robot, and a prompt that is in it is right. It grows in steps, each atomic: a
call that was cut off is resumed by calling again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from wam.data.errors import StaleCacheError
from wam.encoders.folders import readable
from wam.encoders.text import TextEncoder

STEP = 32
"""Prompts that are encoded between two writes."""


class TextCache:
    """A `TextEncoder` that only remembers: it needs no network.

    Raises:
        StaleCacheError: the file is no text cache, or (in `encode`) a prompt is not in it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._features, self._text_len, self._text_dim = _read(file)

    @property
    def text_len(self) -> int:
        return self._text_len

    @property
    def text_dim(self) -> int:
        return self._text_dim

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, text_len, text_dim) float32, zero beyond each prompt's own tokens."""
        for prompt in prompts:
            if prompt not in self._features:
                raise StaleCacheError(f"{self.file}: no prompt {prompt!r}; encode the data set (again)")
        return torch.stack([_padded(self._features[prompt], self._text_len) for prompt in prompts])


def encode_prompts(
    prompts: Sequence[str],
    encoder: TextEncoder,
    identity: str,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Encode the prompts that the cache of this encoder does not have yet.

    Args:
        prompts: as the encoder reads them (after `Embodiment.prompt`).
        encoder: called in steps of `STEP` prompts.
        identity: name and hash of the encoder's weights.
        folder: where the cache lies.
        progress: called with (prompts done, prompts in all).

    Returns:
        The file; open it with `TextCache`.
    """
    file = folder / f"text-{text_key(identity, encoder.text_len, encoder.text_dim)}.safetensors"
    features = _read(file)[0] if file.is_file() else {}
    wanted = list(dict.fromkeys(prompts))
    missing = [prompt for prompt in wanted if prompt not in features]
    for start in range(0, len(missing), STEP):
        some = missing[start : start + STEP]
        for prompt, padded in zip(some, encoder.encode(some), strict=True):
            features[prompt] = padded[: _own_tokens(padded)].contiguous()
        _write(file, features, identity, encoder)
        if progress is not None:
            progress(len(wanted) - len(missing) + start + len(some), len(wanted))
    return file


def text_key(identity: str, text_len: int, text_dim: int) -> str:
    """Hash of all that the features of a prompt depend on."""
    return hashlib.sha256(f"{identity} {text_len} {text_dim}".encode()).hexdigest()[:16]


def _own_tokens(padded: Tensor) -> int:
    """Tokens of a prompt: up to the last row that is not zero."""
    used = padded.abs().sum(1).nonzero()
    return int(used.max()) + 1 if len(used) else 0


def _padded(features: Tensor, text_len: int) -> Tensor:
    return torch.nn.functional.pad(features.float(), (0, 0, 0, text_len - features.shape[0]))


def _read(file: Path) -> tuple[dict[str, Tensor], int, int]:
    """(prompt -> features, text_len, text_dim)."""
    with readable(file), safe_open(file, framework="pt") as stored:
        label = stored.metadata() or {}
        if not {"text_len", "text_dim", "encoder"} <= label.keys():
            raise StaleCacheError(f"{file}: metadata is {label}, so this is no text cache; remove it, encode again")
        features = {prompt: stored.get_tensor(prompt) for prompt in stored.keys()}  # noqa: SIM118
        return features, int(label["text_len"]), int(label["text_dim"])


def _write(file: Path, features: dict[str, Tensor], identity: str, encoder: TextEncoder) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    label = {"encoder": identity, "text_len": str(encoder.text_len), "text_dim": str(encoder.text_dim)}
    scratch = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    save_file(features, scratch, metadata=label)
    os.replace(scratch, file)
