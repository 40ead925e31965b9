"""A World Action Model in one file: read it top to bottom, train it in minutes on one CPU core.

A robot (black dot) fetches an orange disc and carries it to the pad whose colour one word names. One transformer
learns to denoise *the next pictures and the next actions together*; in closed loop, real pictures take the place of the
dreamed ones in its memory: DreamZero (arXiv 2602.15922) in miniature, the whole method without the machinery.

    python recipes/minimal_wam.py --minutes 4 --out runs/minimal

Shapes: B batch, C chunks, K pictures and N actions per chunk, A action dims, S state dims, 3 H W a picture, F = 1 + C K
pictures in all, P patches per picture, L tokens, D width. Noise level sigma: **0 is clean, 1 is noise**.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn
from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle

WORDS = ("red", "green", "blue", "violet")
C, K, N, A, S, GROUP = 4, 2, 8, 2, 2, 4  # an episode is 4 chunks of 2 pictures and 8 actions, 4 of which share a token
PIXELS, PATCH, GRID, P = 24, 8, 3, 9  # a picture of 24 x 24 is cut into 3 x 3 patches: few tokens, small computer
Pair = tuple[Tensor, Tensor]  # nearly always (video, action)

# ---------------------------------------------------------- 1. The world: B of them side by side, each [-1, 1]^2
SPEED, REACH, ON_PAD = 0.10, 0.25, 0.20  # a full action; robot and disc touch; the disc is delivered
FLOOR, ROBOT, DISC = (0.94, 0.93, 0.90), (0.10, 0.10, 0.15), (1.00, 0.65, 0.10)
PADS = ((0.90, 0.25, 0.25), (0.25, 0.70, 0.35), (0.25, 0.45, 0.90), (0.65, 0.35, 0.80))


@dataclass
class World:
    robot: Tensor  # (B, 2) position, x to the right and y downwards; also what the robot feels, its state
    disc: Tensor  # (B, 2)
    pads: Tensor  # (B, 4, 2) one place for each word
    word: Tensor  # (B,) index into WORDS
    target: Tensor  # (B, 2) the place that the word means
    held: Tensor  # (B,) bool: the disc sticks to the robot

    @staticmethod
    def random(batch: int, rng: Generator) -> World:
        """Pads shuffled over the corners, the disc away from robot and pads (the first good one of 64 draws)."""
        corners = torch.tensor([(-0.7, -0.7), (0.7, -0.7), (-0.7, 0.7), (0.7, 0.7)])
        pads = corners[torch.rand(batch, 4, generator=rng).argsort(1)]
        robot, disc = (1.6 * torch.rand(2, batch, 64, 2, generator=rng) - 0.8).unbind()
        gap = torch.minimum((robot - disc).norm(dim=-1), torch.cdist(disc, pads).amin(-1))
        rows, first = torch.arange(batch), (gap > 0.5).float().argmax(1)
        word = torch.randint(len(WORDS), (batch,), generator=rng)
        return World(robot[rows, first], disc[rows, first], pads, word, pads[rows, word], torch.zeros(batch).bool())

    def step(self, action: Tensor) -> None:
        """Move by action (B, A) in [-1, 1]; a disc within reach sticks to the robot."""
        self.robot = (self.robot + SPEED * action.clamp(-1, 1)).clamp(-1, 1)
        self.held = self.held | ((self.robot - self.disc).norm(dim=-1) < REACH)
        self.disc = torch.where(self.held[:, None], self.robot, self.disc)

    def act(self, actions: Tensor) -> Tensor:
        """Execute a chunk (B, N, A) and film it: (B, K, 3, H, W)."""
        film = []
        for t in range(N):
            self.step(actions[:, t])
            film += [self.picture()] if (t + 1) % GROUP == 0 else []
        return torch.stack(film, 1)

    def expert(self) -> Tensor:
        """Straight to the disc, then straight to the pad: (B, A), slower only to arrive."""
        way = torch.where(self.held[:, None], self.target, self.disc) - self.robot
        return way / way.norm(dim=-1, keepdim=True).clamp(min=SPEED)

    def success(self) -> Tensor:
        return (self.disc - self.target).norm(dim=-1) < ON_PAD  # (B,) bool

    def picture(self) -> Tensor:
        """What the robot sees: (B, 3, H, W), 0 is bare floor. Anti-aliased: less than a pixel of motion shows."""
        ticks = (torch.arange(PIXELS) + 0.5) / PIXELS * 2 - 1
        pixel = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1)
        image = torch.tensor(FLOOR).expand(len(self.word), PIXELS, PIXELS, 3)
        things = [(self.pads[:, i], 0.28, PADS[i]) for i in range(len(WORDS))]
        for place, radius, colour in [*things, (self.disc, 0.24, DISC), (self.robot, 0.14, ROBOT)]:
            distance = (pixel - place[:, None, None]).norm(dim=-1, keepdim=True)
            cover = ((radius - distance) * PIXELS / 2 + 0.5).clamp(0, 1)
            image = image + cover * (torch.tensor(colour) - image)
        return 2 * (image - torch.tensor(FLOOR)).permute(0, 3, 1, 2)


# ---------------------------------------------------------- 2. Expert data: the world is cheap, so every batch is new
class Episodes(NamedTuple):
    word: Tensor  # (B,)
    video: Tensor  # (B, F, 3, H, W): the anchor picture, then K per chunk
    actions: Tensor  # (B, C, N, A): what the expert wanted in every state it came through
    states: Tensor  # (B, C, S): at the beginning of each chunk


def demonstrate(batch: int, rng: Generator, noise: float = 0.1) -> Episodes:
    """Noise disturbs what is executed, never the label: the data shows how to come back from an error."""
    world = World.random(batch, rng)
    video, actions, states = [world.picture()], [], []
    for t in range(C * N):
        states += [world.robot] if t % N == 0 else []
        actions += [world.expert()]
        world.step(actions[-1] + noise * torch.randn(batch, A, generator=rng))
        video += [world.picture()] if (t + 1) % GROUP == 0 else []
    film, wanted, felt = (torch.stack(x, 1) for x in (video, actions, states))
    return Episodes(world.word, film, wanted.unflatten(1, (C, N)), felt)


# ---------------------------------------------------------- 3. The attention table: who may look at whom
CLEAN, NOISY, ACTION, STATE, ANCHOR = 0, 1, 2, 3, -1  # kinds of tokens; the chunk number of the very first picture


def may_attend(query: Tensor, key: Tensor) -> Tensor:
    """Tags (Lq, 2) and (Lk, 2), each (kind, chunk) -> (Lq, Lk) bool. The one truth, for training and for the cache.

    | query                    | may attend to                                               |
    |--------------------------|-------------------------------------------------------------|
    | clean chunk i            | anchor, clean chunks <= i                                   |
    | noisy chunk i, actions i | anchor, clean chunks < i, noisy chunk i, actions i, state i |
    | state i                  | itself                                                      |
    """
    (q_kind, q_chunk), (k_kind, k_chunk) = query[:, None].unbind(-1), key[None].unbind(-1)
    past, same = (k_kind == CLEAN) & (k_chunk < q_chunk), k_chunk == q_chunk
    clean_sees = past | (same & (k_kind == CLEAN))
    noisy_sees = past | (same & (k_kind != CLEAN))
    state_sees = same & (k_kind == STATE)
    return torch.where(q_kind == CLEAN, clean_sees, torch.where(q_kind == STATE, state_sees, noisy_sees))


def tags(kind: int, first: int, chunks: int, tokens: int) -> Tensor:  # (chunks * tokens, 2)
    return torch.cartesian_prod(torch.tensor([kind]), torch.arange(first, first + chunks).repeat_interleave(tokens))


# ---------------------------------------------------------- 4. The network: one transformer over all kinds of tokens
class Memory(NamedTuple):  # the KV cache: of real pictures only
    tags: Tensor = torch.zeros(0, 2, dtype=torch.long)  # (Lk, 2)
    layers: tuple[Pair, ...] = ()  # for each layer, keys and values (B, heads, Lk, d)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.SiLU(), nn.Linear(3 * width, width))

    def forward(self, x: Tensor, mask: Tensor, past: tuple[Tensor, ...]) -> tuple[Tensor, Pair]:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, L, d)
        if past:  # the cache
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask, -torch.inf)
        x = x + self.out((scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x)), (k, v)


class WorldActionModel(nn.Module):
    def __init__(self, width: int = 96, depth: int = 4, heads: int = 3) -> None:
        super().__init__()
        self.video_in, self.video_out = nn.Linear(3 * PATCH**2, width), nn.Linear(width, 3 * PATCH**2)
        self.action_in, self.action_out = nn.Linear(GROUP * A, width), nn.Linear(width, GROUP * A)
        self.state_in, self.word = nn.Linear(S, width), nn.Embedding(len(WORDS), width)
        self.sigma = nn.Sequential(nn.Linear(32, width), nn.SiLU(), nn.Linear(width, width))
        self.where = nn.Parameter(0.5 * torch.randn(P, width))  # of a patch in the picture
        self.when = nn.Parameter(0.5 * torch.randn(1 + C * K, width))  # of a picture, or of the actions towards it
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, word: Tensor, video: Tensor, actions: Tensor, states: Tensor, sigmas: Tensor, past: Tensor | Memory
    ) -> Pair:
        """Velocities of video (B, c, K, 3, H, W) and actions (B, c, N, A), which are as noisy as sigmas (2, B, c) say.

        Training: all chunks side by side, `past` is clean video (B, 1 + (c - 1) K, 3, H, W). Inference: c = 1, `past`
        is the memory. The sequence is [clean video | noisy video | actions | states].
        """
        c, memory = video.shape[1], past if isinstance(past, Memory) else Memory()
        first = max(0, (len(memory.tags) // P - 1) // K)
        when = self.when[1 + first * K : 1 + (first + c) * K]  # (c K, D)
        level_video, level_action = sigmas.repeat_interleave(K, -1)
        x = [
            self.embed_video(video.flatten(1, 2), level_video, when),
            self.action_in(actions.reshape(len(word), c * K, GROUP * A)) + when + self.embed_sigma(level_action),
            self.state_in(states) + when[::K],
        ]
        tag = [tags(NOISY, first, c, K * P), tags(ACTION, first, c, K), tags(STATE, first, c, 1)]
        if isinstance(past, Tensor):
            x.insert(0, self.embed_video(past, torch.zeros(past.shape[:2]), self.when[: past.shape[1]]))
            tag.insert(0, torch.cat([tags(CLEAN, ANCHOR, 1, P), tags(CLEAN, 0, c - 1, K * P)]))
        y, _ = self.transform(torch.cat(x, 1), torch.cat(tag), word, memory)
        *_, y_video, y_action, _ = y.split([part.shape[1] for part in x], 1)
        # The last layers guess the clean x, for pixels an easier target than v; x_sigma = x + sigma v gives v.
        patches = self.video_out(y_video).float().unflatten(1, (c, K, P))
        guess_video = pixel_shuffle(patches.mT.unflatten(-1, (GRID, GRID)), PATCH)
        guess_actions = self.action_out(y_action).float().reshape(actions.shape)
        return (video - guess_video) / like(sigmas[0], video), (actions - guess_actions) / like(sigmas[1], actions)

    def remember(self, memory: Memory, word: Tensor, film: Tensor) -> Memory:
        """Write real pictures (B, 1 or K, 3, H, W) into the cache, at sigma 0: the anchor, then chunk after chunk."""
        seen = len(memory.tags) // P
        x = self.embed_video(film, torch.zeros(film.shape[:2]), self.when[seen : seen + film.shape[1]])
        tag = tags(CLEAN, (seen - 1) // K, 1, x.shape[1])
        return self.transform(x, tag, word, memory)[1]

    def transform(self, x: Tensor, tag: Tensor, word: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Tokens (B, L, D) look at the memory and at each other, as the table allows. Everyone is told the word."""
        keys = torch.cat([memory.tags, tag])
        x, mask, layers = x + self.word(word)[:, None], may_attend(tag, keys), []
        for i, block in enumerate(self.blocks):
            x, kv = block(x, mask, memory.layers[i] if memory.layers else ())
            layers.append(kv)
        return self.norm(x), Memory(keys, tuple(layers))

    def embed_video(self, film: Tensor, sigma: Tensor, when: Tensor) -> Tensor:
        """(B, f, 3, H, W), sigma (B, f), when (f, D) -> (B, f P, D). Clean and noisy differ in nothing but sigma."""
        patches, moment = pixel_unshuffle(film, PATCH).flatten(-2).mT, when + self.embed_sigma(sigma)
        return (self.video_in(patches) + self.where + moment[:, :, None]).flatten(1, 2)

    def embed_sigma(self, sigma: Tensor) -> Tensor:
        angles = sigma[..., None] * torch.logspace(0, 1.5, 16)
        return self.sigma(torch.cat([angles.sin(), angles.cos()], -1))


def like(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.reshape(*sigma.shape, *[1] * (x.ndim - 2))  # (B, c) -> (B, c, 1, ...), to multiply x with


# ---------------------------------------------------------- 5. The loss: flow matching, video and action noised apart
def shifted(u: Tensor, shift: float = 3.0) -> Tensor:
    """Uniform u -> sigma, more often high than low: that is where the decisions are made."""
    return shift * u / (1 + (shift - 1) * u)


def flow_loss(model: nn.Module, data: Episodes, rng: Generator) -> Pair:
    """E[ sigma^2 |v_theta(x_sigma) - v|^2 ] of video and of action, each with a sigma of its own for every chunk:
        x_sigma = (1 - sigma) x + sigma eps,    v = eps - x,    eps ~ N(0, 1).
    The weight sigma^2 keeps the almost clean, where v hangs on the last grain of noise, from drowning the rest.
    """
    xs = data.video[:, 1:].unflatten(1, (C, K)), data.actions
    sigmas = shifted(torch.rand(2, len(data.word), C, generator=rng)).clamp(min=1e-3)
    s = [like(sigma, x) for sigma, x in zip(sigmas, xs, strict=True)]
    eps = [torch.randn(x.shape, generator=rng) for x in xs]
    noisy = [(1 - s) * x + s * e for s, x, e in zip(s, xs, eps, strict=True)]
    with torch.autocast("cpu", torch.bfloat16):  # nobody comes after the last chunk: it needs no clean copy
        vs = model(data.word, *noisy, data.states, sigmas, data.video[:, :-K])
    video, action = [(s * (v - (e - x))).square().mean() for s, v, e, x in zip(s, vs, eps, xs, strict=True)]
    return video, action


# ---------------------------------------------------------- 6. The sampler: Euler steps from noise to the next chunk
def dream(model: WorldActionModel, memory: Memory, word: Tensor, state: Tensor, rng: Generator) -> Pair:
    """Solve dx/dsigma = v from sigma 1 to 0 in 8 steps, for video (B, K, 3, H, W) and actions (B, N, A) together."""
    video = torch.randn(len(word), 1, K, 3, PIXELS, PIXELS, generator=rng)
    actions = torch.randn(len(word), 1, N, A, generator=rng)
    for now, after in pairwise(shifted(torch.linspace(1, 0, 9)).tolist()):
        sigmas = torch.full((2, len(word), 1), now)
        v_video, v_action = model(word, video, actions, state[:, None], sigmas, memory)
        video, actions = video + (after - now) * v_video, actions + (after - now) * v_action
    return video[:, 0], actions[:, 0]


def cache_error(model: WorldActionModel, rng: Generator) -> float:
    """Largest difference between one masked forward over all chunks and the cache, chunk after chunk."""
    data, sigmas = demonstrate(3, rng), 0.1 + 0.9 * torch.rand(2, 3, C, generator=rng)
    x = [torch.randn(3, C, K, 3, PIXELS, PIXELS, generator=rng), torch.randn(3, C, N, A, generator=rng), data.states]
    masked = model(data.word, *x, sigmas, data.video[:, :-K])
    memory, worst = model.remember(Memory(), data.word, data.video[:, :1]), 0.0
    for i in range(C):
        cached = model(data.word, *(t[:, i : i + 1] for t in x), sigmas[:, :, i : i + 1], memory)
        worst = max(worst, *((m[:, i] - v[:, 0]).abs().max().item() for m, v in zip(masked, cached, strict=True)))
        memory = model.remember(memory, data.word, data.video[:, 1 + i * K : 1 + (i + 1) * K])
    return worst


# ---------------------------------------------------------- 7. Closed loop: dream, act, look, remember what was real
@torch.no_grad()
def live(model: WorldActionModel, world: World, word: Tensor, rng: Generator, asleep: bool = False) -> Pair:
    """One episode: what was seen and what was dreamed (B, F, 3, H, W). Dreams are never remembered, unless asleep."""
    seen, state = [world.picture()[:, None]], world.robot
    dreamed, memory = [seen[0]], model.remember(Memory(), word, seen[0])
    for _ in range(C):
        video, actions = dream(model, memory, word, state, rng)
        dreamed.append(video)
        seen.append(video if asleep else world.act(actions))
        state = state + SPEED * actions.clamp(-1, 1).sum(1) if asleep else world.robot
        memory = model.remember(memory, word, seen[-1])
    return torch.cat(seen, 1), torch.cat(dreamed, 1)


# ---------------------------------------------------------- 8. Main: check, train, live, draw
def train(model: WorldActionModel, minutes: float, steps: int, rng: Generator) -> Tensor:
    """Minutes, or steps if not zero -> (steps, 3): seconds, video loss, action loss."""
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]  # Muon learns these faster than Adam
    others = [p for name, p in model.named_parameters() if not (name.startswith("blocks") and p.ndim == 2)]
    muon = torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    optimizers = (muon, torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0))
    rows: list[tuple[float, float, float]] = []
    start, progress = time.monotonic(), 0.0
    while progress < 1:
        video, action = flow_loss(model, demonstrate(16, rng), rng)
        model.zero_grad()
        (video + action).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:  # warm up, hold, decay
            optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (len(rows) + 1) / 50, (1 - progress) / 0.6 + 0.01)
            optimizer.step()
        rows.append((time.monotonic() - start, video.item(), action.item()))
        progress = len(rows) / steps if steps else rows[-1][0] / (60 * minutes)
        if len(rows) % 100 == 0 or progress >= 1:
            print("step {}: {:.0f} s, video {:.4f}, action {:.4f}".format(len(rows), *rows[-1]), flush=True)
    return torch.tensor(rows)


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a success rate k/n (Wilson 1927)."""
    p, scale = k / n, 1 + z * z / n
    centre, half = (p + z * z / (2 * n)) / scale, z * (p * (1 - p) / n + (z / (2 * n)) ** 2) ** 0.5 / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def draw_films(title: str, films: dict[str, Tensor]) -> Figure:
    strip = torch.cat([torch.cat(list(pad(film, (1, 1, 1, 1), value=9)), -1) for film in films.values()], -2)
    axis = (figure := Figure(figsize=(2 + C * K, len(films) + 0.8), layout="constrained")).subplots()
    axis.imshow((strip.permute(1, 2, 0) / 2 + torch.tensor(FLOOR)).clamp(0, 1))
    at = [(i + 0.5) * (PIXELS + 2) for i in range(1 + C * K)]
    axis.set(title=title, xticks=at, xticklabels=range(0, C * N + 1, GROUP), yticks=at[: len(films)], yticklabels=films)
    return figure


def draw_curves(rows: Tensor, score: dict[str, list[float]]) -> Figure:
    left, right = (figure := Figure(figsize=(10, 3), layout="constrained")).subplots(1, 2)
    smooth = rows.unfold(0, min(20, len(rows)), 1).mean(-1)
    left.plot(smooth[:, 0], smooth[:, 1:], label=("video", "action"))
    left.set(yscale="log", xlabel="seconds of training", ylabel=r"loss  $\sigma^2 |v_\theta - v|^2$")
    left.legend()
    for name, (k, n, low, high) in reversed(score.items()):
        right.barh(name, k / n, xerr=[[k / n - low], [high - k / n]], capsize=4, color="tab:blue")
        right.text(high + 0.03, name, f"{k}/{n}", va="center")
    right.set(xlim=(0, 1.2), xlabel="success on unseen starts, Wilson 95 %")
    return figure


def save(path: Path, content: Figure | str) -> None:
    temporary = path.with_name(f".{path.name}")  # so that a reader never meets half a file
    temporary.write_text(content) if isinstance(content, str) else content.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="train for so long")
    parser.add_argument("--steps", type=int, default=0, help="... or for so many steps")
    parser.add_argument("--out", type=Path, default=Path("runs/minimal"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds; its policy is bad")
    options = parser.parse_args()
    rng = torch.manual_seed(options.seed)
    model = WorldActionModel(width=48, depth=2) if options.quick else WorldActionModel()
    error = cache_error(model, rng)
    assert error < 1e-4, f"cached inference differs from the masked forward by {error:.1e}, expected less than 1e-4"
    rows = train(model, options.minutes, options.steps or 40 * options.quick, rng)
    n, unseen = (8 if options.quick else 50), 1_000_000 + options.seed
    policies = ("world action model", "told another word", "random", "hold still")
    worlds = [World.random(n, Generator().manual_seed(unseen)) for _ in policies]  # the same starts for each
    real, dreamed = live(model, worlds[0], worlds[0].word, rng)
    live(model, worlds[1], (worlds[1].word + 1) % len(WORDS), rng)
    for _ in range(C):
        worlds[2].act(2 * torch.rand(n, N, A, generator=rng) - 1)
    success = {policy: world.success().tolist() for policy, world in zip(policies, worlds, strict=True)}
    score = {policy: [sum(wins), n, *wilson(sum(wins), n)] for policy, wins in success.items()}
    one, words = World.random(1, Generator().manual_seed(unseen + 1)), torch.arange(len(WORDS))
    asleep = {w: live(model, one, i[None], rng, asleep=True)[0][0] for w, i in zip(WORDS, words, strict=True)}
    (out := options.out).mkdir(parents=True, exist_ok=True)
    pairs, told = (("real", real), ("dream", dreamed)), [WORDS[w] for w in worlds[0].word]
    films = {f"start {i}, {told[i]}: {name}": film[i] for i in range(3) for name, film in pairs}
    save(out / "dreamed_against_real.png", draw_films("each chunk dreamed after seeing the real ones before it", films))
    save(out / "four_words.png", draw_films("one picture, four words, four dreams (ticks: actions executed)", asleep))
    save(out / "curves.png", draw_curves(rows, score))
    change = real[:, 1:].unflatten(1, (C, K)) - real[:, :-1:K, None]  # the error of a dream in which nothing moves
    result = {
        "seed": options.seed, "steps": len(rows), "seconds": rows[-1, 0].item(), "cpu_seconds": time.process_time(),
        "first_loss": rows[0, 1:].tolist(), "last_loss": rows[-20:, 1:].mean(0).tolist(), "cache_error": error,
        "success": {p: dict(zip(("k", "n", "low", "high"), row, strict=True)) for p, row in score.items()},
        "dream_mse": (dreamed - real).square().mean().item(), "hold_picture_mse": change.square().mean().item(),
    }  # fmt: skip
    episodes = [{"policy": p, "start": i, "success": w} for p, wins in success.items() for i, w in enumerate(wins)]
    save(out / "episodes.jsonl", "".join(json.dumps(episode) + "\n" for episode in episodes))
    save(out / "result.json", json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
