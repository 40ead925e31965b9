"""The size and shape of a transformer. One dataclass serves nano, 1.3B, 5B and 14B."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TransformerConfig:
    """Wan's diffusion transformer with action and state tokens (DreamZero, arXiv 2602.15922, section 3).

    The video enters as latents (B, in_channels, F, H, W) and is cut into patches of 1 x patch x patch.
    """

    dim: int = 192
    heads: int = 3
    layers: int = 6
    ffn_dim: int = 768
    in_channels: int = 16
    out_channels: int = 16
    patch: int = 2
    text_dim: int = 384
    image_dim: int | None = None  # width of image features for cross-attention (CLIP: 1280); None = text only
    time_dim: int = 256  # sinusoid features of a noise level
    action_dim: int = 4
    state_dim: int = 4
    codec_hidden: int = 256
    embodiments: int = 1  # number of robots that own a codec
    frames_per_chunk: int = 1  # K latent frames
    actions_per_chunk: int = 8  # N
    memory: int | None = 3  # clean chunks that a query can see behind it, besides the anchor; None = all of them
    autoregressive: bool = True  # False: bidirectional, every chunk of the window sees every other

    def __post_init__(self) -> None:
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(f"dim={self.dim} must split into heads={self.heads} of an even width")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"memory={self.memory}: at least one clean chunk must stay visible, or None for all")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


def patch_grid(latent: tuple[int, int], patch: int) -> tuple[int, int]:
    """Rows and columns of patches in a latent frame of (h, w). Raises ValueError when they do not fill it."""
    height, width = latent
    if height % patch or width % patch:
        raise ValueError(
            f"config: latents of {height} x {width} cannot be cut into patches of {patch}; choose another "
            "--size.patch, or another size of the canvas"
        )
    return height // patch, width // patch
