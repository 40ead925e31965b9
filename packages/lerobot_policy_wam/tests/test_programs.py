"""LeRobot's own programs, as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def run(program: str, *options: str, cwd: Path) -> str:
    done = subprocess.run([BIN / program, *options], cwd=cwd, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def train(root: Path, folder: Path, *options: str) -> str:
    return run(
        "lerobot-train",
        "--policy.type=wam",
        "--policy.push_to_hub=false",
        "--policy.device=cpu",
        "--dataset.repo_id=local/set",
        f"--dataset.root={root}",
        "--batch_size=4",
        "--num_workers=0",
        "--log_freq=1",
        *options,
        cwd=folder,
    )


def evaluate(folder: Path, out: str, *options: str) -> dict[str, float]:
    run(
        "lerobot-eval",
        "--policy.device=cpu",
        "--env.type=wam_sim",
        "--env.task=reach",
        f"--output_dir={folder / out}",
        *options,
        cwd=folder,
    )
    overall: dict[str, float] = json.loads((folder / out / "eval_info.json").read_text())["overall"]
    return overall


@pytest.fixture(scope="module")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = ("--steps=4", "--save_freq=4", "--output_dir=run", "--policy.pretrained_path=nano-metaworld")
    assert "step:4" in train(root, folder, *options)
    return folder / "run/checkpoints/last/pretrained_model"


def test_a_checkpoint_holds_everything(trained: Path) -> None:
    assert json.loads((trained / "config.json").read_text())["type"] == "wam"
    names = {path.name for path in trained.iterdir()}
    assert {"model.safetensors", "world_action_model.json", "tokenizer", "policy_preprocessor.json"} <= names


def test_training_goes_on(trained: Path) -> None:
    told = run(
        "lerobot-train",
        f"--config_path={trained / 'train_config.json'}",
        "--resume=true",
        "--steps=6",
        cwd=trained.parents[3],
    )
    assert "step:5" in told and "step:6" in told and "step:4 " not in told


def test_random_weights_learn(root: Path, tmp_path: Path) -> None:
    fresh = ("--policy.initial=random", "--policy.optimizer_lr=1e-3", "--save_checkpoint=false")
    told = train(root, tmp_path, "--steps=50", "--output_dir=run", *fresh)
    losses = [float(word.removeprefix("loss:")) for word in told.split() if word.startswith("loss:")]
    assert len(losses) == 50
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_an_adapter_is_trained_and_evaluated(root: Path, tmp_path: Path) -> None:
    adapt = ("--peft.method_type=LORA", "--peft.r=4", "--steps=2", "--save_freq=2", "--output_dir=run")
    assert "step:2" in train(root, tmp_path, *adapt)
    checkpoint = tmp_path / "run/checkpoints/last/pretrained_model"
    adapter = json.loads((checkpoint / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "nano-metaworld"
    assert not (checkpoint / "model.safetensors").exists()
    few = ("--eval.n_episodes=1", "--eval.batch_size=1", "--env.episode_length=20")
    assert evaluate(tmp_path, "adapter", f"--policy.path={checkpoint}", *few)["n_episodes"] == 1


def test_the_nano_model_solves_episodes(tmp_path: Path) -> None:
    overall = evaluate(tmp_path, "nano", "--policy.type=wam", "--eval.n_episodes=2", "--eval.batch_size=2")
    assert overall["n_episodes"] == 2
    assert overall["pc_success"] == 100.0


def test_a_checkpoint_is_evaluated(trained: Path, tmp_path: Path) -> None:
    few = ("--eval.n_episodes=1", "--eval.batch_size=1", "--env.episode_length=40")
    assert evaluate(tmp_path, "checkpoint", f"--policy.path={trained}", *few)["n_episodes"] == 1
