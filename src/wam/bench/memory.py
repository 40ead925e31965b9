"""Memory of the transformer: weights by format, the cache, and what its passes leave lying about.

Sizes come from the network itself, built without memory on torch's meta device; activations from counting the tensors
that are alive at the fullest moment of a block (docs/planning.md; a test holds the count against a real run).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wam.bench.flops import Tokens
from wam.model.config import TransformerConfig
from wam.model.kv_cache import KVCache
from wam.model.transformer import Transformer

Format = Literal["float32", "bf16", "fp8", "int8", "int4", "nvfp4"]
"""As `wam.engine.quantize` names them."""


@dataclass(frozen=True)
class WeightFormat:
    """bits of a weight in a block's matrices; bytes of scale for every group of weights of a row, or for every row.

    groups: sizes to choose from, the first that divides the row; () = one scale per row.

    Everything else (norms, modulations, biases, embeddings, codec, head) stays in bf16, or in float32 under "float32".
    """

    name: Format
    bits: int
    scale: int = 0
    groups: tuple[int, ...] = ()

    def matrix(self, rows: int, columns: int) -> int:
        """Bytes of a matrix with `rows` outputs and `columns` inputs."""
        group = next((size for size in self.groups if columns % size == 0), columns)
        scales = rows * columns // group
        return rows * columns * self.bits // 8 + self.scale * scales

    @property
    def rest(self) -> int:
        """Bytes of a number outside the blocks' matrices."""
        return 4 if self.name == "float32" else 2


FORMATS: Mapping[Format, WeightFormat] = {
    "float32": WeightFormat("float32", 32),
    "bf16": WeightFormat("bf16", 16),
    "fp8": WeightFormat("fp8", 8, scale=4),  # one float32 per row
    "int8": WeightFormat("int8", 8, scale=5),  # one float32 and a zero point of 8 bits per row
    "int4": WeightFormat("int4", 4, scale=4, groups=(128, 64, 32)),  # scale and zero point, bf16 each
    "nvfp4": WeightFormat("nvfp4", 4, scale=1, groups=(16,)),  # one fp8 each
}


@dataclass(frozen=True)
class Weights:
    """Bytes of one block, and of everything outside the blocks.

    of_prompt: those of all of them that only a new prompt or picture needs (`Transformer.context`), no pass.
    """

    block: int
    outside: int
    of_prompt: int
    layers: int

    @property
    def total(self) -> int:
        return self.block * self.layers + self.outside

    @property
    def per_pass(self) -> int:
        """Bytes that every pass reads."""
        return self.total - self.of_prompt


FOR_PROMPT = re.compile(r"cross_attn\.(k|v|k_img|v_img)\.|norm_k_img|cross_attn\.norm_k\.|^(text_embedding|img_emb)\.")


def transformer_weights(transformer: Transformer, name: Format) -> Weights:
    """Bytes of a transformer's weights in a format; it may live on the meta device."""
    weight_format = FORMATS[name]
    linear = {f"{n}.weight" for n, module in transformer.named_modules() if isinstance(module, nn.Linear)}

    def size(name: str, parameter: nn.Parameter) -> int:
        if name in linear and name.startswith("blocks."):
            return weight_format.matrix(*parameter.shape)
        return weight_format.rest * parameter.numel()

    sizes = {name: size(name, parameter) for name, parameter in transformer.named_parameters()}
    return Weights(
        block=sum(count for name, count in sizes.items() if name.startswith("blocks.0.")),
        outside=sum(count for name, count in sizes.items() if not name.startswith("blocks.")),
        of_prompt=sum(count for name, count in sizes.items() if FOR_PROMPT.search(name)),
        layers=transformer.config.layers,
    )


def cache_bytes(config: TransformerConfig, frame_tokens: int, dtype: torch.dtype) -> int:
    """Bytes of one session's keys and values, anchor, ring and scratch."""
    cache = KVCache(config, 1, frame_tokens, dtype=dtype, device="meta")
    return cache.keys.nbytes + cache.values.nbytes


def cache_tokens(config: TransformerConfig, frame_tokens: int) -> int:
    """Places for the past, which every pass looks at."""
    return KVCache(config, 1, frame_tokens, device="meta").kept


def prompt_bytes(config: TransformerConfig, text: int, image: int, itemsize: int) -> int:
    """Keys and values of one prompt and first frame for every block (`Context`)."""
    return 2 * config.layers * (text + image) * config.dim * itemsize


def acting_activations(config: TransformerConfig, tokens: Tokens, itemsize: int) -> int:
    """Bytes alive at the fullest moment of a pass without gradients.

    One of four moments, in tensors of the tokens' width D:
        feed-forward   7 (the tokens, four modulations, the layer's input, one sum), and 2 of the layer's own width
        rotation       14, because norms and rotations are computed in float32; 10 if everything is
        attention      9, and the mask once more as numbers
        before         1, and 7 masks while the mask is made
    and in the first three the mask (1 byte per query and key) and the rotations.
    """
    rows, pairs = tokens.batch * tokens.length, tokens.length * tokens.keys
    width = rows * config.dim * itemsize
    in_block = max(
        7 * width + 2 * rows * config.ffn_dim * itemsize,
        (10 if itemsize == 4 else 14) * width,
        9 * width + (1 + itemsize) * pairs,
    )
    return max(in_block + pairs + 4 * tokens.length * config.head_dim, width + 7 * pairs)


@dataclass(frozen=True)
class TrainingActivations:
    """Bytes kept for the backward, and alive beside them at the fullest moment."""

    kept: int
    working: int

    @property
    def total(self) -> int:
        return self.kept + self.working


def training_activations(
    config: TransformerConfig, tokens: Tokens, *, checkpointing: bool, mixed: bool = True
) -> TrainingActivations:
    """Activations of one step with fused attention.

    mixed: autocast to bf16 with weights in float32. A block keeps, per token, 82 D + 4 ffn bytes (108 D + 8 ffn in
    float32), 4 D more (8 D) with an image branch, and its attention's mask as numbers (2 or 4 bytes per key). With
    checkpointing a block keeps its input, 4 D bytes, and one block at a time the rest. 16 D bytes per token are in work
    besides. The last block, which keeps less, is counted as the others.
    """
    rows = tokens.batch * tokens.length
    narrow = 2 if mixed else 4
    of_width = (82 if mixed else 108) * config.dim + 2 * narrow * config.ffn_dim
    of_width += 0 if config.image_dim is None else 2 * narrow * config.dim
    block = rows * (of_width + narrow * tokens.keys)
    kept = config.layers * rows * 4 * config.dim if checkpointing else config.layers * block
    return TrainingActivations(kept, 16 * rows * config.dim + (block if checkpointing else 0))
