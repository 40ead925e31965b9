"""Two real processes give what one gives with batches twice as large: weights, averages, moments, the saved model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.train.initial import further, without_text, write_base
from tests.train.processes import (
    in_turn,
    note_batches,
    tiny_run,
    together,
    train,
    train_until,
    write_material,
)

from wam.flow.noise import NoiseConfig
from wam.train.chance import generators, reseed
from wam.train.config import AdaptConfig, OptimizerConfig, TrainConfig, WindowConfig
from wam.train.state import AVERAGED, MOMENTS, WEIGHTS
from wam.train.trackers import LOG
from wam.train.trainer import CHECKPOINTS, MODEL
from wam.world_action_model import WorldActionModel

STEPS = 4
TWICE = 2  # micro-batches


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("parallel"))


def run_of(root: Path, name: str, **changes: object) -> TrainConfig:
    """Gaps, video without actions, given actions, dropped sentences, clipping and averaging are all at work."""
    settings = {
        "steps": STEPS,
        "log_every": 1,
        "windows": WindowConfig(validation_share=0.3, gap_probability=0.5, labelled_share=0.6),
        "noise": NoiseConfig(prefix_share=0.3),
        "optimizer": OptimizerConfig(warmup_steps=2, clip_norm=0.1, ema=0.9),
        "text_dropout": 0.3,
    }
    return tiny_run(root, root / name, **{**settings, **changes})


def accumulating(run: TrainConfig, batch: int) -> TrainConfig:
    return replace(run, batch=batch, optimizer=replace(run.optimizer, accumulate=TWICE))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trained model to start from."""
    with pytest.MonkeyPatch.context() as patch:
        without_text(patch)
        yield write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def one(root: Path) -> Path:
    """The reference: one process, eight windows at once; and the same in two micro-batches."""
    whole = run_of(root, "one", batch=8)
    together(
        1,
        in_turn,
        (train, whole),
        (train, accumulating(run_of(root, "accumulated"), 4)),
        (note_batches, whole, root),
    )
    return root / "one"


@pytest.fixture(scope="module")
def two(root: Path) -> Path:
    """Two processes with four windows each: whole copies, then a shard each; they also note what they are given."""
    together(
        2,
        in_turn,
        (train, run_of(root, "ddp")),
        (train, run_of(root, "fsdp2", parallel="fsdp2")),
        (note_batches, run_of(root, "noted"), root),
    )
    return root / "ddp"


@pytest.fixture(scope="module")
def sharded(root: Path, two: Path) -> Path:
    """Shards in micro-batches with activations computed again, interrupted, and moved to one process."""
    run = run_of(root, "parts", parallel="fsdp2")
    spare, moved = replace(run, out=root / "spare", activation_checkpointing=True), replace(run, out=root / "moved")
    together(
        2,
        in_turn,
        (train, accumulating(spare, 2)),
        (train_until, run, 2),
        (train, run),
        (train_until, moved, 2),
    )
    together(1, train, replace(moved, batch=8, parallel="ddp"))
    return two.with_name("fsdp2")


def learned(run: Path, file: str) -> dict[str, torch.Tensor]:
    return load_file(run / CHECKPOINTS / f"step-{STEPS:08d}" / f"{file}.safetensors")


def assert_same_run(run: Path, reference: Path) -> None:
    """Everything that a run leaves, to the rounding of float32."""
    for file in (WEIGHTS, AVERAGED, MOMENTS):
        expected, found = learned(reference, file), learned(run, file)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(
                found[name], expected[name], rtol=1e-4, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}"
            )
    expected, found = (WorldActionModel.from_pretrained(path / MODEL).state_dict() for path in (reference, run))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=2e-6)
    rows = [steps_of(path) for path in (reference, run)]
    for name in ("video", "action", "gradient_norm", "lr"):
        np.testing.assert_allclose(*([row[name] for row in part] for part in rows), rtol=1e-4)


def steps_of(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return [row for row in rows if "lr" in row]


def test_the_reference_learns_and_is_clipped(one: Path) -> None:
    """Otherwise equality would say little."""
    assert all(row["gradient_norm"] > 0.2 for row in steps_of(one))
    first, last = learned(one, WEIGHTS), learned(one, AVERAGED)
    assert any((first[name] - last[name]).abs().max() > 1e-5 for name in first)


def test_micro_batches_equal_one_batch(one: Path) -> None:
    assert_same_run(one.with_name("accumulated"), one)


def test_two_processes_equal_one_with_twice_the_batch(two: Path, one: Path) -> None:
    assert_same_run(two, one)


def test_processes_get_other_windows_and_other_noise_and_together_those_of_one(
    root: Path, one: Path, two: Path
) -> None:
    alone = json.loads((root / "rank-0-of-1.json").read_text())
    first, second = (json.loads((root / f"rank-{rank}-of-2.json").read_text()) for rank in (0, 1))
    for whole, left, right in zip(alone, first, second, strict=True):
        for column in (slice(0, 2), slice(3, None)):  # episode and row; noise
            drawn = [{tuple(window[column]) for window in part} for part in (left, right)]
            assert len(drawn[0]) == len(drawn[1]) == 4 and not drawn[0] & drawn[1]
        assert sorted(left + right) == sorted(whole)
    assert any(window[2] for part in alone for window in part), "no window has a gap"


def test_shards_equal_one_process_with_twice_the_batch(two: Path, one: Path) -> None:
    assert_same_run(two.with_name("fsdp2"), one)


@pytest.mark.slow
def test_shards_with_micro_batches_and_activations_computed_again(sharded: Path, one: Path) -> None:
    assert_same_run(sharded.with_name("spare"), one)


@pytest.mark.slow
def test_an_interrupted_sharded_run_continues_bit_for_bit(sharded: Path) -> None:
    """One process was asked to stop, and both did."""
    for file in (WEIGHTS, AVERAGED, MOMENTS):
        expected, found = learned(sharded, file), learned(sharded.with_name("parts"), file)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [row["step"] for row in steps_of(sharded.with_name("parts"))] == [1, 2, 3, 4]


@pytest.mark.slow
def test_one_process_continues_what_two_began(sharded: Path, one: Path) -> None:
    assert_same_run(sharded.with_name("moved"), one)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_whatever_learns_the_processes_agree(base: Path, parallel: str) -> None:
    """Adapters, heads with the codec of one robot, and the control, whose video head is never asked."""
    parts = {"lora": {"adapt": AdaptConfig("lora")}, "heads": {"adapt": AdaptConfig("heads")}, "bc": {"dream": False}}
    options = {"steps": STEPS, "log_every": 1, "optimizer": OptimizerConfig(warmup_steps=2, ema=0.9)}
    alone = {
        name: further(base, base / f"{name}-{parallel}-1", batch=8, **options, **own) for name, own in parts.items()
    }
    shared = {
        name: replace(run, out=base / f"{name}-{parallel}-2", batch=4, parallel=parallel) for name, run in alone.items()
    }
    together(1, in_turn, *((train, run) for run in alone.values()))
    together(2, in_turn, *((train, run) for run in shared.values()))
    for name in parts:
        for file in (WEIGHTS, AVERAGED, MOMENTS):
            expected, found = learned(alone[name].out, file), learned(shared[name].out, file)
            assert found.keys() == expected.keys()
            for weight in expected:
                torch.testing.assert_close(found[weight], expected[weight], rtol=1e-4, atol=2e-6)


@pytest.mark.slow
def test_shards_compute_in_bfloat16(root: Path) -> None:
    """Weights are gathered in bfloat16, gradients added up in float32: the losses are those of autocast, nearly."""
    copies = run_of(root, "bf16-ddp", precision="bf16")
    shards = replace(copies, out=root / "bf16-fsdp2", parallel="fsdp2")
    together(2, in_turn, (train, copies), (train, shards))
    assert all(tensor.dtype == torch.float32 for tensor in learned(shards.out, WEIGHTS).values())
    losses = [[[row[name] for row in steps_of(run.out)] for name in ("video", "action")] for run in (copies, shards)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)


def test_a_windows_noise_follows_from_seed_step_and_place() -> None:
    def first(generator: torch.Generator) -> float:
        return torch.rand((), generator=generator).item()

    drawn = {
        (seed, step, place): first(generator)
        for seed in range(3)
        for step in range(20)
        for place, generator in enumerate(generators(seed, step, 16))
    }
    assert len(set(drawn.values())) > 0.999 * len(drawn)
    shared = [first(generator) for rank in range(4) for generator in generators(1, 7, 4, rank, world=4)]
    assert sorted(shared) == sorted(drawn[1, 7, place] for place in range(16))


def test_dropout_differs_between_steps_and_processes_and_repeats() -> None:
    def dropped(step: int, rank: int) -> tuple[float, ...]:
        reseed(5, step, rank)
        return tuple(torch.nn.functional.dropout(torch.ones(64)).tolist())

    drawn = {(step, rank): dropped(step, rank) for step in range(3) for rank in range(3)}
    assert len(set(drawn.values())) == 9
    assert drawn[2, 1] == dropped(2, 1)
