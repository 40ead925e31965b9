"""The fingerprint of a base: the same for the same weights whatever the file, another for other weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from wam.checkpoints.identity import RUN, RUNS, identity
from wam.checkpoints.names import ACTION_MODULES, DREAMZERO_PREFIX, to_diffusers, to_wan
from wam.model.config import TransformerConfig
from wam.model.transformer import Transformer

CONFIG = TransformerConfig(dim=96, heads=2, layers=2, ffn_dim=112, text_dim=10, image_dim=16, codec_hidden=6)


def weights(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn_like(tensor) for name, tensor in Transformer(CONFIG).state_dict().items()}


def test_dialects_and_order_do_not_matter() -> None:
    ours = weights()
    expected = identity(ours)
    assert len(expected) == 64 and int(expected, 16) > 0
    assert identity(dict(reversed(ours.items()))) == expected
    for prefix in ("", DREAMZERO_PREFIX, DREAMZERO_PREFIX + "base_model.model."):
        assert identity(to_wan(ours, CONFIG, prefix)) == expected
    video = {name: x for name, x in ours.items() if not ACTION_MODULES.has(name)}
    assert identity(to_diffusers(ours, CONFIG)) == identity(video) == identity(ours, leave_out=(ACTION_MODULES,))
    assert identity(video) != expected


def test_a_module_is_its_state() -> None:
    model = Transformer(CONFIG)
    assert identity(model) == identity(dict(model.state_dict()))
    assert identity(model.to(torch.bfloat16)) == identity(dict(model.state_dict()))


def test_other_components_and_adapters_do_not_count() -> None:
    ours = to_wan(weights(), CONFIG, DREAMZERO_PREFIX)
    more = {
        "action_head.vae.model.conv1.weight": torch.ones(3),
        DREAMZERO_PREFIX + "blocks.0.self_attn.q.lora_A.default.weight": torch.ones(2, 96),
    }
    assert identity({**more, **ours}) == identity(ours)


def test_bfloat16_copy_is_the_same_base() -> None:
    ours = weights()
    assert identity({name: x.bfloat16() for name, x in ours.items()}) == identity(ours)


def test_training_shows() -> None:
    ours = weights()
    expected = identity(ours)
    large = "blocks.1.ffn.2.weight"
    assert ours[large].numel() > RUNS * RUN
    assert identity({**ours, large: ours[large] + 1e-2 * torch.randn_like(ours[large])}) != expected
    small = {**ours, "head.modulation": ours["head.modulation"].clone()}
    small["head.modulation"].view(-1)[-1] += 0.1
    assert identity(small) != expected
    assert identity({**ours, "blocks.0.norm3.weight": ours["blocks.1.norm3.weight"]}) != expected
    assert identity({**ours, large: ours[large].T}) != expected
    assert identity({name: x for name, x in ours.items() if name != large}) != expected


def test_samples_are_spread_over_large_tensors() -> None:
    """A change in any tenth of a large matrix is seen."""
    base = torch.zeros(100_000)
    expected = identity({"a": base})
    for tenth in base.view(10, -1):
        tenth += 1
        assert identity({"a": base}) != expected
        tenth -= 1


def test_one_tensor_at_a_time_is_asked_for() -> None:
    class Lazy(dict[str, Tensor]):
        asked: list[str] = []

        def __getitem__(self, name: str) -> Tensor:
            self.asked.append(name)
            return super().__getitem__(name)

        def items(self):  # type: ignore[no-untyped-def]
            raise AssertionError("items() would load everything")

    lazy = Lazy({"action_head.vae.model.x": torch.ones(1), "action_head.model.y.weight": torch.ones(1)})
    seen: list[tuple[int, int]] = []
    identity(lazy, progress=lambda done, total: seen.append((done, total)))
    assert Lazy.asked == ["action_head.model.y.weight"] and seen == [(1, 2), (2, 2)]


def test_weights_without_values_are_refused() -> None:
    with pytest.raises(ValueError, match="'weight' is on the meta device"):
        identity(nn.Linear(2, 2, device="meta"))
    with pytest.raises(ValueError, match="none of the 0 tensors"):
        identity({})
    with pytest.raises(ValueError, match="twice"):
        identity({"a": torch.ones(1), DREAMZERO_PREFIX + "a": torch.ones(1)})
