"""Quantised weights: how far the answer moves, how many bytes are left, and what each format asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from tests.tiny_transformer import CONFIG as TINY
from tests.tiny_transformer import answer, tiny_transformer
from torch import nn

from wam.engine.placement import tensor_bytes
from wam.engine.quantize import BITS, Weights, quantizable, quantize
from wam.model.transformer import Transformer

CONFIG = replace(TINY, dim=256, ffn_dim=512, layers=2)
TOLERANCE: dict[Weights, float] = {  # relative error of the velocities; twice what was measured
    "float32": 0.0,
    "bf16": 0.01,
    "int8": 0.013,
    "int8-dynamic": 0.013,
    "int4": 0.24,
    "fp8": 0.06,
    "nvfp4": 0.22,
}


def transformer(dtype: torch.dtype = torch.float32) -> Transformer:
    return tiny_transformer(CONFIG, dtype=dtype)


def block_bytes(network: Transformer) -> int:
    """Of the weights (not biases) that formats apply to."""
    linear = [module for module in network.blocks.modules() if isinstance(module, nn.Linear)]
    return sum(tensor_bytes(module.weight) for module in linear)


@pytest.mark.parametrize("weights", TOLERANCE)
def test_the_answer_stays_within_tolerance(weights: Weights) -> None:
    expected, found = answer(transformer()), answer(quantize(transformer(), weights))
    error = float((found - expected).norm() / expected.norm())
    assert error <= TOLERANCE[weights]
    assert weights == "float32" or error > TOLERANCE[weights] / 6  # and something was rounded


@pytest.mark.parametrize("weights", TOLERANCE)
def test_bytes_are_what_the_bits_promise(weights: Weights) -> None:
    network = quantize(transformer(torch.bfloat16), weights)
    count = sum(module.in_features * module.out_features for module in quantizable(transformer()).values())
    assert block_bytes(network) == pytest.approx(count * BITS[weights] / 8, rel=0.03)


def test_only_linear_layers_of_the_blocks_change() -> None:
    before, after = transformer(), quantize(transformer(), "int8")
    targets = set(quantizable(before))
    assert {name.split(".", 2)[-1] for name in targets} == {
        *(f"self_attn.{x}" for x in "qkvo"),
        *(f"cross_attn.{x}" for x in ("q", "k", "v", "o", "k_img", "v_img")),
        "ffn.0",
        "ffn.2",
    }
    for name, parameter in before.named_parameters():
        changed = type(after.get_parameter(name)) is not nn.Parameter
        assert changed == (name.removesuffix(".weight") in targets and name.endswith(".weight")), name
        assert changed or torch.equal(parameter, after.get_parameter(name))


def test_every_format_is_measured_or_refused_for_lack_of_a_gpu() -> None:
    assert set(BITS) == set(get_args(Weights))
    for weights, capability in (("fp8-dynamic", "8.9"), ("nvfp4-dynamic", "10.0")):
        assert weights not in TOLERANCE
        network = transformer(torch.bfloat16)
        with pytest.raises(ValueError, match=rf"{weights}' needs a CUDA device of compute capability {capability}"):
            quantize(network, weights)
        assert len(quantizable(network)) == 24  # untouched
    assert set(TOLERANCE) | {"fp8-dynamic", "nvfp4-dynamic"} == set(BITS)


def test_contradictions_are_named() -> None:
    with pytest.raises(ValueError, match="weights='int2': expected one of float32, bf16"):
        quantize(transformer(), "int2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is quantised already"):
        quantize(quantize(transformer(), "int8"), "int8")
    narrow = Transformer(TINY)
    with pytest.raises(ValueError, match=r"multiples of 32, but blocks.0.self_attn.q is 48 x 48; use 'int8'"):
        quantize(narrow, "int4")
    adapted = transformer()
    adapted.blocks[1].ffn[0].lora_A = nn.ModuleDict()
    with pytest.raises(ValueError, match=r"blocks.1.ffn.0 carries an adapter; merge it first"):
        quantize(adapted, "int8")
