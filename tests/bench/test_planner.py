"""The plan: what fits, in which order options are turned on, and what bounds the time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from wam.bench.flops import Flops
from wam.bench.hardware import GIB, Gpu, gpu
from wam.bench.planner import Stage, plan, total_flops, turned_on
from wam.bench.subject import Subject, subject
from wam.bench.training import plan_training
from wam.engine.load import load_policy, resolve
from wam.model.attention import ANCHOR
from wam.model.passes import chunk_pass, clean_pass, window_layout
from wam.world_action_model import WorldActionModel


@pytest.fixture(scope="module")
def droid() -> Subject:
    return subject("dreamzero-droid")


@pytest.fixture(scope="module")
def nano() -> Subject:
    return subject("nano-metaworld")


# ---------------------------------------------------------------- a model that is here: every number against it


def test_nano_parameters_and_bytes(nano: Subject) -> None:
    engine, made = load_policy("nano-metaworld").engine, plan(nano)
    model = engine.model
    assert made.parameters["transformer"] == sum(p.numel() for p in model.parameters())
    assert made.parameters["VAE"] == sum(p.numel() for p in engine.tokenizer.parameters())
    assert (nano.grid, nano.canvas, nano.text.tokens) == (model.config.grid, (64, 128), engine.text_encoder.text_len)
    assert made.weights["float32"] == sum(p.nbytes for p in model.parameters())
    memory = made.rungs[0].memory
    cache = model.new_cache()
    assert memory["KV cache"] == cache.keys.nbytes + cache.values.nbytes
    context = model.context(torch.zeros(1, nano.text.tokens, nano.config.text_dim))
    assert memory["prompt keys"] == sum(k.nbytes + v.nbytes for k, v in context.text)
    assert made.rungs[0].total == sum(memory.values()) and memory["reserve"] == GIB


def test_nano_arithmetic(nano: Subject) -> None:
    """Remember, and one denoising step, on the shipped weights; attention apart, which torch does not count here."""
    model, c = WorldActionModel.from_pretrained(resolve("nano-metaworld")), nano.config
    stages = {stage.name: stage for stage in plan(nano).chunk}
    cache, context = model.new_cache(), model.context(torch.zeros(1, nano.text.tokens, c.text_dim))
    z, height, width = model.config.latent
    video = torch.zeros(1, c.in_channels, c.frames_per_chunk, height, width)
    action, state = torch.zeros(1, c.actions_per_chunk, c.action_dim), torch.zeros(1, 1, c.state_dim)
    passes = {
        "remember": clean_pass(video, 0, c, nano.grid),
        "denoise": chunk_pass(video, action, state, (torch.tensor(0.5),) * 2, 1, c, nano.grid),
    }
    for name, inputs in passes.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.transformer(inputs, context, cache)
        assert counter.get_total_flops() in (stages[name].flops.linear, stages[name].flops.total)
    assert (stages["remember"].passes, stages["denoise"].passes) == (1, 1)
    assert nano.clean(1).length == len(clean_pass(video[:, :, :1], ANCHOR, c, nano.grid).layout)


def test_nano_window(nano: Subject) -> None:
    model = WorldActionModel.from_pretrained(resolve("nano-metaworld"))
    assert nano.config.memory is not None
    assert nano.window(1).length == len(window_layout(nano.config, nano.grid, nano.config.memory))
    made = plan_training(nano, batch=4, rank=2)
    assert made.rungs[0].trained == sum(p.numel() for p in model.parameters())
    assert made.rungs[0].memory["gradients"] == 4 * made.rungs[0].trained
    assert made.rungs[0].memory["optimiser"] == 8 * made.rungs[0].trained
    one = plan_training(nano, batch=1, rank=2)
    assert made.rungs[1].memory["activations"] > 3.9 * one.rungs[1].memory["activations"]


# ---------------------------------------------------------------- published sizes


def test_published_components(droid: Subject) -> None:
    """The sum that the released checkpoint has: 22.92 B numbers, 42.70 GiB in bf16."""
    made = plan(droid)
    assert sum(made.parameters.values()) == 22_924_172_115
    total = made.weights["bf16"] + 2 * sum(v for k, v in made.parameters.items() if k != "transformer")
    assert total / GIB == pytest.approx(42.70, abs=0.01)
    # a token's keys and values: 40 layers x 5120 x 2, bf16, for each of the two branches
    places = 880 + 4 * 1760 + 1785
    assert made.rungs[0].memory["KV cache"] == 2 * places * 2 * 40 * 5120 * 2


def test_guidance_doubles_passes_and_memory(droid: Subject) -> None:
    both, one = plan(droid), plan(subject("dreamzero-droid", guided=False))
    for double, single in zip(both.chunk[1:], one.chunk[1:], strict=True):
        assert double.passes == 2 * single.passes and double.flops == single.flops
    for name in ("KV cache", "prompt keys"):
        assert both.rungs[0].memory[name] == 2 * one.rungs[0].memory[name]
    assert plan(subject("dreamzero-droid", steps=16)).chunk[2].passes == 2 * both.chunk[2].passes


def test_total(droid: Subject) -> None:
    encode, remember, denoise = plan(droid).chunk
    expected = encode.flops.total + 2 * remember.flops.total + 16 * denoise.flops.total
    assert total_flops([encode, remember, denoise]).total == expected
    # 2 FLOP per weight and token, for the weights that tokens pass (not the prompt's keys), and attention
    weights = 40 * (6 * 5120**2 + 2 * 5120 * 13824)
    assert denoise.flops.linear == pytest.approx(2 * 1785 * weights, rel=0.01)


# ---------------------------------------------------------------- what fits


def test_options_are_turned_on_in_order(droid: Subject) -> None:
    """The smaller the memory, the further down; never a larger one that fits is passed over."""
    chosen = []
    for size in (80, 60, 40, 30, 25, 16, 12):
        made = plan(droid, budget=size * GIB, gpu=gpu("rtx-4090"))
        fits = [rung.fits for rung in made.rungs]
        assert fits == [rung.total <= size * GIB for rung in made.rungs]
        chosen.append(fits.index(True) if made.chosen else len(fits))
        assert made.chosen is (made.rungs[chosen[-1]] if made.chosen else None)
    assert chosen == sorted(chosen) and chosen[0] == 0 and len(set(chosen)) >= 5


def test_every_option_but_the_last_saves_memory_at_the_fullest_moment(droid: Subject) -> None:
    totals = [rung.total for rung in plan(droid).rungs]
    assert all(later <= sooner for sooner, later in zip(totals[:-1], totals[1:-1], strict=False))
    assert totals[-1] > totals[-2]  # bf16 blocks are larger than 4-bit ones: exact numbers cost memory and time


def test_what_to_turn_on(droid: Subject) -> None:
    def advice(size: int) -> list[str]:
        chosen = plan(droid, budget=size * GIB).chosen
        assert chosen is not None
        return turned_on(chosen.placement, "bf16")

    assert advice(80) == [] and advice(50) == ["encoders on the CPU"]
    off = ["encoders on the CPU", "VAE on the GPU only to encode"]
    assert advice(36) == [*off, "fp8 weights"] and advice(30) == [*off, "int4 weights"]
    assert advice(24) == [*off, "int4 weights", "blocks offloaded"]


def test_small_weights_are_widened_to_be_multiplied(droid: Subject) -> None:
    """One matrix at a time; it counts where the network, and not the VAE, is what fills the memory."""
    small_vae = replace(droid, vae=replace(droid.vae, working=0, state=0))
    _, _, plain, fp8, int4, *_ = plan(small_vae).rungs
    matrix = 2 * 5120 * 13824
    assert fp8.memory["activations"] == int4.memory["activations"] == plain.memory["activations"] + matrix


def test_block_offload_holds_two_blocks_and_moves_all(droid: Subject) -> None:
    made = plan(droid, budget=24 * GIB, gpu=gpu("rtx-4090"), weights="bf16")
    offloaded = made.rungs[-1]
    assert offloaded.placement.offload and made.chosen is offloaded
    block = (made.weights["bf16"] - made.rungs[-1].memory["transformer"]) // 38
    assert made.rungs[0].memory["transformer"] - offloaded.memory["transformer"] == 38 * block
    assert [stage.moved for stage in made.chunk[1:]] == [40 * block] * 2
    assert made.times["denoise"].bound == "host link"
    assert made.times["denoise"].seconds == pytest.approx(16 * 40 * block / 31.5e9)


def test_formats_follow_the_gpu(droid: Subject) -> None:
    def tried(name: str) -> list[str]:
        return [rung.placement.weights for rung in plan(droid, gpu=gpu(name)).rungs[3:5]]

    assert (tried("rtx-3090"), tried("rtx-4090"), tried("b200")) == (
        ["int8", "int4"],
        ["fp8", "int4"],
        ["fp8", "nvfp4"],
    )
    assert {rung.placement.weights for rung in plan(droid, weights="int8").rungs} == {"int8"}


def test_without_a_memory_nothing_is_judged(droid: Subject) -> None:
    made = plan(droid)
    assert made.chosen is None and {rung.fits for rung in made.rungs} == {None} and made.times == {}
    assert plan(droid, budget=2 * GIB).chosen is None
    assert plan(droid, budget=80 * GIB, reserve=30 * GIB).rungs[0].fits is False


# ---------------------------------------------------------------- roofline


TOY = Gpu("toy", 10 * GIB, bandwidth=10.0, bf16=100.0, fp8=200.0, fp4=None, host=1.0, source="made up")


def test_a_stage_takes_as_long_as_its_slowest_part() -> None:
    stage = Stage("s", 3, Flops(100, 50), weights=10, cache=4, moved=1)
    assert (stage.time(TOY).seconds, stage.time(TOY).bound) == (3 * 1.5, "compute")
    assert stage.time(TOY, "fp8").seconds == pytest.approx(3 * 1.4) and stage.time(TOY, "fp8").bound == "bandwidth"
    assert replace(stage, moved=2).time(TOY).bound == "host link"


def test_a_bound_is_below_what_was_measured(droid: Subject) -> None:
    """One H100, eager, the released 8 of 16 steps: 3.77 s for a first chunk (reported by another project)."""
    made = plan(droid, gpu=gpu("h100"))
    seconds = sum(made.times[stage.name].seconds for stage in made.chunk)
    assert 0.5 < seconds < 3.77 and made.by_arithmetic["bf16"] == pytest.approx(seconds)
    assert made.by_arithmetic["fp8"] < seconds
    once = sum(made.times[stage.name].seconds for stage in made.episode)
    assert seconds + once < 3.77
    assert {made.times[stage.name].bound for stage in made.chunk} == {"compute"}


def test_an_unusual_host_link_gives_no_time(droid: Subject) -> None:
    rungs = plan(droid, gpu=gpu("gb200")).rungs
    assert [rung.seconds is None for rung in rungs] == [False, False, True, True, True, True, True]
    tight = plan(droid, gpu=gpu("gb200"), budget=22 * GIB)
    assert tight.chosen is not None and tight.by_arithmetic == {} and "denoise" not in tight.times


# ---------------------------------------------------------------- training


def test_training_options(droid: Subject) -> None:
    made = plan_training(droid, gpu=gpu("h100"), rank=4)
    everything, lora = made.rungs[0], made.rungs[4]
    assert everything.trained == 16_484_292_448 and lora.trained == 19_169_280 + 89_413_664
    assert everything.memory["weights"] + everything.memory["optimiser"] == 12 * everything.trained
    totals = [rung.total for rung in made.rungs]
    assert totals[0] > totals[1] > totals[2] > totals[4] > totals[5] > totals[6] and totals[3] > totals[4]
    assert made.chosen is lora
    assert made.rungs[2].flops.total > made.rungs[1].flops.total > lora.flops.linear > 0
    assert lora.seconds is not None and math.isclose(lora.seconds, lora.flops.total / 989e12)
    # the released layout has 15,940 tokens; ours leaves out the noisy anchor and the last clean chunk
    assert made.tokens == 15_940 - 880 - 1760


def test_training_options_are_checked(nano: Subject) -> None:
    for options in ({"batch": 0}, {"rank": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            plan_training(nano, **options)
