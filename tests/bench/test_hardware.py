"""The table of GPUs is consistent in itself, and sizes are read as people write them."""

from __future__ import annotations

import pytest

from wam.bench.hardware import GIB, GPUS, gpu, memory_bytes


def test_every_gpu_has_a_source_and_plausible_figures() -> None:
    """Peaks double with every halving of the width, except where consumer parts accumulate fp4 at full rate."""
    for name, known in GPUS.items():
        assert known.name == name and "NVIDIA" in known.source
        assert 24 * GIB <= known.memory <= 192 * GIB and 0.8e12 <= known.bandwidth <= 8e12
        peaks = list(known.peaks().values())
        assert peaks == sorted(peaks) and list(known.peaks())[0] == "bf16"
        if known.fp8 is not None:
            assert known.fp8 == pytest.approx(2 * known.bf16, rel=0.02)
        if known.fp4 is not None:
            assert known.fp8 is not None and known.fp4 / known.fp8 in (2, 4)
        # a product must do 70 to 450 FLOP per byte before arithmetic is what bounds it
        assert 70 < known.bf16 / known.bandwidth < 450


def test_figures_that_are_known_by_heart() -> None:
    assert (gpu("h100").bf16, gpu("h100").fp8, gpu("h100").bandwidth) == (989e12, 1979e12, 3.35e12)
    assert (gpu("a100-80gb").bf16, gpu("a100-80gb").fp8, gpu("a100-80gb").memory) == (312e12, None, 80 * GIB)
    assert (gpu("rtx-4090").bf16, gpu("rtx-4090").memory) == (165.2e12, 24 * GIB)
    assert (gpu("b200").bf16, gpu("b200").fp4) == (2250e12, 9000e12)


@pytest.mark.parametrize("name", ["RTX 4090", "rtx-4090", "4090", "NVIDIA GeForce RTX 4090", "rtx4090"])
def test_a_gpu_is_found_as_people_write_it(name: str) -> None:
    assert gpu(name).name == "rtx-4090"


@pytest.mark.parametrize("name", ["a100", "rtx", "", "4091", "h10"])
def test_an_unknown_gpu_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not in the table; known are \['a100-40gb'.*'rtx-5090'\]"):
        gpu(name)


def test_sizes() -> None:
    assert [memory_bytes(text) for text in ("24GB", "24 GiB", "24", "24g")] == [24 * GIB] * 4
    assert memory_bytes("16384 MiB") == memory_bytes("16384mb") == 16 * GIB
    assert memory_bytes("0.5GB") == GIB // 2
    for text in ("much", "24TB", "-3GB", "0GB", "", "24GB of it"):
        with pytest.raises(ValueError, match="expected a size such as 24GB"):
            memory_bytes(text)
