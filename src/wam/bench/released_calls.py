"""The released network's arithmetic, call by call, on our weights: the stick that our own passes are measured with.

The same numbers as `Transformer.forward`, with the work that the released code does again or needlessly: the noise
level embedded for every token, the prompt and the image projected and their keys computed at every call, rotations in
complex float64, every layer's cache copied twice at every call (`cat`, then `stack`), and in training one fused
attention call for each kind and chunk. Nothing outside `wam.bench` uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from wam.bench.naive import level_per_token
from wam.model.attention import Kind, Layout
from wam.model.blocks import Span, blocks_of
from wam.model.codec import video_sinusoid
from wam.model.rope import rotations
from wam.model.transformer import Block, Pass, Transformer, Velocity, normalized

Past = Sequence[Tensor]
"""Per layer the keys and values of everything remembered, (2, B, H, L, D / H)."""
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Prompted:
    """text: (B, Lt, text_dim).  image: (B, Li, image_dim)."""

    text: Tensor
    image: Tensor


def train_call(net: Transformer, inputs: Pass, prompted: Prompted) -> Velocity:
    """A whole window, each block computed again in the backward."""
    blocks = blocks_of(inputs.layout.groups, net.config.memory)
    calls = [(span, block.keys) for block in blocks.blocks for span in _by_kind(block.queries, inputs.layout)]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        pieces = [
            (span, F.scaled_dot_product_attention(_at(q, [span]), _at(k, keys), _at(v, keys))) for span, keys in calls
        ]
        return torch.cat([piece for _, piece in sorted(pieces, key=lambda piece: piece[0])], dim=2)

    x, level, levels, contexts, turn = _begin(net, inputs, prompted)
    for block in net.blocks:
        x = checkpoint(_block, block, x, levels, turn, contexts, attend, use_reentrant=False)
    return _end(net, x, level, inputs)


def cached_call(net: Transformer, inputs: Pass, prompted: Prompted, past: Past) -> tuple[Velocity, list[Tensor]]:
    """A pass over what is remembered, and every layer's keys and values afterwards, the pass's own at the end."""
    x, level, levels, contexts, turn = _begin(net, inputs, prompted)
    after: list[Tensor] = []
    for block, before in zip(net.blocks, past, strict=True):

        def attend(q: Tensor, k: Tensor, v: Tensor, before: Tensor = before) -> Tensor:
            keys, values = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
            after.append(torch.stack([keys, values]))
            return F.scaled_dot_product_attention(q, keys, values)

        x = _block(block, x, levels, turn, contexts, attend)  # type: ignore[arg-type]
    return _end(net, x, level, inputs), after


# ---------------------------------------------------------------- what a call computes


def _begin(
    net: Transformer, inputs: Pass, prompted: Prompted
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """Tokens, their noise levels (one entry each), the projected prompt and image, and the rotation of every token."""
    c, spread = net.config, level_per_token(inputs)
    x = net._tokens(spread)
    level = net.time_embedding(video_sinusoid(1000.0 * spread.sigma, c.time_dim).to(x.dtype))
    levels = net.time_projection(level).unflatten(-1, (6, c.dim))
    assert net.img_emb is not None
    contexts = net.text_embedding(prompted.text.to(x.dtype)), net.img_emb(prompted.image.to(x.dtype))
    cos, sin = rotations(inputs.layout, c.head_dim, c.frames_per_chunk, c.actions_per_chunk)
    return x, level, levels, contexts, torch.complex(cos.double(), sin.double())


def _end(net: Transformer, x: Tensor, level: Tensor, inputs: Pass) -> Velocity:
    """Of the tokens behind the clean ones; the released blocks answer for all."""
    return net._velocity(x[:, inputs.layout.count(Kind.CLEAN) :], level, level_per_token(inputs))


def _block(
    block: Block, x: Tensor, levels: Tensor, turn: Tensor, contexts: tuple[Tensor, Tensor], attend: Attend
) -> Tensor:
    shift1, scale1, gate1, shift2, scale2, gate2 = (block.modulation[:, None] + levels).unbind(2)
    own, heads = block.self_attn, block.self_attn.heads
    seen = normalized(x, scale1, shift1)
    q, k = (
        _turned(_split(norm(layer(seen)), heads), turn) for norm, layer in ((own.norm_q, own.q), (own.norm_k, own.k))
    )
    x = x + gate1 * own.o(attend(q, k, _split(own.v(seen), heads)).transpose(1, 2).flatten(2))
    cross = block.cross_attn
    asked, (text, image) = block.norm3(x), contexts
    q = _split(cross.norm_q(cross.q(asked)), heads)
    from_text = F.scaled_dot_product_attention(q, *cross.text_keys(text))
    from_image = F.scaled_dot_product_attention(q, *cross.image_keys(image))
    x = x + cross.o((from_text + from_image).transpose(1, 2).flatten(2))
    out: Tensor = x + gate2 * block.ffn(normalized(x, scale2, shift2))
    return out


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    wide: Tensor = x.double()
    pairs = torch.view_as_complex(wide.reshape(*wide.shape[:-1], -1, 2))
    turned: Tensor = torch.view_as_real(pairs * turn).flatten(-2)
    return turned.to(x.dtype)


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, D / H)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def _at(x: Tensor, spans: Sequence[Span]) -> Tensor:
    return torch.cat([x[:, :, start:end] for start, end in spans], dim=2)


def _by_kind(spans: Sequence[Span], layout: Layout) -> list[Span]:
    """The same queries, cut where the kind or the chunk changes: the released code has a call for each."""
    cuts, end = {0}, 0
    for group in layout.groups:
        end += group.tokens
        cuts.add(end)
    found = []
    for start, stop in spans:
        inside = [start, *sorted(cut for cut in cuts if start < cut < stop), stop]
        found += list(zip(inside, inside[1:], strict=False))
    return found
