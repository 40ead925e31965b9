"""Instructions as Wan and DreamZero read them: the encoder of umT5-XXL, 512 tokens of 4096 numbers."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from wam.encoders.folders import check_folder

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

log = logging.getLogger(__name__)

TEXT_LEN = 512


class Umt5TextEncoder(nn.Module):
    """A frozen `UMT5EncoderModel` with its tokenizer, as a `wam.encoders.text.TextEncoder`.

    Every prompt is encoded alone and without padding. The released code pads it to 512 tokens and masks the padding,
    which leaves the prompt's own tokens the same numbers to rounding; only, in a batch, it then cuts every prompt to
    the shortest one, and we do not. Prompts are taken as they are: `wam.robot.dreamzero` words and cleans them.

    The network works where its weights are and in their type (bfloat16 in the published files); features come back on
    the CPU, so that the network may be moved away or emptied once its prompts are remembered.

    Args:
        text_len: tokens per prompt, the end mark included; longer prompts are cut, with a warning in the log.
        remember: how many prompts are remembered, the most recently used ones; at most 4 MiB each in bfloat16.

    Raises:
        ValueError: `text_len` or `remember` is too small, or the tokenizer knows more tokens than the network.
    """

    def __init__(
        self,
        network: UMT5EncoderModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        text_len: int = TEXT_LEN,
        remember: int = 64,
    ) -> None:
        super().__init__()
        if text_len < 2:
            raise ValueError(f"text_len is {text_len}, expected at least 2: one token and the end mark")
        if remember < 1:
            raise ValueError(f"remember is {remember}, expected at least 1 prompt")
        if len(tokenizer) > network.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens, the network knows {network.config.vocab_size}; "
                "take both from the same repository"
            )
        self.network = cast(Any, network).requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self._text_len, self._remember = text_len, remember
        self._remembered: OrderedDict[str, Tensor] = OrderedDict()  # the most recently used one last

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        tokenizer_folder: Path | None = None,
        *,
        dtype: torch.dtype = torch.bfloat16,
        **options: int,
    ) -> Umt5TextEncoder:
        """Load weights in transformers' layout (safetensors only, nothing is downloaded, no code of the folder runs).

        tokenizer_folder: where the tokenizer's files are, the same folder when left out; in a diffusers repository
        they are in `text_encoder` and `tokenizer`. Raises ValueError naming a file or folder that is not there.
        """
        from transformers import AutoTokenizer, UMT5EncoderModel

        folder = check_folder(folder, "text encoder")
        words = folder if tokenizer_folder is None else Path(tokenizer_folder)
        if not words.is_dir():
            raise ValueError(f"{words}: not found; expected the folder of the text encoder's tokenizer")
        network = UMT5EncoderModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
        return cls(network, AutoTokenizer.from_pretrained(words, local_files_only=True), **options)

    @property
    def text_len(self) -> int:
        return self._text_len

    @property
    def text_dim(self) -> int:
        return int(self.network.config.d_model)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """B prompts -> (B, text_len, text_dim) float32 on the CPU, zero beyond each prompt's own tokens."""
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts is {prompts!r}, expected a list of at least one sentence")
        return torch.stack([self._padded(self._recall(prompt)) for prompt in prompts])

    def _recall(self, prompt: str) -> Tensor:
        """Features of one prompt, (L, text_dim), from memory or from the network; the oldest prompt is forgotten."""
        features = self._remembered.pop(prompt, None)
        self._remembered[prompt] = self._features(prompt) if features is None else features
        if len(self._remembered) > self._remember:
            self._remembered.popitem(last=False)
        return self._remembered[prompt]

    @torch.no_grad()
    def _features(self, prompt: str) -> Tensor:
        """Last hidden states of the prompt's own tokens, (L, text_dim) with L <= text_len, in the network's type."""
        tokens = self.tokenizer(prompt, truncation=True, max_length=self._text_len, return_tensors="pt")
        if tokens["input_ids"].shape[1] == self._text_len:
            length = len(self.tokenizer(prompt, truncation=False, verbose=False)["input_ids"])
            if length > self._text_len:
                log.warning("prompt %r has %d tokens; only the first %d are used", prompt, length, self._text_len)
        device = self.network.device
        answer = self.network(
            input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
        )
        return cast(Tensor, answer.last_hidden_state[0].cpu())

    def _padded(self, features: Tensor) -> Tensor:
        return nn.functional.pad(features.float(), (0, 0, 0, self._text_len - features.shape[0]))
