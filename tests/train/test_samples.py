"""Dreams for people: real beside dreamed, decoded from the real picture before them, the newest few kept."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from tests.train.initial import without_text
from tests.train.processes import tiny_run, write_material

from wam.data.lerobot_reader import LeRobotDataset
from wam.data.windows import WindowBatch, WindowIndex, WindowSource, WindowSpec
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.encoders.video import video_to_frames
from wam.flow.sampler import Imagined
from wam.train.build import build
from wam.train.config import ValidationConfig
from wam.train.samples import Dreamer, Sample, _long_batch, _long_windows
from wam.train.trainer import Trainer
from wam.world_action_model import WorldActionModel

CONFIG = ValidationConfig(samples=2, sample_chunks=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_material(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def trainer(root: Path) -> Trainer:
    with pytest.MonkeyPatch.context() as patch:
        without_text(patch)
        return build(tiny_run(root, root / "run"))


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> NanoTokenizer:
    return NanoTokenizer.from_pretrained(root / "tokenizer")


def dreamer(trainer: Trainer, tokenizer: NanoTokenizer, config: ValidationConfig = CONFIG) -> Dreamer:
    return Dreamer(trainer.validation.members, trainer.prompts, tokenizer, config)


@pytest.fixture(scope="module")
def sample(trainer: Trainer, tokenizer: NanoTokenizer) -> Sample:
    found = dreamer(trainer, tokenizer)(trainer.bare.eval())
    assert found is not None
    return found


def test_a_stretch_is_one_window_of_as_many_chunks(trainer: Trainer, root: Path) -> None:
    """Put together from windows of three chunks, it equals a window of four."""
    held_out = trainer.validation
    short = held_out.members[0].source
    index, chunks = _long_windows(short, 2, 4)
    assert (chunks, short.spec.chunks) == (4, 3)
    batch = _long_batch(held_out, 0, index, chunks)
    long = WindowSource(LeRobotDataset(root / "data"), short.cache, WindowSpec(chunks=4), short.selection)
    expected = long.collate(WindowIndex(index.episode, index.row, 4 * np.ones_like(index.row), 0 * index.row))
    assert torch.equal(batch.video, expected.video) and torch.equal(batch.anchor, expected.anchor)
    assert torch.equal(batch.chunk_valid, expected.chunk_valid) and bool(expected.video_valid.all())
    units = held_out.members[0].units
    assert units is not None and torch.allclose(batch.state, units.state_to_model(expected.state))


def test_the_same_is_dreamed_every_time_and_real_is_what_the_tokenizer_shows(
    trainer: Trainer, tokenizer: NanoTokenizer, sample: Sample
) -> None:
    again = dreamer(trainer, tokenizer)(trainer.bare.eval())
    assert again is not None and len(sample.stretches) == 2
    index, chunks = _long_windows(trainer.validation.members[0].source, 2, 4)
    batch = _long_batch(trainer.validation, 0, index, chunks)
    decoded = video_to_frames(tokenizer.decode(torch.cat([batch.anchor, batch.video], dim=2)))
    for one, other, real in zip(sample.stretches, again.stretches, decoded, strict=True):
        assert np.array_equal(one.dreamed, other.dreamed)
        assert np.array_equal(one.real, real)
        assert np.array_equal(one.dreamed[0], one.real[0]) and not np.array_equal(one.dreamed, one.real)
        assert np.array_equal(one.still[5:9], one.real[4:5].repeat(4, axis=0))


def test_a_perfect_dream_equals_what_happened(
    trainer: Trainer, tokenizer: NanoTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk is decoded from the real picture before it."""

    def perfect(model: object, windows: WindowBatch, *_: object) -> Iterator[Imagined]:
        for chunk in windows.video.split(1, dim=2):
            yield Imagined(chunk, windows.action)

    monkeypatch.setattr("wam.train.samples.imagine_along", perfect)
    found = dreamer(trainer, tokenizer)(trainer.bare.eval())
    assert found is not None
    assert all(np.array_equal(one.dreamed, one.real) for one in found.stretches)
    assert found.scores()["psnr"] == 99.0 > found.scores()["psnr_still"]


def test_picture_and_film_can_be_looked_at_and_the_newest_stay(sample: Sample, tmp_path: Path) -> None:
    for step in (5, 10, 20, 40):
        picture, film = sample.save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("step-00000020.mp4", "step-00000020.png", "step-00000040.mp4", "step-00000040.png")
    ]
    with Image.open(picture) as image:
        assert np.array_equal(np.asarray(image), sample.strip())
    with av.open(io.BytesIO(film.read_bytes())) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 17 + 20 and frames[0].shape == sample.film().shape[1:]  # a second of standing still
    assert np.abs(frames[0].astype(int) - sample.film()[0]).mean() < 8


def test_who_does_not_dream_shows_nothing(trainer: Trainer, tokenizer: NanoTokenizer) -> None:
    control = WorldActionModel(replace(trainer.bare.config, dream=False))
    assert dreamer(trainer, tokenizer)(control) is None
    assert dreamer(trainer, tokenizer, replace(CONFIG, samples=0))(trainer.bare) is None


def test_a_bidirectional_model_dreams_one_chunk(trainer: Trainer, tokenizer: NanoTokenizer) -> None:
    transformer = replace(trainer.bare.config.transformer, autoregressive=False)
    found = dreamer(trainer, tokenizer)(WorldActionModel(replace(trainer.bare.config, transformer=transformer)).eval())
    assert found is not None and [len(one.real) for one in found.stretches] == [5, 5]


def test_stretches_are_shorter_where_no_episode_is_long_enough(trainer: Trainer) -> None:
    index, chunks = _long_windows(trainer.validation.members[0].source, 3, 100)
    longest = max(trainer.validation.members[0].source._length[trainer.validation.members[0].source.episodes])
    assert chunks == (longest - 1) // 8 and len(index.row) > 0


def test_large_pictures_are_shrunk_in_the_strip(sample: Sample) -> None:
    one = sample.stretches[0]
    large = {name: getattr(one, name).repeat(5, axis=1).repeat(5, axis=2) for name in ("real", "dreamed", "still")}
    assert Sample((replace(one, **large),)).strip().shape[1] <= Sample((one,)).strip().shape[1]


def test_sentences_are_looked_up_where_they_lie(
    trainer: Trainer, tokenizer: NanoTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts stay on the CPU; an index on another device would be refused. The meta device stands for a GPU."""

    class OnTheHost:
        def __getitem__(self, index: torch.Tensor) -> torch.Tensor:
            assert index.device.type == "cpu"
            return trainer.prompts[index]

    class Asked(Exception):
        pass

    def imagine(model: object, windows: WindowBatch, text: torch.Tensor, *_: object) -> Iterator[Imagined]:
        assert windows.video.is_meta and text.is_meta
        raise Asked

    monkeypatch.setattr("wam.train.samples.imagine_along", imagine)
    asks = dreamer(trainer, tokenizer)
    asks.prompts = OnTheHost()  # type: ignore[assignment]
    with pytest.raises(Asked):
        asks(copy.deepcopy(trainer.bare).to("meta"))


def test_none_can_be_kept(sample: Sample, tmp_path: Path) -> None:
    sample.save(tmp_path, 5, keep=0)
    assert not list(tmp_path.iterdir())
