"""Only what is asked for learns, other robots' codecs stay to the bit, and an adapter is as good as the whole model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.train.initial import SAWYER, further, mixture, train_without_text, without_text, write_base
from tests.train.processes import together
from torch import Tensor

from wam.bench.training import adapter_parameters
from wam.checkpoints.lora import WrongBaseError
from wam.checkpoints.merge_files import merge_files
from wam.checkpoints.model_folder import base_of, load_model
from wam.checkpoints.recognise import recognise
from wam.engine.load import load_policy
from wam.evaluate.sources import PolicySource
from wam.robot.observation import Observation
from wam.train.build import build
from wam.train.config import AdaptConfig, OptimizerConfig
from wam.train.state import WEIGHTS
from wam.train.trainer import CHECKPOINTS, MODEL, Trainer
from wam.world_action_model import WorldActionModel

CODECS = ("transformer.state_encoder", "transformer.action_encoder", "transformer.action_decoder")
WHAT = ("full", "lora", "heads")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        without_text(patch)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        without_text(patch)
        return write_base(tmp_path_factory.mktemp("adapt"))


def adapted(what: str, **changes: object) -> AdaptConfig:
    return replace(AdaptConfig(what=what, rank=2, alpha=4.0), **changes)  # type: ignore[arg-type]


def learning(trainer: Trainer) -> set[str]:
    return {name for name, weight in trainer.bare.named_parameters() if weight.requires_grad}


def trained(root: Path, out: Path, what: str, **changes: object) -> WorldActionModel:
    """Some steps on the new robot, strongly decayed."""
    optimizer = OptimizerConfig(learning_rate=0.05, weight_decay=0.5, warmup_steps=1, ema=0.5)
    assert build(further(root, out, adapt=adapted(what), optimizer=optimizer, **changes)).run()
    return load_model(out / MODEL)


def split(model: WorldActionModel) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the codecs, of the head of the video, and of everything else."""
    parts: tuple[dict[str, Tensor], ...] = ({}, {}, {})
    for name, weight in model.state_dict().items():
        place = 0 if name.startswith(CODECS) else 1 if name.startswith("transformer.head.") else 2
        parts[place][name] = weight
    return parts  # type: ignore[return-value]


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_only_what_is_asked_for_learns(root: Path, tmp_path: Path) -> None:
    trainers = {what: build(further(root, tmp_path, adapt=adapted(what))) for what in WHAT}
    full, lora, heads = map(learning, trainers.values())
    everything = set(dict(load_model(root / "base" / MODEL).named_parameters()))
    slots = {f"{name[:-7]}.parametrizations.weight.original" for name in everything if name.startswith(CODECS)
             and name.endswith(".weight")} | {f"{name[:-5]}.parametrizations.bias.original" for name in everything
             if name.startswith(CODECS) and name.endswith(".bias")}  # fmt: skip
    trunk = {name for name in everything if not name.startswith(CODECS)}
    assert full == trunk | slots
    assert heads == {name for name in trunk if name.startswith("transformer.head.")} | slots
    assert lora - slots == {name for name in lora if ".lora_" in name} and slots < lora
    assert len(lora - slots) == 2 * 2 * 10  # A and B, two blocks of ten layers
    adapters = [weight for name, weight in trainers["lora"].bare.named_parameters() if ".lora_" in name]
    planned = adapter_parameters(load_model(root / "base" / MODEL).transformer, rank=2)
    assert sum(weight.numel() for weight in adapters) == planned  # as `wam plan` says


@pytest.mark.parametrize("what", WHAT)
def test_a_new_robot_touches_no_other_codec(root: Path, tmp_path: Path, what: str) -> None:
    """Neither by gradient nor by decay, nor through windows that are video only."""
    data = mixture(
        tmp_path / "mixture.yaml",
        {"data": str(root / "data"), "embodiment": str(root / "other.yaml")},
        {"data": str(root / "data"), "embodiment": "metaworld-sawyer", "video_only": True},
    )
    model, base = trained(root, tmp_path / "out", what, data=data), load_model(root / "base" / MODEL)
    assert [robot.name for robot in model.config.embodiments] == ["metaworld-sawyer", "other"]
    assert model.config.embodiments[0] == base.config.embodiments[0]
    assert model.config.embodiments[1].action_width == 4
    (codecs, head, trunk), (old_codecs, old_head, old_trunk) = split(model), split(base)
    assert not moved(old_codecs, {name: weight[:1] for name, weight in codecs.items()})
    fresh = split(build(further(root, tmp_path / "again")).bare)[0]
    untrained = {name: weight.detach() for name, weight in fresh.items() if name.endswith(".original")}
    now = {name: codecs[name.replace("parametrizations.", "").removesuffix(".original")][1:] for name in untrained}
    assert moved(untrained, now) == set(now)
    assert moved(old_head, head) == (set() if what == "lora" else set(head))
    changed = moved(old_trunk, trunk)
    if what == "full":
        assert len(changed) == len(trunk)
    elif what == "heads":
        assert not changed
    else:
        assert {name.split(".", 3)[-1] for name in changed} == {
            *(f"{part}_attn.{name}.weight" for part in ("self", "cross") for name in "qkvo"),
            *("ffn.0.weight", "ffn.2.weight"),
        }


def test_a_known_robot_trains_its_own_codec_in_place(root: Path, tmp_path: Path) -> None:
    model = trained(root, tmp_path, "heads", embodiment="metaworld-sawyer")
    base = load_model(root / "base" / MODEL)
    assert [robot.name for robot in model.config.embodiments] == ["metaworld-sawyer"]
    codecs, old = split(model)[0], split(base)[0]
    assert moved(old, codecs) == set(old)


def test_codecs_can_be_chosen(root: Path, tmp_path: Path) -> None:
    data = mixture(
        tmp_path / "mixture.yaml",
        {"data": str(root / "data"), "embodiment": str(root / "other.yaml")},
        {"data": str(root / "data"), "embodiment": "metaworld-sawyer"},
    )
    run = further(root, tmp_path / "out", data=data, adapt=adapted("heads", robots=("other",)))
    build(run).run()
    codecs, old = (split(load_model(folder / MODEL))[0] for folder in (tmp_path / "out", root / "base"))
    assert not moved(old, {name: weight[:1] for name, weight in codecs.items()})
    with pytest.raises(
        ValueError, match=r"--adapt.robots: 'toaster' has no actions .* there are \['other', 'metaworld"
    ):
        build(replace(run, adapt=adapted("heads", robots=("toaster",))))


def test_a_lora_run_leaves_an_adapter_that_runs(root: Path, tmp_path: Path) -> None:
    base, folder = root / "base" / MODEL, tmp_path / "runs" / "kitchen" / MODEL
    direct = trained(root, folder.parent, "lora")
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "config.json", "training.json", "wam_adapter.json",
    ]  # fmt: skip
    assert recognise(folder).kind == "adapter" and base_of(folder).resolve() == base.resolve()
    (tmp_path / "best").symlink_to(folder, target_is_directory=True)
    assert base_of(tmp_path / "best").resolve() == base.resolve()
    assert str(tmp_path.parent.parent) not in (folder / "adapter_config.json").read_text().replace("../", "")

    report = merge_files(base, folder, tmp_path / "merged")
    assert (report.merged, report.added) == (20, 0)
    merged = load_model(tmp_path / "merged")
    assert merged.config == direct.config
    assert not moved(dict(direct.state_dict()), dict(merged.state_dict()))
    trained_as = [
        json.loads((path / "training.json").read_text())["training"] for path in (folder, tmp_path / "merged")
    ]
    assert trained_as[0] == trained_as[1] and trained_as[0]["adapt"]["what"] == "lora"

    options = {"robot": "other", "memory": "none"}
    assert PolicySource("wam", folder, options).embodiment().name == "other"
    pictures = {camera: torch.zeros(64, 64, 3, dtype=torch.uint8).numpy() for camera in SAWYER.cameras}
    look = Observation(pictures, torch.zeros(4).numpy(), "push the puck", timestamp=0.0)
    chunks = []
    for place in (folder, tmp_path / "merged"):
        policy = load_policy(place, **options)  # type: ignore[arg-type]
        policy.reset(0)
        chunks.append(policy.act([look]).actions)
    assert chunks[0].shape == (8, 3) and (chunks[0] == chunks[1]).all()


def test_another_base_is_refused(root: Path, tmp_path: Path) -> None:
    trained(root, tmp_path / "out", "lora")
    other = tmp_path / "other-base"
    model = load_model(root / "base" / MODEL)
    with torch.no_grad():
        model.transformer.head.head.bias += 1
    model.save_pretrained(other)
    named = tmp_path / "out" / MODEL / "adapter_config.json"
    fields = json.loads(named.read_text())
    named.write_text(json.dumps({**fields, "base_model_name_or_path": "../../other-base"}))
    with pytest.raises(WrongBaseError, match="was trained on the base with identity"):
        load_model(tmp_path / "out" / MODEL)
    with pytest.raises(WrongBaseError, match="was trained on the base with identity"):
        merge_files(other, tmp_path / "out" / MODEL, tmp_path / "merged")
    named.write_text(json.dumps({**fields, "base_model_name_or_path": "../../gone"}))
    with pytest.raises(ValueError, match="its base '../../gone' is not there; put it back, or merge"):
        load_model(tmp_path / "out" / MODEL)


def test_an_adapter_can_be_the_start_of_a_further_run(root: Path, tmp_path: Path) -> None:
    """Adapter on adapter on base, and a whole model trained from that."""
    first = trained(root, tmp_path / "first", "lora")
    second = trained(root, tmp_path / "second", "lora", init=tmp_path / "first" / MODEL)
    assert base_of(tmp_path / "second" / MODEL) == tmp_path / "first" / MODEL
    assert len(moved(dict(first.state_dict()), dict(second.state_dict()))) == 20 + 14  # adapted layers and the codec
    third = trained(root, tmp_path / "third", "full", init=tmp_path / "second" / MODEL)
    assert third.config.embodiments == second.config.embodiments
    assert (tmp_path / "third" / MODEL / "model.safetensors").is_file()


@pytest.mark.parametrize("what", ["lora", "heads"])
def test_a_stopped_run_goes_on_to_the_bit_and_keeps_little(root: Path, tmp_path: Path, what: str) -> None:
    build(further(root, tmp_path / "whole", adapt=adapted(what), steps=4)).run()
    run = further(root, tmp_path / "parts", adapt=adapted(what), steps=4)
    first = build(run)
    first.train_step()
    first.train_step()
    first._save()
    stored = load_file(tmp_path / "parts" / CHECKPOINTS / "step-00000002" / f"{WEIGHTS}.safetensors")
    assert set(stored) == learning(first)
    build(run).run()
    ends = [dict(load_model(tmp_path / name / MODEL).state_dict()) for name in ("whole", "parts")]
    assert not moved(*ends)


@pytest.mark.slow
@pytest.mark.parametrize("what", WHAT)
def test_two_processes_with_shards_give_what_one_gives(root: Path, tmp_path: Path, what: str) -> None:
    optimizer = OptimizerConfig(learning_rate=0.05, weight_decay=0.5, warmup_steps=1, ema=0.5)
    run = further(root, tmp_path / "two", adapt=adapted(what), optimizer=optimizer, parallel="fsdp2")
    together(2, train_without_text, run)
    together(1, train_without_text, replace(run, out=tmp_path / "one", batch=2 * run.batch))
    two, one = (dict(load_model(tmp_path / name / MODEL).state_dict()) for name in ("two", "one"))
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], atol=2e-4), name
