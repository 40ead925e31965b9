"""Released weights in closed loop, as the released server runs them: observe -> encode -> remember -> denoise -> act.

What it takes from the released code, where `WamPolicy` does otherwise:
    pictures   centre crop, resize, canvas of the robot's views; 4 looks per chunk, each shown twice
    encoding   every chunk is encoded anew, its first picture in front of it once more, and the first latent dropped
    memory     when the window of `memory` chunks is full, everything is forgotten but the present picture
    numbers    quantiles to [-1, 1]; joint positions relative to the state at the chunk's start
    noise      the same for every chunk
`PolicyConfig` has an option for each that a closed loop can do better: `frames`, `encoding`, `memory`, `noise_seed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wam.encoders.text import TextEncoder
from wam.encoders.video import FRAMES_PER_LATENT, VideoTokenizer, raw_frames, video_to_frames
from wam.engine.clock import StageClock
from wam.engine.policy import ActionChunk
from wam.engine.released_loop import NEGATIVE_PROMPT, ReleasedLoop, ReleasedSampler
from wam.model.attention import ANCHOR
from wam.model.transformer import Context, Transformer
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment
from wam.robot.observation import Image, Observation
from wam.robot.preprocess import canvas_to_video, resize_video
from wam.robot.released import clean_text, released_prompt
from wam.robot.units import Units
from wam.world_action_model import Network

ImageEncoder = Callable[[Image], Tensor]
"""uint8 pictures (B, H, W, 3) -> features (B, tokens, image_dim)."""

MASK_CHANNELS = 4  # beside the first frame's latents: 1 on the first latent frame, else 0


@dataclass(frozen=True)
class PolicyConfig:
    """How released weights run; the defaults are the released server's, for the 14 B models.

    sampler: see `ReleasedSampler`.
    canvas_size: resize the whole canvas to this (the 5 B model).
    frames: looks per chunk. 4: each is shown to the model twice, as the released server does. 8: each once, at the
    rate of the training videos.
    encoding: "clip" encodes every chunk anew, "stream" goes on where the last chunk stopped, as in the training videos.
    memory: "window" forgets everything when the window is full, "slide" the oldest chunk.
    noise_seed: the noise of every chunk; None draws new noise for each, from the seed of `reset`.
    picture_dtype: pictures are rounded to it before they are shifted to [-1, 1].
    decode_video: decode the dream into pictures.
    """

    sampler: ReleasedSampler = ReleasedSampler()
    canvas_size: tuple[int, int] | None = None
    frames: Literal[4, 8] = 4
    encoding: Literal["clip", "stream"] = "clip"
    memory: Literal["window", "slide"] = "window"
    noise_seed: int | None = 1140
    picture_dtype: torch.dtype = torch.bfloat16
    decode_video: bool = False


def first_frame_channels(tokenizer: VideoTokenizer, first: Tensor, frames: int) -> Tensor:
    """What stands beside the latents of a window: a mask, and the latents of its first picture before grey ones.

    first: (B, 3, 1, H, W) in [-1, 1], where the tokenizer works.  Returns (B, 4 + z, frames, h, w).
    """
    grey = torch.zeros_like(first).expand(-1, -1, raw_frames(frames) - 1, -1, -1)
    latents = tokenizer.encode(torch.cat([first, grey], dim=2))
    mask = torch.zeros_like(latents[:, :1]).repeat(1, MASK_CHANNELS, 1, 1, 1)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


@dataclass
class _Session:
    """What has been seen since the memory was last emptied. chunk: the newest one in it."""

    loop: ReleasedLoop
    chunk: int
    last: Tensor  # last real latent frame, (1, z, 1, h, w)
    encoder_state: Any


class ReleasedPolicy:
    """A released World Action Model as a `Policy`: every call takes a chunk's looks and returns a chunk of actions."""

    def __init__(
        self,
        transformer: Transformer,
        tokenizer: VideoTokenizer,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder | None,
        embodiment: Embodiment,
        config: PolicyConfig | None = None,
        network: Network | None = None,
    ) -> None:
        """embodiment: with its statistics (`wam.checkpoints.statistics` reads those of released weights).
        network: what runs in place of the transformer, a compiled one for instance.

        Raises ValueError if the parts do not belong together.
        """
        self.transformer, self.tokenizer = transformer.eval(), tokenizer
        self.text_encoder, self.image_encoder = text_encoder, image_encoder
        self.embodiment, self.units = embodiment, Units(embodiment)
        self.config, self.network = config or PolicyConfig(), network
        self._check()
        self._texts: tuple[str, list[Tensor]] | None = None
        self._session: _Session | None = None
        self.reset(0)

    # ---------------------------------------------------------------- the policy's contract

    @property
    def execute(self) -> int:
        """The whole chunk: the model believes that all of it was executed."""
        return self.transformer.config.actions_per_chunk

    @property
    def video_stride(self) -> int:
        return self.execute // self.config.frames

    @property
    def action_names(self) -> tuple[str, ...]:
        """What the columns of the actions are, in order."""
        return self.embodiment.action_names

    def reset(self, seed: int) -> None:
        self._session, self._generator = None, torch.Generator().manual_seed(seed)

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        """See `Policy.act`; one observation starts anew, as does a new instruction.

        Raises ValueError naming the camera, the state or the number of observations that does not fit.
        """
        clock = StageClock()
        state, canvases = self._observe(observations)
        clock.lap("observe")
        session = self._remembered(observations[-1].instruction, canvases, clock)
        known = self._to_network(self.units.state_to_model(state)[None])
        done = session.loop.denoise(*self._noise(session.last), known, session.chunk + 1)
        actions = self.units.action_to_robot(done.action.float().cpu(), state)
        clock.lap("denoise")
        dream = self._decode(session, done.video) if self.config.decode_video else None
        if dream is not None:
            clock.lap("decode")
        return ActionChunk(actions[0].numpy(), dream, clock.seconds)

    # ---------------------------------------------------------------- observe

    def _observe(self, observations: Sequence[Observation]) -> tuple[Tensor, Tensor]:
        """The present state (1, S) and canvases (1, 3, T, H, W) in [-1, 1]."""
        if not observations:
            raise ValueError("act() needs at least one observation, the present")
        state = np.asarray(observations[-1].state, dtype=np.float32)
        expected = (self.embodiment.state_dim,)
        if state.shape != expected:
            raise ValueError(
                f"state: found shape {state.shape}, embodiment {self.embodiment.name!r} needs {expected} = "
                f"{[f'{part.name} ({len(part.dims)})' for part in self.embodiment.state]}"
            )
        if not np.isfinite(state).all():
            raise ValueError(f"state: not finite in {state.tolist()}; check the robot's sensors")
        canvases = np.stack([compose(look.images, self.embodiment) for look in observations])
        return torch.tensor(state)[None], self._video(canvases)

    def _video(self, canvases: Image) -> Tensor:
        video = canvas_to_video(canvases, self.config.picture_dtype).float()
        return video if self.config.canvas_size is None else resize_video(video, *self.config.canvas_size)

    # ---------------------------------------------------------------- encode and remember

    def _remembered(self, instruction: str, canvases: Tensor, clock: StageClock) -> _Session:
        """The session with everything seen up to now in its memory."""
        session, looks = self._session, canvases.shape[2]
        if session is None or looks == 1 or self._is_new(instruction):
            return self._begin(instruction, canvases, clock)
        if looks != self.config.frames:
            raise ValueError(
                f"found {looks} observations since the last chunk, expected {self.config.frames}: one every "
                f"{self.video_stride} control steps; a single one starts anew"
            )
        if self._is_full(session):
            return self._begin(instruction, canvases, clock)
        latents = self._encode(session, canvases)
        clock.lap("encode")
        session.chunk += 1
        session.last = latents[:, :, -1:]
        session.loop.remember(latents, session.chunk)
        clock.lap("remember")
        return session

    def _is_new(self, instruction: str) -> bool:
        return self._texts is None or self._texts[0] != instruction

    def _is_full(self, session: _Session) -> bool:
        """Whether the window has no place for another chunk to be denoised after the one just executed."""
        return self.config.memory == "window" and session.chunk + 2 >= self._memory

    def _begin(self, instruction: str, canvases: Tensor, clock: StageClock) -> _Session:
        """Forget everything and start from the present picture, the last one."""
        present = canvases[:, :, -1:]
        latent, encoder_state = self.tokenizer.encode_first(present.to(self._tokenizer_device))
        anchor, first_frame = self._to_network(latent), self._first_frame(present)
        clock.lap("encode")
        prompts = self._contexts(instruction, present)
        clock.lap("prompt")
        patch = self.transformer.config.patch
        grid = (anchor.shape[-2] // patch, anchor.shape[-1] // patch)
        loop = ReleasedLoop(self.transformer, prompts, grid, self.config.sampler, first_frame, self.network)
        loop.remember(anchor, ANCHOR)
        clock.lap("remember")
        self._session = _Session(loop, ANCHOR, anchor, encoder_state)
        return self._session

    def _encode(self, session: _Session, canvases: Tensor) -> Tensor:
        """Looks of one chunk (1, 3, T, H, W) -> its latent frames (1, z, K, h, w)."""
        repeat = self._chunk_frames // self.config.frames
        pictures = canvases.repeat_interleave(repeat, dim=2).to(self._tokenizer_device)
        if self.config.encoding == "stream":
            latents, session.encoder_state = self.tokenizer.encode_next(session.encoder_state, pictures)
            return self._to_network(latents)
        latents = self.tokenizer.encode(torch.cat([pictures[:, :, :1], pictures], dim=2))
        return self._to_network(latents[:, :, 1:])

    def _first_frame(self, present: Tensor) -> Tensor | None:
        """What stands beside the latents of a whole window, for models that see it."""
        if not self._takes_first_frame:
            return None
        frames = 1 + self._memory * self.transformer.config.frames_per_chunk
        return self._to_network(first_frame_channels(self.tokenizer, present.to(self._tokenizer_device), frames))

    def _contexts(self, instruction: str, present: Tensor) -> list[Context]:
        """Keys and values of the prompt, and of the negative one where guidance asks for it."""
        if self._is_new(instruction):
            prompts = [released_prompt(self.embodiment, instruction)]
            if self.config.sampler.guidance != 1.0:
                prompts.append(clean_text(NEGATIVE_PROMPT))
            self._texts = instruction, [self.text_encoder.encode([prompt]) for prompt in prompts]
        assert self._texts is not None
        image = None
        if self.image_encoder is not None:
            image = self._to_network(self.image_encoder(video_to_frames(present)[0]))
        return [self.transformer.context(self._to_network(text), image) for text in self._texts[1]]

    # ---------------------------------------------------------------- denoise and act

    def _noise(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise of the chunk's video (1, z, K, h, w) and actions (1, N, A), drawn on the CPU."""
        c = self.transformer.config
        shapes = (1, like.shape[1], c.frames_per_chunk, *like.shape[-2:]), (1, c.actions_per_chunk, c.action_dim)

        def draw(shape: tuple[int, ...]) -> Tensor:
            seed = self.config.noise_seed
            generator = self._generator if seed is None else torch.Generator().manual_seed(seed)
            return self._to_network(torch.randn(shape, generator=generator))

        return draw(shapes[0]), draw(shapes[1])

    def _decode(self, session: _Session, video: Tensor) -> np.ndarray:
        """The dream as pictures, uint8 (T, H, W, 3)."""
        last, imagined = (x.float().to(self._tokenizer_device) for x in (session.last, video))
        _, state = self.tokenizer.decode_first(last)
        frames, _ = self.tokenizer.decode_next(state, imagined)
        return video_to_frames(frames[0])

    # ---------------------------------------------------------------- what belongs together

    @property
    def _memory(self) -> int:
        assert self.transformer.config.memory is not None
        return self.transformer.config.memory

    @property
    def _chunk_frames(self) -> int:
        """Raw frames of a chunk."""
        return FRAMES_PER_LATENT * self.transformer.config.frames_per_chunk

    @property
    def _takes_first_frame(self) -> bool:
        return self.transformer.config.in_channels > self.tokenizer.z_channels

    @property
    def _tokenizer_device(self) -> torch.device:
        """Where the tokenizer works: with its weights, or beside the transformer if it is a wrapper that moves them."""
        tensors = self.tokenizer.parameters() if isinstance(self.tokenizer, torch.nn.Module) else iter(())
        return next((tensor.device for tensor in tensors), self.transformer.patch_embedding.weight.device)

    def _to_network(self, x: Tensor) -> Tensor:
        weight = self.transformer.patch_embedding.weight
        return x.to(weight.device, weight.dtype)

    def _check(self) -> None:
        """Raises ValueError naming the part that does not fit the transformer."""
        c, z = self.transformer.config, self.tokenizer.z_channels
        if c.memory is None:
            raise ValueError("transformer: memory is None; a closed loop needs a bounded one")
        if c.out_channels != z or c.in_channels not in (z, 2 * z + MASK_CHANNELS):
            raise ValueError(
                f"transformer: {c.in_channels} channels in, {c.out_channels} out; a tokenizer of {z} channels needs "
                f"{z} or {2 * z + MASK_CHANNELS} in and {z} out"
            )
        if c.text_dim != self.text_encoder.text_dim:
            raise ValueError(
                f"text encoder: its features are {self.text_encoder.text_dim} wide, the transformer reads {c.text_dim}"
            )
        if (c.image_dim is None) != (self.image_encoder is None):
            raise ValueError(f"image encoder: {self.image_encoder}, but the transformer has image_dim={c.image_dim}")
        if self._chunk_frames % self.config.frames or c.actions_per_chunk % self.config.frames:
            raise ValueError(
                f"frames={self.config.frames}: a chunk of {self._chunk_frames} frames and {c.actions_per_chunk} "
                "actions cannot be split into so many looks"
            )
        self._check_robot()

    def _check_robot(self) -> None:
        e, c = self.embodiment, self.transformer.config
        if not e.action:
            raise ValueError(f"embodiment {e.name!r}: it has no actions, so it cannot be driven")
        found = {
            "state_dim": e.state_width or e.state_dim,
            "action_dim": e.action_width or e.action_dim,
            "frames_per_chunk": e.frames_per_chunk,
            "actions_per_chunk": e.actions_per_chunk,
        }
        wrong = {name: value for name, value in found.items() if value != getattr(c, name)}
        if wrong:
            expected = {name: getattr(c, name) for name in wrong}
            raise ValueError(f"embodiment {e.name!r}: it needs {wrong}, the transformer has {expected}")
