"""Golden cases of the network: teacher-forced training with gradients, cached inference, the whole closed loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wam.checkpoints.names import IMAGE_BRANCH, from_wan, load_foreign
from wam.checkpoints.presets import from_dreamzero
from wam.engine.released_loop import ReleasedLoop, ReleasedSampler, beside
from wam.evaluate.parity.golden import Check, GoldenCase, absolute, exact, relative
from wam.model.attention import ANCHOR, EMPTY, Kind, Layout, concatenate, step_layout, video_layout, visible
from wam.model.codec import video_sinusoid
from wam.model.config import TransformerConfig
from wam.model.kv_cache import KVCache
from wam.model.passes import chunk_pass, clean_pass
from wam.model.transformer import Context, Pass, Transformer, Velocity, unpatchify

OUTPUT, OUTPUT_ABSOLUTE = 5e-6, 5e-5
CACHE = 1e-5
GRADIENT = 1e-3
LOOP, LOOP_ABSOLUTE = 1e-5, 1e-4
TEXT_LENGTH = 512

VARIANTS = {
    "static8": ReleasedSampler(),
    "static5": ReleasedSampler(skip=5),
    "all16": ReleasedSampler(skip=16),
    "dynamic": ReleasedSampler(skip="dynamic"),
    "decoupled_noise": ReleasedSampler(video_final=0.8, skip=16),
}


class _Network:
    """The tiny network of a case, with its shared inputs."""

    def __init__(self, case: GoldenCase) -> None:
        fields, with_image = case.facts["config"]["constructor"], case.facts["config"]["use_clip"]
        self.config = from_dreamzero(fields, image=with_image)
        self.transformer = Transformer(self.config)
        load_foreign(self.transformer, case.weights, source=case.name, unused=() if with_image else (IMAGE_BRANCH,))
        self.latents = case.inputs["clean_latents"]
        self.image = case.inputs["clip_feature"] if with_image else None
        self.first_frame = case.inputs["y"] if fields["concat_first_frame_latent"] else None
        self.grid = (self.latents.shape[3] // self.config.patch, self.latents.shape[4] // self.config.patch)
        self._inputs = case.inputs

    def context(self, batch: int, text: str = "context_valid") -> Context:
        valid = self._inputs[text][:batch]
        padded = torch.nn.functional.pad(valid, (0, 0, 0, TEXT_LENGTH - valid.shape[1]))
        return self.transformer.context(padded, None if self.image is None else self.image[:batch])

    def beside(self, video: Tensor, start: int) -> Tensor:
        """Put the first frame's channels beside the video whose first latent frame is `start`."""
        return beside(video, self.first_frame, start)


def _output(name: str, ours: Velocity, theirs: Mapping[str, Tensor]) -> list[Check]:
    checks = []
    for part in ("video", "action"):
        value, expected = getattr(ours, part), theirs[f"{name}.{part}"]
        checks.append(relative(f"{name}.{part}", value, expected, OUTPUT))
        checks.append(absolute(f"{name}.{part}", value, expected, OUTPUT_ABSOLUTE))
    return checks


# ---------------------------------------------------------------- training


def check_training(case: GoldenCase) -> list[Check]:
    """Mask, outputs for three kinds of input, and the gradient of every parameter."""
    network, theirs = _Network(case), case.tensors
    layout, coupled = _train(network, theirs, "timestep_action", "noisy_actions", chunks=4)
    checks = _output("out", coupled, theirs)
    if "attention_mask" in theirs:
        mask = visible(layout, layout, network.config.memory)[0]
        checks.append(exact("attention_mask", mask, theirs["attention_mask"].bool()))
    assert coupled.video is not None and coupled.action is not None
    loss = coupled.video.square().sum() + coupled.action.square().sum()
    checks.append(relative("out.loss", loss, theirs["out.loss"], OUTPUT))
    loss.backward()  # type: ignore[no-untyped-call]
    checks += _gradients(network.transformer, case)
    _, decoupled = _train(network, theirs, "timestep_action_decoupled", "noisy_actions_decoupled", chunks=4)
    _, short = _train(network, theirs, "timestep_action", "noisy_actions", chunks=2)
    return [*checks, *_output("out_decoupled", decoupled, theirs), *_output("out_2blocks", short, theirs)]


def released_window(config: TransformerConfig, grid: tuple[int, int], chunks: int, *, seen: bool = False) -> Layout:
    """The released training window: clean and noisy copies of every frame, the anchor among the noisy ones too.

    seen: without the last clean chunk, which nobody looks at; the gradients are the same.
    """
    frames, numbers = 1 + chunks * config.frames_per_chunk, list(range(chunks))
    first, steps = 1 + frames, chunks * config.actions_per_chunk
    return concatenate(
        [
            video_layout(
                Kind.CLEAN, [ANCHOR, *(numbers[:-1] if seen else numbers)], config.frames_per_chunk, *grid, slot=0
            ),
            video_layout(Kind.NOISY, [ANCHOR, *numbers], config.frames_per_chunk, *grid, slot=1),
            step_layout(Kind.ACTION, numbers, config.actions_per_chunk, [first + i for i in range(steps)]),
            step_layout(Kind.STATE, numbers, 1, [first + i * config.actions_per_chunk for i in numbers]),
        ]
    )


def _train(
    network: _Network, theirs: Mapping[str, Tensor], timestep: str, actions: str, chunks: int
) -> tuple[Layout, Velocity]:
    """A released training window of this many chunks."""
    c, batch = network.config, network.latents.shape[0]
    frames, steps = 1 + chunks * c.frames_per_chunk, chunks * c.actions_per_chunk
    layout = released_window(c, network.grid, chunks)
    levels = torch.cat([theirs["timestep"][:, :frames], theirs[timestep][:, :steps]], dim=1) / 1000
    noisy = network.beside(theirs["noisy_latents"][:, :, :frames], 0)
    inputs = Pass(
        layout=layout,
        sigma=torch.cat([torch.zeros(batch, 1), levels], dim=1),
        embodiment=torch.zeros(batch, dtype=torch.long),
        video=torch.cat([network.beside(network.latents[:, :, :frames], 0), noisy], dim=2),
        action=theirs[actions][:, :steps],
        state=theirs["state"][:, :chunks],
    )
    return layout, network.transformer(inputs, network.context(batch))


def _gradients(transformer: Transformer, case: GoldenCase) -> list[Check]:
    """The worst parameter: norms relative to themselves, sums relative to the sum of absolute values."""
    theirs = case.tensors
    ours = dict(transformer.named_parameters())
    gradients = [ours[next(iter(from_wan({name: torch.empty(0)})))].grad for name in case.facts["grad_names"]]
    norms = torch.stack([g.double().norm() for g in gradients if g is not None])
    sums = torch.stack([g.double().sum() for g in gradients if g is not None])
    if norms.shape != theirs["grad_norm"].shape:
        return [exact("grad_norm", len(norms), len(theirs["grad_norm"]))]
    norm_error = ((norms - theirs["grad_norm"]).abs() / theirs["grad_norm"]).max()
    sum_error = ((sums - theirs["grad_sum"]).abs() / theirs["grad_abs_sum"]).max()
    return [
        Check("grad_norm (worst parameter)", "relative", float(norm_error), GRADIENT),
        Check("grad_sum (worst parameter)", "relative", float(sum_error), GRADIENT),
    ]


# ---------------------------------------------------------------- cached inference


@torch.no_grad()
def check_inference(case: GoldenCase) -> list[Check]:
    """Anchor, then chunk after chunk: denoise once, remember the real frames."""
    network, theirs = _Network(case), case.tensors
    config, grid, frames = network.config, network.grid, network.config.frames_per_chunk
    cache, context = KVCache(config, 1, grid[0] * grid[1]), network.context(1)

    def remember(chunk: int, label: str) -> list[Check]:
        start, count = (0, 1) if chunk == ANCHOR else (1 + chunk * frames, frames)
        video = network.beside(network.latents[:1, :, start : start + count], start)
        inputs = clean_pass(video, chunk, config, grid)
        answer = _clean_answer(network.transformer, inputs, context, cache)
        cache.commit(chunk)
        expected = theirs[f"out.{label}.video"]
        checks = [relative(f"out.{label}.video", answer, expected, OUTPUT)]
        checks.append(absolute(f"out.{label}.video", answer, expected, OUTPUT_ABSOLUTE))
        return checks + _cache_checks(cache, theirs, f"after_{label}")

    checks = remember(ANCHOR, "prefill")
    for chunk in range(3):
        name = f"denoise{chunk}"
        sigmas = (theirs[f"{name}.timestep"][0] / 1000, theirs[f"{name}.timestep_action"][0] / 1000)
        video = network.beside(theirs[f"{name}.x"], 1 + chunk * frames)
        action, state = theirs[f"{name}.noisy_action"], theirs[f"{name}.state"]
        inputs = chunk_pass(video, action, state, sigmas, chunk, config, grid)
        checks += _output(f"out.{name}", network.transformer(inputs, context, cache, state_reads=True), theirs)
        if chunk < 2:
            checks += remember(chunk, f"refresh{chunk}")
    return checks


def _clean_answer(transformer: Transformer, inputs: Pass, context: Context, cache: KVCache) -> Tensor:
    """What the head would say about clean frames: nobody needs it, but it shows that the last block is right too."""
    given: list[tuple[Any, ...]] = []
    hook = transformer.blocks[-1].register_forward_pre_hook(lambda _module, arguments: given.append(arguments))
    transformer(inputs, context, cache)
    hook.remove()
    x, levels, slot, rotation, _, text, image, extend, _ = given[0]
    mask = transformer.geometry(inputs.layout, cache).mask
    answer = transformer.blocks[-1](x, levels, slot, rotation, mask, text, image, extend)
    assert inputs.video is not None
    level = transformer.time_embedding(video_sinusoid(1000 * inputs.sigma, transformer.config.time_dim))
    patches = transformer.head(answer, level, inputs.layout.sigma_slot)
    return unpatchify(patches, transformer.config.patch, *inputs.video.shape[-2:])


def _cached(cache: KVCache) -> tuple[Tensor, Tensor]:
    """Keys and values of what is remembered, each (layers, 1, heads, tokens, head_dim)."""
    held = cache.chunk[0] != EMPTY
    return cache.keys[:, :, :, : cache.kept][..., held, :], cache.values[:, :, :, : cache.kept][..., held, :]


def _cache_checks(cache: KVCache, theirs: Mapping[str, Tensor], when: str) -> list[Check]:
    pair = torch.stack(_cached(cache), dim=1).double()  # (layers, 2, 1, heads, tokens, head_dim)
    flat = pair.flatten(2)
    tokens = torch.full((pair.shape[0],), pair.shape[-2])
    checks = [
        exact(f"out.kv_tokens.{when}", tokens, theirs[f"out.kv_tokens.{when}"]),
        relative(f"out.kv_norm.{when}", flat.norm(dim=-1), theirs[f"out.kv_norm.{when}"], CACHE),
        relative(f"out.kv_sum.{when}", flat.sum(dim=-1), theirs[f"out.kv_sum.{when}"], CACHE),
    ]
    whole = f"out.kv.{when}"
    if whole in theirs:
        checks.append(relative(whole, pair.transpose(3, 4), theirs[whole], CACHE))
    return checks


# ---------------------------------------------------------------- the closed loop


@torch.no_grad()
def check_loop(case: GoldenCase) -> list[Check]:
    """Every variant of the released sampler over consecutive chunks. Raises ValueError for an unknown variant."""
    network, checks = _Network(case), []
    for variant, chunks in case.facts["variants"].items():
        if variant not in VARIANTS:
            raise ValueError(f"{case.name}: variant {variant!r} is unknown; expected one of {sorted(VARIANTS)}")
        checks += _run_variant(network, case.tensors, variant, chunks)
    return checks


def _run_variant(
    network: _Network, theirs: Mapping[str, Tensor], variant: str, chunks: list[dict[str, Any]]
) -> list[Check]:
    prompts = [network.context(1), network.context(1, "context_negative_valid")]
    first_frame = None if network.first_frame is None else network.first_frame[:1]
    loop = ReleasedLoop(network.transformer, prompts, network.grid, VARIANTS[variant], first_frame)
    frames, checks = network.config.frames_per_chunk, []
    for chunk, expected in enumerate(chunks):
        end = 1 + chunk * frames
        real = network.latents[:1, :, max(0, end - frames) : end]  # the anchor alone before the first chunk
        loop.remember(real, chunk - 1)
        done = loop.denoise(theirs["noise_video"][chunk], theirs["noise_action"][chunk], theirs["state"][chunk], chunk)
        video = torch.cat([real, done.video], dim=2) if chunk == 0 else done.video
        name = f"{variant}.chunk{chunk}"
        norms = torch.stack(_cached(loop.cache.rows(slice(0, 1))), dim=1).double().flatten(2)
        checks += [
            exact(f"{name}.steps_run", list(done.steps_run), expected["steps_run"]),
            relative(f"{name}.video", video, theirs[f"{name}.video"], LOOP),
            absolute(f"{name}.video", video, theirs[f"{name}.video"], LOOP_ABSOLUTE),
            relative(f"{name}.action", done.action, theirs[f"{name}.action"], LOOP),
            relative(f"{name}.kv_norm", norms.norm(dim=-1), theirs[f"{name}.kv_norm"], CACHE),
        ]
    return checks
