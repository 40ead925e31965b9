"""The LeRobot plugin in the real lerobot, which needs an environment of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from wam.checkpoints.model_folder import tokenizer_of
from wam.cli.main import main
from wam.data.latent_cache import encode_dataset
from wam.data.lerobot_reader import LeRobotDataset
from wam.encoders.nano_tokenizer import NanoTokenizer
from wam.engine.load import resolve
from wam.robot.embodiment import METAWORLD_SAWYER

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = REPOSITORY / ".venv-lerobot"

pytestmark = pytest.mark.slow


def test_the_plugin_in_the_real_lerobot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data from `wam collect`; then the tests beside the plugin, run by the Python that has lerobot."""
    subprocess.run(["bash", "scripts/make_lerobot_env.sh", str(ENVIRONMENT)], cwd=REPOSITORY, check=True)
    options = ["--tasks", "reach", "push", "--episodes-per-task", "2", "--workers", "1"]
    monkeypatch.setattr("sys.argv", ["wam", "collect", "--out", str(tmp_path / "set"), *options])
    main()
    tokenizer = NanoTokenizer.from_pretrained(tokenizer_of(resolve("nano-metaworld")))
    cache = encode_dataset(
        LeRobotDataset(tmp_path / "set"), tokenizer, METAWORLD_SAWYER, tmp_path / "latents", precision="float32"
    )
    data = ["--data-set", str(tmp_path / "set"), "--latents", str(cache.folder)]
    tests = ["-m", "pytest", "-q", "packages/lerobot_policy_wam/tests", *data]
    done = subprocess.run(
        [ENVIRONMENT / "bin/python", *tests], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
