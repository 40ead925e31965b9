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
        video = self._video(windows)
        latents = self.tokenizer.encode(video)
        beside, image = None, None
        if self.first_frame:
            beside = first_frame_channels(self.tokenizer, video[:, :, :1], latents.shape[2]).float().cpu()
        if self.image_encoder is not None:
            looks = (video_to_frames(first) for first in video[:, :, :1])
            image = torch.cat([self.image_encoder(look) for look in looks]).float().cpu()
        latents = latents.float().cpu()
        return replace(windows, anchor=latents[:, :, :1], video=latents[:, :, 1:], beside=beside, image=image)

    def _video(self, windows: WindowBatch) -> Tensor:
        """(B, 3, 1 + 4 M K, H, W) in [-1, 1], on the device."""
        video = to_unit_range(pictures_of(windows).to(self.device))
        return video if self.canvas_size is None else resize_video(video, *self.canvas_size)
