"""bfloat16 is chosen where the hardware has it, and never slips in from outside."""

from __future__ import annotations

import pytest
import torch

from wam.model import precision
from wam.model.precision import arithmetic, compute_dtype, native_dtype


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
        ({}, torch.float32),
    ],
)
def test_auto_follows_the_instructions_of_the_cpu(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision.torch.cpu, "get_capabilities", lambda: capabilities)
    assert native_dtype("cpu") == compute_dtype("auto", "cpu") == dtype
    assert compute_dtype("bf16", "cpu") == torch.bfloat16
    assert compute_dtype("float32", "cpu") == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_does_not_depend_on_the_callers(dtype: torch.dtype) -> None:
    matrix = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16), arithmetic(dtype, "cpu"):
        assert (matrix @ matrix).dtype == dtype
