"""Tokenizer training: it learns, stops on its budget, resumes exactly, and weighs what it says it weighs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.synthetic import CAMERAS, EMBODIMENT, write_dataset

from wam.data.lerobot_reader import LeRobotDataset
from wam.encoders.nano_tokenizer import NanoTokenizer, NanoTokenizerConfig
from wam.train.tokenizer import PixelWeights, TokenizerTrainer, TokenizerTraining, pixel_weights, small_vivid
from wam.train.tokenizer_frames import FrameStore, load_frames, split_episodes
from wam.train.tokenizer_validation import montage, validate

CONFIG = NanoTokenizerConfig(z_channels=4, width=(12, 16), depth=(1, 1), canvas_height=16, canvas_width=32)


def _episode(seed: int, length: int = 13) -> np.ndarray:
    """A coloured square that moves over a fixed textured background, uint8 (length, 16, 32, 3)."""
    texture = np.random.default_rng(0).integers(60, 120, (16, 32, 3))
    rng = np.random.default_rng(seed)
    x, y, speed = rng.integers(0, 20), rng.integers(0, 12), rng.uniform(-1, 1)
    frames = np.repeat(texture[None], length, axis=0)
    for t, frame in enumerate(frames):
        left = int(np.clip(x + speed * t, 0, 28))
        frame[y : y + 4, left : left + 4] = (250, 230, 20)
    return frames.astype(np.uint8)


@pytest.fixture(scope="module")
def store() -> FrameStore:
    return FrameStore.from_episodes([_episode(seed) for seed in range(12)])


def _settings(steps: int, **changes: object) -> TokenizerTraining:
    values: dict[str, object] = {"minutes": None, "steps": steps, "batch": 8, "precision": "float32", "log_every": 5}
    return TokenizerTraining(**(values | changes))  # type: ignore[arg-type]


def test_training_raises_the_psnr(store: FrameStore, tmp_path: Path) -> None:
    trainer = TokenizerTrainer(CONFIG, _settings(150, learning_rate=5e-3, ema=0.95), store, tmp_path)
    before = validate(trainer.finish(), store)
    losses: list[float] = []
    trainer.run(lambda report: losses.append(report.loss))
    tokenizer = trainer.finish()
    after = validate(tokenizer, store)
    assert set(after) == {"first", "group", "present", "foreground", "vivid"}
    assert after["foreground"] > before["foreground"] + 5
    assert after["vivid"] > before["vivid"] + 5
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    clips = torch.from_numpy(store.clips(store.clip_starts(9), 9)).movedim(-1, 1).float() / 127.5 - 1
    latents = tokenizer.encode(clips)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 0.1
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 0.15


def test_resumed_equals_uninterrupted(store: FrameStore, tmp_path: Path) -> None:
    whole = TokenizerTrainer(CONFIG, _settings(8), store, tmp_path / "whole")
    whole.run()
    part = TokenizerTrainer(CONFIG, _settings(8), store, tmp_path / "part")
    for _ in range(5):
        part.train_step()
    part.save_checkpoint()
    resumed = TokenizerTrainer(CONFIG, _settings(8), store, tmp_path / "part")
    assert resumed.resume() and resumed.step == 5
    resumed.run()
    ours, theirs = resumed.finish().state_dict(), whole.finish().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_of_another_model_or_a_damaged_one_is_refused(store: FrameStore, tmp_path: Path) -> None:
    TokenizerTrainer(CONFIG, _settings(1), store, tmp_path).save_checkpoint()
    other = NanoTokenizerConfig(z_channels=5, width=(12, 16), depth=(1, 1), canvas_height=16, canvas_width=32)
    with pytest.raises(ValueError, match="field model"):
        TokenizerTrainer(other, _settings(1), store, tmp_path).resume()
    (tmp_path / "checkpoint.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="checkpoint.safetensors: cannot be read"):
        TokenizerTrainer(CONFIG, _settings(1), store, tmp_path).resume()


def test_the_clock_ends_the_run(store: FrameStore, tmp_path: Path) -> None:
    trainer = TokenizerTrainer(CONFIG, TokenizerTraining(minutes=0.01, batch=2, precision="float32"), store, tmp_path)
    trainer.run()
    assert 0.6 <= trainer.seconds < 5
    with pytest.raises(ValueError, match="at least one limit"):
        TokenizerTraining(minutes=None)


def test_learning_rate_rises_then_falls() -> None:
    settings = _settings(100)
    rates = [settings.rate(progress) for progress in (0.0, 0.03, 0.5, 1.0)]
    assert rates[0] < rates[1] == settings.learning_rate
    assert rates[1] > rates[2] > rates[3] > 0


def test_pixels_that_matter_weigh_more() -> None:
    background = torch.zeros(3, 32, 64)
    video = background.unsqueeze(1).repeat(1, 5, 1, 1)[None].clone()
    video[0, :, 3:, 4:6, 4:6] = torch.tensor([1.0, 1.0, -1.0]).view(3, 1, 1, 1)  # small, vivid, appears in frame 3
    weights = PixelWeights(foreground=6, motion=5, small=12, last=2)
    weight = pixel_weights(video, background, weights)[0, 0]
    assert weight.shape == (5, 32, 64)
    assert weight[1, 20, 20] == 1 and weight[4, 20, 20] == 2
    assert weight[3, 4, 4] == pytest.approx(1 + 6 + 5 + 12)
    assert weight[4, 4, 4] == pytest.approx(2 * (1 + 6 + 12))


def test_large_vivid_areas_are_not_small() -> None:
    video = torch.zeros(1, 3, 1, 40, 40)
    video[:, 0], video[:, 2] = 1.0, -1.0
    assert small_vivid(video, torch.ones(1, 1, 1, 40, 40))[0, 0, 0, 20, 20] == pytest.approx(0.1)


def test_clips_stay_inside_their_episode() -> None:
    store = FrameStore.from_episodes([np.full((n, 8, 8, 3), n, np.uint8) for n in (6, 3, 5)])
    starts = store.clip_starts(5)
    assert starts.tolist() == [0, 1, 9]
    clips = store.clips(starts, 5)
    assert clips.shape == (3, 5, 8, 8, 3)
    assert [np.unique(clip).tolist() for clip in clips] == [[6], [6], [5]]
    with pytest.raises(ValueError, match="no episode has 7 frames"):
        store.clip_starts(7)


def test_validation_episodes_are_apart() -> None:
    train, held_out = split_episodes(20, 4)
    assert len(held_out) == 4 and sorted(train + held_out) == list(range(20))
    assert max(np.diff(held_out)) <= 6


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (9, 1), (12, 2), (100, 20), (120, 24), (3000, 24)])
def test_of_few_episodes_a_fifth_is_held_out(count: int, held_out: int) -> None:
    train, validation = split_episodes(count, 24)
    assert (len(train), len(validation)) == (count - held_out, held_out)


def test_one_episode_cannot_be_learned_from_and_measured_on() -> None:
    with pytest.raises(ValueError, match="found 1 episode, expected two or more"):
        split_episodes(1, 24)
    with pytest.raises(ValueError, match="--validation-episodes is 0"):
        split_episodes(20, 0)


def test_pictures_come_from_the_features_that_the_robot_names(tmp_path: Path) -> None:
    """The two cameras are exchanged by `camera_keys`; an episode of one row gives a picture too."""
    write_dataset(tmp_path / "data", 2, length=1)
    dataset = LeRobotDataset(tmp_path / "data")
    keys = tuple(f"observation.images.{camera}" for camera in CAMERAS[::-1])
    plain, exchanged = (
        load_frames(dataset, robot, [0, 1]) for robot in (EMBODIMENT, replace(EMBODIMENT, camera_keys=keys))
    )
    assert plain.num_episodes == 2 and len(plain.frames) == 2
    half = plain.canvas[1] // 2
    np.testing.assert_array_equal(
        exchanged.frames, np.concatenate([plain.frames[:, :, half:], plain.frames[:, :, :half]], 2)
    )


def test_montage_has_two_rows_per_episode(store: FrameStore) -> None:
    picture = montage(NanoTokenizer(CONFIG), store, episodes=2, columns=3, scale=2)
    assert picture.shape == (2 * 2 * 16 * 2, 3 * 32 * 2, 3)
    np.testing.assert_array_equal(picture[:32:2, :64:2], store.episode(0)[0])
