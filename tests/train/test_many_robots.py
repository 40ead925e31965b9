"""One run over four robots: Meta-World, LIBERO as it is published, two arms, and people without actions."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from tests.data.robots import CELL, KINDS, write_robots
from tests.train.processes import NoEncoder

import wam.train.build
from wam.data.windows import WindowBatch
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.model.codec import EmbodimentLinear
from wam.robot.units import Units
from wam.train.build import build
from wam.train.config import NetworkSize, OptimizerConfig, TrainConfig, ValidationConfig, WindowConfig
from wam.train.trackers import LOG
from wam.train.trainer import WITHOUT_ACTIONS, Trainer
from wam.world_action_model import WorldActionModel

CHUNK = 8
COUNTS = {"metaworld": 3, "libero-v2.1": 2, "two-arms": 2, "people": 1}
ROBOTS = ["metaworld", "libero", "two-arms"]


class Run(NamedTuple):
    config: TrainConfig
    trainer: Trainer


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets, their robots' files, a mixture of all, and a tokenizer with random weights."""
    root = tmp_path_factory.mktemp("robots")
    entries = [
        {"data": str(data), "embodiment": str(robot), "weight": float(COUNTS[data.name])}
        for data, robot in write_robots(root).values()
    ]
    (root / "mixture.yaml").write_text(yaml.safe_dump(entries))
    torch.manual_seed(0)
    shape = NanoTokenizerConfig(4, (8, 8), (1, 1), canvas_height=CELL, canvas_width=2 * CELL)
    NanoTokenizer(shape).save_pretrained(root / "tokenizer")
    return root


@pytest.fixture
def run(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(wam.train.build, "MiniLMTextEncoder", NoEncoder)
    config = TrainConfig(
        data=material / "mixture.yaml",
        tokenizer=material / "tokenizer",
        out=tmp_path / "run",
        size=NetworkSize(dim=32, heads=2, layers=2),
        windows=WindowConfig(validation_share=0.3),
        validation=ValidationConfig(windows=4, levels=(1.0,), steps=(1,), samples=0),
        optimizer=OptimizerConfig(warmup_steps=2),
        batch=sum(COUNTS.values()),
        steps=3,
        log_every=1,
        precision="float32",
    )
    return Run(config, build(config))


def rows_of(batch: WindowBatch) -> dict[str, slice]:
    """Where each member's windows are in a batch."""
    ends = torch.tensor(list(COUNTS.values())).cumsum(0).tolist()
    return {name: slice(end - count, end) for (name, count), end in zip(COUNTS.items(), ends, strict=True)}


def test_every_batch_holds_every_member_in_its_own_units_and_slot(run: Run) -> None:
    mixture, robots = run.trainer.batches, run.trainer.bare.config.embodiments
    assert [robot.name for robot in robots] == ROBOTS
    assert {robot.action_width for robot in robots} == {14} and {robot.state_width for robot in robots} == {18}
    for _ in range(3):
        batch = next(mixture)
        for place, (name, rows) in enumerate(rows_of(batch).items()):
            part, member = slice_of(batch, rows), mixture.members[place]
            assert part.has_action.all() == part.has_action.any() == (name != "people")
            if name == "people":
                assert not part.action_dims.any() and not part.action.any() and not part.state.any()
                continue
            robot = robots[place]
            assert part.embodiment.tolist() == [place] * len(part.row)
            assert part.action_dims.sum(-1).tolist() == [robot.action_dim] * len(part.row)
            restored = Units(robot).action_to_robot(part.action[:, :CHUNK], part.state[:, 0])
            first = (part.row + part.chunk_index[:, 0] * CHUNK).numpy()
            source = member.source
            raw = torch.from_numpy(source._action[source._offset[part.episode.numpy()] + first])
            known = robot.statistics.action if robot.statistics else None
            assert known is not None
            inside = raw.clamp(torch.tensor(known.q01), torch.tensor(known.q99))  # quantiles cut off what is beyond
            arm = ["gripper" not in dim for dim in robot.action_names]  # statistics of grippers are of 0 (open) to 1
            assert torch.allclose(restored[:, 0, arm], inside[:, arm], rtol=1e-3, atol=1e-3), name
            assert part.action.abs().max() <= 1.0
    scales = [max(robot.statistics.action.q99) for robot in robots if robot.statistics]
    assert max(scales) > 3 * min(scales), "the robots' units do not differ, so this test could not fail"


def slice_of(batch: WindowBatch, rows: slice) -> WindowBatch:
    return replace(batch, **{name: x[rows] for name, x in batch.tensors().items()})


def test_losses_are_reported_for_each_robot_and_the_codecs_learn(run: Run) -> None:
    before = {name: value.clone() for name, value in run.trainer.bare.state_dict().items()}
    assert run.trainer.run()
    lines = [json.loads(line) for line in (run.config.out / LOG).read_text().splitlines()]
    scores = next(line["validation"] for line in lines if "validation" in line)
    assert list(scores["data"]) == list(COUNTS)
    for name in ROBOTS:
        reported = scores["embodiments"][name]
        assert all(math.isfinite(reported[part]) and reported[part] > 0 for part in ("video", "action")), name
        dims = scores["data"]["libero-v2.1" if name == "libero" else name]["action_error"]["1"]["dims"]
        assert list(dims) == [*KINDS[name].action] and all(map(math.isfinite, dims.values()))
    trained = [line["embodiments"] for line in lines if "action" in line]
    assert trained and all(list(each) == [*ROBOTS, WITHOUT_ACTIONS] for each in trained)
    for name in ROBOTS:
        for part in ("video", "action"):
            told = [each[name][part] for each in trained if part in each[name]]
            assert told and min(told) > 0, (name, part)
    assert any("video" in each[WITHOUT_ACTIONS] for each in trained)
    assert not any("action" in each[WITHOUT_ACTIONS] for each in trained)
    people = scores["data"]["people"]
    assert math.isfinite(people["video"]) and "action" not in people and "action_error" not in people
    for name, layer in codecs(run.trainer.bare).items():
        moved = (layer.weight - before[f"transformer.{name}.weight"]).flatten(1).abs().sum(-1)
        assert (moved > 0).all(), name


def test_a_batch_without_a_robot_leaves_its_codec_alone(run: Run) -> None:
    trainer, model = run.trainer, run.trainer.bare
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # the heads begin at zero, and would let no gradient through
    for place, name in enumerate(ROBOTS):
        model.zero_grad()
        source = trainer.batches.members[place].source
        batch = trainer.batches.collate(place, source.windows(np.arange(4), np.random.default_rng(0)))
        model.loss(batch, trainer.prompts[batch.text_id], torch.Generator().manual_seed(0)).total.backward()
        for layer_name, layer in codecs(model).items():
            assert layer.weight.grad is not None
            reached = layer.weight.grad.flatten(1).abs().sum(-1) > 0
            assert reached.tolist() == [slot == place for slot in range(len(ROBOTS))], (name, layer_name)


def codecs(model: WorldActionModel) -> dict[str, EmbodimentLinear]:
    """Every layer with weights of its own for each robot."""
    found = {n: m for n, m in model.transformer.named_modules() if isinstance(m, EmbodimentLinear)}
    assert len(found) >= 5
    return found
