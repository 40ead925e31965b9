"""A small causal video tokenizer for fixed cameras: the 8 x 8 x 4 contract of the real video VAE, far cheaper.

Four convolutional networks on an H/4 and an H/8 grid, E1 and D1 each beside one linear map of 8 x 8 patches that
starts as the principal components of the data, so that training begins where a linear codec ends:

    first frame   z_0 = E1(x_0)                                        x_0 = D1(z_0)
    group         z_g = E1(x_4) + E4(x_0, x_1, x_2, x_3, x_4)          x_1..x_4 = D1(z_g) + D4(z_{g-1}, z_g)

x_4 is the group's last frame (the robot's present), x_0 the frame before the group. A group's latent is thus the
latent of its last frame plus a learned correction for what moved: static things have the same latent in every
frame, which makes them easy to predict. Encoding streams with the last raw frame as state, decoding with the last
latent frame: bounded memory, and no error that grows.

The cameras do not move, so the mean picture of the data set is subtracted, and every grid has a learned bias per
position: the network knows the background by heart and spends its latent channels on what differs from it.
"""

import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from wam.encoders import video as contract
from wam.encoders.folders import readable

PATCH = 4  # pixels per cell of the finer grid
SPATIAL_FACTOR = 8
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MODEL_TYPE = "nano_tokenizer"


@dataclass(frozen=True)
class NanoTokenizerConfig:
    """Size of a `NanoTokenizer`. `width` and `depth`: channels and residual blocks, on the H/4 and on the H/8 grid."""

    z_channels: int = 16
    width: tuple[int, int] = (64, 96)
    depth: tuple[int, int] = (1, 2)
    canvas_height: int = 64
    canvas_width: int = 128

    def __post_init__(self) -> None:
        for name in ("canvas_height", "canvas_width"):
            value = getattr(self, name)
            if value <= 0 or value % SPATIAL_FACTOR:
                raise ValueError(f"{name} is {value}, expected a positive multiple of {SPATIAL_FACTOR}")

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of a picture, in pixels."""
        return self.canvas_height, self.canvas_width

    @property
    def fine_grid(self) -> tuple[int, int]:
        """Cells of the H/4 grid."""
        return self.canvas_height // PATCH, self.canvas_width // PATCH

    @property
    def latent_grid(self) -> tuple[int, int]:
        """Cells of the H/8 grid, on which the latents live."""
        return self.canvas_height // SPATIAL_FACTOR, self.canvas_width // SPATIAL_FACTOR


@dataclass(frozen=True)
class NanoEncodeState:
    """What encoding remembers of the past: the last raw frame (B, 3, H, W)."""

    previous_frame: Tensor


@dataclass(frozen=True)
class NanoDecodeState:
    """What decoding remembers of the past: the last latent frame (B, z, h, w), normalised."""

    previous_latent: Tensor


def _silence(layer: nn.Module) -> None:
    """Set the last layer of a branch to zero: the branch adds nothing until it has learned something."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), 3 x 3; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        _silence(self.second)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(functional.silu(self.first(functional.silu(x))))
        return x + change


class PositionBias(nn.Module):
    """Adds a learned vector per grid cell: what a fixed camera always sees there."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width, *grid))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


def _blocks(count: int, width: int) -> list[ResidualBlock]:
    return [ResidualBlock(width) for _ in range(count)]


def _analysis(frames: int, config: NanoTokenizerConfig) -> nn.Sequential:
    """Pictures (B, 3 frames, H, W) -> features (B, z, H/8, W/8). Stride = kernel: space-to-depth and a matrix."""
    (fine, coarse), (fine_depth, coarse_depth) = config.width, config.depth
    return nn.Sequential(
        nn.Conv2d(3 * frames, fine, PATCH, stride=PATCH),
        PositionBias(fine, config.fine_grid),
        *_blocks(fine_depth, fine),
        nn.Conv2d(fine, coarse, 2, stride=2),
        PositionBias(coarse, config.latent_grid),
        *_blocks(coarse_depth, coarse),
        nn.SiLU(),
        nn.Conv2d(coarse, config.z_channels, 1),
    )


def _synthesis(latents: int, frames: int, config: NanoTokenizerConfig) -> nn.Sequential:
    """Features (B, latents z, H/8, W/8) -> pictures (B, 3 frames, H, W)."""
    (fine, coarse), (fine_depth, coarse_depth) = config.width, config.depth
    return nn.Sequential(
        nn.Conv2d(latents * config.z_channels, coarse, 3, padding=1),
        PositionBias(coarse, config.latent_grid),
        *_blocks(coarse_depth, coarse),
        nn.ConvTranspose2d(coarse, fine, 2, stride=2),
        PositionBias(fine, config.fine_grid),
        *_blocks(fine_depth, fine),
        nn.SiLU(),
        nn.ConvTranspose2d(fine, 3 * frames, PATCH, stride=PATCH),
    )


class NanoTokenizer(nn.Module):
    """Causal video autoencoder for one fixed canvas; see the module text. A `wam.encoders.video.VideoTokenizer`.

    `encode` and `decode` work with normalised latents; `analyse`, `normalise`, `synthesise_first` and `synthesise_next`
    are the differentiable parts that training puts together itself (`wam.train.tokenizer`).
    """

    background: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: NanoTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        group = contract.FRAMES_PER_LATENT
        self.encode_frame = _analysis(1, config)
        self.encode_group = _analysis(1 + group, config)
        self.decode_frame = _synthesis(1, 1, config)
        self.decode_group = _synthesis(2, group, config)
        self.encode_linear = nn.Conv2d(3, config.z_channels, SPATIAL_FACTOR, stride=SPATIAL_FACTOR, bias=False)
        self.decode_linear = nn.ConvTranspose2d(config.z_channels, 3, SPATIAL_FACTOR, stride=SPATIAL_FACTOR, bias=False)
        for network in (self.encode_frame, self.encode_group, self.decode_frame, self.decode_group):
            _silence(network[-1])  # a frame starts as its linear code, a group as "nothing moved"
        self.register_buffer("background", torch.zeros(3, *config.canvas))
        self.register_buffer("latent_mean", torch.zeros(config.z_channels))
        self.register_buffer("latent_std", torch.ones(config.z_channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def z_channels(self) -> int:
        return self.config.z_channels

    @property
    def spatial_factor(self) -> int:
        return SPATIAL_FACTOR

    # -- the contract --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """(B, 3, 1 + 4 (F - 1), H, W) in [-1, 1] -> normalised latents (B, z, F, h, w)."""
        contract.check_video(video, SPATIAL_FACTOR, self.config.canvas)
        contract.latent_frames(video.shape[2])
        return self.normalise(self.analyse(video)).to(video.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents (B, z, F, h, w) -> (B, 3, 1 + 4 (F - 1), H, W) in [-1, 1]."""
        contract.check_latents(latents, self.z_channels, self.config.latent_grid)
        first = self.synthesise_first(latents[:, :, :1])
        rest = self.synthesise_next(latents[:, :, :-1], latents[:, :, 1:])
        return torch.cat([first, rest], dim=2).clamp(-1, 1).to(latents.dtype)

    @torch.no_grad()
    def encode_first(self, frame: Tensor) -> tuple[Tensor, NanoEncodeState]:
        """Start a stream: frame (B, 3, 1, H, W) -> latent (B, z, 1, h, w) and the state."""
        contract.check_video(frame, SPATIAL_FACTOR, self.config.canvas)
        contract.check_first(frame)
        latent = self.normalise(self.analyse(frame)).to(frame.dtype)
        return latent, NanoEncodeState(frame[:, :, -1])

    @torch.no_grad()
    def encode_next(self, state: NanoEncodeState, frames: Tensor) -> tuple[Tensor, NanoEncodeState]:
        """The next frames (B, 3, 4 n, H, W) -> latents (B, z, n, h, w) and the new state."""
        contract.check_video(frames, SPATIAL_FACTOR, self.config.canvas)
        contract.check_groups(frames)
        raw = self.analyse_groups(torch.cat([state.previous_frame.unsqueeze(2), frames], dim=2))
        return self.normalise(raw).to(frames.dtype), NanoEncodeState(frames[:, :, -1])

    @torch.no_grad()
    def decode_first(self, latent: Tensor) -> tuple[Tensor, NanoDecodeState]:
        """Start decoding: latent (B, z, 1, h, w) -> frame (B, 3, 1, H, W) and the state."""
        contract.check_latents(latent, self.z_channels, self.config.latent_grid)
        contract.check_first(latent)
        frame = self.synthesise_first(latent).clamp(-1, 1).to(latent.dtype)
        return frame, NanoDecodeState(latent[:, :, -1])

    @torch.no_grad()
    def decode_next(self, state: NanoDecodeState, latents: Tensor) -> tuple[Tensor, NanoDecodeState]:
        """The next latents (B, z, n, h, w) -> frames (B, 3, 4 n, H, W) and the new state."""
        contract.check_latents(latents, self.z_channels, self.config.latent_grid)
        previous = torch.cat([state.previous_latent.unsqueeze(2), latents[:, :, :-1]], dim=2)
        frames = self.synthesise_next(previous, latents).clamp(-1, 1).to(latents.dtype)
        return frames, NanoDecodeState(latents[:, :, -1])

    # -- the four networks, time folded into the batch -----------------------------------------------------------------

    def analyse(self, video: Tensor) -> Tensor:
        """(B, 3, 1 + 4 (F - 1), H, W) -> latents before normalisation (B, z, F, h, w)."""
        first = self._analyse_frames(video[:, :, :1])
        return first if video.shape[2] == 1 else torch.cat([first, self.analyse_groups(video)], dim=2)

    def analyse_groups(self, video: Tensor) -> Tensor:
        """Frame before and n groups (B, 3, 1 + 4 n, H, W) -> latents of the groups, not normalised (B, z, n, h, w)."""
        group = contract.FRAMES_PER_LATENT
        appearance = self._analyse_frames(video[:, :, group::group])
        windows = self._centre(video).unfold(2, 1 + group, group)  # (B, 3, n, H, W, 5)
        batch, _, count, height, width, frames = windows.shape
        stacked = windows.permute(0, 2, 5, 1, 3, 4).reshape(batch * count, 3 * frames, height, width)
        motion = self.encode_group(stacked.contiguous(memory_format=torch.channels_last))
        return appearance + _unfold_time(motion, batch, count)

    def synthesise_first(self, latent: Tensor) -> Tensor:
        """Normalised latent (B, z, 1, h, w) -> frame (B, 3, 1, H, W), not clipped."""
        return self._synthesise_frames(latent)

    def synthesise_next(self, previous: Tensor, latents: Tensor) -> Tensor:
        """Normalised latents of n groups and of their predecessors, (B, z, n, h, w) each -> frames (B, 3, 4 n, H, W),
        not clipped."""
        batch, _, count = latents.shape[:3]
        group = contract.FRAMES_PER_LATENT
        present = self._synthesise_frames(latents)
        motion: Tensor = self.decode_group(self._to_weights(_fold_time(torch.cat([previous, latents], dim=1))))
        motion = motion.view(batch, count, group, 3, *motion.shape[-2:]).permute(0, 3, 1, 2, 4, 5)
        return (present.unsqueeze(3) + motion).flatten(2, 3)  # (B, 3, n, 1 and 4, H, W)

    def normalise(self, raw: Tensor) -> Tensor:
        """Latents (B, z, F, h, w) -> zero mean and unit variance per channel, in float32."""
        shape = (1, -1, 1, 1, 1)
        return (raw.float() - self.latent_mean.view(shape)) / self.latent_std.view(shape)

    def _centre(self, video: Tensor) -> Tensor:
        """Video minus the background, in the dtype of the weights."""
        return self._to_weights(video - self.background.unsqueeze(1))

    def _to_weights(self, x: Tensor) -> Tensor:
        return x.to(self.encode_linear.weight.dtype)

    def _analyse_frames(self, frames: Tensor) -> Tensor:
        batch, count = frames.shape[0], frames.shape[2]
        pictures = _fold_time(self._centre(frames))
        return _unfold_time(self.encode_linear(pictures) + self.encode_frame(pictures), batch, count)

    def _synthesise_frames(self, latents: Tensor) -> Tensor:
        batch, count = latents.shape[0], latents.shape[2]
        codes = self._to_weights(_fold_time(latents))
        return _unfold_time(self.decode_linear(codes) + self.decode_frame(codes) + self.background, batch, count)

    @torch.no_grad()
    def start_from_principal_components(self, frames: Tensor, weight: Tensor) -> None:
        """Set the two linear maps from frames (B, 3, 1, H, W), before training.

        They become the z patterns of 8 x 8 patches that hold most of the frames' difference from the background, each
        patch counted by the mean of weight (B, 1, 1, H, W) on it.
        """
        size = SPATIAL_FACTOR
        patches = functional.unfold(_fold_time(self._centre(frames)), size, stride=size).transpose(1, 2).flatten(0, 1)
        counts = functional.avg_pool2d(weight[:, 0], size).flatten()[:, None]
        _, patterns = torch.linalg.eigh((patches * counts).T @ patches / counts.sum())
        top = patterns[:, -self.z_channels :].T.flip(0)  # (z, 3 x 8 x 8), largest first
        scale = (patches @ top.T).std(0).clamp(min=1e-3)
        self.encode_linear.weight.copy_(top.view(-1, 3, size, size))
        self.decode_linear.weight.copy_((top * scale[:, None]).view(-1, 3, size, size))

    # -- files ---------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors` to `folder` (made when missing), each atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        settings = {"model_type": MODEL_TYPE, **dataclasses.asdict(self.config)}
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            save_file(tensors, Path(scratch) / WEIGHTS_FILE, metadata={"format": "pt"})
            (Path(scratch) / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n")
            for name in (WEIGHTS_FILE, CONFIG_FILE):
                os.replace(Path(scratch) / name, folder / name)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "NanoTokenizer":
        """Load from a folder written by `save_pretrained`, or from a repository of that layout on the Hugging Face hub.

        The result is frozen and in evaluation mode, on the CPU in float32.
        """
        folder = _local_folder(source)
        tokenizer = cls(_read_config(folder / CONFIG_FILE))
        with readable(folder / WEIGHTS_FILE):
            tokenizer.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return tokenizer.requires_grad_(False).eval()


def _fold_time(video: Tensor) -> Tensor:
    """(B, C, F, H, W) -> (B F, C, H, W), channels last in memory."""
    return video.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _unfold_time(pictures: Tensor, batch: int, count: int) -> Tensor:
    """(B F, C, H, W) -> (B, C, F, H, W)."""
    return pictures.reshape(batch, count, *pictures.shape[1:]).transpose(1, 2)


def _local_folder(source: str | Path) -> Path:
    """The folder that holds the files: `source` itself, or a snapshot of the hub repository of that name."""
    if (Path(source) / CONFIG_FILE).is_file():
        return Path(source)
    if Path(source).exists() or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"{Path(source) / CONFIG_FILE} not found; expected a folder written by NanoTokenizer.save_pretrained"
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(source), allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))


def _read_config(file: Path) -> NanoTokenizerConfig:
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error}); copy it again, or train the tokenizer again") from error
    if settings.pop("model_type", None) != MODEL_TYPE:
        raise ValueError(f"{file}: field model_type is not {MODEL_TYPE!r}; this folder holds another kind of model")
    known = {field.name for field in dataclasses.fields(NanoTokenizerConfig)}
    if unknown := set(settings) - known:
        raise ValueError(
            f"{file}: unknown fields {sorted(unknown)}, known are {sorted(known)}; another version wrote it"
        )
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
    return NanoTokenizerConfig(**values)
