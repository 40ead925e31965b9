"""Adapters: they change nothing at first, know their base, and merge into what they compute; peft reads them too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_transformer import CONFIG, answer, tiny_transformer
from torch import Tensor

from wam.checkpoints.errors import CheckpointError, OutputError
from wam.checkpoints.lora import Adapter, LoraConfig, WrongBaseError, add_lora, load_adapter, merge, save_adapter
from wam.checkpoints.lora_files import PEFT_CONFIG, PEFT_WEIGHTS, RECORD, read_adapter
from wam.checkpoints.names import DREAMZERO_PREFIX, WRAPPED_PREFIX, to_wan
from wam.checkpoints.presets import PRESETS, skeleton
from wam.model.transformer import Transformer

MANIFEST = Path(__file__).parents[3] / "shared" / "golden" / "manifest.lora_14b.json"


def trained(
    seed: int = 0, config: LoraConfig | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Transformer, Adapter]:
    """A base with an adapter whose every trainable weight has moved."""
    transformer = tiny_transformer(seed=seed, dtype=dtype)
    adapter = add_lora(transformer, config)
    g = torch.Generator().manual_seed(7)
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data += (0.2 * torch.randn(parameter.shape, generator=g)).to(parameter.dtype)
    return transformer, adapter


def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained() -> None:
    transformer = tiny_transformer()
    before = answer(transformer)
    add_lora(transformer)
    assert torch.equal(answer(transformer), before)
    trainable = [name for name, parameter in transformer.named_parameters() if parameter.requires_grad]
    whole = ("state_encoder", "action_encoder", "action_decoder")
    assert all(".lora_" in name or name.startswith(whole) for name in trainable)
    per_block = 2 * (4 + 4 + 2)  # A and B; q k v o of self- and cross-attention, not those of the image, and ffn
    assert sum(".lora_" in name for name in trainable) == CONFIG.layers * per_block
    assert not any("_img" in name for name in trainable)
    with pytest.raises(ValueError, match="already carries an adapter"):
        add_lora(transformer)


def test_adapters_are_float32_on_any_base() -> None:
    transformer, _ = trained(dtype=torch.bfloat16)
    found = {name: x.dtype for name, x in transformer.state_dict().items()}
    assert {dtype for name, dtype in found.items() if ".lora_" in name} == {torch.float32}
    assert {dtype for name, dtype in found.items() if ".lora_" not in name} == {torch.bfloat16}
    assert torch.isfinite(answer(transformer)).all()


@pytest.mark.parametrize("config", [LoraConfig(), LoraConfig(2, 3.0, ("self_attn.q", "ffn.2"), ("head",))])
def test_saved_and_loaded_it_computes_the_same(tmp_path: Path, config: LoraConfig) -> None:
    transformer, adapter = trained(config=config)
    save_adapter(transformer, adapter, tmp_path / "adapter")
    fresh = tiny_transformer()
    assert load_adapter(fresh, tmp_path / "adapter") == adapter
    assert torch.equal(answer(fresh), answer(transformer))
    assert not torch.allclose(answer(fresh), answer(tiny_transformer()))
    save_adapter(fresh, adapter, tmp_path / "adapter")  # over the older one
    assert load_adapter(tiny_transformer(), tmp_path / "adapter") == adapter


def test_peft_itself_reads_it(tmp_path: Path) -> None:
    import peft

    transformer, adapter = trained()
    save_adapter(transformer, adapter, tmp_path)
    theirs = peft.PeftModel.from_pretrained(tiny_transformer(), str(tmp_path))
    assert torch.allclose(answer(theirs.base_model.model), answer(transformer), atol=1e-6)
    assert json.loads((tmp_path / PEFT_CONFIG).read_text())["lora_alpha"] == 4.0


def test_an_adapter_of_peft_without_our_record_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    transformer, adapter = trained()
    save_adapter(transformer, adapter, tmp_path)
    (tmp_path / RECORD).unlink()
    fresh = tiny_transformer()
    load_adapter(fresh, tmp_path)
    assert torch.equal(answer(fresh), answer(transformer))
    assert "does not say which base" in caplog.text


def test_another_base_is_refused_and_left_alone(tmp_path: Path) -> None:
    transformer, adapter = trained()
    save_adapter(transformer, adapter, tmp_path)
    other = tiny_transformer(seed=1)
    before = answer(other)
    with pytest.raises(WrongBaseError, match=rf"identity {adapter.base[:16]}, but this base has .*trained on"):
        load_adapter(other, tmp_path)
    assert torch.equal(answer(other), before) and not any("lora" in name for name in other.state_dict())


def test_other_action_modules_are_the_same_base(tmp_path: Path) -> None:
    """They come with the adapter, so an untrained video model's random ones do not matter."""
    transformer, adapter = trained()
    save_adapter(transformer, adapter, tmp_path)
    other = tiny_transformer()
    torch.nn.init.normal_(other.action_encoder.layer1.weight)
    load_adapter(other, tmp_path)
    assert torch.equal(answer(other), answer(transformer))


def test_a_base_that_was_trained_along_is_not_saved(tmp_path: Path) -> None:
    transformer, adapter = trained()
    transformer.head.head.weight.data += 0.1
    with pytest.raises(ValueError, match="the base below the adapter has changed"):
        save_adapter(transformer, adapter, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_it_is_a_plain_transformer_with_the_same_answer(dtype: torch.dtype) -> None:
    transformer, _ = trained(dtype=dtype)
    expected = answer(transformer)
    assert merge(transformer) == CONFIG.layers * 10
    assert transformer.state_dict().keys() == tiny_transformer().state_dict().keys()
    assert all(parameter.requires_grad for parameter in transformer.parameters())
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    assert (answer(transformer) - expected).norm() < tolerance * expected.norm()
    with pytest.raises(ValueError, match="no adapter to merge"):
        merge(transformer)


def test_contradictions_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in 'w'; layers of a block are \['cross_attn.k'"):
        add_lora(tiny_transformer(), LoraConfig(targets=("q", "w")))
    with pytest.raises(ValueError, match=r"no module 'tail'; modules are \["):
        add_lora(tiny_transformer(), LoraConfig(full=("tail",)))
    with pytest.raises(ValueError, match="rank=0"):
        LoraConfig(rank=0)
    transformer, adapter = trained()
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no adapter"):
        save_adapter(transformer, adapter, tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("use_dora", True, "use_dora is True, but only plain LoRA"),
        ("rank_pattern", {"q": 8}, "rank_pattern is"),
        ("bias", "all", "bias is 'all'"),
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights is 'pissa_niter_4'"),
        ("peft_type", "IA3", "peft_type is 'IA3'"),
    ],
)
def test_more_than_plain_lora_is_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    transformer, adapter = trained()
    save_adapter(transformer, adapter, tmp_path)
    fields = json.loads((tmp_path / PEFT_CONFIG).read_text())
    (tmp_path / PEFT_CONFIG).write_text(json.dumps({**fields, field: value}))
    with pytest.raises(CheckpointError, match=message):
        load_adapter(tiny_transformer(), tmp_path)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    transformer, adapter = trained()
    save_adapter(transformer, adapter, tmp_path)
    tensors = load_file(tmp_path / PEFT_WEIGHTS)
    gone = next(name for name in tensors if name.endswith("blocks.1.ffn.0.lora_B.weight"))
    save_file({name: x for name, x in tensors.items() if name != gone}, tmp_path / PEFT_WEIGHTS)
    with pytest.raises(WrongBaseError, match=r"1 weights are missing \(first: 'blocks.1.ffn.0.lora_B.weight'\)"):
        load_adapter(tiny_transformer(), tmp_path)
    (tmp_path / PEFT_WEIGHTS).write_bytes((tmp_path / PEFT_WEIGHTS).read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="its header promises"):
        load_adapter(tiny_transformer(), tmp_path)
    (tmp_path / PEFT_WEIGHTS).unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="a pickle .* is not read"):
        load_adapter(tiny_transformer(), tmp_path)
    save_file(dict(tiny_transformer().state_dict()), tmp_path / "whole.safetensors")
    with pytest.raises(CheckpointError, match="holds no LoRA adapter"):
        read_adapter(tmp_path / "whole.safetensors", alpha=4)


# ---------------------------------------------------------------- released adapters


def as_released(transformer: Transformer) -> dict[str, Tensor]:
    """The trainable weights as DreamZero's trainer names them."""
    trainable = {name: x.detach() for name, x in transformer.named_parameters() if x.requires_grad}
    return to_wan(trainable, CONFIG, DREAMZERO_PREFIX + WRAPPED_PREFIX)


def released_config(**fields: object) -> str:
    return json.dumps({"action_head_cfg": {"config": {"lora_rank": 4, "lora_alpha": 8, **fields}}})


def test_a_released_adapter_loads_on_its_base(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    transformer, _ = trained(config=LoraConfig(alpha=8.0))
    tensors = as_released(transformer)
    assert DREAMZERO_PREFIX + WRAPPED_PREFIX + "blocks.0.self_attn.q.lora_A.default.weight" in tensors
    assert DREAMZERO_PREFIX + WRAPPED_PREFIX + "action_encoder.W2.W" in tensors
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="nothing says its alpha"):
        load_adapter(tiny_transformer(), tmp_path)
    (tmp_path / "config.json").write_text(released_config())
    fresh = tiny_transformer()
    adapter = load_adapter(fresh, tmp_path)
    assert (adapter.config.rank, adapter.config.alpha) == (4, 8.0)
    assert torch.equal(answer(fresh), answer(transformer))
    assert "does not say which base" in caplog.text
    (tmp_path / "config.json").write_text(released_config(lora_rank=16))
    with pytest.raises(CheckpointError, match="lora_rank is 16, but the adapters have rank 4"):
        load_adapter(tiny_transformer(), tmp_path)


def test_a_whole_checkpoint_with_adapters_is_not_an_adapter(tmp_path: Path) -> None:
    transformer, _ = trained()
    save_file(to_wan(dict(transformer.state_dict()), CONFIG, DREAMZERO_PREFIX), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="it is a whole checkpoint"):
        load_adapter(tiny_transformer(), tmp_path, alpha=4)


def manifest_adapter(folder: Path) -> Path:
    """A file with the names and shapes of a released 14B adapter, all values zero and sparse on disk."""
    entries, end = {}, 0
    for tensor in json.loads(MANIFEST.read_text())["tensors"]:
        start, end = end, end + 4 * torch.Size(tensor["shape"]).numel()
        entries[tensor["key"]] = {"dtype": "F32", "shape": tensor["shape"], "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + end)
    return folder


@pytest.mark.skipif(not MANIFEST.is_file(), reason=f"no manifest beside the repository ({MANIFEST})")
def test_the_released_14b_adapter_fits_its_base_and_no_other(tmp_path: Path) -> None:
    stored = read_adapter(manifest_adapter(tmp_path), alpha=4)
    assert stored.config.scale == 1.0 and len(stored.tensors) == 814
    stored.require_fit(skeleton(PRESETS["wan2.1-i2v-14b"].transformer).state_dict())
    for wrong in ("wan2.2-ti2v-5b", "wan2.1-t2v-1.3b"):
        with pytest.raises(WrongBaseError, match=r"wrong shape.*40 blocks of width 5120, as wan2.1-i2v-14b or"):
            stored.require_fit(skeleton(PRESETS[wrong].transformer).state_dict())


def test_an_alpha_that_the_files_contradict_is_refused(tmp_path: Path) -> None:
    transformer, adapter = trained()
    save_adapter(transformer, adapter, tmp_path)
    assert read_adapter(tmp_path, alpha=adapter.config.alpha).config.alpha == adapter.config.alpha
    for record in (True, False):
        if not record:
            (tmp_path / RECORD).unlink()
        with pytest.raises(CheckpointError, match="its alpha is .*, not 64; leave alpha out"):
            read_adapter(tmp_path, alpha=64)
