"""These tests run in the environment of lerobot (`scripts/make_lerobot_env.sh`), on a small data set of Meta-World:

pytest packages/lerobot_policy_wam/tests --data-set FOLDER --latents FOLDER

`tests/packages/test_lerobot_policy_wam.py` makes both, as wam reads videos with a newer PyAV than lerobot allows.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data-set", required=True, help="LeRobot data set that `wam collect` wrote")
    parser.addoption("--latents", required=True, help="latent cache of it, by the tokenizer of nano-metaworld")


@pytest.fixture(scope="session")
def root(request: pytest.FixtureRequest) -> Path:
    torch.set_num_threads(1)
    return Path(request.config.getoption("--data-set")).resolve()


@pytest.fixture(scope="session")
def latents(request: pytest.FixtureRequest) -> Path:
    return Path(request.config.getoption("--latents")).resolve()
