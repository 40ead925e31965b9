"""wam convert: real widths, exit codes, and nothing written unless all of it can be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints.skeletons import sparse, transformer_of
from tests.checkpoints.tiny import whole

from wam.checkpoints import shards
from wam.checkpoints.files import open_tensors
from wam.checkpoints.load import load_transformer
from wam.checkpoints.names import ACTION_MODULES, to_wan
from wam.checkpoints.presets import PRESETS, skeleton
from wam.checkpoints.save import save_published
from wam.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights") / "ours"
    save_published(whole(), out)
    return out


def converted(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[dict[str, Any], str]:
    try:
        main(["convert", *arguments, "--json"])
        ended = 0
    except SystemExit as stop:
        ended = int(stop.code or 0)
    output = capsys.readouterr()
    assert ended == code, output.err
    return (json.loads(output.out.splitlines()[-1]) if output.out else {}), " ".join(output.err.split())


def test_there_and_back(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    _, shown = converted(str(folder), there, "--to", "diffusers", capsys=capsys)
    assert "licence of tests/tiny: mit" in shown and "left out: 14 weights of action and state modules" in shown
    summary, shown = converted(there, back, "--dtype", "f16", "--components", "vae", capsys=capsys)
    assert summary["folder"] == back and summary["licence"]["name"] == "mit" and "left out" not in shown
    assert sorted(path.name for path in Path(back).iterdir() if path.is_dir()) == ["tokenizer", "transformer", "vae"]
    dtypes = {part: {x.dtype for _, x in open_tensors(Path(back) / part).items()} for part in ("transformer", "vae")}
    assert dtypes == {"transformer": {torch.float16}, "vae": {torch.float32}}


def test_a_block_of_real_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first of the 40 blocks of the 14B model, 5120 wide, out of shards that are all holes."""
    config = replace(PRESETS["wan2.1-i2v-14b"].transformer, layers=1, text_dim=64, image_dim=64)
    ours = {n: x.bfloat16() for n, x in skeleton(config).state_dict().items() if not ACTION_MODULES.has(n)}
    sparse(tmp_path / "wan", to_wan(ours, config), "diffusion_pytorch_model", 400_000_000)
    summary, shown = converted(str(tmp_path / "wan"), str(tmp_path / "out"), capsys=capsys)
    assert summary["licence"]["name"] == "unknown" and "ask whoever made these weights" in shown  # not a published size
    assert summary["bytes"] == sum(x.numel() for x in ours.values()) * 2 > 10**9
    found = open_tensors(tmp_path / "out" / "transformer")
    assert found.shapes == {name: (tuple(x.shape), x.dtype) for name, x in ours.items()}
    shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
def test_the_whole_transformer_of_14_billion_parameters(tmp_path: Path) -> None:
    """33 GB in, 33 GB out, in a process that never holds more than a shard."""
    if shutil.disk_usage(tmp_path).free < 45e9:
        pytest.skip("needs 45 GB of disk")
    ours = {name: x.bfloat16() for name, x in skeleton(PRESETS["dreamzero-droid"].transformer).state_dict().items()}
    wan = to_wan(ours, PRESETS["dreamzero-droid"].transformer)
    size = sparse(tmp_path / "wan", wan, "diffusion_pytorch_model")
    program = (
        "import sys; from wam.cli.main import main; main(sys.argv[1:]);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    words = [sys.executable, "-c", program, "convert", tmp_path / "wan", tmp_path / "out", "--json"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
    summary, peak = done.stdout.splitlines()[0], done.stdout.split()[-2]
    assert json.loads(summary)["bytes"] == size > 32e9
    assert int(peak) * 1024 < 8e9
    found = open_tensors(tmp_path / "out" / "transformer")
    assert found.shapes == {name: (tuple(x.shape), x.dtype) for name, x in ours.items()}
    shutil.rmtree(tmp_path / "out")


def test_a_full_disk_is_an_error_beforehand(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SPARE_BYTES", 10**18)
    _, shown = converted(str(folder), str(tmp_path / "out"), capsys=capsys, code=1)
    assert "GB are needed, but only" in shown and not list(tmp_path.iterdir())


def test_a_checkpoint_with_a_hole_is_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = transformer_of("wan2.1-t2v-1.3b", actions=False)
    del tensors["blocks.3.ffn.2.weight"]
    sparse(tmp_path / "wan", tensors, "diffusion_pytorch_model")
    _, shown = converted(str(tmp_path / "wan"), str(tmp_path / "out"), capsys=capsys, code=1)
    assert "1 weights are missing (first: 'blocks.3.ffn.2.weight')" in shown and not (tmp_path / "out").exists()


def test_a_nano_model_is_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, shown = converted("nano-metaworld", str(tmp_path / "out"), capsys=capsys, code=1)
    assert "is a nano model" in shown


def test_an_existing_folder_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, shown = converted(str(folder), str(folder), capsys=capsys, code=1)
    assert "exists already" in shown and load_transformer(folder) is not None
