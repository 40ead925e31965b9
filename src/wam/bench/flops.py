"""Arithmetic of the transformer: every matrix product of a pass, listed; 2 FLOPs per multiplication with addition.

The lists follow `wam.model.transformer` line by line; a test holds their sums against torch's own counter. Attention is
counted as the code runs it: a masked pair costs as much as a visible one, a cache place that holds nothing as much as a
full one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wam.model.config import TransformerConfig

Origin = Literal["data", "prompt", "stream"]


@dataclass(frozen=True)
class Product:
    """`count` times (rows, inner) @ (inner, columns).

    origin: where the left side comes from. "data": given from outside, so that no gradient flows to it. "prompt":
    from the prompt or the noise levels alone, so that none does while only adapters train. "stream": from the tokens.
    role: of the weight in LoRA training: gets an "adapter", is "trained" itself, or stays "frozen".
    """

    rows: int
    inner: int
    columns: int
    count: int = 1
    origin: Origin = "stream"
    role: Literal["adapter", "trained", "frozen"] = "frozen"

    @property
    def flops(self) -> int:
        return 2 * self.rows * self.inner * self.columns * self.count


@dataclass(frozen=True)
class Flops:
    """linear: products with weights.  attention: products of activations."""

    linear: int
    attention: int

    @property
    def total(self) -> int:
        return self.linear + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.linear + other.linear, self.attention + other.attention)

    def __mul__(self, times: int) -> Flops:
        return Flops(self.linear * times, self.attention * times)


NOTHING = Flops(0, 0)


@dataclass(frozen=True)
class Tokens:
    """One pass: how many tokens of each kind (per sample), what they look at, and how many samples go together.

    keys: all keys of self-attention, the pass's own included.  levels: distinct noise levels.
    """

    clean: int
    noisy: int
    actions: int
    states: int
    levels: int
    keys: int
    text: int
    image: int = 0
    batch: int = 1

    @property
    def length(self) -> int:
        return self.clean + self.asked

    @property
    def asked(self) -> int:
        """Those that the last block answers for."""
        return self.noisy + self.actions + self.states


def pass_products(c: TransformerConfig, t: Tokens) -> list[Product]:
    """The weights' products in `Transformer.forward`."""
    rows, asked, before, cells = t.batch * t.length, t.batch * t.asked, c.layers - 1, c.patch**2
    actions, states = t.batch * t.actions, t.batch * t.states
    return [
        Product(t.batch * (t.clean + t.noisy), c.in_channels * cells, c.dim, origin="data"),
        Product(t.batch * t.levels, c.time_dim, c.dim, origin="data"),
        Product(t.batch * t.levels, c.dim, c.dim, origin="prompt"),
        Product(t.batch * t.levels, c.dim, 6 * c.dim, origin="prompt"),
        Product(actions, c.action_dim, c.dim, origin="data", role="trained"),
        Product(actions, 2 * c.dim, c.dim, role="trained"),
        Product(actions, c.dim, c.dim, role="trained"),
        Product(states, c.state_dim, c.codec_hidden, origin="data", role="trained"),
        Product(states, c.codec_hidden, c.dim, role="trained"),
        Product(rows, c.dim, c.dim, 6 * before, role="adapter"),  # q, k, v, o, and q, o of cross-attention
        Product(rows, c.dim, c.ffn_dim, before, role="adapter"),
        Product(rows, c.ffn_dim, c.dim, before, role="adapter"),
        Product(rows, c.dim, c.dim, 2, role="adapter"),  # the last block: k and v of all
        Product(asked, c.dim, c.dim, 4, role="adapter"),
        Product(asked, c.dim, c.ffn_dim, role="adapter"),
        Product(asked, c.ffn_dim, c.dim, role="adapter"),
        Product(t.batch * t.noisy, c.dim, cells * c.out_channels),
        Product(actions, c.dim, c.codec_hidden, role="trained"),
        Product(actions, c.codec_hidden, c.action_dim, role="trained"),
    ]


def prompt_products(c: TransformerConfig, text: int, image: int = 0, batch: int = 1) -> list[Product]:
    """The products in `Transformer.context`: once per prompt and first frame."""
    products = [
        Product(batch * text, c.text_dim, c.dim, origin="data"),
        Product(batch * text, c.dim, c.dim, origin="prompt"),
        Product(batch * text, c.dim, c.dim, 2 * c.layers, origin="prompt", role="adapter"),
    ]
    if image and c.image_dim is not None:
        products += [
            Product(batch * image, c.image_dim, c.image_dim, origin="prompt"),
            Product(batch * image, c.image_dim, c.dim, origin="prompt"),
            Product(batch * image, c.dim, c.dim, 2 * c.layers, origin="prompt"),
        ]
    return products


def attention_flops(c: TransformerConfig, t: Tokens) -> int:
    """q k^T and its product with v: among the tokens and their past, and with the prompt."""
    return 4 * t.batch * (t.length * (c.layers - 1) + t.asked) * (t.keys + t.text + t.image) * c.dim


def pass_flops(c: TransformerConfig, t: Tokens) -> Flops:
    """One forward pass, prompt already encoded."""
    return Flops(total(pass_products(c, t)), attention_flops(c, t))


def prompt_flops(c: TransformerConfig, text: int, image: int = 0, batch: int = 1) -> Flops:
    return Flops(total(prompt_products(c, text, image, batch)), 0)


def total(products: Iterable[Product]) -> int:
    return sum(product.flops for product in products)


# ---------------------------------------------------------------- training


def training_flops(c: TransformerConfig, t: Tokens, *, lora_rank: int | None = None, recompute: bool = False) -> Flops:
    """Forward and backward of one step.

    lora_rank: adapters of this rank on q, k, v, o and the feed-forward layers, and the codec, train alone; None trains
    everything.  recompute: activation checkpointing runs the blocks' forward twice. Kernels that recompute scores in
    their backward (flash attention) add half of the attention's forward, which is not counted here.
    """
    products = [*pass_products(c, t), *prompt_products(c, t.text, t.image, t.batch)]
    attention = attention_flops(c, t)
    blocks = [p for p in pass_products(c, t) if p.role == "adapter"]
    again = Flops(total(blocks), attention) if recompute else NOTHING
    linear = total(products)
    if lora_rank is None:
        linear += sum(product.flops * _gradients(product) for product in products)
    else:
        linear += sum(_lora_backward(product) for product in products)
        linear += sum(_adapter(product, lora_rank) for product in products if product.role == "adapter")
        again += Flops(sum(_adapter_forward(product, lora_rank) for product in blocks) if recompute else 0, 0)
    return Flops(linear, 3 * attention) + again


def _gradients(product: Product) -> int:
    """Products in the backward, each as large as the forward: the weight's gradient, and the input's unless data."""
    return 1 if product.origin == "data" else 2


def _lora_backward(product: Product) -> int:
    if product.role == "trained":
        return product.flops * _gradients(product)
    return product.flops if product.origin == "stream" else 0


def _adapter_forward(product: Product, rank: int) -> int:
    """x A and then B, for one adapted weight."""
    return 2 * product.rows * rank * (product.inner + product.columns) * product.count


def _adapter(product: Product, rank: int) -> int:
    """Forward and backward of an adapter; where the input needs no gradient, A has only its own."""
    spared = 2 * product.rows * rank * product.inner * product.count if product.origin != "stream" else 0
    return 3 * _adapter_forward(product, rank) - spared
