"""The first frame as Wan's image-to-video models and DreamZero see it: CLIP ViT-H/14, 257 tokens of 1280 numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wam.encoders.folders import check_folder

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import CLIPVisionModel

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipImageEncoder(nn.Module):
    """A frozen `CLIPVisionModel`, read before its last layer: class token first, then patches row by row.

    Everything happens in the type of the weights. In bfloat16 that is what the released inference does, which rounds
    the pixels to bfloat16 before it shifts them to [-1, 1]; in float32 it is what the released training does.

    Raises:
        ValueError: the network was not made for pictures of 224 x 224.
    """

    def __init__(self, network: CLIPVisionModel) -> None:
        super().__init__()
        size = network.config.image_size
        if size != CLIP_SIZE:
            raise ValueError(f"image encoder config: field image_size is {size}, expected {CLIP_SIZE}")
        self.network = cast(Any, network).requires_grad_(False).eval()

    @classmethod
    def from_pretrained(cls, folder: Path, *, dtype: torch.dtype = torch.bfloat16) -> ClipImageEncoder:
        """Load weights in transformers' layout (safetensors only, nothing is downloaded, no code of the folder runs).

        Raises ValueError naming a file that is not there.
        """
        from transformers import CLIPVisionModel

        folder = check_folder(folder, "image encoder")
        network = CLIPVisionModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype)
        return cls(network)

    @property
    def image_len(self) -> int:
        """Tokens per picture: the class token and the patches."""
        return 1 + (CLIP_SIZE // int(self.network.config.patch_size)) ** 2

    @property
    def image_dim(self) -> int:
        """Width of a token's features."""
        return int(self.network.config.hidden_size)

    @torch.no_grad()
    def encode(self, frames: np.ndarray | Tensor) -> Tensor:
        """uint8 frames (B, H, W, 3) of any size -> (B, image_len, image_dim) float32, on the frames' device."""
        pixels = torch.as_tensor(frames)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
            raise ValueError(
                f"frames have dtype {pixels.dtype}, shape {tuple(pixels.shape)}, expected uint8 (B, H, W, 3)"
            )
        levels = (pixels.to(self.network.device).permute(0, 3, 1, 2).float() / 255).to(self.network.dtype)
        answer = self.network(clip_input((levels - 0.5) / 0.5), output_hidden_states=True)
        return cast(Tensor, answer.hidden_states[-2].float().to(pixels.device))  # the last layer is never used


def clip_input(frame: Tensor) -> Tensor:
    """Canvas (B, 3, H, W) in [-1, 1] -> the network's input (B, 3, 224, 224), in the same type.

    The whole canvas, its aspect ratio ignored; bicubic without antialiasing, as the released code does.
    """
    square = F.interpolate(frame, (CLIP_SIZE, CLIP_SIZE), mode="bicubic", align_corners=False)
    mean, std = (frame.new_tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (square * 0.5 + 0.5 - mean) / std
