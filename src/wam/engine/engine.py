"""A World Action Model at work: observe -> encode -> remember -> denoise -> act, for one robot or for many at once.

Real frames enter the cache, imagined ones never do: what the model dreamed is dropped as soon as the robot has looked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wam.encoders.streams import join_streams, split_stream, stream_shape
from wam.encoders.text import TextEncoder, text_features
from wam.encoders.video import FRAMES_PER_LATENT, VideoTokenizer, video_to_frames
from wam.engine.clock import StageClock
from wam.engine.compiled import compiled
from wam.engine.config import EngineConfig
from wam.engine.guidance import batched, in_turn, split
from wam.engine.joint_pass import remembering
from wam.engine.looks import canvases_of, prefix_of, state_of
from wam.engine.memory import Memory, Twin, join_contexts, together
from wam.engine.policy import ActionChunk
from wam.engine.session import Session
from wam.engine.split import Partner
from wam.engine.step_cache import FixedSteps, Levels
from wam.flow.sampler import Given, Imagined, Sampler
from wam.model.attention import ANCHOR
from wam.model.kv_cache import KVCache
from wam.robot.observation import Observation
from wam.world_action_model import VelocityOf, WorldActionModel

Actions = npt.NDArray[np.float32]


@dataclass
class _Turn:
    """One session's part of a step.

    state (1, S), executing (1, n, A): robot units.  canvases: (1, 3, T, H, W).  imagined: what came of it.
    """

    session: Session
    instruction: str
    time: float
    state: Tensor
    canvases: Tensor
    executing: Tensor
    imagined: Imagined | None = None

    @property
    def prefix(self) -> int:
        """How many actions are being executed."""
        return self.executing.shape[1]


class Engine:
    """A model with its tokenizer and its text encoder, and any number of sessions on it; for one thread at a time."""

    def __init__(
        self,
        model: WorldActionModel,
        tokenizer: VideoTokenizer,
        text_encoder: TextEncoder,
        config: EngineConfig | None = None,
        partner: Partner | None = None,
    ) -> None:
        """partner: the other process of guidance_mode="split", for this engine alone.

        Raises ValueError for a robot that the model does not know, or a contradiction in the configuration.
        """
        self.model, self.tokenizer, self.text_encoder = model.eval(), tokenizer, text_encoder
        self.config, self.partner = config or EngineConfig(), partner
        self.slot = model.config.slot(self.config.robot)
        self.embodiment, self.units = model.config.embodiments[self.slot], model.units(self.slot)
        self.config.check(model.config, self.embodiment, partner)
        self._network = compiled(model.transformer, self.config.compile)
        self._room: KVCache | None = None  # where sessions that are ready together are put side by side

    @property
    def execute(self) -> int:
        """Control steps to execute of every chunk."""
        return self.config.steps_of(self.embodiment)

    @property
    def video_stride(self) -> int:
        """Control steps between looks; without memory one look per chunk is enough."""
        return self.embodiment.video_stride if self.config.slides else self.execute

    # ---------------------------------------------------------------- what it does

    def open(self, seed: int) -> Session:
        """A new episode, with noise of its own."""
        return Session(torch.Generator().manual_seed(seed))

    def step(
        self, session: Session, observations: Sequence[Observation], executing: Actions | None = None
    ) -> ActionChunk:
        """The next chunk of one session; see `steps`."""
        return self.steps([session], [observations], [executing])[0]

    @torch.inference_mode()
    def steps(
        self,
        sessions: Sequence[Session],
        observations: Sequence[Sequence[Observation]],
        executing: Sequence[Actions | None] | None = None,
    ) -> list[ActionChunk]:
        """The next chunk of each of several sessions, computed together; each gets what it would get alone.

        observations: per session, in order of time, all looks since its last step; the last one is the present (the
        first step gets one, later ones `execute / video_stride`).
        executing: per session (n, A) in robot units, n < N: what the robot does in the first control steps of the chunk
        whatever the answer is; they become its first actions (for models trained with `prefix_share`).

        Raises ValueError naming what does not fit, before any session has changed.
        """
        clock, executing = StageClock(), executing or [None] * len(sessions)
        if len({id(session) for session in sessions}) < len(sessions):
            raise ValueError("steps: the same session twice; a session takes one step at a time")
        turns = [self._observe(*asked) for asked in zip(sessions, observations, executing, strict=True)]
        clock.lap("observe")
        for turn in turns:
            self._read(turn.session, turn.instruction)
        clock.lap("prompt")
        for group in _alike(turns, lambda turn: self._stream(turn.session)):
            self._encode(group)
        clock.lap("encode")
        if not self.config.joint_pass:
            for group in _alike(turns, _is_anchor):
                self._remember([turn.session for turn in group])
            clock.lap("remember")
        cache = self.config.step_cache  # a rule that looks at the velocities decides for one session at a time
        alone = cache is not None and not isinstance(cache.rule, FixedSteps)
        for group in _alike(
            turns,
            lambda turn: (self.config.joint_pass and _is_anchor(turn), turn.prefix, id(turn) if alone else None),
        ):
            self._denoise(group)
        clock.lap("denoise")
        chunks = [self._act(turn) for turn in turns]
        clock.lap("act")
        return [ActionChunk(actions, dream, clock.seconds) for actions, dream in chunks]

    @torch.inference_mode()
    def watch(self, session: Session, observations: Sequence[Observation]) -> None:
        """Take in what was seen, as `step` does, without choosing anything. Raises ValueError as `steps`."""
        turn = self._observe(session, observations, None)
        self._read(session, turn.instruction)
        self._encode([turn])
        self._remember([session])

    @torch.inference_mode()
    def suppose(self, session: Session, video: Tensor, state: Tensor) -> None:
        """Remember an imagined chunk (1, z, K, h, w) as if it had been seen, the robot now at `state` (1, S).

        Raises ValueError for a robot's own session: what it acts on is real.
        """
        if not session.imaginary:
            raise ValueError("imagined frames enter the memory of an imaginary session alone; give Session.fork()")
        if not self.model.config.transformer.autoregressive:
            raise ValueError("this model is bidirectional (autoregressive=False) and sees no remembered chunk")
        time = (session.time or 0.0) + self.embodiment.chunk_seconds
        session.saw(video, None, state, time, anew=False)
        self._remember([session])

    @torch.inference_mode()
    def encode(self, session: Session, observations: Sequence[Observation]) -> Tensor:
        """Latents (1, z, K, h, w) of the chunk of looks that follows what the session saw last; changes nothing."""
        self._check_count(observations)
        pictures = canvases_of(self.embodiment, observations)
        latents, _ = self.tokenizer.encode_next(session.stream, pictures.to(self._camera_device))
        return latents.to(self._device)

    @torch.inference_mode()
    def imagine(
        self, sessions: Sequence[Session], given: Given | None = None, sampler: Sampler | None = None
    ) -> Imagined:
        """The chunk that follows what the sessions saw last, in model units, a row for each; nothing is remembered.

        given: what is known of it, a row for each session.  sampler: the engine's own when left out. Draws noise from
        each session's generator.  Raises ValueError for guidance by an engine that does not remember without prompt.
        """
        sampler = sampler or self.config.sampler
        return self._dream(sessions, self._velocity(self._together(sessions), sampler.guidance), given, sampler)

    def _dream(
        self, sessions: Sequence[Session], velocity: VelocityOf, given: Given | None, sampler: Sampler
    ) -> Imagined:
        if self.config.step_cache is not None:
            video, action = (solver.sigmas.tolist() for solver in sampler.solvers())
            velocity = self.config.step_cache.over(velocity, Levels(video, action))
        noise = [self.model.noise(session.generator) for session in sessions]
        videos = [drawn.video for drawn in noise if drawn.video is not None]
        present = torch.cat([session.present for session in sessions])
        return self.model.denoise(
            velocity,
            Imagined(torch.cat(videos) if videos else None, torch.cat([drawn.action for drawn in noise])),
            self.units.state_to_model(present).to(self._device),
            torch.tensor([session.chunk + 1 for session in sessions], device=self._device),
            sampler,
            torch.cat([session.last_latent for session in sessions]),
            given,
            self.slot,
        )

    @torch.inference_mode()
    def decode(self, sessions: Sequence[Session], video: Tensor) -> npt.NDArray[np.uint8]:
        """Latents (B, z, K, h, w) that follow what the sessions saw last -> pictures, uint8 (B, T, H, W, 3)."""
        last = torch.cat([session.last_latent for session in sessions])
        _, stream = self.tokenizer.decode_first(last.float().to(self._camera_device))
        frames, _ = self.tokenizer.decode_next(stream, video.float().to(self._camera_device))
        return np.asarray(video_to_frames(frames))

    @torch.inference_mode()
    def picture(self, session: Session) -> npt.NDArray[np.uint8]:
        """What a session saw last, as the tokenizer shows it: uint8 (H, W, 3)."""
        frame, _ = self.tokenizer.decode_first(session.last_latent.float().to(self._camera_device))
        return np.asarray(video_to_frames(frame))[0, 0]

    # ---------------------------------------------------------------- stages

    def _observe(self, session: Session, looks: Sequence[Observation], executing: Actions | None) -> _Turn:
        """Check what arrived; changes nothing."""
        if not looks:
            raise ValueError("a step needs at least one observation, the present")
        goes_on, present = self._goes_on(session), looks[-1]
        if goes_on:
            self._check_count(looks)
        return _Turn(
            session,
            present.instruction,
            present.timestamp,
            state_of(self.embodiment, present),
            canvases_of(self.embodiment, looks if goes_on else [present]),
            prefix_of(self.embodiment, executing),
        )

    def _check_count(self, looks: Sequence[Observation]) -> None:
        """A chunk of looks must be whole."""
        expected = self.embodiment.frames_per_chunk * FRAMES_PER_LATENT
        if len(looks) != expected:
            raise ValueError(
                f"found {len(looks)} observations since the last chunk, expected {expected}: one every "
                f"{self.embodiment.video_stride} control steps over {self.embodiment.actions_per_chunk}"
            )

    def _read(self, session: Session, instruction: str) -> None:
        """Take in a sentence, once; what was seen under another one is read again under this one."""
        if session.instruction == instruction:
            return
        sentences = [instruction] if self.config.sampler.guidance == 1.0 else [instruction, ""]
        features = [text_features(self.text_encoder, [self.embodiment.prompt(s) if s else ""]) for s in sentences]
        twins: tuple[Twin, ...] = ()
        if self.partner is not None and len(features) > 1:
            twins = (self.partner.begin(features.pop()),)
        context = join_contexts([self.model.context(each.to(self._device)) for each in features])
        cache = self.model.new_cache(len(features), joint=self.config.joint_pass)
        session.instruction, session.memory = instruction, Memory(context, cache, len(features), twins)
        if session.anchor is not None and self.config.slides:
            self._write(session.memory, session.anchor, [ANCHOR])
            for chunk, latents in session.recent:
                self._write(session.memory, latents, [chunk])

    def _encode(self, turns: Sequence[_Turn]) -> None:
        """Pictures -> latents, where each stream of pictures left off: an anchor frame, or the chunk just executed."""
        sessions = [turn.session for turn in turns]
        pictures = torch.cat([turn.canvases for turn in turns]).to(self._camera_device)
        goes_on = self._goes_on(sessions[0])
        if goes_on:
            before = join_streams([session.stream for session in sessions])
            latents, after = self.tokenizer.encode_next(before, pictures)
        else:
            latents, after = self.tokenizer.encode_first(pictures)
        states = split_stream(after, [1] * len(turns))
        for turn, seen, state in zip(turns, latents.to(self._device).split(1), states, strict=True):
            turn.session.saw(seen, state, turn.state, turn.time, anew=not goes_on)

    def _remember(self, sessions: Sequence[Session]) -> None:
        """Write the newest latents of each into its cache."""
        memory = self._together(sessions)
        self._write(memory, torch.cat([s.newest for s in sessions]), [s.chunk for s in sessions])
        self._take(memory, sessions)

    def _denoise(self, turns: Sequence[_Turn]) -> None:
        sessions, executing = [turn.session for turn in turns], torch.cat([turn.executing for turn in turns])
        given = None
        if turns[0].prefix:
            known = self.units.action_to_model(executing, torch.cat([turn.state for turn in turns]))
            given = Given(action=known.to(self._device))
        memory = self._together(sessions)
        velocity = self._velocity(memory, self.config.sampler.guidance)
        if self.config.joint_pass:
            velocity = self._remembering(velocity, memory, sessions)
        imagined = self._dream(sessions, velocity, given, self.config.sampler)
        self._take(memory, sessions)
        for row, turn in enumerate(turns):
            video = None if imagined.video is None else imagined.video[row : row + 1]
            turn.imagined = Imagined(video, imagined.action[row : row + 1])

    def _act(self, turn: _Turn) -> tuple[Actions, npt.NDArray[np.uint8] | None]:
        """Actions in robot units (N, A), and the dream as pictures (T, H, W, 3) if it is wanted."""
        assert turn.imagined is not None
        actions = self.units.action_to_robot(turn.imagined.action.float().cpu(), turn.state)
        actions[:, : turn.prefix] = turn.executing
        dream, video = None, turn.imagined.video
        if self.config.decode_video and video is not None:
            dream = self.decode([turn.session], video)[0]
        return actions[0].numpy(), dream

    # ---------------------------------------------------------------- what the stages share

    def _velocity(self, memory: Memory, scale: float) -> VelocityOf:
        """What `denoise` asks: the network over the memory, guided where scale is not 1."""
        if scale == 1.0:
            return self._plain(memory.branches[0] if memory.prompts > 1 else memory)
        if memory.prompts == 1 and not memory.twins:
            raise ValueError(
                f"guidance={scale:g}: this engine remembers nothing without the prompt; make it with a guidance of its "
                "own, EngineConfig(sampler=Sampler(guidance=...))"
            )
        if memory.prompts > 1 and self.config.guidance_mode == "sequential":
            prompted, unprompted = (self._plain(branch) for branch in memory.branches)
            return in_turn(prompted, unprompted, scale)
        velocity = self._plain(memory)
        if memory.prompts > 1:
            return batched(velocity, scale)
        assert self.partner is not None  # the twins are its
        return split(velocity, self.partner.over(memory.twins), scale)

    def _plain(self, memory: Memory) -> VelocityOf:
        return self.model.velocity(memory.cache, memory.context, self._network)

    def _write(self, memory: Memory, latents: Tensor, chunks: Sequence[int]) -> None:
        """Real latents of each session into its rows; an anchor begins a memory anew."""
        if chunks[0] == ANCHOR:
            memory.cache.reset()
        if self.partner is not None and memory.twins:
            self.partner.run(memory.twins, self.model.clean(latents, _each(chunks)))
        if self.config.guidance_mode == "sequential":
            for branch in memory.branches:
                self.model.remember(branch.cache, branch.context, latents, _each(chunks), self._network)
        else:
            rows = latents.repeat_interleave(memory.prompts, dim=0)
            numbers = _each(chunks, memory.prompts)
            self.model.remember(memory.cache, memory.context, rows, numbers, self._network)

    def _remembering(self, velocity: VelocityOf, memory: Memory, sessions: Sequence[Session]) -> VelocityOf:
        """The same in the first step of `velocity`."""
        chunks = [s.chunk for s in sessions]
        if chunks[0] == ANCHOR:
            memory.cache.reset()
        seen = self.model.clean(torch.cat([s.newest for s in sessions]), _each(chunks))
        return remembering(velocity, seen, memory.cache, _each(chunks, memory.prompts))

    def _take(self, memory: Memory, sessions: Sequence[Session]) -> None:
        """What was remembered together, into each session's own memory."""
        for number, session in enumerate(sessions):
            if memory is not session.memory:
                session.remembered.cache.take(memory.session(number).cache, session.chunk)

    def _together(self, sessions: Sequence[Session]) -> Memory:
        """The memory of one session itself, or a copy of several side by side."""
        memories = [session.remembered for session in sessions]
        if len(memories) == 1:
            return memories[0]
        rows = sum(len(memory.cache) for memory in memories)
        if self._room is None or len(self._room) < rows:
            self._room = self.model.new_cache(rows, joint=self.config.joint_pass)
        return together(memories, self._room.rows(slice(rows)))

    def _goes_on(self, session: Session) -> bool:
        """Whether the session continues what it saw before, rather than starting from the present frame."""
        return self.config.slides and session.begun

    def _stream(self, session: Session) -> Hashable:
        """Equal for sessions whose pictures can be encoded as one batch."""
        return stream_shape(session.stream) if self._goes_on(session) else None

    @property
    def _device(self) -> torch.device:
        return self.model.transformer.patch_embedding.weight.device

    @property
    def _camera_device(self) -> torch.device:
        """Where the tokenizer works."""
        tensors = self.tokenizer.parameters() if isinstance(self.tokenizer, nn.Module) else iter(())
        return next((tensor.device for tensor in tensors), self._device)


def _is_anchor(turn: _Turn) -> bool:
    return turn.session.chunk == ANCHOR


def _each(chunks: Sequence[int], times: int = 1) -> int | list[int]:
    """Chunk numbers for rows, each `times` in a row; one for all where they agree."""
    return chunks[0] if len(set(chunks)) == 1 else [chunk for chunk in chunks for _ in range(times)]


def _alike(turns: Sequence[_Turn], key: Callable[[_Turn], Hashable]) -> list[list[_Turn]]:
    """Turns in groups of equal keys."""
    groups: dict[Hashable, list[_Turn]] = {}
    for turn in turns:
        groups.setdefault(key(turn), []).append(turn)
    return list(groups.values())
