"""The closed loop of one robot: observe -> encode -> remember -> denoise -> act.

Real frames enter the cache, imagined ones never do: what the model dreamed is dropped as soon as the robot has looked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wam.encoders.text import TextEncoder
from wam.encoders.video import VideoTokenizer, frames_to_video, video_to_frames
from wam.engine.clock import StageClock
from wam.engine.policy import ActionChunk
from wam.model.attention import ANCHOR
from wam.model.kv_cache import KVCache
from wam.model.transformer import Context
from wam.robot.canvas import compose
from wam.robot.chroma import subsample_chroma
from wam.robot.embodiment import LATENT_STRIDE
from wam.robot.observation import Observation
from wam.world_action_model import Sampler, WorldActionModel

Memory = Literal["slide", "none"]


@dataclass(frozen=True)
class LoopConfig:
    """How a policy runs.

    memory: "slide" keeps the anchor and the last chunks; "none" starts anew from the present frame at every chunk.
    execute: control steps to execute before looking again; None = the whole chunk. "slide" needs the whole chunk.
    decode_video: decode the dream into pictures (costs time; the actions do not need it).
    robot: which of the embodiments that the model knows; the first when left out.
    """

    sampler: Sampler = Sampler()
    memory: Memory = "slide"
    execute: int | None = None
    decode_video: bool = False
    robot: str | None = None


@dataclass
class _Prompt:
    """One sentence, encoded once: its keys and values, and what has been remembered under it."""

    instruction: str
    context: Context
    cache: KVCache


@dataclass
class _Session:
    """What one episode has seen so far; memory is bounded by the cache."""

    prompts: list[_Prompt]
    generator: torch.Generator
    chunk: int = ANCHOR
    encoder_state: Any = None
    anchor: Tensor | None = None
    recent: list[tuple[int, Tensor]] = field(default_factory=list)  # (chunk, latents) in the ring, for a new prompt

    @property
    def last_latent(self) -> Tensor | None:
        """The last real latent frame, (1, z, 1, h, w)."""
        newest = self.recent[-1][1] if self.recent else self.anchor
        return None if newest is None else newest[:, :, -1:]


class WamPolicy:
    """A World Action Model as a `Policy`."""

    def __init__(
        self,
        model: WorldActionModel,
        tokenizer: VideoTokenizer,
        text_encoder: TextEncoder,
        config: LoopConfig | None = None,
    ) -> None:
        self.model, self.tokenizer, self.text_encoder = model.eval(), tokenizer, text_encoder
        self.config = config or LoopConfig()
        self.slot = model.config.slot(self.config.robot)
        self.embodiment, self.units = model.config.embodiments[self.slot], model.units(self.slot)
        whole = self.embodiment.actions_per_chunk
        if self.config.memory == "slide" and self.execute != whole:
            raise ValueError(
                f"execute={self.execute}: a sliding memory takes whole chunks of {whole} steps; use memory='none' to "
                "replan earlier"
            )
        if not 1 <= self.execute <= whole:
            raise ValueError(f"execute={self.execute}: a chunk has 1 to {whole} steps")
        self._session: _Session | None = None
        self._seed = 0

    @property
    def execute(self) -> int:
        return self.config.execute or self.embodiment.actions_per_chunk

    @property
    def video_stride(self) -> int:
        """Without memory one look per chunk is enough."""
        return self.embodiment.video_stride if self.config.memory == "slide" else self.execute

    def reset(self, seed: int) -> None:
        self._session, self._seed = None, seed

    @torch.inference_mode()
    def act(self, observations: Sequence[Observation]) -> ActionChunk:
        """See `Policy.act`. Raises ValueError naming the camera or the state that does not fit the embodiment."""
        clock = StageClock()
        state, canvases = self._observe(observations)
        session = self._session_for(observations[-1].instruction)
        clock.lap("observe")
        latents, chunk = self._encode(session, canvases)
        clock.lap("encode")
        for prompt in session.prompts:
            if chunk == ANCHOR:
                prompt.cache.reset()
            self.model.remember(prompt.cache, prompt.context, latents, chunk)
        clock.lap("remember")
        positive, *negative = session.prompts
        imagined = self.model.denoise(
            positive.cache,
            positive.context,
            self.units.state_to_model(state),
            chunk + 1,
            self.config.sampler,
            session.generator,
            session.last_latent,
            (negative[0].cache, negative[0].context) if negative else None,
            self.slot,
        )
        clock.lap("denoise")
        dream = self._decode(session, imagined.video)
        if dream is not None:
            clock.lap("decode")
        action = self.units.action_to_robot(imagined.action.float(), state)
        return ActionChunk(action[0].numpy(), dream, clock.seconds)

    # ---------------------------------------------------------------- stages

    def _observe(self, observations: Sequence[Observation]) -> tuple[Tensor, Tensor]:
        """Check what arrived: state (1, S) of the present and canvases (1, 3, T, H, W) in [-1, 1]."""
        if not observations:
            raise ValueError("act() needs at least one observation, the present")
        state = np.asarray(observations[-1].state, dtype=np.float32)
        expected = (self.embodiment.state_dim,)
        if state.shape != expected:
            raise ValueError(f"state: found shape {state.shape}, expected {expected} = {self.embodiment.state_names}")
        if not np.isfinite(state).all():
            names = [n for n, x in zip(self.embodiment.state_names, state, strict=True) if not np.isfinite(x)]
            raise ValueError(f"state: {names} is not finite in {state.tolist()}; check the robot's sensors")
        canvases = np.stack([subsample_chroma(compose(look.images, self.embodiment)) for look in observations])
        return torch.from_numpy(state)[None], frames_to_video(canvases)[None]

    def _session_for(self, instruction: str) -> _Session:
        """The running session; a new sentence keeps what was seen and reads it again under the new prompt."""
        if self._session is None:
            generator = torch.Generator().manual_seed(self._seed)
            self._session = _Session(self._prompts(instruction), generator)
        elif self._session.prompts[0].instruction != instruction:
            self._session.prompts = self._prompts(instruction)
            self._replay(self._session)
        return self._session

    def _prompts(self, instruction: str) -> list[_Prompt]:
        """The sentence, and the empty one where guidance asks for it."""
        sentences = [instruction] if self.config.sampler.guidance == 1.0 else [instruction, ""]
        nothing = torch.zeros(1, self.text_encoder.text_len, self.text_encoder.text_dim)
        features = [self.text_encoder.encode([self.embodiment.prompt(s)]) if s else nothing for s in sentences]
        return [
            _Prompt(sentence, self.model.context(feature), self.model.new_cache())
            for sentence, feature in zip(sentences, features, strict=True)
        ]

    def _replay(self, session: _Session) -> None:
        if session.anchor is None:
            return
        for prompt in session.prompts:
            self.model.remember(prompt.cache, prompt.context, session.anchor, ANCHOR)
            for chunk, latents in session.recent:
                self.model.remember(prompt.cache, prompt.context, latents, chunk)

    def _encode(self, session: _Session, canvases: Tensor) -> tuple[Tensor, int]:
        """Latents of what was seen, and which chunk they are: the anchor, or the chunk just executed."""
        if session.encoder_state is None or self.config.memory == "none":
            latents, session.encoder_state = self.tokenizer.encode_first(canvases[:, :, -1:])
            session.chunk, session.anchor, session.recent = ANCHOR, latents, []
        else:
            expected = self.embodiment.frames_per_chunk * LATENT_STRIDE
            if canvases.shape[2] != expected:
                raise ValueError(
                    f"found {canvases.shape[2]} observations since the last chunk, expected {expected}: one every "
                    f"{self.embodiment.video_stride} control steps over {self.embodiment.actions_per_chunk}"
                )
            latents, session.encoder_state = self.tokenizer.encode_next(session.encoder_state, canvases)
            session.chunk += 1
            kept = self.model.config.transformer.memory or 0
            session.recent = [*session.recent, (session.chunk, latents)][-kept:]
        return latents, session.chunk

    def _decode(self, session: _Session, video: Tensor | None) -> np.ndarray | None:
        """The dream as pictures, uint8 (T, H, W, 3)."""
        if video is None or not self.config.decode_video or session.last_latent is None:
            return None
        _, state = self.tokenizer.decode_first(session.last_latent)
        frames, _ = self.tokenizer.decode_next(state, video)
        return np.asarray(video_to_frames(frames)[0])
