"""Which arithmetic to compute in: bfloat16 where the hardware multiplies it, float32 where it would be imitated."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "bf16", "float32"]
"""Weights that learn stay float32; `bf16` computes under autocast, `auto` does so where that is faster."""

CPU_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # Intel and AMD; ARM


def native_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 if this device has instructions for it, else float32: imitated, it is five times slower than float32."""
    if torch.device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = torch.cpu.get_capabilities()
        native = any(found.get(name, False) for name in CPU_INSTRUCTIONS)
    return torch.bfloat16 if native else torch.float32


def compute_dtype(precision: Precision, device: torch.device | str) -> torch.dtype:
    """What `precision` means on this device."""
    if precision == "auto":
        return native_dtype(device)
    return torch.bfloat16 if precision == "bf16" else torch.float32


def arithmetic(dtype: torch.dtype, device: torch.device | str) -> torch.autocast:
    """Autocast to this type; for float32, none, whatever the caller has switched on."""
    low = dtype is not torch.float32
    return torch.autocast(torch.device(device).type, dtype if low else None, enabled=low)
