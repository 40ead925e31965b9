"""wam plan: exit codes, one line of JSON, and errors that name the option."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from wam.bench.hardware import GIB
from wam.cli.main import main
from wam.engine.load import resolve


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    code = 0
    try:
        main(["plan", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_it_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, shown = run(capsys, "--preset", "nano-metaworld", "--gpu", "RTX 4090", "--json")
    found = json.loads(out)
    assert code == 0 and found["fits"] and found["option"] == "everything on the GPU"
    assert found["gpu"] == "rtx-4090" and found["gpu_memory"] == 24 * GIB
    weights = load_file(resolve("nano-metaworld") / "model.safetensors")
    assert found["parameters"]["transformer"] == sum(tensor.numel() for tensor in weights.values())
    work = sum(part["passes"] * part["flops"] for part in found["work"] if part["when"] == "chunk")
    assert found["chunk_flops"] == work
    assert found["chunk_seconds_bound"]["bf16"] == pytest.approx(sum(s["seconds"] for s in found["stages_bound"]))
    assert all(option["bytes"] == sum(option["memory"].values()) for option in found["options"])
    assert "not a measurement" in " ".join(shown.split())


def test_nothing_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, shown = run(capsys, "--preset", "wan2.2-ti2v-5b", "--gpu-memory", "1GB", "--json")
    assert code == 1 and json.loads(out)["fits"] is False and "nothing fits" in shown


def test_options_make_it_fit(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--preset", "wan2.2-ti2v-5b", "--gpu-memory", "14GB", "--json")
    assert code == 0 and json.loads(out)["option"] == "encoders on the CPU"


def test_training(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, shown = run(capsys, "--preset", "wan2.2-ti2v-5b", "--gpu-memory", "24GB", "--train", "--json")
    found = json.loads(out)
    assert code == 0 and found["mode"] == "train" and found["option"] == "LoRA rank 4"
    assert [option["fits"] for option in found["options"]] == [False] * 3 + [True] * 4
    assert "nothing sharded" in shown


def test_no_memory_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, shown = run(capsys, "--preset", "nano-metaworld")
    assert code == 0 and out == "" and "fits" in shown and "turn on" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "wan9"), "wan9: no such folder"),
        (("--preset", "nano-metaworld", "--gpu", "4091"), "gpu '4091' is not in the table"),
        (("--preset", "nano-metaworld", "--gpu-memory", "lots"), "gpu-memory is 'lots'"),
        (("--preset", "nano-metaworld", "--reserve", "x"), "reserve is 'x'"),
        (("--preset", "wan2.2-ti2v-5b", "--canvas", "wide"), "canvas is 'wide'; expected HEIGHTxWIDTH"),
        (("--preset", "wan2.2-ti2v-5b", "--canvas", "100x100"), "needs multiples of 32"),
        (("--preset", "nano-metaworld", "--steps", "0"), "steps is 0"),
        (("--preset", "nano-metaworld", "--train", "--batch", "0"), "batch is 0"),
        (("--preset", "nano-metaworld", "--weights", "int3"), "int3"),
        ((), "preset"),
    ],
)
def test_bad_input_exits_with_2(arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, shown = run(capsys, *arguments)
    assert code == 2 and out == "" and said in " ".join(shown.split())


def test_a_folder_that_is_no_model(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, shown = run(capsys, "--preset", str(tmp_path))
    assert code == 2 and "no config.json" in shown
