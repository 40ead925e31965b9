"""A run repeats bit for bit, and one that was stopped continues as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.data.synthetic import write_dataset
from tests.models import TINY
from tests.train.processes import NoEncoder, tiny_run, write_material

import wam.train.build
from wam.data.errors import DatasetError
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.evaluate.sources import trained_tasks
from wam.robot.embodiment import EmbodimentError, Part, load_embodiment
from wam.train.build import build
from wam.train.config import OptimizerConfig, WindowConfig
from wam.train.plot import plot_losses
from wam.train.schedule import learning_rate
from wam.train.trackers import LOG
from wam.train.trainer import MODEL, MODELS, ORIGIN, Report, _parameter_groups
from wam.world_action_model import WorldActionModel

STEPS = 6


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(autouse=True)
def without_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wam.train.build, "MiniLMTextEncoder", NoEncoder)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / MODEL / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_seeded_run_repeats_bit_for_bit(material: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        build(tiny_run(material, tmp_path / name)).run()
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    other = tiny_run(material, tmp_path / "c", seed=1)
    build(other).run()
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_a_stopped_run_continues_bit_for_bit(material: Path, tmp_path: Path) -> None:
    build(tiny_run(material, tmp_path / "whole")).run()
    run = tiny_run(material, tmp_path / "parts")
    first = build(run)
    for _ in range(3):
        first.train_step()
    first._save()
    resumed = build(run)
    torch.nn.init.normal_(resumed.bare.transformer.patch_embedding.weight)  # all that counts comes from the checkpoint
    resumed.run()
    assert resumed.step == STEPS
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_the_run_leaves_a_log_a_plot_and_a_model(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = tiny_run(material, out)
    build(replace(run, validation=replace(run.validation, samples=1))).run()
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines if "action" in line] == [2, 4, 6]
    scores = lines[-1]["validation"]
    assert {"video", "action", "data", "embodiments", "dream"} <= set(scores)
    assert (out / "samples" / "step-00000006.png").stat().st_size > 1000
    plot_losses(out / LOG, out / "loss.png")
    assert (out / "loss.png").stat().st_size > 1000
    assert WorldActionModel.from_pretrained(out / MODEL).config.latent == (4, 8, 16)
    NanoTokenizer.from_pretrained(out / MODEL / "tokenizer")
    origin = json.loads((out / MODEL / ORIGIN).read_text())
    assert (origin["steps"], origin["windows"], origin["training"]["seed"]) == (STEPS, 4 * STEPS, 0)
    assert origin["tasks"] == ["thing-v3"]  # as the episodes name it
    assert trained_tasks(out / MODEL) is None  # none of Meta-World's


def test_models_along_the_way_are_those_of_shorter_histories(material: Path, tmp_path: Path) -> None:
    """Every two of six steps; they say how long they were trained, and saving them changes nothing."""
    build(tiny_run(material, tmp_path / "plain")).run()
    run = tiny_run(material, tmp_path / "run", models_every=2)
    build(run).run()
    folders = sorted((run.out / MODELS).iterdir())
    assert [folder.name for folder in folders] == ["step-00000002", "step-00000004"]
    assert [json.loads((folder / ORIGIN).read_text())["steps"] for folder in folders] == [2, 4]
    two, four = (load_file(folder / "model.safetensors") for folder in folders)
    assert not same(two, four)
    assert (folders[0] / "config.json").is_file()
    assert same(weights(run.out), weights(tmp_path / "plain"))


def test_video_only_episodes_train_the_video_and_the_control_leaves_them_out(material: Path, tmp_path: Path) -> None:
    half = WindowConfig(validation_share=0.3, labelled_share=0.5)
    joint = build(tiny_run(material, tmp_path / "joint", windows=half))
    control = build(tiny_run(material, tmp_path / "bc", windows=replace(half, labelled_part=1.0), dream=False))
    everything, labelled = (trainer.batches.members[0].source for trainer in (joint, control))
    assert 0 < len(labelled.episodes) < len(everything.episodes)
    assert list(labelled.episodes) == list(everything.labelled_episodes)
    assert joint.train_step().video > 0
    assert control.train_step().video == 0


def test_few_episodes_are_validated_on_one_of_them_or_on_none(material: Path, tmp_path: Path) -> None:
    """None of eight is within this share, so one is taken; a share of zero keeps them all and measures none."""
    for share, trained_on, checks in ((0.01, 7, 1), (0.0, 8, 0)):
        trainer = build(tiny_run(material, tmp_path / str(share), windows=WindowConfig(validation_share=share)))
        assert len(trainer.batches.members[0].source.episodes) == trained_on
        trainer.run()
        log = [json.loads(line) for line in (tmp_path / str(share) / LOG).read_text().splitlines()]
        assert len([line for line in log if "validation" in line]) == checks
        plot_losses(tmp_path / str(share) / LOG, tmp_path / "loss.png")
    write_dataset(tmp_path / "one", 1, length=60)
    with pytest.raises(DatasetError, match="0 of 1 episodes selected .*a validation share of 0 trains without"):
        build(tiny_run(material, tmp_path / "out", data=tmp_path / "one"))


@pytest.mark.parametrize("limit", ["steps", "minutes"])
def test_no_training_at_all_is_refused(material: Path, tmp_path: Path, limit: str) -> None:
    with pytest.raises(ValueError, match=f"{limit} is 0, expected more than 0"):
        build(tiny_run(material, tmp_path, **{limit: 0}))


def test_two_robots_and_video_without_actions_train_together(material: Path, tmp_path: Path) -> None:
    """Two embodiments of different widths and a video-only set in one run: a codec and a validation each."""
    narrow = load_embodiment("metaworld-sawyer")
    wide = replace(narrow, name="wide", action=(Part("action", ("a", "b", "c", "d")),), action_width=6)
    people = replace(narrow, name="people", state=(), action=(), prompt_template="people {instruction}")
    for robot in (wide, people):
        robot.to_yaml(tmp_path / f"{robot.name}.yaml")
    entries = [
        {"data": str(material / "data"), "embodiment": "metaworld-sawyer", "weight": 2.0},
        {"data": str(material / "data"), "embodiment": str(tmp_path / "wide.yaml")},
        {
            "data": str(material / "data"),
            "embodiment": str(tmp_path / "people.yaml"),
            "filter": {"without": [0]},
        },
    ]
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump(entries))
    run = tiny_run(material, tmp_path / "out", data=tmp_path / "mixture.yaml")
    trainer = build(replace(run, windows=WindowConfig(validation_share=0.3)))
    before = {name: tensor.clone() for name, tensor in trainer.bare.state_dict().items()}
    trainer.run()
    model = WorldActionModel.from_pretrained(tmp_path / "out" / MODEL)
    assert [robot.name for robot in model.config.embodiments] == ["metaworld-sawyer", "wide"]
    assert [robot.action_width for robot in model.config.embodiments] == [6, 6]
    codec = model.transformer.action_encoder.layer1.weight - before["transformer.action_encoder.layer1.weight"]
    assert codec[0].any() and codec[1].any()
    lines = [json.loads(line) for line in (tmp_path / "out" / LOG).read_text().splitlines()]
    scores = next(line["validation"] for line in lines if "validation" in line)
    assert [score["embodiment"] for score in scores["data"].values()] == ["metaworld-sawyer", "wide", "people"]
    assert list(scores["data"]["data-1"]["action_error"]["1"]["dims"]) == ["a", "b", "c", "d"]
    assert scores["data"]["data-2"]["video"] > 0 and not {"action", "action_error"} & set(scores["data"]["data-2"])
    assert scores["embodiments"]["people"] == {"video": scores["data"]["data-2"]["video"]}


def test_a_mixture_with_an_unknown_field_is_named(material: Path, tmp_path: Path) -> None:
    mixture = tmp_path / "mixture.yaml"
    for fields, named in (
        ({"data": "x", "embodiment": "y", "wieght": 2}, "entry 0: unknown field 'wieght'"),
        ({"data": "x"}, "entry 0: field 'embodiment' is missing"),
        ({"data": "x", "embodiment": "y", "filter": {"sucess": "a"}}, "entry 0: filter: .*'sucess'"),
    ):
        mixture.write_text(yaml.safe_dump([fields]))
        with pytest.raises(ValueError, match=named):
            build(tiny_run(material, tmp_path / "out", data=mixture))


def test_a_run_that_is_asked_to_stop_can_go_on(material: Path, tmp_path: Path) -> None:
    build(tiny_run(material, tmp_path / "whole")).run()
    run = tiny_run(material, tmp_path / "parts", log_every=1)
    first = build(run)

    def stop_after_two(report: Report) -> None:
        first.stopping = report.step == 2

    assert not first.run(stop_after_two)
    assert not (tmp_path / "parts" / MODEL).exists()
    assert build(run).run()
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_activations_computed_again_give_the_same_gradients(material: Path, tmp_path: Path) -> None:
    gradients = []
    for again in (False, True):
        trainer = build(tiny_run(material, tmp_path, activation_checkpointing=again))
        assert trainer.bare.transformer.checkpointing == again
        torch.nn.init.normal_(trainer.bare.transformer.head.head.weight)
        torch.nn.init.normal_(trainer.bare.transformer.action_decoder.layer2.weight)
        trainer.train_step()
        gradients.append({name: weight.grad for name, weight in trainer.bare.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert gradients[0]["transformer.blocks.0.ffn.0.weight"].any()


def test_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    c = OptimizerConfig(learning_rate=1.0, warmup_steps=10, flat_share=0.5)
    assert learning_rate(c, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(c, 50, 0.4) == 1.0
    assert learning_rate(c, 90, 0.75) == pytest.approx(0.5)
    assert learning_rate(c, 99, 1.0) == pytest.approx(0.0)


def test_what_was_learned_outlives_a_failing_look_at_it(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_run(material, tmp_path / "out")
    whole = tiny_run(material, tmp_path / "whole")
    build(whole).run()
    with monkeypatch.context() as patch:
        patch.setattr("wam.train.trainer.validate", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build(config).run()
    assert not (config.out / MODEL).exists()
    resumed = build(config)
    steps = []
    assert resumed.run(lambda report: steps.append(report.step)) and not steps  # nothing is learned again
    expected = WorldActionModel.from_pretrained(whole.out / MODEL).state_dict()
    found = WorldActionModel.from_pretrained(config.out / MODEL).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("robots", [1, 2])
def test_matrices_decay_and_nothing_else(robots: int) -> None:
    transformer = replace(TINY.transformer, embodiments=robots)
    model = WorldActionModel(replace(TINY, transformer=transformer, embodiments=TINY.embodiments * robots))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in _parameter_groups(model, 0.1))
    assert decayed | spared == set(names.values()) and not decayed & spared
    assert all(name.endswith(".weight") and "norm" not in name for name in decayed)
    assert {name for name in spared if name.endswith(".weight") and "norm" not in name} == set()
    assert "transformer.action_encoder.layer1.weight" in decayed
    assert {"transformer.action_encoder.layer1.bias", "transformer.head.modulation"} <= spared


def test_data_sets_describe_a_robot_alike(material: Path, tmp_path: Path) -> None:
    """Else the first one's description would hold for both."""
    other = replace(load_embodiment("metaworld-sawyer"), prompt_template="robot: {instruction}")
    other.to_yaml(tmp_path / "other.yaml")
    entries = [
        {"data": str(material / "data"), "embodiment": robot}
        for robot in ("metaworld-sawyer", str(tmp_path / "other.yaml"))
    ]
    (tmp_path / "mixture.yaml").write_text(yaml.safe_dump(entries))
    with pytest.raises(EmbodimentError, match="'prompt_template' is 'robot: .*/data has a robot of this name with"):
        build(tiny_run(material, tmp_path / "out", data=tmp_path / "mixture.yaml"))


def test_a_data_set_on_the_hub_is_trained_on_at_one_commit(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, asked = "0123456789abcdef0123456789abcdef01234567", []

    def download(repo: str, *, repo_type: str, revision: str) -> str:
        asked.append((repo, repo_type, revision))
        return str(material / "data")

    monkeypatch.setattr("wam.data.hub.snapshot_download", download)
    config = tiny_run(material, tmp_path / "out", data=Path("someone/arm"))
    with pytest.raises(ValueError, match="someone/arm: no such folder; .* give a revision"):
        build(config)
    build(replace(config, revision=commit)).run()
    (tmp_path / "mixture.yaml").write_text(
        yaml.safe_dump([{"data": "someone/arm", "revision": commit, "embodiment": "metaworld-sawyer"}])
    )
    build(tiny_run(material, tmp_path / "other", data=tmp_path / "mixture.yaml"))
    assert asked == [("someone/arm", "dataset", commit)] * 2
    origin = json.loads((tmp_path / "out" / MODEL / ORIGIN).read_text())
    assert (origin["training"]["data"], origin["training"]["revision"]) == ("someone/arm", commit)
