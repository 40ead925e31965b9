"""Published weights adapted to a robot: a model of their format with random weights, as small as it can be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.checkpoints import tiny
from tests.data.synthetic import CAMERAS, write_dataset
from tests.train.processes import together
from torch import Tensor

from wam.checkpoints.convert import convert
from wam.checkpoints.errors import CheckpointError
from wam.checkpoints.inspection import inspect
from wam.checkpoints.load import load_published
from wam.checkpoints.lora_files import read_adapter
from wam.checkpoints.merge_files import merge_files
from wam.checkpoints.model_folder import read_robot
from wam.checkpoints.save import save_published
from wam.cli.finetune import FineTune, main
from wam.data.errors import DatasetError
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import Camera, DatasetSpec, EpisodeData, Feature
from wam.engine.load_released import Fit, load_released
from wam.engine.released_loop import ReleasedSampler
from wam.engine.released_policy import PolicyConfig
from wam.evaluate.parity.network import released_window
from wam.model.transformer import Pass, Transformer, Velocity
from wam.robot.canvas import compose
from wam.robot.embodiment import Embodiment, EmbodimentError, load_embodiment
from wam.robot.observation import Observation
from wam.robot.preprocess import to_unit_range
from wam.train.finetune import build_finetune
from wam.train.parallel import Parallel
from wam.train.start import Start
from wam.train.trainer import Report
from wam.world_action_model import WorldActionModel

SIZES = replace(
    tiny.CONFIG, frames_per_chunk=2, actions_per_chunk=24, state_dim=64, action_dim=32, layers=2, memory=4, ffn_dim=48
)
KITCHEN = replace(
    load_embodiment("metaworld-sawyer"),
    name="kitchen",
    view_height=32,
    view_width=32,
    crop=0.9,
    frames_per_chunk=2,
    actions_per_chunk=24,
    video_stride=3,
    normalization="quantiles",
    prompt_template="A video of a robot: {instruction}",
)
QUICK = PolicyConfig(ReleasedSampler(steps=1, guidance=1.0, skip=16))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base: published weights.  data: recordings of a robot that they do not know.  kitchen.yaml: its file."""
    folder = tmp_path_factory.mktemp("finetune")
    transformer: Any = tiny.randomised(Transformer(SIZES))
    save_published(replace(tiny.whole(), transformer=transformer), folder / "base")
    write_dataset(folder / "data", 5, length=60)
    KITCHEN.to_yaml(folder / "kitchen.yaml")
    return folder


def asked(root: Path, out: Path, **changes: Any) -> FineTune:
    plain = FineTune(
        base=str(root / "base"),
        data=root / "data",
        out=out,
        robot=str(root / "kitchen.yaml"),
        rank=2,
        alpha=2.0,
        chunks=2,
        validation_share=0.3,
        validation_windows=2,
        batch=2,
        steps=3,
        log_every=1,
        precision="float32",
        activation_checkpointing=False,
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def finished(root: Path) -> Path:
    """The model folder of a run of three steps."""
    main(asked(root, root / "run"))
    return root / "run" / "model"


# ---------------------------------------------------------------- windows -> noise -> loss


def test_the_objective_asks_the_network_as_the_released_training_does(root: Path, tmp_path: Path) -> None:
    """The released window also has the anchor among its noisy frames, and the last clean chunk, which nobody sees."""
    trainer = build_finetune(asked(root, tmp_path, noise=FineTune.noise).training())
    model, windows = trainer.bare, next(trainer.batches)
    assert windows.beside is not None and windows.image is not None
    draws = model.draw(windows, [torch.Generator().manual_seed(n) for n in range(2)])
    text = trainer.prompts[windows.text_id]
    answers: list[Velocity] = []
    hook = model.transformer.register_forward_hook(lambda *given: answers.append(given[-1]))
    with torch.no_grad():
        model(windows, text, draws)
        expected = model.transformer(*as_released(model, windows, draws, text))
    hook.remove()
    found = answers[0]
    assert found.video is not None and found.action is not None
    assert expected.video is not None and expected.action is not None
    torch.testing.assert_close(found.video, expected.video[:, :, 1:], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.action, expected.action, rtol=0, atol=1e-5)


def as_released(model: WorldActionModel, windows: Any, draws: Any, text: Tensor) -> tuple[Pass, Any]:
    c, chunks = model.config.transformer, windows.chunk_valid.shape[1]
    clean = torch.cat([windows.anchor, windows.video], dim=2)
    level = draws.video_level.repeat_interleave(c.frames_per_chunk, 1)
    wide = level[:, None, :, None, None]
    noisy = torch.cat([windows.anchor, (1 - wide) * windows.video + wide * draws.video_noise], dim=2)
    of_actions = draws.action_level.repeat_interleave(c.actions_per_chunk, 1)
    action = (1 - of_actions[..., None]) * windows.action + of_actions[..., None] * draws.action_noise
    zero = torch.zeros_like(level[:, :1])
    inputs = Pass(
        layout=released_window(c, model.config.grid, chunks),
        sigma=torch.cat([zero, zero, level, of_actions], dim=1),
        embodiment=windows.embodiment,
        video=torch.cat([torch.cat([x, windows.beside], dim=1) for x in (clean, noisy)], dim=2),
        action=action,
        state=windows.state,
    )
    return inputs, model.transformer.context(text, windows.image)


def test_windows_are_encoded_as_the_policy_encodes_what_it_sees(root: Path, tmp_path: Path) -> None:
    """Anchor, first picture and its features are those that the released policy starts from at the same row."""
    trainer = build_finetune(asked(root, tmp_path).training())
    member = trainer.batches.members[0]
    windows = trainer.batches.collate(0, member.source.windows(np.array([3]), np.random.default_rng(0)))
    cache: Any = member.source.cache
    episode, row = int(windows.episode[0]), int(windows.row[0])
    robot = trainer.bare.config.embodiments[0]
    look = {camera: cache.source.frames(episode, robot.camera_key(camera), [row])[0] for camera in CAMERAS}
    state = cache.source.columns(episode, ["observation.state"])["observation.state"][row]
    policy = load_released(root / "base", yaml_of(robot, tmp_path), config=replace(QUICK, picture_dtype=torch.float32))
    session = policy.policy()
    session.act([Observation(look, state, "do it", 0.0)])
    assert session._session is not None and session._session.loop.first_frame is not None
    assert windows.beside is not None and windows.image is not None and policy.image_encoder is not None
    torch.testing.assert_close(windows.anchor, session._session.last, rtol=0, atol=1e-5)
    beside = session._session.loop.first_frame[:, :, : windows.beside.shape[2]]
    torch.testing.assert_close(windows.beside, beside, rtol=0, atol=1e-5)
    torch.testing.assert_close(windows.image, policy.image_encoder(compose(look, robot)[None]), rtol=0, atol=1e-5)
    shown = cache.frames(episode, row + 3 * np.arange(1 + 4 * 2 * 2))
    clip = to_unit_range(torch.from_numpy(shown)).transpose(0, 1)[None]
    torch.testing.assert_close(windows.video, policy.tokenizer.encode(clip)[:, :, 1:], rtol=0, atol=1e-5)


def yaml_of(robot: Embodiment, folder: Path) -> str:
    robot.to_yaml(folder / "robot.yaml")
    return str(folder / "robot.yaml")


# ---------------------------------------------------------------- what a run leaves


def test_a_run_leaves_an_adapter_and_the_robot(root: Path, finished: Path) -> None:
    stored = read_adapter(finished)
    assert stored.config.rank == 2 and set(stored.config.full) == {"state_encoder", "action_encoder", "action_decoder"}
    robot = Embodiment.from_yaml(finished / "robot.yaml")
    assert robot.statistics is not None and (robot.state_width, robot.action_width) == (64, 32)
    lines = [json.loads(line) for line in (root / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "lr" in line] == [1, 2, 3]
    held_out = next(line["validation"] for line in lines if "validation" in line)
    assert held_out["action"] > 0 and held_out["video"] > 0
    assert json.loads((finished / "training.json").read_text())["steps"] == 3


def test_merged_weights_act_for_the_robot_that_they_were_adapted_to(root: Path, finished: Path, tmp_path: Path) -> None:
    merge_files(root / "base", finished, tmp_path / "merged")
    base, merged = (load_released(folder, config=QUICK) for folder in (root / "base", tmp_path / "merged"))
    assert base.robot.name == "droid-franka" and merged.robot.name == "kitchen"
    before, after = (dict(m.model.transformer.state_dict()) for m in (base, merged))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(".self_attn.q." in name for name in changed) and any("action_decoder" in name for name in changed)
    assert not any(name.startswith(("head", "text_embedding", "patch_embedding")) for name in changed)
    looks = {camera: np.full((48, 48, 3), 90, np.uint8) for camera in CAMERAS}
    chunk = merged.policy().act([Observation(looks, np.zeros(4, np.float32), "do it", 0.0)])
    assert chunk.actions.shape == (24, 4) and np.isfinite(chunk.actions).all()


def test_the_same_command_goes_on_where_it_was(root: Path, finished: Path, tmp_path: Path) -> None:
    trainer = build_finetune(asked(root, tmp_path / "again").training())

    def stop(_: Report) -> None:
        trainer.stopping = True

    assert not trainer.run(stop) and trainer.step == 2 and not (tmp_path / "again" / "model").exists()
    main(asked(root, tmp_path / "again"))
    whole, resumed = (read_adapter(folder).tensors for folder in (finished, tmp_path / "again" / "model"))
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


def test_an_adapter_acts_beside_its_base_as_it_does_merged(root: Path, finished: Path, tmp_path: Path) -> None:
    merge_files(root / "base", finished, tmp_path / "merged")
    whole, beside = (load_released(folder, config=QUICK) for folder in (tmp_path / "merged", finished))
    assert beside.robot == whole.robot and beside.name == "model" and beside.identity != whole.identity
    looks = {camera: np.full((48, 48, 3), 90, np.uint8) for camera in CAMERAS}
    look = Observation(looks, np.zeros(4, np.float32), "do it", 0.0)
    chunks = [model.policy().act([look]).actions for model in (whole, beside)]
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-4)
    with pytest.raises(ValueError, match="is an adapter, which runs beside a base"):
        load_released(finished, fit=Fit(weights="int8"))


def test_the_robot_goes_along_when_weights_are_converted(root: Path, finished: Path, tmp_path: Path) -> None:
    merge_files(root / "base", finished, tmp_path / "merged")
    convert(tmp_path / "merged", tmp_path / "bf16", dtype=torch.bfloat16)
    load_published(tmp_path / "bf16").save_pretrained(tmp_path / "again")
    for folder in (tmp_path / "bf16", tmp_path / "again"):
        assert read_robot(folder) == read_robot(finished)
        assert inspect(folder).embodiments["kitchen"]
    assert load_released(tmp_path / "again", "kitchen", config=QUICK).robot.name == "kitchen"
    further = build_finetune(asked(root, tmp_path / "run", base=str(tmp_path / "merged")).training())
    assert further.bare.config.embodiments[0].statistics == Embodiment.from_yaml(finished / "robot.yaml").statistics


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_learn_what_one_does(root: Path, finished: Path, tmp_path: Path, parallel: Parallel) -> None:
    together(2, main, asked(root, tmp_path / "run", batch=1, parallel=parallel))
    one, two = (read_adapter(folder).tensors for folder in (finished, tmp_path / "run" / "model"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=2e-5, msg=name)


def test_training_lowers_the_loss(root: Path, tmp_path: Path) -> None:
    """Of one window, whose noise is the same every time: the adapters learn."""
    optimizer = replace(FineTune.optimizer, learning_rate=1e-2, warmup_steps=1)
    trainer = build_finetune(asked(root, tmp_path, optimizer=optimizer, rank=8, alpha=8.0).training())
    windows = next(trainer.batches)
    draws = trainer.bare.draw(windows, [torch.Generator().manual_seed(n) for n in range(2)])
    text, learns = trainer.prompts[windows.text_id], [p for p in trainer.bare.parameters() if p.requires_grad]
    adam, losses = torch.optim.Adam(learns, lr=1e-2), []
    for _ in range(8):
        loss = trainer.bare(windows, text, draws).total
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_bfloat16_weights_learn_in_float32(root: Path, tmp_path: Path) -> None:
    main(asked(root, tmp_path / "one", precision="bf16", steps=1))
    stored = read_adapter(tmp_path / "one" / "model").tensors
    assert {x.dtype for x in stored.values()} == {torch.float32}


@pytest.mark.slow
def test_bfloat16_weights_learn_in_shards_too(root: Path, tmp_path: Path) -> None:
    main(asked(root, tmp_path / "one", precision="bf16", steps=1))
    together(2, main, asked(root, tmp_path / "two", precision="bf16", steps=1, batch=1, parallel="fsdp2"))
    one, two = (read_adapter(tmp_path / name / "model").tensors for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=5e-4, msg=name)


def test_a_5b_sees_the_whole_canvas_resized_and_nothing_beside(root: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """As if the tiny VAE were that of Wan 2.2; the transformer reads its latents alone and has no image branch."""
    monkeypatch.setattr("wam.engine.load_released.WAN_22_FACTOR", 8)
    monkeypatch.setattr("wam.engine.load_released.CANVAS_5B", (16, 32))
    transformer: Any = tiny.randomised(Transformer(replace(SIZES, in_channels=16, image_dim=None)))
    save_published(replace(tiny.whole(), transformer=transformer, image_encoder=None), tmp_path / "base")
    trainer = build_finetune(asked(root, tmp_path / "run", base=str(tmp_path / "base")).training())
    windows = next(trainer.batches)
    assert windows.beside is None and windows.image is None and windows.video.shape[-2:] == (2, 4)
    assert torch.isfinite(trainer.train_step().action)


def test_video_without_actions_in_every_batch(root: Path, tmp_path: Path) -> None:
    entries = [{"data": str(root / "data"), "embodiment": str(root / "kitchen.yaml")}]
    people = {**entries[0], "video_only": True}
    (tmp_path / "mixture.yaml").write_text(json.dumps([*entries, people]))
    mixed = {"data": tmp_path / "mixture.yaml", "robot": None}
    optimizer = replace(FineTune.optimizer, accumulate=2)
    main(asked(root, tmp_path / "run", **mixed, batch=1, optimizer=optimizer, steps=2, models_every=1))
    assert (tmp_path / "run" / "models" / "step-00000001" / "robot.yaml").is_file()
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])
    assert line["action"] > 0 and line["video"] > 0
    with pytest.raises(DatasetError, match="gives it no window in a batch of 1"):
        build_finetune(asked(root, tmp_path / "few", **mixed, batch=1).training())
    with pytest.raises(ValueError, match="mixture.yaml names the robots itself"):
        asked(root, tmp_path / "few", data=tmp_path / "mixture.yaml").training()


# ---------------------------------------------------------------- robots


def test_statistics_of_a_robot_that_the_weights_know(root: Path, tmp_path: Path) -> None:
    """droid-franka's statistics come with the weights, unless they are to be taken from the data."""
    data = write_droid(tmp_path / "data")
    for how, expected in (("keep", 2.0), ("recompute", pytest.approx(0.99, abs=0.02))):
        run = asked(root, tmp_path / how, data=data, robot="oxe_droid", statistics=how)
        robot = build_finetune(run.training()).bare.config.embodiments[0]
        assert robot.statistics is not None and robot.statistics.state.q99[0] == expected
    other = replace(load_embodiment("droid-franka"), control_hz=30.0)
    run = asked(root, tmp_path / "other", data=data, robot=yaml_of(other, tmp_path))
    with pytest.raises(EmbodimentError, match="field 'control_hz' is 30.0, but the weights know"):
        build_finetune(run.training())


def write_droid(root: Path) -> Path:
    """Two recordings with the columns of DROID; numbers are spread evenly over 0 to 1."""
    robot, rows = load_embodiment("droid-franka"), 60
    features = {"observation.state": Feature("float32", (14,)), "action": Feature("float32", (21,))}
    spec = DatasetSpec(15, "franka", features, {name: Camera(16, 16) for name in robot.cameras})
    black = {name: np.zeros((rows, 16, 16, 3), np.uint8) for name in robot.cameras}
    with LeRobotWriter(root, spec) as writer:
        for _ in range(2):
            ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None]
            columns = {name: np.repeat(ramp, *feature.shape, axis=1) for name, feature in features.items()}
            writer.add_episode(EpisodeData(black, columns, "push"))
    return root


def test_weights_that_cannot_be_adapted_so_are_named(root: Path, finished: Path, tmp_path: Path) -> None:
    for base, error in (
        ("nano-metaworld", "adapt it with `wam train --init`"),
        (finished, "holds a LoRA adapter only"),
    ):
        with pytest.raises(CheckpointError, match=error):
            build_finetune(asked(root, tmp_path / "run", base=str(base)).training())
    for init in (root / "base", Path("dreamzero-droid")):
        with pytest.raises(ValueError, match="adapt published weights with `wam finetune`"):
            Start.load(init)
    shutil.copytree(root / "base", tmp_path / "mute", ignore=shutil.ignore_patterns("text_encoder"))
    with pytest.raises(CheckpointError, match="has no text_encoder, so it cannot be adapted"):
        build_finetune(asked(root, tmp_path / "run", base=str(tmp_path / "mute")).training())


def test_a_robot_that_does_not_fit_is_named(root: Path, tmp_path: Path) -> None:
    replace(KITCHEN, video_stride=1, frames_per_chunk=6).to_yaml(tmp_path / "other.yaml")
    with pytest.raises(EmbodimentError, match="'kitchen': frames_per_chunk is 6, the weights were trained with 2"):
        build_finetune(asked(root, tmp_path / "run", robot=str(tmp_path / "other.yaml")).training())
    replace(KITCHEN, view_height=30).to_yaml(tmp_path / "odd.yaml")
    with pytest.raises(EmbodimentError, match="canvas of 30 x 64 cannot be cut into patches of 16 x 16"):
        build_finetune(asked(root, tmp_path / "run", robot=str(tmp_path / "odd.yaml")).training())
