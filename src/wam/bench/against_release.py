"""Our network and loop against the released algorithm: same weights, configuration, type and machine, in turns.

The released side is `released_calls`, whose numbers are ours; a test holds that. The setting is one of which the
release's own code has been timed on a CPU: width 512, 4 heads, 8 layers, 220 tokens per latent frame, 512 text and 257
image tokens, batch 1.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from wam.bench.random_inputs import random_pass
from wam.bench.released_calls import Past, Prompted, cached_call, train_call
from wam.bench.train_step import timed
from wam.engine.compiled import compile_blocks, compiled
from wam.engine.released_loop import ReleasedLoop, ReleasedSampler, beside, whole_timestep
from wam.evaluate.parity.network import released_window
from wam.flow.sampler import Imagined, integrate
from wam.flow.solvers import UniPC, unipc_schedule
from wam.model.attention import ANCHOR
from wam.model.config import TransformerConfig
from wam.model.passes import chunk_pass, chunk_sigma, clean_pass
from wam.model.transformer import Pass, Transformer, Velocity
from wam.world_action_model import Network, guided

SMALL = TransformerConfig(
    dim=512,
    heads=4,
    layers=8,
    ffn_dim=2048,
    in_channels=16,
    text_dim=4096,
    image_dim=1280,
    action_dim=32,
    state_dim=64,
    codec_hidden=1024,
    frames_per_chunk=2,
    actions_per_chunk=24,
    memory=3,
)
GRID, TEXT, IMAGE, CHUNKS = (11, 20), 512, 257, 4


@dataclass(frozen=True)
class Setting:
    """config, grid: of the network.  text, image: tokens of the prompt.  chunks: of a window, and between two resets.

    bf16: weights and activations of acting, and autocast in training.
    """

    config: TransformerConfig = SMALL
    grid: tuple[int, int] = GRID
    text: int = TEXT
    image: int = IMAGE
    chunks: int = CHUNKS
    bf16: bool = True
    device: str = "cpu"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bf16 else torch.float32

    def network(self) -> Transformer:
        """Random weights, the zero-initialised heads included."""
        torch.manual_seed(0)
        net = Transformer(self.config)
        for layer in (net.head.head, net.action_decoder.layer2):
            torch.nn.init.normal_(layer.weight, std=0.02)
        return net.to(self.device)

    def prompted(self) -> Prompted:
        c = self.config
        assert c.image_dim is not None
        text = torch.randn(1, self.text, c.text_dim, device=self.device)
        return Prompted(text, torch.randn(1, self.image, c.image_dim, device=self.device))


@dataclass(frozen=True)
class Compared:
    """What was timed on both sides. theirs, ours: seconds by round."""

    name: str
    theirs: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def times_faster(self) -> float:
        """Median over rounds of the ratio within one."""
        return statistics.median(slow / fast for slow, fast in zip(self.theirs, self.ours, strict=True))


Contest = tuple[str, Callable[[], object], Callable[[], object]]  # what, theirs, ours


def compare(
    contests: list[Contest], rounds: int, device: str, on_round: Callable[[int, int], None] = lambda done, total: None
) -> list[Compared]:
    """Both sides of every contest in turns; the first round warms up."""
    found = [Compared(name) for name, _, _ in contests]
    for turn in range(rounds + 1):
        for place, (row, (_, theirs, ours)) in enumerate(zip(found, contests, strict=True)):
            seconds = timed(theirs, device), timed(ours, device)
            if turn:
                row.theirs.append(seconds[0])
                row.ours.append(seconds[1])
            on_round(turn * len(contests) + place + 1, (rounds + 1) * len(contests))
    return found


# ---------------------------------------------------------------- training: one window, forward and backward


def training(setting: Setting, *, compile: bool) -> Contest:
    """Their window on both sides, all blocks checkpointed; `gradients` shows that both learn the same."""
    net, prompted = setting.network(), setting.prompted()
    theirs, ours = _windows(setting)
    own = _learner(net, compile)
    return (
        f"training window, {_type(setting)}{', compiled' if compile else ''}",
        lambda: _learn(setting, net, lambda: train_call(net, theirs, prompted)),
        lambda: _learn(setting, own, lambda: own(ours, own.context(prompted.text, prompted.image))),
    )


def gradients(setting: Setting) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Theirs and ours, by name of the weight."""
    net, prompted = setting.network(), setting.prompted()
    theirs, ours = _windows(setting)
    found = []
    for answer in (
        lambda: train_call(net, theirs, prompted),
        lambda: net(ours, net.context(prompted.text, prompted.image)),
    ):
        _learn(setting, net, answer)
        found.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    return found[0], found[1]


def _windows(setting: Setting) -> tuple[Pass, Pass]:
    """The same window as both sides take it: ours leaves the last clean chunk out."""
    c, grid, chunks = setting.config, setting.grid, setting.chunks
    theirs = random_pass(released_window(c, grid, chunks), c, grid, setting.device)
    assert theirs.video is not None
    clean = 1 + chunks * c.frames_per_chunk
    video = torch.cat([theirs.video[:, :, : clean - c.frames_per_chunk], theirs.video[:, :, clean:]], dim=2)
    layout = released_window(c, grid, chunks, seen=True).to(torch.device(setting.device))
    return theirs, replace(theirs, layout=layout, video=video)


def _learner(net: Transformer, compile: bool) -> Transformer:
    own = copy.deepcopy(net)
    own.checkpointing = True
    if compile:
        compile_blocks(own)
    return own


def _learn(setting: Setting, net: Transformer, answer: Callable[[], Velocity]) -> None:
    net.zero_grad()
    with torch.autocast(torch.device(setting.device).type, torch.bfloat16, enabled=setting.bf16):
        v = answer()
    assert v.video is not None and v.action is not None
    (v.video.float().square().mean() + v.action.float().square().mean()).backward()  # type: ignore[no-untyped-call]


# ---------------------------------------------------------------- acting: a step, and all chunks between two resets


class ReleasedCycle:
    """The released loop between two resets: anchor, then chunk after chunk, guidance in turn, all 16 steps."""

    def __init__(self, net: Transformer, prompts: list[Prompted], grid: tuple[int, int], first: Tensor | None) -> None:
        """first: what goes beside every video, see `wam.engine.released_loop.beside`."""
        self.net, self.prompts, self.grid, self.sampler = net, prompts, grid, ReleasedSampler(skip=16)
        self.first_frame = first
        empty = torch.zeros(2, 1, net.config.heads, 0, net.config.head_dim)
        empty = empty.to(net.patch_embedding.weight)
        self.past: list[Past] = [[empty] * net.config.layers for _ in prompts]

    @torch.no_grad()
    def remember(self, latents: Tensor, chunk: int) -> None:
        inputs = clean_pass(self._beside(latents, chunk), chunk, self.net.config, self.grid)
        self.past = [cached_call(self.net, inputs, *each)[1] for each in zip(self.prompts, self.past, strict=True)]

    @torch.no_grad()
    def denoise(self, video: Tensor, action: Tensor, state: Tensor, chunk: int) -> Imagined:
        c, s = self.net.config, self.sampler
        solvers = tuple(UniPC(unipc_schedule(s.steps, s.shift, end)) for end in (s.video_final, 0.0))
        told = tuple(whole_timestep(solver.sigmas) for solver in solvers)
        first = chunk_pass(self._beside(video, chunk), action, state, (told[0][0], told[1][0]), chunk, c, self.grid)
        sigma = chunk_sigma(told[0], told[1], c.frames_per_chunk).to(video.device)

        def answer(step: int, video: Tensor | None, action: Tensor) -> tuple[Tensor | None, Tensor | None]:
            assert video is not None
            levels, seen = sigma[step].expand(len(action), -1), self._beside(video, chunk)
            inputs = replace(first, sigma=levels, video=seen, action=action)
            v = self.velocity(inputs)
            return v.video, v.action

        return integrate(Imagined(video, action), (solvers[0], solvers[1]), answer)

    def _beside(self, video: Tensor, chunk: int) -> Tensor:
        start = 0 if chunk == ANCHOR else 1 + chunk * self.net.config.frames_per_chunk
        return beside(video, self.first_frame, start)

    def velocity(self, inputs: Pass) -> Velocity:
        answers = [cached_call(self.net, inputs, *each)[0] for each in zip(self.prompts, self.past, strict=True)]
        return guided(answers[0], answers[1], self.sampler.guidance)


@dataclass(frozen=True)
class Episode:
    """What both loops are given: latents of the anchor and of every chunk, and noise and a state for every chunk.

    first: channels of the first frame, where the network takes some.
    """

    first: Tensor | None
    anchor: Tensor
    seen: list[Tensor]
    noise: list[tuple[Tensor, Tensor, Tensor]]

    @classmethod
    def of(cls, setting: Setting) -> Episode:
        c, cells = setting.config, (setting.grid[0] * setting.config.patch, setting.grid[1] * setting.config.patch)
        z, further, frames = c.out_channels, c.in_channels - c.out_channels, 1 + setting.chunks * c.frames_per_chunk
        chunk = (1, z, c.frames_per_chunk, *cells)
        return cls(
            torch.randn(1, further, frames, *cells, device=setting.device, dtype=setting.dtype) if further else None,
            torch.randn(1, z, 1, *cells, device=setting.device, dtype=setting.dtype),
            [torch.randn(chunk, device=setting.device, dtype=setting.dtype) for _ in range(setting.chunks - 1)],
            [
                (
                    torch.randn(chunk, device=setting.device, dtype=setting.dtype),
                    torch.randn(1, c.actions_per_chunk, c.action_dim, device=setting.device, dtype=setting.dtype),
                    torch.randn(1, 1, c.state_dim, device=setting.device, dtype=setting.dtype),
                )
                for _ in range(setting.chunks)
            ],
        )


def acting(setting: Setting, *, compile: bool) -> Contest:
    """All chunks between two resets, 16 steps with guidance each: prompt, anchor and cache work included."""
    net, prompts, episode = _actor(setting), [setting.prompted(), setting.prompted()], Episode.of(setting)
    network = compiled(net, "blocks" if compile else "off")
    return (
        f"{setting.chunks} chunks of 16 steps, {_type(setting)}{', compiled' if compile else ''}",
        lambda: _play(ReleasedCycle(net, prompts, setting.grid, episode.first), episode),
        lambda: _play(_own_loop(net, prompts, setting.grid, episode.first, network), episode),
    )


def chunks_of(setting: Setting) -> tuple[list[Tensor], list[Tensor]]:
    """The actions of every chunk, theirs and ours."""
    net, prompts, episode = _actor(setting), [setting.prompted(), setting.prompted()], Episode.of(setting)
    theirs = _play(ReleasedCycle(net, prompts, setting.grid, episode.first), episode)
    return theirs, _play(_own_loop(net, prompts, setting.grid, episode.first, None), episode)


def denoising(setting: Setting, *, compile: bool) -> Contest:
    """One guided denoising step over a full memory."""
    net, prompts, episode = _actor(setting), [setting.prompted(), setting.prompted()], Episode.of(setting)
    theirs = ReleasedCycle(net, prompts, setting.grid, episode.first)
    ours = _own_loop(net, prompts, setting.grid, episode.first, compiled(net, "blocks" if compile else "off"))
    for loop in (theirs, ours):
        show(loop, episode.anchor, episode.seen)
    video, action, state = episode.noise[-1]
    level, seen = torch.tensor(0.5), beside(video, episode.first, 1)
    inputs = chunk_pass(seen, action, state, (level, level), setting.chunks - 1, setting.config, setting.grid)
    own = ours.velocity()
    name = f"denoising step, {_type(setting)}{', compiled' if compile else ''}"
    return name, lambda: _quiet(lambda: theirs.velocity(inputs)), lambda: _quiet(lambda: own(0, inputs))


def _own_loop(
    net: Transformer, prompts: list[Prompted], grid: tuple[int, int], first: Tensor | None, network: Network | None
) -> ReleasedLoop:
    with torch.no_grad():
        contexts = [net.context(prompted.text, prompted.image) for prompted in prompts]
    return ReleasedLoop(net, contexts, grid, ReleasedSampler(skip=16), first, network)


def _play(loop: ReleasedCycle | ReleasedLoop, episode: Episode) -> list[Tensor]:
    """Anchor, then denoise and remember in turn; the actions of every chunk."""
    loop.remember(episode.anchor, ANCHOR)
    actions = []
    for chunk, noise in enumerate(episode.noise):
        if chunk:
            loop.remember(episode.seen[chunk - 1], chunk - 1)
        actions.append(loop.denoise(*noise, chunk).action)
    return actions


def show(loop: ReleasedCycle | ReleasedLoop, anchor: Tensor, chunks: list[Tensor]) -> None:
    """Have a loop remember the beginning of an episode."""
    for number, latents in enumerate([anchor, *chunks], start=ANCHOR):
        loop.remember(latents, number)


def _quiet(run: Callable[[], object]) -> None:
    with torch.no_grad():
        run()


def _actor(setting: Setting) -> Transformer:
    return setting.network().to(setting.dtype).eval()


def _type(setting: Setting) -> str:
    return "bf16" if setting.bf16 else "float32"
