"""The one transformer: Wan's diffusion transformer over clean video, noisy video, actions and states.

Read from the bottom: `Transformer.forward` turns a `Pass` into velocities. The same forward serves training (no cache,
the mask of the whole window) and the closed loop (the clean past sits in a `KVCache`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wam.model.attention import Kind, Layout, additive, attend, visible
from wam.model.blocks import Blocks, attend_in_blocks, behind, blocks_in, blocks_of
from wam.model.codec import ActionDecoder, ActionEncoder, StateEncoder, video_sinusoid
from wam.model.config import TransformerConfig
from wam.model.kv_cache import KVCache
from wam.model.rope import rotate, rotations

EPS = 1e-6
LONG = 512  # tokens from which a window is attended in blocks: below, one masked product is faster
Rotation = tuple[Tensor, Tensor]
KeyValue = tuple[Tensor, Tensor]  # each (B, H, L, head_dim)
Mask = Tensor | Blocks | None  # None: every token sees every other


@dataclass(frozen=True)
class Pass:
    """What goes through the network at once; tokens follow in the order video, actions, states.

    video: (B, in_channels, F, h, w), clean frames before noisy ones, or None.
    action: (B, n, A) or None.  state: (B, m, S) or None.
    sigma: (B, slots) noise levels in [0, 1]; layout.sigma_slot says which token has which.
    embodiment: (B,) slot of the codec.
    """

    layout: Layout
    sigma: Tensor
    embodiment: Tensor
    video: Tensor | None = None
    action: Tensor | None = None
    state: Tensor | None = None


@dataclass(frozen=True)
class Geometry:
    """What follows from a pass's layout alone, so that passes of one layout over one cache state can share it.

    rotation: of the pass's tokens.  mask: which keys each token sees, (b, 1, L, keys) as for `attend`, or in blocks.
    asked: the same for the tokens behind the clean ones, the only ones that the last block answers for.
    """

    rotation: Rotation
    mask: Mask
    asked: Mask


@dataclass(frozen=True)
class Velocity:
    """eps - x as the network sees it: video (B, out_channels, F, h, w) of the noisy frames, action (B, n, A)."""

    video: Tensor | None
    action: Tensor | None


@dataclass(frozen=True)
class Context:
    """Keys and values of the prompt (and the image) for every block: computed once per prompt, used by every pass."""

    text: list[KeyValue]
    image: list[KeyValue] | None = None


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, at least in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(x.dtype) * self.weight.to(x.dtype)


class TanhGELU(nn.Module):
    """GELU in its tanh form: x/2 (1 + tanh u) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).

    torch.compile makes scalar code of tanh on CPUs, and of sigmoid code that is four times faster.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
        return F.gelu(x, approximate="tanh")


def normalized(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Layer norm without weights, then the modulation of the token's noise level."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class SelfAttention(nn.Module):
    """Attention over the pass and, with a cache, over the remembered past; q and k normalised over the full width."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(config.dim), RMSNorm(config.dim)

    def forward(
        self, x: Tensor, rotation: Rotation, mask: Mask, extend: Callable[[Tensor, Tensor], KeyValue] | None, first: int
    ) -> Tensor:
        """x (B, L, D) -> (B, L - first, D), mask: of these tokens."""
        asked = (rotation[0][..., first:, :], rotation[1][..., first:, :])
        q = rotate(_split(self.norm_q(self.q(x[:, first:])), self.heads), asked)
        k = rotate(_split(self.norm_k(self.k(x)), self.heads), rotation)
        v = _split(self.v(x), self.heads)
        if extend is not None:
            k, v = extend(k, v)
        k, v = k.to(q.dtype), v.to(q.dtype)
        return self.o(_join(attend_in_blocks(q, k, v, mask) if isinstance(mask, Blocks) else attend(q, k, v, mask)))


class CrossAttention(nn.Module):
    """Attention to the prompt; image features, if any, share the query and are added before the output projection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(config.dim), RMSNorm(config.dim)
        if config.image_dim is not None:
            self.k_img, self.v_img = (nn.Linear(config.dim, config.dim) for _ in range(2))
            self.norm_k_img = RMSNorm(config.dim)

    def text_keys(self, text: Tensor) -> KeyValue:
        """(B, Lt, D) -> keys and values; depends on the prompt only."""
        return _split(self.norm_k(self.k(text)), self.heads), _split(self.v(text), self.heads)

    def image_keys(self, image: Tensor) -> KeyValue:
        return _split(self.norm_k_img(self.k_img(image)), self.heads), _split(self.v_img(image), self.heads)

    def forward(self, x: Tensor, text: KeyValue, image: KeyValue | None) -> Tensor:
        q = _split(self.norm_q(self.q(x)), self.heads)
        out = attend(q, text[0].to(q.dtype), text[1].to(q.dtype), None)
        if image is not None:
            out = out + attend(q, image[0].to(q.dtype), image[1].to(q.dtype), None)
        return self.o(_join(out))


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and last are shifted, scaled and gated by sigma."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=EPS)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), TanhGELU(), nn.Linear(config.ffn_dim, config.dim)
        )

    def forward(
        self,
        x: Tensor,
        levels: Tensor,
        slot: Tensor,
        rotation: Rotation,
        mask: Mask,
        text: KeyValue,
        image: KeyValue | None,
        extend: Callable[[Tensor, Tensor], KeyValue] | None,
        first: int = 0,
    ) -> Tensor:
        """x (B, L, D), levels (B, slots, 6, D) -> (B, L - first, D): the tokens before `first` are only looked at."""
        shift1, scale1, *others = (self.modulation[:, None] + levels).unbind(2)
        gate1, shift2, scale2, gate2 = (part[:, slot[first:]] for part in others)
        x = x[:, first:] + gate1 * self.self_attn(
            normalized(x, scale1[:, slot], shift1[:, slot]), rotation, mask, extend, first
        )
        x = x + self.cross_attn(self.norm3(x), text, image)
        return x + gate2 * self.ffn(normalized(x, scale2, shift2))


class Head(nn.Module):
    """Noisy video tokens -> velocities of their patches."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)
        self.head = nn.Linear(config.dim, config.patch**2 * config.out_channels)

    def forward(self, x: Tensor, level: Tensor, slot: Tensor) -> Tensor:
        shift, scale = (self.modulation[:, None] + level[:, :, None]).unbind(2)
        return self.head(normalized(x, scale[:, slot], shift[:, slot]))


class ImageEmbedding(nn.Module):
    """Image features (B, Li, image_dim) -> (B, Li, D)."""

    def __init__(self, image_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(image_dim),
            nn.Linear(image_dim, image_dim),
            nn.GELU(),
            nn.Linear(image_dim, dim),
            nn.LayerNorm(dim),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image)


class Transformer(nn.Module):
    """The joint denoiser of video and actions (paper equation 3); `forward` predicts v = eps - x for both."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.patch_embedding = nn.Linear(c.in_channels * c.patch**2, c.dim)
        self.text_embedding = nn.Sequential(nn.Linear(c.text_dim, c.dim), nn.GELU("tanh"), nn.Linear(c.dim, c.dim))
        self.time_embedding = nn.Sequential(nn.Linear(c.time_dim, c.dim), nn.SiLU(), nn.Linear(c.dim, c.dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(c.dim, 6 * c.dim))
        self.img_emb = ImageEmbedding(c.image_dim, c.dim) if c.image_dim is not None else None
        self.state_encoder = StateEncoder(c.embodiments, c.state_dim, c.codec_hidden, c.dim)
        self.action_encoder = ActionEncoder(c.embodiments, c.action_dim, c.dim)
        self.action_decoder = ActionDecoder(c.embodiments, c.action_dim, c.codec_hidden, c.dim)
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.head = Head(c)
        self.checkpointing = False  # trade time for memory in training; the numbers stay the same
        self._initialize()

    def _initialize(self) -> None:
        """Wan's: Xavier everywhere, small embeddings; heads near zero so that training starts at v = 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embedding in (self.text_embedding, self.time_embedding):
            for module in embedding.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(self.head.head.weight)
        nn.init.zeros_(self.action_decoder.layer2.weight)

    def context(self, text: Tensor, image: Tensor | None = None) -> Context:
        """Prompt features (B, Lt, text_dim), zero beyond the prompt, and image features (B, Li, image_dim) or None.

        Raises ValueError for image features that the model has no branch for, or that its branch lacks.
        """
        if (image is None) != (self.img_emb is None):
            found = "none" if image is None else tuple(image.shape)
            raise ValueError(f"image features: {found}, but the model has image_dim={self.config.image_dim}")
        dtype = self.patch_embedding.weight.dtype
        embedded = self.text_embedding(text.to(dtype))
        blocks: list[Any] = list(self.blocks)
        text_keys = [block.cross_attn.text_keys(embedded) for block in blocks]
        if image is None or self.img_emb is None:
            return Context(text_keys)
        pictured = self.img_emb(image.to(dtype))
        return Context(text_keys, [block.cross_attn.image_keys(pictured) for block in blocks])

    def geometry(self, layout: Layout, cache: KVCache | None = None, *, state_reads: bool = False) -> Geometry:
        """Positions and visibility of a layout over what the cache holds now. `state_reads`: see `attention.visible`.

        Good for every pass of this layout until the cache's next `commit` or `reset`.
        """
        c = self.config
        rotation = rotations(layout, c.head_dim, c.frames_per_chunk, c.actions_per_chunk)
        mask, first = self._mask(layout, cache, state_reads), layout.count(Kind.CLEAN)
        return Geometry(rotation, mask, behind(mask, first) if isinstance(mask, Blocks) else mask[:, :, first:])

    def _mask(self, layout: Layout, cache: KVCache | None, state_reads: bool) -> Tensor | Blocks:
        c = self.config
        if cache is None and not state_reads and layout.groups and len(layout) >= LONG:
            return blocks_of(layout.groups, c.memory, c.autoregressive)
        keys = layout if cache is None else cache.layout_with(layout)
        mask = visible(layout, keys, c.memory, autoregressive=c.autoregressive, state_reads=state_reads)
        if cache is not None and layout.groups and len(keys) >= LONG:
            own = tuple(group.tokens for group in layout.groups)
            blocks = blocks_in(mask, own, (*cache.groups, *own))
            if blocks is not None:
                return blocks
        learning = mask.device.type == "cpu" and torch.is_grad_enabled()
        return additive(mask[:, None]) if learning else mask[:, None]

    def forward(
        self,
        inputs: Pass,
        context: Context,
        cache: KVCache | None = None,
        *,
        state_reads: bool = False,
        geometry: Geometry | None = None,
    ) -> Velocity:
        """Predict the velocity of every noisy frame and action.

        cache: the remembered past; its keys come before those of the pass, and the pass's own are left in its scratch
        so that `cache.commit` can keep them. geometry: of this layout and cache, if it has been computed already; it
        decides what is seen, `state_reads` then has no say.
        """
        layout, config = inputs.layout, self.config
        geometry = geometry or self.geometry(layout, cache, state_reads=state_reads)
        x = self._tokens(inputs)
        level = self.time_embedding(video_sinusoid(1000.0 * inputs.sigma, config.time_dim).to(x.dtype))
        levels = self.time_projection(level).unflatten(-1, (6, config.dim))
        for index, block in enumerate(self.blocks):
            extend = None if cache is None else cache.extender(index)
            image = None if context.image is None else context.image[index]
            last = index == config.layers - 1
            mask, first = (geometry.asked, layout.count(Kind.CLEAN)) if last else (geometry.mask, 0)
            sees = (geometry.rotation, mask)
            arguments = (x, levels, layout.sigma_slot, *sees, context.text[index], image, extend, first)
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        return self._velocity(x, level, inputs)

    def _tokens(self, inputs: Pass) -> Tensor:
        """Embed video patches, actions and states, one after the other: (B, L, D), in the type of the weights."""
        parts, dtype = [], self.patch_embedding.weight.dtype
        if inputs.video is not None:
            parts.append(self.patch_embedding(patchify(inputs.video.to(dtype), self.config.patch)))
        if inputs.action is not None:
            start = sum(part.shape[1] for part in parts)
            slots = inputs.layout.sigma_slot[start : start + inputs.action.shape[1]]
            parts.append(self.action_encoder(inputs.action.to(dtype), inputs.sigma[:, slots], inputs.embodiment))
        if inputs.state is not None:
            parts.append(self.state_encoder(inputs.state.to(dtype), inputs.embodiment))
        return torch.cat(parts, dim=1)

    def _velocity(self, x: Tensor, level: Tensor, inputs: Pass) -> Velocity:
        """x: (B, noisy + actions + states, D), what the last block answers."""
        layout, video, action = inputs.layout, None, None
        clean, noisy = layout.count(Kind.CLEAN), layout.count(Kind.NOISY)
        if inputs.video is not None and noisy:
            patches = self.head(x[:, :noisy], level, layout.sigma_slot[clean : clean + noisy])
            height, width = inputs.video.shape[-2:]
            video = unpatchify(patches, self.config.patch, height, width)
        if inputs.action is not None:
            action = self.action_decoder(x[:, noisy : noisy + inputs.action.shape[1]], inputs.embodiment)
        return Velocity(video, action)


def patchify(video: Tensor, patch: int) -> Tensor:
    """(B, C, F, h, w) -> (B, F h/p w/p, C p p), raster order, the channels of a patch ordered (C, p, p)."""
    b, c, f, h, w = video.shape
    cut = video.reshape(b, c, f, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 3, 5, 1, 4, 6).reshape(b, f * (h // patch) * (w // patch), c * patch * patch)


def unpatchify(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """(B, L, p p C) -> (B, C, F, h, w); the numbers of a patch come out of the head ordered (p, p, C)."""
    b, length, _ = patches.shape
    rows, columns = height // patch, width // patch
    frames = length // (rows * columns)
    cut = patches.reshape(b, frames, rows, columns, patch, patch, -1)
    return cut.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, -1, frames, height, width)


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, D / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """(B, H, L, D / H) -> (B, L, D)."""
    return x.transpose(1, 2).flatten(2)
