"""A World Action Model in one file: read it top to bottom, train it in minutes on one CPU core.

A robot (black dot) fetches an orange disc and carries it to the pad whose colour one word names. One transformer learns to
denoise *the next pictures and the next actions together*; in closed loop, real pictures take the place of the dreamed ones
in its memory. This is DreamZero (arXiv 2602.15922) in miniature: no tokenizer, no text encoder, every line of the method.

    python recipes/minimal_wam.py --minutes 4 --out runs/minimal

Letters in shapes: B batch, C chunks, K pictures per chunk, N actions per chunk, A action dims, S state dims, H W 3 a picture,
F frames (1 anchor + C K), P patches per picture, L tokens, D width. Noise level sigma in [0, 1]: **0 is clean, 1 is noise**.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

WORDS = ("red", "green", "blue", "violet")
C, K, N, A, S = 4, 2, 8, 2, 2  # an episode is 4 chunks of 2 pictures and 8 actions: one picture every 4 actions
PIXELS, PATCH = 24, 12  # a picture is 24 x 24 RGB, cut into 2 x 2 patches: few tokens, a fast CPU
GRID = PIXELS // PATCH
P = GRID * GRID


# ------------------------------------------------------------- 1. The world: B of them side by side, each a unit square
SPEED, REACH, ON_PAD = 0.06, 0.06, 0.08  # distance of a full action; at which the disc sticks; at which it lies on the pad
FLOOR, ROBOT, DISC = (0.94, 0.93, 0.90), (0.10, 0.10, 0.15), (1.00, 0.65, 0.10)
PADS = ((0.90, 0.25, 0.25), (0.25, 0.70, 0.35), (0.25, 0.45, 0.90), (0.65, 0.35, 0.80))


@dataclass
class World:
    robot: Tensor  # (B, 2) position, x to the right and y downwards
    disc: Tensor  # (B, 2)
    pads: Tensor  # (B, 4, 2) one place for each word
    word: Tensor  # (B,) index into WORDS: where the disc must go
    held: Tensor  # (B,) bool: the disc sticks to the robot

    @staticmethod
    def random(batch: int, rng: torch.Generator) -> World:
        """Pads shuffled over the corners, the disc away from robot and pads (the first good one of 64 draws)."""
        corners = torch.tensor([(0.15, 0.15), (0.85, 0.15), (0.15, 0.85), (0.85, 0.85)])
        pads = corners[torch.rand(batch, 4, generator=rng).argsort(1)]
        robot, disc = (0.1 + 0.8 * torch.rand(2, batch, 64, 2, generator=rng)).unbind()
        gap = torch.minimum((robot - disc).norm(dim=-1), torch.cdist(disc, pads).amin(-1))
        rows, first = torch.arange(batch), (gap > 0.25).float().argmax(1)
        word = torch.randint(len(WORDS), (batch,), generator=rng)
        return World(robot[rows, first], disc[rows, first], pads, word, torch.zeros(batch, dtype=torch.bool))

    def step(self, action: Tensor) -> None:
        """Move by action (B, A) in [-1, 1]; a disc within reach sticks to the robot."""
        self.robot = (self.robot + SPEED * action.clamp(-1, 1)).clamp(0, 1)
        self.held = self.held | ((self.robot - self.disc).norm(dim=-1) < REACH)
        self.disc = torch.where(self.held[:, None], self.robot, self.disc)

    def act(self, actions: Tensor) -> Tensor:
        """Execute a chunk (B, N, A) and film it -> (B, K, H, W, 3)."""
        film = []
        for t in range(N):
            self.step(actions[:, t])
            if (t + 1) % (N // K) == 0:
                film.append(self.picture())
        return torch.stack(film, 1)

    def target(self) -> Tensor:
        return self.pads[torch.arange(len(self.word)), self.word]

    def success(self) -> Tensor:
        return (self.disc - self.target()).norm(dim=-1) < ON_PAD

    def state(self) -> Tensor:
        """What the robot feels: its own position (B, S) in [-1, 1]."""
        return 2 * self.robot - 1

    def picture(self) -> Tensor:
        """What the robot sees: (B, H, W, 3) in [-1, 1], anti-aliased so that less than a pixel of motion shows."""
        ticks = (torch.arange(PIXELS) + 0.5) / PIXELS
        pixel = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)  # (H, W, 2)
        image = torch.tensor(FLOOR).expand(len(self.word), PIXELS, PIXELS, 3)
        things = [(self.pads[:, i], 0.13, PADS[i]) for i in range(len(WORDS))]
        for place, radius, colour in [*things, (self.disc, 0.09, DISC), (self.robot, 0.055, ROBOT)]:
            distance = (pixel - place[:, None, None]).norm(dim=-1, keepdim=True)
            cover = ((radius - distance) * PIXELS + 0.5).clamp(0, 1)
            image = image + cover * (torch.tensor(colour) - image)
        return 2 * image - 1


# ------------------------------------------------------------- 2. Expert data: the world is cheap, every batch is new
@dataclass
class Episodes:
    word: Tensor  # (B,)
    video: Tensor  # (B, F, H, W, 3): the anchor picture, then K per chunk
    actions: Tensor  # (B, C, N, A): what the expert wanted at every state it came through
    states: Tensor  # (B, C, S): at the beginning of each chunk


def expert(world: World) -> Tensor:
    """Straight to the disc, then straight to the pad: (B, A), slower only to arrive."""
    way = torch.where(world.held[:, None], world.target(), world.disc) - world.robot
    return way / way.norm(dim=-1, keepdim=True).clamp(min=SPEED)


def demonstrate(batch: int, rng: torch.Generator, noise: float = 0.1) -> Episodes:
    """Noise disturbs what is executed, never the label: so the data shows how to come back from an error."""
    world = World.random(batch, rng)
    video, actions, states = [world.picture()], [], []
    for t in range(C * N):
        if t % N == 0:
            states.append(world.state())
        actions.append(expert(world))
        world.step(actions[-1] + noise * torch.randn(batch, A, generator=rng))
        if (t + 1) % (N // K) == 0:
            video.append(world.picture())
    return Episodes(
        world.word, torch.stack(video, 1), torch.stack(actions, 1).unflatten(1, (C, N)), torch.stack(states, 1)
    )


# ------------------------------------------------------------- 3. The attention table: who may look at whom
CLEAN, NOISY, ACTION, STATE = range(4)
ANCHOR = -1  # the first picture of all stands before chunk 0


def may_attend(query: Tensor, key: Tensor) -> Tensor:
    """Tags (Lq, 2) and (Lk, 2), each (kind, chunk) -> (Lq, Lk) bool. The one truth, for training and for the cache.

    | query                    | may attend to                                               |
    |--------------------------|-------------------------------------------------------------|
    | clean chunk i            | anchor, clean chunks <= i                                   |
    | noisy chunk i, actions i | anchor, clean chunks < i, noisy chunk i, actions i, state i |
    | state i                  | itself                                                      |
    """
    (q_kind, q_chunk), (k_kind, k_chunk) = query[:, None].unbind(-1), key[None].unbind(-1)
    past = (k_kind == CLEAN) & (k_chunk < q_chunk)
    same = k_chunk == q_chunk
    clean_sees = past | (same & (k_kind == CLEAN))
    noisy_sees = past | (same & (k_kind != CLEAN))
    state_sees = same & (k_kind == STATE)
    return torch.where(q_kind == CLEAN, clean_sees, torch.where(q_kind == STATE, state_sees, noisy_sees))


def tags(kind: int, first: int, chunks: int, tokens: int) -> Tensor:
    """(chunks * tokens, 2): so many tokens of this kind for each of the chunks first, first + 1, ..."""
    chunk = torch.arange(first, first + chunks).repeat_interleave(tokens)
    return torch.stack([torch.full_like(chunk, kind), chunk], -1)


# ------------------------------------------------------------- 4. The network: one transformer over all kinds of tokens
@dataclass(frozen=True)
class Memory:
    """The KV cache: keys and values of real pictures only. `frames` counts them."""

    frames: int = 0
    tags: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.long))
    layers: tuple[tuple[Tensor, Tensor], ...] = ()

    @property
    def chunk(self) -> int:
        """The number of the chunk that comes next (ANCHOR while nothing has been seen)."""
        return (self.frames - 1) // K


class Block(nn.Module):
    """Attention softmax(q k^T / sqrt(d) + mask) v over the past and the present, then an MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.SiLU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor, mask: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, d)
        if past:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = (q @ k.mT) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1).to(v.dtype)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x)), (k, v)


class WorldActionModel(nn.Module):
    def __init__(self, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.video_in, self.video_out = nn.Linear(PATCH * PATCH * 3, width), nn.Linear(width, PATCH * PATCH * 3)
        self.action_in, self.action_out = nn.Linear(N // K * A, width), nn.Linear(width, N // K * A)  # a token per picture
        self.state_in, self.word = nn.Linear(S, width), nn.Embedding(len(WORDS), width)
        self.sigma = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.where = nn.Parameter(0.5 * torch.randn(P, width))  # of a patch in the picture
        self.when = nn.Parameter(0.5 * torch.randn(1 + C * K, width))  # of a picture, and of the actions that lead to it
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, word: Tensor, video: Tensor, actions: Tensor, states: Tensor, sigma_video: Tensor, sigma_action: Tensor,
        *, clean: Tensor | None = None, memory: Memory | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Velocities of noisy video (B, c, K, H, W, 3) and actions (B, c, N, A), given states (B, c, S), sigmas (B, c).

        The past comes as pictures (training: `clean` (B, 1 + (c - 1) K, H, W, 3), all chunks side by side) or as
        `memory` (inference: c = 1). The sequence is [clean video | noisy video | actions | states].
        """
        memory = memory or Memory()
        c, first = video.shape[1], 0 if clean is not None else memory.chunk
        when = self.when[1 + first * K : 1 + (first + c) * K]  # (c K, D)
        x = [
            self.embed_video(video.flatten(1, 2), sigma_video.repeat_interleave(K, 1), when),
            self.action_in(actions.unflatten(2, (K, -1)).flatten(1, 2).flatten(2))
            + (when + self.embed_sigma(sigma_action.repeat_interleave(K, 1))),
            self.state_in(states) + when[::K],
        ]
        tag = [tags(NOISY, first, c, K * P), tags(ACTION, first, c, K), tags(STATE, first, c, 1)]
        if clean is not None:
            seen = clean.shape[1]
            x.insert(0, self.embed_video(clean, torch.zeros(clean.shape[:2]), self.when[:seen]))
            tag.insert(0, torch.cat([tags(CLEAN, ANCHOR, 1, P), tags(CLEAN, 0, c - 1, K * P)]))
        y, _, _ = self.transform(torch.cat(x, 1), torch.cat(tag), word, memory)
        y_video, y_action = y.split([part.shape[1] for part in x], 1)[-3:-1]
        # The last layers guess the clean x, an easier target for pixels than noise. x_sigma = x + sigma v gives v.
        guess_video = unpatchify(self.video_out(y_video).unflatten(1, (c, K, P))).float()
        guess_actions = self.action_out(y_action).unflatten(-1, (N // K, A)).flatten(1, 2).unflatten(1, (c, N)).float()
        return (video - guess_video) / like(sigma_video, video), (actions - guess_actions) / like(sigma_action, actions)

    def remember(self, memory: Memory, word: Tensor, frames: Tensor) -> Memory:
        """Write real pictures (B, 1 or K, H, W, 3) into the cache: the anchor first, then chunk after chunk, at sigma 0."""
        count = memory.frames + frames.shape[1]
        x = self.embed_video(frames, torch.zeros(frames.shape[:2]), self.when[memory.frames : count])
        _, all_tags, layers = self.transform(x, tags(CLEAN, memory.chunk, 1, x.shape[1]), word, memory)
        return Memory(count, all_tags, layers)

    def transform(
        self, x: Tensor, tag: Tensor, word: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, tuple[tuple[Tensor, Tensor], ...]]:
        """Tokens (B, L, D) look at the memory and at each other, as far as the table allows. The word goes to everyone."""
        all_tags = torch.cat([memory.tags, tag])
        x, mask, layers = x + self.word(word)[:, None], may_attend(tag, all_tags), []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, mask, memory.layers[i] if memory.layers else ())
            layers.append(kv)
        return self.norm(x), all_tags, tuple(layers)

    def embed_video(self, video: Tensor, sigma: Tensor, when: Tensor) -> Tensor:
        """(B, f, H, W, 3), sigma (B, f), when (f, D) -> (B, f P, D). Clean and noisy pictures differ in sigma alone."""
        moment = when + self.embed_sigma(sigma)
        return (self.video_in(patchify(video)) + self.where + moment[:, :, None]).flatten(1, 2)

    def embed_sigma(self, sigma: Tensor) -> Tensor:
        angles = sigma[..., None] * torch.logspace(0, 1.5, 16)
        return self.sigma(torch.cat([angles.sin(), angles.cos()], -1))


def patchify(video: Tensor) -> Tensor:
    """(..., H, W, 3) -> (..., P, PATCH * PATCH * 3)."""
    cells = video.unflatten(-3, (GRID, PATCH)).unflatten(-2, (GRID, PATCH))  # (..., row, y, column, x, 3)
    return cells.transpose(-4, -3).flatten(-3).flatten(-3, -2)


def unpatchify(patches: Tensor) -> Tensor:
    cells = patches.unflatten(-1, (PATCH, PATCH, 3)).unflatten(-4, (GRID, GRID))  # (..., row, column, y, x, 3)
    return cells.transpose(-4, -3).flatten(-5, -4).flatten(-3, -2)


def like(sigma: Tensor, x: Tensor) -> Tensor:
    """(B, c) -> (B, c, 1, ...), to multiply x with."""
    return sigma.reshape(*sigma.shape, *[1] * (x.ndim - 2))


# ------------------------------------------------------------- 5. The loss: flow matching, video and action noised apart
def shifted(u: Tensor, shift: float = 3.0) -> Tensor:
    """Uniform u -> noise level, more often high than low: that is where the decisions are made."""
    return shift * u / (1 + (shift - 1) * u)


def flow_loss(model: nn.Module, data: Episodes, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """E[ sigma^2 |v_theta(x_sigma) - v|^2 ] of video and of action, with

        x_sigma = (1 - sigma) x + sigma eps,    v = eps - x,    eps ~ N(0, 1).

    Every chunk draws two noise levels of its own. The weight sigma^2 keeps the almost clean, where v hangs on the
    last grain of noise, from drowning the rest.
    """
    video, actions = data.video[:, 1:].unflatten(1, (C, K)), data.actions
    sigma_video, sigma_action = shifted(torch.rand(2, len(video), C, generator=rng)).clamp(min=1e-3)
    s_video, s_action = like(sigma_video, video), like(sigma_action, actions)
    eps_video, eps_action = torch.randn(video.shape, generator=rng), torch.randn(actions.shape, generator=rng)
    noisy_video = (1 - s_video) * video + s_video * eps_video
    noisy_actions = (1 - s_action) * actions + s_action * eps_action
    past = data.video[:, :-K]  # nobody comes after the last chunk, so it needs no clean copy
    with torch.autocast("cpu", torch.bfloat16):
        v = model(data.word, noisy_video, noisy_actions, data.states, sigma_video, sigma_action, clean=past)
    return (s_video * (v[0] - (eps_video - video))).square().mean(), (
        s_action * (v[1] - (eps_action - actions))
    ).square().mean()


# ------------------------------------------------------------- 6. The sampler: Euler steps from noise to the next chunk
@torch.no_grad()
def dream(
    model: WorldActionModel, memory: Memory, word: Tensor, state: Tensor, rng: torch.Generator, steps: int = 5
) -> tuple[Tensor, Tensor]:
    """Solve dx/dsigma = v from sigma 1 to 0, for video (B, K, H, W, 3) and actions (B, N, A) together."""
    video = torch.randn(len(word), 1, K, PIXELS, PIXELS, 3, generator=rng)
    actions = torch.randn(len(word), 1, N, A, generator=rng)
    for now, after in pairwise(shifted(torch.linspace(1, 0, steps + 1)).tolist()):
        sigma = torch.full((len(word), 1), now)
        v_video, v_action = model(word, video, actions, state[:, None], sigma, sigma, memory=memory)
        video, actions = video + (after - now) * v_video, actions + (after - now) * v_action
    return video[:, 0], actions[:, 0]


@torch.no_grad()
def cache_error(model: WorldActionModel, rng: torch.Generator) -> float:
    """Largest difference between one masked forward of all chunks and chunk after chunk with the cache."""
    data = demonstrate(3, rng)
    video, actions = torch.randn(3, C, K, PIXELS, PIXELS, 3, generator=rng), torch.randn(3, C, N, A, generator=rng)
    sigmas = 0.1 + 0.9 * torch.rand(2, 3, C, generator=rng)
    masked = model(data.word, video, actions, data.states, *sigmas, clean=data.video[:, :-K])
    memory, worst = model.remember(Memory(), data.word, data.video[:, :1]), 0.0
    for i in range(C):
        now = slice(i, i + 1)
        cached = model(data.word, video[:, now], actions[:, now], data.states[:, now], *sigmas[:, :, now], memory=memory)
        worst = max(worst, *((a[:, now] - b).abs().max().item() for a, b in zip(masked, cached, strict=True)))
        memory = model.remember(memory, data.word, data.video[:, 1 + i * K : 1 + (i + 1) * K])
    return worst


# ------------------------------------------------------------- 7. Closed loop: dream, act, look, remember what was real
def live(
    model: WorldActionModel, world: World, word: Tensor, rng: torch.Generator, asleep: bool = False
) -> tuple[Tensor, Tensor]:
    """One episode -> what was seen and what was dreamed, both (B, F, H, W, 3).

    Awake, the dreamed pictures are thrown away and the real ones remembered: errors do not pile up. Asleep, the world is
    not consulted after the anchor: the model remembers its own dream and feels the motion that it intended.
    """
    anchor, state = world.picture()[:, None], world.state()
    memory, seen, dreamed = model.remember(Memory(), word, anchor), [anchor], [anchor]
    for _ in range(C):
        video, actions = dream(model, memory, word, state, rng)
        dreamed.append(video)
        seen.append(video if asleep else world.act(actions))
        state = (state + 2 * SPEED * actions.clamp(-1, 1).sum(1)).clamp(-1, 1) if asleep else world.state()
        with torch.no_grad():
            memory = model.remember(memory, word, seen[-1])
    return torch.cat(seen, 1), torch.cat(dreamed, 1)


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a success rate k/n (Wilson 1927)."""
    p, spread = k / n, z * math.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


# ------------------------------------------------------------- 8. Main: check, train, live, draw
def train(model: WorldActionModel, options: argparse.Namespace, rng: torch.Generator) -> tuple[nn.Module, list[list[float]]]:
    """Returns the averaged model and one row (seconds, video loss, action loss) for each step."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]  # Muon halves the steps needed; the rest gets Adam
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    optimizers = [
        torch.optim.Muon(matrices, lr=3e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    rows: list[list[float]] = []
    start, progress = time.monotonic(), 0.0
    while progress < 1:
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1, (len(rows) + 1) / 50, (1 - progress) / 0.6 + 0.01)  # warm up, hold, decay
        video_loss, action_loss = flow_loss(model, demonstrate(options.batch, rng), rng)
        model.zero_grad()
        (video_loss + action_loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average.update_parameters(model)
        seconds = time.monotonic() - start
        rows.append([seconds, video_loss.item(), action_loss.item()])
        progress = len(rows) / options.steps if options.steps else seconds / (60 * options.minutes)
        if len(rows) % 100 == 0 or progress >= 1:
            recent = torch.tensor(rows[-100:]).mean(0)
            print(f"step {len(rows):5d}  {seconds:4.0f} s  video {recent[1]:.4f}  action {recent[2]:.4f}", flush=True)
    return average.module, rows


def evaluate(model: WorldActionModel, n: int, seed: int) -> tuple[dict[str, list[bool]], World, Tensor, Tensor]:
    """Success of four policies on the same n unseen starts, and the pictures that the first one saw and dreamed."""
    success, pictures = {}, []
    for policy in ("world action model", "told another word", "random", "hold still"):
        rng = torch.Generator().manual_seed(seed)
        world = World.random(n, rng)
        if policy in ("world action model", "told another word"):
            word = world.word if policy == "world action model" else (world.word + 1) % len(WORDS)
            pictures.append(live(model, world, word, rng))
        else:
            for _ in range(C):
                world.act((2 * torch.rand(n, N, A, generator=rng) - 1) * (policy == "random"))
        success[policy] = world.success().tolist()
    return success, world, *pictures[0]


def draw_strip(path: Path, title: str, rows: list[tuple[str, Tensor]]) -> None:
    """Rows of pictures (F, H, W, 3) under one another, time to the right."""
    figure, axes = plt.subplots(len(rows), 1 + C * K, figsize=(1.05 * (2 + C * K), 1.08 * len(rows) + 0.4))
    for (label, film), line in zip(rows, axes, strict=True):
        for axis, picture in zip(line, film, strict=True):
            axis.imshow((picture.clamp(-1, 1) + 1) / 2, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    figure.tight_layout(pad=0.3)
    save(path, figure)


def draw_loss(path: Path, rows: list[list[float]]) -> None:
    figure, axis = plt.subplots(figsize=(6, 3.5))
    seconds, *losses = torch.tensor(rows).T
    for name, loss in zip(("video", "action"), losses, strict=True):
        width = min(25, len(loss))
        axis.plot(seconds[width - 1 :], loss.unfold(0, width, 1).mean(1), label=name)
    axis.set(yscale="log", xlabel="seconds of training", ylabel=r"$\sigma^2\,|v_\theta - v|^2$")
    axis.legend()
    save(path, figure)


def draw_success(path: Path, success: dict[str, list[bool]]) -> None:
    figure, axis = plt.subplots(figsize=(6, 2.4))
    for name, outcomes in reversed(success.items()):
        k, n = sum(outcomes), len(outcomes)
        low, high = wilson(k, n)
        axis.barh(name, k / n, xerr=[[k / n - low], [high - k / n]], capsize=4, color="#5b8def", ecolor="#333333")
        axis.text(high + 0.03, name, f"{k}/{n}", va="center")
    axis.set(xlim=(0, 1.15), xlabel="success, with Wilson 95 % interval")
    save(path, figure)


def save(path: Path, what: plt.Figure | str) -> None:
    """Atomic: a reader never sees half a file."""
    temporary = path.with_name("." + path.name)
    if isinstance(what, str):
        temporary.write_text(what)
    else:
        what.savefig(temporary, dpi=130, bbox_inches="tight", format="png")
        plt.close(what)
    os.replace(temporary, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=4.0, help="how long to train")
    parser.add_argument("--steps", type=int, default=0, help="train for so many steps instead")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/minimal"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few seconds: the policy will be bad")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    rng = torch.Generator().manual_seed(options.seed)
    model = WorldActionModel(width=64, depth=2) if options.quick else WorldActionModel()
    options.steps = options.steps or 60 * options.quick

    error = cache_error(model, rng)
    assert error < 1e-4, f"cached inference differs from the masked forward by {error:.1e}: do not trust this model"
    model, rows = train(model, options, rng)
    n, unseen = (8 if options.quick else 50), 1_000_000 + options.seed
    success, world, real, dreamed = evaluate(model, n, unseen)

    imagined = World.random(1, torch.Generator().manual_seed(unseen + 1))
    asleep = World(*(x.expand(4, *x.shape[1:]) for x in vars(imagined).values()))
    films, _ = live(model, asleep, torch.arange(4), rng, asleep=True)
    rows_ = [(f"{WORDS[world.word[i]]}\n{kind}", film[i]) for i in range(3) for kind, film in (("real", real), ("dreamed", dreamed))]
    draw_strip(options.out / "dreamed_against_real.png", "each chunk dreamed from the real pictures before it", rows_)
    draw_strip(options.out / "one_start_four_words.png", "one real picture, four words, four dreams", list(zip(WORDS, films, strict=True)))
    draw_loss(options.out / "loss.png", rows)
    draw_success(options.out / "success.png", success)

    chunks, last = real[:, 1:].unflatten(1, (C, K)), real[:, :-1:K, None]  # the frame that each chunk starts from
    result = {
        "steps": len(rows), "seconds": rows[-1][0], "cpu_seconds": time.process_time(), "seed": options.seed, "cache_error": error,
        "first_loss": rows[0][1:], "last_loss": torch.tensor(rows[-20:]).mean(0)[1:].tolist(),
        "success": {name: {"k": sum(s), "n": n, "wilson95": wilson(sum(s), n)} for name, s in success.items()},
        "dream_mse": (dreamed - real).square().mean().item(), "hold_last_picture_mse": (chunks - last).square().mean().item(),
    }  # fmt: skip
    episodes = [{"policy": p, "start": i, "word": WORDS[world.word[i]], "success": ok} for p, s in success.items() for i, ok in enumerate(s)]
    save(options.out / "episodes.jsonl", "".join(json.dumps(episode) + "\n" for episode in episodes))
    save(options.out / "result.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
