"""What the frozen networks of a published model make of windows over pictures: latents, and what stands beside them.

As the released training prepares them: pixels are shifted to [-1, 1] in float32, every window is encoded as a video of
its own that begins with its anchor, and that first picture is what the image branch and the further channels see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wam.data.picture_rows import pictures_of
from wam.data.windows import WindowBatch
from wam.encoders.video import VideoTokenizer, video_to_frames
from wam.engine.released_policy import ImageEncoder, first_frame_channels
from wam.robot.preprocess import resize_video, to_unit_range


@dataclass(frozen=True)
class WindowEncoder:
    """Windows over pictures -> windows over latents, on the CPU, as training and validation read them.

    image_encoder: for models with an image branch.  first_frame: whether the model sees mask and first picture beside
    its latents.  canvas_size: resize the whole canvas to this (the 5 B model).  device: where the networks are.
    """

    tokenizer: VideoTokenizer
    image_encoder: ImageEncoder | None
    first_frame: bool
    device: torch.device
    canvas_size: tuple[int, int] | None = None

    @torch.no_grad()
    def __call__(self, windows: WindowBatch) -> WindowBatch:
        pictures = pictures_of(windows)
        with torch.autocast(self.device.type, enabled=False):  # in training and in validation alike
            seen = [self._seen(one[None].to(self.device)) for one in pictures]  # one at a time: a VAE needs gigabytes
        latents, beside, image = zip(*seen, strict=True)
        video = torch.cat(latents)
        return replace(
            windows, anchor=video[:, :, :1], video=video[:, :, 1:], beside=_joined(beside), image=_joined(image)
        )

    def _seen(self, pictures: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Latents, channels beside them and features of the first picture, of one window (1, 3, T, H, W) of uint8."""
        video = to_unit_range(pictures)
        if self.canvas_size is not None:
            video = resize_video(video, *self.canvas_size)
        latents, first = self.tokenizer.encode(video), video[:, :, :1]
        beside = first_frame_channels(self.tokenizer, first, latents.shape[2]) if self.first_frame else None
        image = None if self.image_encoder is None else self.image_encoder(video_to_frames(first)[0])
        return latents.float().cpu(), beside, image


def _joined(parts: tuple[Tensor | None, ...]) -> Tensor | None:
    """One tensor on the CPU; None where there is nothing."""
    found = [part.float().cpu() for part in parts if part is not None]
    return torch.cat(found) if found else None
