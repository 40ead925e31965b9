"""Dreams for people to look at: what the model expects of held-out episodes, beside what then happened.

Closed loop: each chunk is imagined after remembering the real chunks before it. Real pictures are what the tokenizer
makes of real latents, so that only the dream is judged, and a dream is decoded from the real picture before it. Each
validation leaves one picture (a film strip with the last frame of every chunk) and one film (every frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wam.data.files import write_atomic
from wam.data.mixture import Member, Mixture
from wam.data.windows import WindowBatch, WindowIndex, WindowSource
from wam.encoders.video import VideoTokenizer, video_to_frames
from wam.evaluate.dreams import psnr
from wam.evaluate.rollout import Frames
from wam.evaluate.strips import below, side_by_side, strip
from wam.evaluate.video import encode_mp4
from wam.flow.sampler import Sampler
from wam.robot.embodiment import Embodiment
from wam.train.config import ValidationConfig
from wam.train.open_loop import imagine_along, may_begin
from wam.world_action_model import WorldActionModel


@dataclass(frozen=True)
class Stretch:
    """A stretch of one held-out episode: the anchor frame, then the frames of every chunk, uint8 (T, H, W, 3).

    still: what who expects no motion would see, the last frame before each chunk.  per_chunk: frames of a chunk.
    """

    caption: str
    real: Frames
    dreamed: Frames
    still: Frames
    per_chunk: int
    seconds_per_frame: float

    @property
    def psnr(self) -> float:
        """Of the dreamed frames against the real ones, in dB."""
        return psnr(self.dreamed[1:], self.real[1:])

    @property
    def psnr_still(self) -> float:
        """Of expecting no motion."""
        return psnr(self.still[1:], self.real[1:])

    def strip(self) -> Frames:
        """Picture (H, W, 3): the real frames above the dreamed ones, the last of every chunk."""
        note = f"dream {self.psnr:.1f} dB, no motion {self.psnr_still:.1f} dB"
        rows = {"real": self.real, "dream": self.dreamed}
        return strip(self.caption, note, rows, self.per_chunk, self.seconds_per_frame)


@dataclass(frozen=True)
class Sample:
    """What one validation shows."""

    stretches: tuple[Stretch, ...]

    def scores(self) -> dict[str, float]:
        """Mean PSNR in dB of the dreams, and of expecting no motion."""
        return {
            name: round(float(np.mean([getattr(one, name) for one in self.stretches])), 3)
            for name in ("psnr", "psnr_still")
        }

    def strip(self) -> Frames:
        """Picture (H, W, 3): per stretch the real frames above the dreamed ones, the last of every chunk."""
        return below([one.strip() for one in self.stretches])

    def film(self) -> Frames:
        """Frames (T, H, W, 3) in robot time: real left, dreamed right, the stretches below each other."""
        columns = [[getattr(one, name) for one in self.stretches] for name in ("real", "dreamed")]
        return side_by_side(columns, self.frame_rate)

    @property
    def frame_rate(self) -> float:
        return 1 / self.stretches[0].seconds_per_frame

    def save(self, folder: Path, step: int, keep: int) -> tuple[Path, Path]:
        """Write step-00001234.png and .mp4; of older ones the newest stay, `keep` in all."""
        picture, film = (folder / f"step-{step:08d}.{ending}" for ending in ("png", "mp4"))
        write_atomic(picture, lambda path: Image.fromarray(self.strip()).save(path, format="PNG"))
        write_atomic(film, lambda path: path.write_bytes(encode_mp4(self.film(), self.frame_rate)))
        for ending in ("png", "mp4"):
            found = sorted(folder.glob(f"step-*.{ending}"))
            for old in found[: max(0, len(found) - keep)]:
                old.unlink()
        return picture, film


class Dreamer:
    """Dreams the same stretches of held-out episodes every time it is called."""

    def __init__(
        self,
        held_out: Sequence[Member],
        prompts: Tensor,
        tokenizer: VideoTokenizer,
        config: ValidationConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        """prompts: (n, Lt, text_dim) features by `text_id`.  tokenizer: the one that made the latents, on `device`."""
        self.held_out = Mixture(held_out, len(held_out))
        self.prompts, self.tokenizer, self.config, self.device = prompts, tokenizer, config, torch.device(device)

    def __call__(self, model: WorldActionModel, seed: int = 0) -> Sample | None:
        """None for a model that does not dream."""
        if not model.config.dream or self.config.samples == 0:
            return None
        each = max(1, self.config.samples // len(self.held_out.members))
        stretches: list[Stretch] = []
        for place in range(len(self.held_out.members)):
            stretches += self._stretches(model, place, each, seed)
        return Sample(tuple(stretches))

    @torch.no_grad()
    def _stretches(self, model: WorldActionModel, place: int, count: int, seed: int) -> list[Stretch]:
        member = self.held_out.members[place]
        source, chunks = member.source, self.config.sample_chunks if model.config.transformer.autoregressive else 1
        index, chunks = _long_windows(source, count, chunks)
        device, windows = next(model.parameters()).device, _long_batch(self.held_out, place, index, chunks)
        windows, text = windows.to(device), self.prompts[windows.text_id].to(device)
        imagined = imagine_along(model, windows, text, Sampler(), seed, member.slot)
        dreams = [chunk.video.float() for chunk in imagined if chunk.video is not None]
        frames = self._decode(windows, dreams)
        robot, per_chunk = _robot_of(model, member), (len(frames[0][0]) - 1) // chunks
        sentences = source.collate(index).text_id.tolist()
        captions = [
            f"{member.prompt(source.sentences[sentence])}  ({member.name}, episode {episode}, row {row})"
            for sentence, episode, row in zip(sentences, index.episode, index.row, strict=True)
        ]
        return [
            Stretch(caption, real, dreamed, still, per_chunk, robot.video_stride / robot.control_hz)
            for caption, real, dreamed, still in zip(captions, *frames, strict=True)
        ]

    def _decode(self, windows: WindowBatch, dreams: Sequence[Tensor]) -> tuple[Frames, Frames, Frames]:
        """Real, dreamed and still frames, each (B, T, H, W, 3)."""
        chunk_frames = dreams[0].shape[2]
        with torch.autocast(self.device.type, enabled=False):
            frame, state = self.tokenizer.decode_first(windows.anchor.to(self.device))
            real, dreamed, still = [frame], [frame], [frame]
            for place, dream in enumerate(dreams):
                latents = windows.video[:, :, place * chunk_frames : (place + 1) * chunk_frames]
                dreamed.append(self.tokenizer.decode_next(state, dream.to(self.device))[0])
                frames, state = self.tokenizer.decode_next(state, latents.to(self.device))
                still.append(real[-1][:, :, -1:].expand_as(frames))
                real.append(frames)
        pictures = [video_to_frames(torch.cat(parts, dim=2)) for parts in (real, dreamed, still)]
        return pictures[0], pictures[1], pictures[2]


# -------------------------------------------------------------------------------- which stretches


def _long_windows(source: WindowSource, count: int, chunks: int) -> tuple[WindowIndex, int]:
    """Evenly spread anchors that whole chunks follow, and how many: fewer than asked where every episode is shorter."""
    every = source.windows(np.arange(len(source)), np.random.default_rng(0))
    for length in range(chunks, 0, -1):
        found = np.flatnonzero(may_begin(source, every.episode, every.row + length * source.spec.actions_per_chunk))
        if len(found):
            break
    else:
        found, length = np.arange(len(source)), 1
    picks = found[np.unique(np.linspace(0, len(found) - 1, count + 2).round().astype(int)[1:-1])]
    one = np.ones_like(picks)
    return WindowIndex(every.episode[picks], every.row[picks], chunks=one, gap=0 * one), length


def _long_batch(held_out: Mixture, place: int, index: WindowIndex, chunks: int) -> WindowBatch:
    """Windows of any number of chunks, put together from windows that begin at the same anchors."""
    spec, one = held_out.members[place].source.spec, np.ones_like(index.row)
    parts = [
        held_out.collate(place, replace(index, gap=gap * one, chunks=min(spec.chunks, chunks - gap) * one))
        for gap in range(0, chunks, spec.chunks)
    ]
    return replace(
        parts[0],
        video=torch.cat([part.video for part in parts], dim=2)[:, :, : chunks * spec.frames_per_chunk],
        state=torch.cat([part.state for part in parts], dim=1)[:, :chunks],
        chunk_valid=torch.cat([part.chunk_valid for part in parts], dim=1)[:, :chunks],
    )


def _robot_of(model: WorldActionModel, member: Member) -> Embodiment:
    return member.embodiment or model.config.embodiments[member.slot]
