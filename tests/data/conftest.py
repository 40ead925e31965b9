"""One small data set for all tests that only read."""

from pathlib import Path

import pytest

from tests.data.synthetic import EMBODIMENT, CellTokenizer, write_dataset
from wam.data.latent_cache import LatentCache, encode_dataset
from wam.data.lerobot_reader import LeRobotDataset

EPISODES = 7


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven episodes in three groups of files; do not change it."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), EPISODES)


@pytest.fixture(scope="session")
def dataset(dataset_root: Path) -> LeRobotDataset:
    """The same, opened."""
    return LeRobotDataset(dataset_root)


@pytest.fixture(scope="session")
def cache(dataset: LeRobotDataset, tmp_path_factory: pytest.TempPathFactory) -> LatentCache:
    """Latents of the data set that can be read back to row numbers."""
    return encode_dataset(dataset, CellTokenizer(), EMBODIMENT, tmp_path_factory.mktemp("cache"), batch=50)
