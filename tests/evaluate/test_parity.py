"""Golden cases: all of them where the folder is there, and the machinery itself on a case made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wam.cli.main import main
from wam.evaluate.parity.golden import GoldenCase, absolute, exact, relative
from wam.evaluate.parity.run import run_folder, runner_of

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json") if not path.stem.endswith(".inputs"))
LONG = ("chunk_loop", "train", "manifest.diffusers")
CASES = [pytest.param(name, marks=[pytest.mark.slow] if name.endswith(LONG) else []) for name in NAMES]


@pytest.mark.skipif(not NAMES, reason=f"no golden cases beside the repository ({GOLDEN})")
@pytest.mark.parametrize("name", CASES)
def test_golden_case(name: str) -> None:
    report = run_folder(GOLDEN, [name])
    wrong = [check for result in report.results for check in result.checks if not check.ok]
    assert report.exit_code == 0, wrong[:5]


def write_loss_case(folder: Path, action_error: float) -> None:
    """One frame and one action at t = 500: weights are known in closed form through the released schedule."""
    frames, actions = 1, 24
    i = 833  # t_i = 1000 * 5 u / (1 + 4 u) with u = 1 - i / 1000, about 500
    u = 1 - i / 1000
    t = 5 * u / (1 + 4 * u)
    ids = torch.full((1, frames + 2), i)
    latents, noise = torch.zeros(1, 4, 3, 2, 2), torch.ones(1, 4, 3, 2, 2)
    clean, action_noise = torch.zeros(1, actions, 32), torch.ones(1, actions, 32)
    schedule = torch.tensor([5 * (1 - k / 1000) / (1 + 4 * (1 - k / 1000)) for k in range(1000)], dtype=torch.float64)
    bump = torch.exp(-2 * (schedule - 0.5) ** 2)
    weight = float((bump[i] - bump.min()) / (bump - bump.min()).mean())
    mask = torch.zeros(1, actions, 32, dtype=torch.bool)
    mask[..., :8] = True
    tensors = {
        "latents": latents,
        "noise": noise,
        "actions": clean,
        "noise_action": action_noise,
        "drawn_timestep_ids": ids,
        "timestep_ids": ids,
        "timestep_action_ids": torch.full((1, actions), i),
        "action_mask": mask,
        "has_real_action": torch.ones(1, dtype=torch.bool),
        "video_pred": noise + 2.0,
        "action_pred": action_noise + 3.0,
        "noisy_latents": noise * t,
        "noisy_actions": action_noise * t,
        "dynamics_loss": torch.tensor(4.0 * weight),
        "action_loss": torch.tensor(9.0 * weight * 8 / 32 + action_error),
        "total": torch.tensor(4.0 * weight + 9.0 * weight * 8 / 32 + action_error),
    }
    save_file(
        {f"one.{name}": tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "loss.safetensors"
    )
    (folder / "loss.json").write_text(json.dumps({"case": "loss"}))


def test_verb_succeeds_on_equal_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_loss_case(tmp_path, action_error=0.0)
    main(["parity", str(tmp_path), "--json", "--verbose"])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["not_covered"] == [] and len(report["cases"][0]["checks"]) == 6


def test_verb_fails_on_different_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_loss_case(tmp_path, action_error=0.01)
    with pytest.raises(SystemExit) as stop:
        main(["parity", str(tmp_path), "--json"])
    captured = capsys.readouterr()
    wrong = [check["tensor"] for check in json.loads(captured.out)["cases"][0]["checks"] if not check["ok"]]
    assert stop.value.code == 1 and wrong == ["one.action_loss", "one.total"] and "wrong" in captured.err


def test_verb_says_what_it_does_not_cover(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_loss_case(tmp_path, action_error=0.0)
    (tmp_path / "sounds.json").write_text("{}")
    with pytest.raises(SystemExit) as stop:
        main(["parity", str(tmp_path)])
    assert stop.value.code == 2 and "not covered: sounds" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "named"), [("loss", "loss.safetensors: not found"), ("other", "no case 'other'")])
def test_incomplete_folders_are_named(tmp_path: Path, name: str, named: str) -> None:
    (tmp_path / "loss.json").write_text("{}")
    with pytest.raises(ValueError, match=named):
        run_folder(tmp_path, [name])
    with pytest.raises(ValueError, match="no golden case found"):
        run_folder(tmp_path / "empty")


def test_incomplete_case_is_named(tmp_path: Path) -> None:
    write_loss_case(tmp_path, action_error=0.0)
    save_file({"one.latents": torch.zeros(1)}, tmp_path / "loss.safetensors")
    with pytest.raises(ValueError, match="'timestep_ids' is missing; the case is incomplete"):
        run_folder(tmp_path)


def test_measures() -> None:
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert relative("x", b, a, 0.11).ok and not relative("x", b, a, 0.09).ok
    assert absolute("x", b, a, 0.5).error == 0.5 and exact("x", a, b).error == 1
    assert not relative("x", a[:1], a, 1e9).ok  # another shape
    assert not relative("x", a * float("nan"), a, 1e9).ok
    assert not exact("x", [1], [2]).ok and exact("x", [1], [1]).ok


def test_narrow_floats_are_widened(tmp_path: Path) -> None:
    save_file(
        {"x": torch.ones(2, dtype=torch.float8_e4m3fn), "y": torch.ones(2, dtype=torch.float64)},
        tmp_path / "c.safetensors",
    )
    case = GoldenCase(tmp_path, "c")
    assert case.tensors["x"].dtype == torch.float32 and case.tensors["y"].dtype == torch.float64


def test_every_kind_of_case_has_a_runner() -> None:
    for name in ("dit_i2v_train", "dit_ti2v_noclip_infer", "chunk_loop", "dit_ti2v_chunk_loop", "manifest.lora_14b"):
        assert runner_of(name) is not None
    assert runner_of("sounds") is None
