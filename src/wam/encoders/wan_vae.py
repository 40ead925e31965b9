"""The video VAEs of Wan 2.1 and Wan 2.2 (diffusers' `AutoencoderKLWan`), streaming, as a `VideoTokenizer`.

diffusers encodes a whole video in one call: 1 frame, then 4 at a time, with the last frames that each causal
convolution saw kept in `_enc_feat_map` for the length of that call. Here that map lives in the state, so a video
can be encoded chunk by chunk, as a robot's camera delivers it, with exactly the result of the one call; the same
for decoding.

| | Wan 2.1 | Wan 2.2 (TI2V-5B) |
|---|---|---|
| pixels x pixels x frames per latent cell | 8 x 8 x 4 | 16 x 16 x 4 (2 x 2 pixels are folded into channels first) |
| z_channels | 16 | 48 |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor, nn

from wam.encoders import video as contract


@dataclass(frozen=True)
class WanStreamState:
    """What each causal convolution of the encoder or decoder remembers, in the order in which they run.

    An entry is a tensor (the last inputs of that convolution), None (not reached yet) or a marker that diffusers uses.
    diffusers replaces entries and never changes a tensor in place, so a copied list is a full copy.
    """

    features: tuple[Any, ...]


class WanVideoTokenizer(nn.Module):
    """A frozen `AutoencoderKLWan`: latents are the posterior mean (never sampled), normalised by its tables."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        network = cast(Any, vae)  # diffusers' classes carry no types
        self.vae = network.requires_grad_(False).eval()
        for name in ("latents_mean", "latents_std"):
            table = self.vae.config[name]
            if len(table) != self.z_channels:
                raise ValueError(
                    f"VAE config: field {name} has {len(table)} values, expected z_dim = {self.z_channels}"
                )
            self.register_buffer(name, torch.tensor(table).view(1, -1, 1, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(cls, source: str | Path, subfolder: str | None = None, **options: Any) -> WanVideoTokenizer:
        """Load diffusers weights (safetensors only) from a folder or a hub repository.

        `subfolder` is "vae" in a pipeline repository such as "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"; `options` go to
        `AutoencoderKLWan.from_pretrained` (torch_dtype, revision).
        """
        arguments = {"use_safetensors": True, **options, **({} if subfolder is None else {"subfolder": subfolder})}
        network = cast(Any, AutoencoderKLWan)
        return cls(network.from_pretrained(str(source), **arguments))

    @property
    def z_channels(self) -> int:
        return int(self.vae.config.z_dim)

    @property
    def spatial_factor(self) -> int:
        return int(self.vae.config.scale_factor_spatial)

    # -- the contract -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, 1 + 4 (F - 1), H, W) in [-1, 1] -> normalised latents (B, z, F, h, w)."""
        contract.check_video(video, self.spatial_factor)
        contract.latent_frames(video.shape[2])
        first, state = self.encode_first(video[:, :, :1])
        if video.shape[2] == 1:
            return first
        rest, _ = self.encode_next(state, video[:, :, 1:])
        return torch.cat([first, rest], dim=2)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, z, F, h, w) -> (B, 3, 1 + 4 (F - 1), H, W) in [-1, 1]."""
        contract.check_latents(latents, self.z_channels)
        first, state = self.decode_first(latents[:, :, :1])
        if latents.shape[2] == 1:
            return first
        rest, _ = self.decode_next(state, latents[:, :, 1:])
        return torch.cat([first, rest], dim=2)

    @torch.no_grad()
    def encode_first(self, frame: Tensor) -> tuple[Tensor, WanStreamState]:
        """Start a stream: frame (B, 3, 1, H, W) -> latent (B, z, 1, h, w) and the state."""
        contract.check_video(frame, self.spatial_factor)
        contract.check_first(frame)
        return self._encode_chunk(self._empty_state("encoder"), frame)

    @torch.no_grad()
    def encode_next(self, state: WanStreamState, frames: Tensor) -> tuple[Tensor, WanStreamState]:
        """The next frames (B, 3, 4 n, H, W) -> latents (B, z, n, h, w) and the new state."""
        contract.check_video(frames, self.spatial_factor)
        contract.check_groups(frames)
        latents = []
        for chunk in torch.split(frames, contract.FRAMES_PER_LATENT, dim=2):
            latent, state = self._encode_chunk(state, chunk)
            latents.append(latent)
        return torch.cat(latents, dim=2), state

    @torch.no_grad()
    def decode_first(self, latent: Tensor) -> tuple[Tensor, WanStreamState]:
        """Start decoding: latent (B, z, 1, h, w) -> frame (B, 3, 1, H, W) and the state."""
        contract.check_latents(latent, self.z_channels)
        contract.check_first(latent)
        return self._decode_chunk(self._empty_state("decoder"), latent, first=True)

    @torch.no_grad()
    def decode_next(self, state: WanStreamState, latents: Tensor) -> tuple[Tensor, WanStreamState]:
        """The next latents (B, z, n, h, w) -> frames (B, 3, 4 n, H, W) and the new state."""
        contract.check_latents(latents, self.z_channels)
        frames = []
        for latent in torch.split(latents, 1, dim=2):
            frame, state = self._decode_chunk(state, latent, first=False)
            frames.append(frame)
        return torch.cat(frames, dim=2), state

    # -- one chunk through diffusers' networks ------------------------------------------------------------------------

    def _empty_state(self, half: str) -> WanStreamState:
        """The state before the first frame: one empty entry per causal convolution of the encoder or decoder."""
        return WanStreamState((None,) * self.vae._cached_conv_counts[half])

    def _encode_chunk(self, state: WanStreamState, frames: Tensor) -> tuple[Tensor, WanStreamState]:
        features = list(state.features)
        x = frames.to(self.vae.dtype)
        if self.vae.config.patch_size is not None:
            x = patchify(x, self.vae.config.patch_size)  # type: ignore[no-untyped-call]
        moments = self.vae.quant_conv(self.vae.encoder(x, feat_cache=features, feat_idx=[0]))
        mean = moments[:, : self.z_channels].to(frames.dtype)
        return (mean - self.latents_mean.to(mean)) / self.latents_std.to(mean), WanStreamState(tuple(features))

    def _decode_chunk(self, state: WanStreamState, latent: Tensor, *, first: bool) -> tuple[Tensor, WanStreamState]:
        features = list(state.features)
        x = (latent * self.latents_std.to(latent) + self.latents_mean.to(latent)).to(self.vae.dtype)
        x = self.vae.decoder(self.vae.post_quant_conv(x), feat_cache=features, feat_idx=[0], first_chunk=first)
        if self.vae.config.patch_size is not None:
            x = unpatchify(x, self.vae.config.patch_size)  # type: ignore[no-untyped-call]
        return x.clamp(-1, 1).to(latent.dtype), WanStreamState(tuple(features))
