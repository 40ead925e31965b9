"""What the world action model expects of a video tokenizer, whichever network does the work.

**Grid.** Video is `(B, 3, T, H, W)`, float in [-1, 1]. Latents are `(B, z, F, H / s, W / s)`, about zero mean and
unit variance per channel, with s = `spatial_factor` (8 for the nano tokenizer and Wan 2.1, 16 for Wan 2.2).

**Time.** The first raw frame becomes a latent frame of its own; after it, every 4 raw frames become one: T = 1 + 4
(F - 1). So one observation is enough to start, and one latent frame is ready each time the camera has delivered
four more pictures.

    raw      0 | 1 2 3 4 | 5 6 7 8 | ...
    latent   0 |    1    |    2    | ...

**Causality.** Latent frame f depends on raw frames up to 4 f only, and decoded frames up to 4 f on latent frames up
to f only. Therefore encoding can stream: `encode_first`, then `encode_next` with the state the previous call
returned, gives exactly what `encode` gives for the whole video. States are immutable: a call never changes the
state it was handed, so a state can be kept and used twice (for example to imagine two futures from one present).
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from wam.encoders import FRAMES_PER_LATENT as FRAMES_PER_LATENT


@runtime_checkable
class StreamingEncoder(Protocol):
    """The half of a `VideoTokenizer` that a stream of pictures needs. States are opaque to the caller."""

    def encode_first(self, frame: Tensor) -> tuple[Tensor, Any]:
        """Start a stream: frame (B, 3, 1, H, W) -> latent (B, z, 1, h, w) and the stream's state."""

    def encode_next(self, state: Any, frames: Tensor) -> tuple[Tensor, Any]:
        """Go on: the next frames (B, 3, 4 n, H, W) -> latents (B, z, n, h, w) and the new state."""


@runtime_checkable
class VideoTokenizer(StreamingEncoder, Protocol):
    """A causal video autoencoder with the 1 + 4 + 4 + ... contract of this module. States are opaque to the caller."""

    @property
    def z_channels(self) -> int:
        """Channels of a latent frame."""

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent cell, along height and along width."""

    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, 1 + 4 (F - 1), H, W) in [-1, 1] -> normalised latents (B, z, F, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, z, F, h, w) -> (B, 3, 1 + 4 (F - 1), H, W) in [-1, 1]."""

    def decode_first(self, latent: Tensor) -> tuple[Tensor, Any]:
        """Start decoding: latent (B, z, 1, h, w) -> frame (B, 3, 1, H, W) and the stream's state."""

    def decode_next(self, state: Any, latents: Tensor) -> tuple[Tensor, Any]:
        """Go on: the next latents (B, z, n, h, w) -> frames (B, 3, 4 n, H, W) and the new state."""


def latent_frames(raw_frames: int) -> int:
    """Number of latent frames F of T raw frames: T = 1 + 4 (F - 1). Raises ValueError when no F fits."""
    if raw_frames < 1 or (raw_frames - 1) % FRAMES_PER_LATENT:
        raise ValueError(
            f"video has {raw_frames} raw frames, expected 1 + 4 n (1, 5, 9, ...): the first alone, then "
            f"groups of {FRAMES_PER_LATENT}; drop or add frames"
        )
    return 1 + (raw_frames - 1) // FRAMES_PER_LATENT


def raw_frames(latent_frames: int) -> int:
    """Number of raw frames T that F latent frames stand for: T = 1 + 4 (F - 1)."""
    if latent_frames < 1:
        raise ValueError(f"latents have {latent_frames} frames, expected at least 1")
    return 1 + FRAMES_PER_LATENT * (latent_frames - 1)


def check_video(video: Tensor, spatial_factor: int, canvas: tuple[int, int] | None = None) -> None:
    """Raise ValueError unless `video` is float (B, 3, T, H, W) with H, W multiples of the factor (and the canvas)."""
    if video.ndim != 5 or video.shape[1] != 3:
        raise ValueError(f"video has shape {tuple(video.shape)}, expected (B, 3, T, H, W)")
    if not video.is_floating_point():
        raise ValueError(
            f"video has dtype {video.dtype}, expected float in [-1, 1]; convert uint8 frames with frames_to_video"
        )
    height, width = video.shape[-2:]
    if canvas is not None and (height, width) != canvas:
        raise ValueError(
            f"video is {height} x {width} pixels, this tokenizer was built for a canvas of {canvas[0]} x {canvas[1]}"
        )
    if height % spatial_factor or width % spatial_factor:
        raise ValueError(
            f"video is {height} x {width} pixels, expected multiples of {spatial_factor}; resize or pad the canvas"
        )


def check_first(frame: Tensor) -> None:
    """Raise ValueError unless `frame`, the start of a stream, has exactly one time step."""
    if frame.shape[2] != 1:
        raise ValueError(f"a stream starts with 1 frame, found {frame.shape[2]} (shape {tuple(frame.shape)})")


def check_groups(frames: Tensor) -> int:
    """Number of groups of 4 in `frames` (B, 3, 4 n, H, W). Raises ValueError when frames are left over."""
    count = frames.shape[2]
    if count == 0 or count % FRAMES_PER_LATENT:
        raise ValueError(
            f"a stream goes on with groups of {FRAMES_PER_LATENT} frames, found {count} (shape {tuple(frames.shape)})"
        )
    return count // FRAMES_PER_LATENT


def check_latents(latents: Tensor, z_channels: int, grid: tuple[int, int] | None = None) -> None:
    """Raise ValueError unless `latents` is (B, z, F, h, w) with F >= 1 (and the expected grid h x w)."""
    if latents.ndim != 5 or latents.shape[1] != z_channels or latents.shape[2] < 1:
        raise ValueError(f"latents have shape {tuple(latents.shape)}, expected (B, {z_channels}, F >= 1, h, w)")
    if grid is not None and tuple(latents.shape[-2:]) != grid:
        raise ValueError(f"latents have a grid of {tuple(latents.shape[-2:])}, expected {grid}")


def frames_to_video(frames: np.ndarray | Tensor) -> Tensor:
    """uint8 frames (..., T, H, W, 3) -> float32 video (..., 3, T, H, W) in [-1, 1]: x / 127.5 - 1."""
    tensor = torch.as_tensor(frames)
    if tensor.dtype != torch.uint8 or tensor.ndim < 4 or tensor.shape[-1] != 3:
        raise ValueError(
            f"frames have dtype {tensor.dtype}, shape {tuple(tensor.shape)}, expected uint8 (..., T, H, W, 3)"
        )
    return tensor.movedim(-1, -4).float() / 127.5 - 1.0


def video_to_frames(video: Tensor) -> np.ndarray:
    """Video (..., 3, T, H, W) in [-1, 1] -> uint8 frames (..., T, H, W, 3), rounded and clipped."""
    if video.ndim < 4 or video.shape[-4] != 3:
        raise ValueError(f"video has shape {tuple(video.shape)}, expected (..., 3, T, H, W)")
    scaled = (video.detach().float() + 1.0) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).movedim(-4, -1).cpu().numpy()
