"""Scenes from recordings, and what a model makes of them: which looks, which actions, and honest errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.engine.robots import tiny_engine
from tests.models import EMBODIMENT, TINY
from wam.data.lerobot_reader import LeRobotDataset
from wam.data.lerobot_writer import LeRobotWriter
from wam.data.schema import Camera, DatasetSpec, EpisodeData, Feature
from wam.data.video import VideoWriter
from wam.engine.config import EngineConfig
from wam.engine.modes import Mode
from wam.evaluate.imagination import action_scores, held, imagine, video_scores
from wam.evaluate.scenes import Moment, Scene, from_dataset, from_film, from_metaworld
from wam.flow.sampler import Sampler
from wam.robot.embodiment import METAWORLD_SAWYER

ROWS = 24
NUMBERS = {"observation.state": Feature("float32", (3,)), "action": Feature("float32", (2,))}


def pictures(rows: int = ROWS) -> np.ndarray:
    """A square that moves."""
    frames = np.full((rows, 32, 32, 3), 60, dtype=np.uint8)
    for row in range(rows):
        frames[row, 8:16, row : row + 8] = 200
    return frames


def write(root: Path, features: dict[str, Feature], fps: int = 10) -> LeRobotDataset:
    """One episode whose actions and states say their row."""
    rows = np.arange(ROWS, dtype=np.float32)[:, None]
    columns = {
        "observation.state": rows + [0.1, 0.2, 0.3],
        "action": -rows + [0.0, 0.5],
        "executed_action": rows + [7, 8],
    }
    chosen = {name: columns[name].astype(np.float32) for name in features}
    spec = DatasetSpec(fps=fps, robot_type="tiny", features=features, cameras={"front": Camera(32, 32)})
    with LeRobotWriter(root, spec) as writer:
        writer.add_episode(EpisodeData(images={"front": pictures()}, columns=chosen, task="push it"))
    return LeRobotDataset(root)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDataset:
    return write(tmp_path_factory.mktemp("scenes"), NUMBERS)


@pytest.fixture(scope="module")
def scene(dataset: LeRobotDataset) -> Scene:
    return from_dataset(dataset, 0, Moment(row=9, chunks=2), EMBODIMENT)


def test_a_scene_is_reached_and_left_in_whole_chunks(scene: Scene) -> None:
    rows = [[round(look.timestamp * 10) for look in looks] for looks in (*scene.past, *scene.future)]
    assert rows == [[1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13], [14, 15, 16, 17]] and len(scene.past) == 3
    for looks in (*scene.past, *scene.future):
        for look in looks:
            row = round(look.timestamp * 10)
            assert look.state[0] == pytest.approx(row + 0.1) and look.instruction == "push it"
            assert look.images["front"][12, row + 4].mean() > 150 > look.images["front"][12, row - 1].mean()
    assert scene.actions is not None and scene.actions[:, :, 0].tolist() == [[-9, -10, -11, -12], [-13, -14, -15, -16]]
    assert scene.before is not None and scene.before.tolist() == [-8.0, -7.5]


def test_all_chunks_there_are(dataset: LeRobotDataset) -> None:
    assert len(from_dataset(dataset, 0, Moment(row=2, chunks=0), EMBODIMENT).future) == 5
    with pytest.raises(ValueError, match="row 9 and 4 chunks of 4 rows after it asked for, there are rows 0 to 23"):
        from_dataset(dataset, 0, Moment(row=9, chunks=4), EMBODIMENT)
    with pytest.raises(ValueError, match="has 10 rows per second, robot 'tiny' is controlled at 20 Hz"):
        from_dataset(dataset, 0, Moment(), replace(EMBODIMENT, control_hz=20.0))


def test_what_was_executed_where_it_differs_from_the_labels(tmp_path: Path) -> None:
    told = write(tmp_path, {**NUMBERS, "executed_action": Feature("float32", (2,))})
    scenes = [from_dataset(told, 0, Moment(4, 1), EMBODIMENT, executed=executed) for executed in (False, True)]
    assert [one.actions[0, 0].tolist() for one in scenes if one.actions is not None] == [[-4.0, -3.5], [11.0, 12.0]]


def test_video_alone_can_be_labelled(tmp_path: Path) -> None:
    """A data set without states and actions, and a film of the same pictures."""
    bare = from_dataset(write(tmp_path / "set", {}), 0, Moment(row=4, chunks=0), EMBODIMENT)
    film = VideoWriter(tmp_path / "film.mp4", 10, 32, 32)
    film.append(pictures())
    film.close()
    filmed = from_film(tmp_path / "film.mp4", Moment(row=4, chunks=0), EMBODIMENT, "push it")
    found = [imagine(tiny_engine(), one, "inverse") for one in (bare, filmed)]
    assert len(bare.future) == len(filmed.future) == 4 and bare.actions is None
    assert torch.equal(torch.from_numpy(bare.past[0][0].state), torch.tensor([0.1, 0.2, 0.3]))  # zeros to the model
    for one in found:
        assert one.actions is not None and one.actions.shape == (4, 4, 2) and one.dreamed is None and not one.scores
    assert np.allclose(found[0].actions, found[1].actions, atol=1e-4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs actions"):
        imagine(tiny_engine(), bare, "forward")


@pytest.mark.parametrize(
    ("mode", "dreams", "scored"),
    [
        ("policy", True, {"psnr", "psnr_still", "action_rmse", "hold_last", "hold_mean"}),
        ("video", True, {"psnr", "psnr_still"}),
        ("forward", True, {"psnr", "psnr_still"}),
        ("inverse", False, {"action_rmse", "hold_last", "hold_mean"}),
        ("action-only", False, {"action_rmse", "hold_last", "hold_mean"}),
    ],
)
def test_every_mode(scene: Scene, mode: Mode, dreams: bool, scored: set[str]) -> None:
    found = imagine(tiny_engine(EngineConfig(Sampler(steps=2))), scene, mode)
    assert found.real.shape == (9, 32, 32, 3) and (found.dreamed is not None) == dreams
    if found.dreamed is not None:
        assert np.array_equal(found.dreamed[0], found.real[0]) and not np.array_equal(found.dreamed, found.real)
    assert (found.actions is None) == (mode == "video")
    assert {name for name in found.scores if not name.endswith("_per_chunk")} == scored


def test_what_if_is_not_compared_with_what_was(scene: Scene) -> None:
    engine = tiny_engine()
    found = imagine(engine, scene, "forward", actions=held(scene, EMBODIMENT))
    real = imagine(engine, scene, "forward")
    assert not found.scores and found.actions is not None and np.array_equal(found.actions[1, 3], [-8.0, -7.5])
    assert found.dreamed is not None and real.dreamed is not None and not np.array_equal(found.dreamed, real.dreamed)


def test_states_a_world_model_would_not_know_are_told_only_on_request(scene: Scene) -> None:
    """The first chunk begins at the same present."""
    told, untold = (imagine(tiny_engine(), scene, "forward", real_states=real).dreamed for real in (True, False))
    assert told is not None and untold is not None
    assert np.abs(told[:5].astype(int) - untold[:5]).max() <= 1 and not np.array_equal(told[5:], untold[5:])


def test_scores_of_a_perfect_guess(scene: Scene) -> None:
    assert scene.actions is not None and scene.before is not None
    scores = action_scores(EMBODIMENT, scene, scene.actions)
    distance = np.sqrt((((scene.actions - scene.before) / [0.5, 2.0]) ** 2).mean())  # deviations of the tiny robot
    assert scores["action_rmse"] == 0.0 and scores["hold_last"] == pytest.approx(
        np.sqrt((distance**2).mean()), abs=1e-4
    )
    off = action_scores(EMBODIMENT, scene, scene.actions + np.array([0.5, 2.0], dtype=np.float32))
    assert off["action_rmse"] == pytest.approx(1.0, abs=1e-3)
    real = pictures(9)
    perfect = video_scores(real, real, 2)
    assert perfect["psnr"] == 99.0 and perfect["psnr_per_chunk"] == [99.0, 99.0]
    assert isinstance(still := perfect["psnr_still_per_chunk"], list) and still[0] > still[1]


def test_where_nothing_was_done_before_holding_is_the_mean(dataset: LeRobotDataset) -> None:
    first = from_dataset(dataset, 0, Moment(0, 1), EMBODIMENT)
    assert first.before is None and np.allclose(held(first, EMBODIMENT)[0, 0], [0.1, -0.1], atol=1e-6)


def test_a_model_without_video_goes_on_with_what_is_real(scene: Scene) -> None:
    found = imagine(tiny_engine(model=replace(TINY, dream=False)), scene, "policy")
    assert found.dreamed is None and found.actions is not None and "psnr" not in found.scores


@pytest.mark.slow
def test_a_simulator_shows_what_chosen_actions_lead_to() -> None:
    """Up to the present the expert acts; the scene then holds the chosen actions and what came of them."""
    pytest.importorskip("metaworld")
    robot, moment = METAWORLD_SAWYER, Moment(row=3, chunks=1)
    away = np.full((1, 8, 4), 1.0, dtype=np.float32)
    expert, chosen = (from_metaworld("push", 2_000_001, moment, robot, actions) for actions in (None, away))
    assert chosen.actions is not None and np.array_equal(chosen.actions, away) and expert.actions is not None
    assert len(expert.past) == len(expert.future) == 1 and not np.allclose(expert.actions, away)
    assert [round(look.timestamp * 40) for look in (*chosen.past[0], *chosen.future[0])] == [3, 5, 7, 9, 11]
    assert np.array_equal(expert.past[0][0].state, chosen.past[0][0].state)
    assert not np.allclose(expert.future[0][-1].state, chosen.future[0][-1].state, atol=1e-3)


@pytest.mark.parametrize(
    ("moment", "asked"),
    [
        (Moment(row=400), "row 400 and 4 chunks of 8 rows"),
        (Moment(row=-8), "row -8 and 4 chunks of 8 rows"),
        (Moment(row=200, chunks=7), "row 200 and 7 chunks of 8 rows"),
        (Moment(chunks=-1), "row 0 and -1 chunks of 8 rows"),
    ],
)
def test_a_simulated_episode_has_an_end(moment: Moment, asked: str) -> None:
    pytest.importorskip("metaworld")
    with pytest.raises(ValueError, match=f"Meta-World push, seed 3: {asked} .* there are rows 0 to 250"):
        from_metaworld("push", 3, moment, METAWORLD_SAWYER)
