"""Published sizes: the number of parameters is that of the published files."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wam.checkpoints.names import CODEC
from wam.checkpoints.presets import PRESETS, from_dreamzero, preset, skeleton


@pytest.mark.parametrize("name", ["wan2.1-i2v-14b", "wan2.2-ti2v-5b", "wan2.1-t2v-1.3b", "dreamzero-5b"])
def test_parameter_count(name: str) -> None:
    counted = sum(parameter.numel() for parameter in skeleton(PRESETS[name].transformer).parameters())
    assert counted == PRESETS[name].parameters


def test_parts_of_the_totals() -> None:
    def parts(name: str) -> tuple[int, int]:
        sizes = {n: p.numel() for n, p in skeleton(PRESETS[name].transformer).named_parameters()}
        codec = sum(size for n, size in sizes.items() if CODEC.match(n))
        return sum(sizes.values()) - codec, codec

    assert parts("wan2.1-i2v-14b") == (16_394_878_784, 89_413_664)
    assert parts("wan2.2-ti2v-5b") == (4_999_787_712, 34_813_984)
    assert parts("dreamzero-5b")[0] - parts("wan2.2-ti2v-5b")[0] == 572_091_136  # the image branch
    assert parts("wan2.1-t2v-1.3b")[0] == 1_418_996_800


def test_released_robots_share_one_transformer() -> None:
    assert PRESETS["dreamzero-droid"].transformer == PRESETS["dreamzero-agibot"].transformer
    assert PRESETS["dreamzero-droid"].transformer == PRESETS["wan2.1-i2v-14b"].transformer


def test_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match="'wan9' is unknown; expected one of"):
        preset("wan9")


RELEASED_14B = {
    "_target_": "groot.something.that.is.never.imported",
    "dim": 5120,
    "in_dim": 36,
    "out_dim": 16,
    "ffn_dim": 13824,
    "freq_dim": 256,
    "num_heads": 40,
    "num_layers": 40,
    "max_chunk_size": 4,
    "num_frame_per_block": 2,
    "num_action_per_block": 24,
    "num_state_per_block": 1,
}


def test_configuration_of_the_released_code() -> None:
    config = PRESETS["wan2.1-i2v-14b"].transformer
    assert from_dreamzero(RELEASED_14B, image=True) == config
    assert from_dreamzero(RELEASED_14B, image=False) == replace(config, image_dim=None)
    with pytest.raises(ValueError, match="field 'num_heads' is missing"):
        from_dreamzero({name: value for name, value in RELEASED_14B.items() if name != "num_heads"}, image=True)
    with pytest.raises(ValueError, match="num_state_per_block is 2"):
        from_dreamzero({**RELEASED_14B, "num_state_per_block": 2}, image=True)
