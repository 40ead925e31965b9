"""GPUs as their data sheets describe them, to bound what they can do. Peaks are dense: no structured sparsity counted.

Every figure is the vendor's, divided by two where only the sparse peak is printed, and by the number of GPUs where a
whole board or rack is described. GPUs whose dense peaks the vendor does not print are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Arithmetic = Literal["bf16", "fp8", "fp4"]
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    memory: bytes, the size it is sold under (memory chips come in powers of two: "24 GB" are 24 x 2^30 bytes).
    bandwidth: bytes/s of its own memory.  host: bytes/s from host memory, one direction; None: an unusual link.
    bf16, fp8, fp4: FLOP/s of dense matrix products that accumulate in float32; None without such units.
    """

    name: str
    memory: int
    bandwidth: float
    bf16: float
    fp8: float | None
    fp4: float | None
    host: float | None
    source: str

    def peaks(self) -> dict[Arithmetic, float]:
        """FLOP/s by the arithmetic that this GPU has, slowest first."""
        found: dict[Arithmetic, float | None] = {"bf16": self.bf16, "fp8": self.fp8, "fp4": self.fp4}
        return {name: peak for name, peak in found.items() if peak is not None}


PCIE4, PCIE5 = 31.5e9, 63.0e9  # 16 lanes, one direction: 16 and 32 GT/s per lane, 128 of 130 bits used

_GA102 = "NVIDIA Ampere GA102 GPU architecture white paper, appendix A"
_AD102 = "NVIDIA Ada GPU architecture white paper, appendix A"
_GB202 = "NVIDIA RTX Blackwell GPU architecture white paper, appendix A"
_A100 = "NVIDIA A100 Tensor Core GPU data sheet"
_L40S = "NVIDIA L40S data sheet"
_H100 = "NVIDIA H100 Tensor Core GPU data sheet"
_H200 = "NVIDIA H200 Tensor Core GPU data sheet"
_B200 = "NVIDIA DGX B200 data sheet (8 GPUs) and Blackwell architecture technical brief"
_GB200 = "NVIDIA GB200 NVL72 data sheet (72 GPUs) and Blackwell architecture technical brief"

GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("rtx-3090", 24 * GIB, 936e9, 71e12, None, None, PCIE4, _GA102),
        Gpu("rtx-4090", 24 * GIB, 1008e9, 165.2e12, 330.3e12, None, PCIE4, _AD102),
        Gpu("rtx-5090", 32 * GIB, 1792e9, 209.5e12, 419e12, 1676e12, PCIE5, _GB202),
        Gpu("a100-40gb", 40 * GIB, 1555e9, 312e12, None, None, PCIE4, _A100),
        Gpu("a100-80gb", 80 * GIB, 2039e9, 312e12, None, None, PCIE4, _A100),
        Gpu("l40s", 48 * GIB, 864e9, 362e12, 733e12, None, PCIE4, _L40S),
        Gpu("h100", 80 * GIB, 3350e9, 989e12, 1979e12, None, PCIE5, f"{_H100}, SXM"),
        Gpu("h200", 141 * GIB, 4800e9, 989e12, 1979e12, None, PCIE5, f"{_H200}, SXM"),
        Gpu("b200", 180 * GIB, 8000e9, 2250e12, 4500e12, 9000e12, PCIE5, _B200),
        Gpu("gb200", 186 * GIB, 8000e9, 2500e12, 5000e12, 10000e12, None, _GB200),
    )
}


def gpu(name: str) -> Gpu:
    """Look a GPU up as people write it: "RTX 4090", "rtx-4090" and "4090" are one. Raises ValueError naming all."""
    wanted = re.sub(r"[^a-z0-9]|nvidia|geforce|rtx", "", name.lower())
    found = [known for known in GPUS.values() if re.sub(r"-|rtx", "", known.name) == wanted]
    if not found:
        raise ValueError(f"gpu {name!r} is not in the table; known are {sorted(GPUS)}; or give its memory alone")
    return found[0]


def memory_bytes(text: str, option: str = "gpu-memory") -> int:
    """Sizes such as 24GB, "24 GiB" or 24 -> 24 x 2^30 bytes; also 16000MiB. Raises ValueError naming the option."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(g|gb|gib|m|mb|mib)?\s*", text.lower())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"{option} is {text!r}; expected a size such as 24GB or 16000MiB")
    unit = 2**20 if (match[2] or "g").startswith("m") else GIB
    return int(float(match[1]) * unit)
