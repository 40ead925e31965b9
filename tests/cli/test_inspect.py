"""wam inspect: what a checkpoint is, of full size in little memory, and an exit code that says whether it fits."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints.skeletons import dreamzero_14b, lora_14b, sparse, transformer_of
from tests.checkpoints.tiny import whole

from wam.checkpoints.identity import identity
from wam.checkpoints.lora import LoraConfig, add_lora, save_adapter
from wam.checkpoints.save import save_published
from wam.cli.main import main
from wam.engine.load import resolve


def inspected(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[dict[str, Any], str]:
    """The JSON line and what was shown."""
    try:
        main(["inspect", *arguments, "--json"])
        ended = 0
    except SystemExit as stop:
        ended = int(stop.code or 0)
    output = capsys.readouterr()
    assert ended == code, output.err
    return (json.loads(output.out) if output.out else {}), " ".join(output.err.split())


MEASURE = """
import sys, time
from wam.checkpoints.inspection import inspect
import torch
torch.randn(1, device="meta")
def peak():
    lines = open("/proc/self/status").read().splitlines()  # ru_maxrss would begin at that of the parent process
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before, start = peak(), time.process_time()
found = inspect(sys.argv[1])
assert found.ok and found.parts[0].parameters == 16_394_878_784, found.to_dict()
print(peak() - before, time.process_time() - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_full_14b_takes_seconds_and_little_memory(tmp_path: Path) -> None:
    """65.6 GB of Wan2.1-I2V-14B, in files that are all holes."""
    size = sparse(tmp_path, transformer_of("wan2.1-i2v-14b", actions=False), "diffusion_pytorch_model", 10**10)
    assert size == 65_579_515_136 and sum(file.stat().st_blocks for file in tmp_path.iterdir()) * 512 < 2_000_000
    done = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    grown, seconds = re.findall(r"^(\d+) ([\d.]+)$", done.stdout, re.MULTILINE)[-1]
    assert int(grown) < 100_000_000 and float(seconds) < 10, (grown, seconds)


def test_a_whole_dreamzero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dreamzero_14b(tmp_path, ("agibot", "lab"))
    found, shown = inspected(str(tmp_path), capsys=capsys)
    assert (found["kind"], found["preset"], found["ok"]) == ("dreamzero", "dreamzero-agibot", True)
    assert (
        sum(part["parameters"] for part in found["parts"]) == 22_922_861_395
    )  # the manifest's, less CLIP's unused head
    assert [fit["loaded"] for fit in found["fits"]] == [1317, 242, 519, 194]
    assert found["embodiments"] == {"agibot": True, "lab": False} and found["licence"]["name"] == "apache-2.0"
    assert "robots: agibot, lab (views and order of numbers unknown)" in shown and "45.85 GB" in shown


def test_a_hole_in_a_checkpoint_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = transformer_of("wan2.2-ti2v-5b", actions=False)
    del tensors["blocks.29.ffn.2.bias"]
    tensors["blocks.30.norm3.bias"] = torch.empty(3072, device="meta")
    tensors["head.modulation"] = torch.empty(1, 2, 3073, device="meta")
    sparse(tmp_path, tensors, "diffusion_pytorch_model")
    found, shown = inspected(str(tmp_path), capsys=capsys, code=1)
    fit = found["fits"][0]
    assert found["preset"] == fit["against"] == "wan2.2-ti2v-5b" and not found["ok"]
    assert (fit["missing"], fit["unexpected"]) == (["blocks.29.ffn.2.bias"], ["blocks.30.norm3.bias"])
    assert fit["wrong_shape"] == [{"name": "head.modulation", "found": [1, 2, 3073], "expected": [1, 2, 3072]}]
    assert "missing (1): blocks.29.ffn.2.bias" in shown and "is [1, 2, 3073], expected [1, 2, 3072]" in shown


def test_an_adapter_names_the_base_that_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora_14b(tmp_path)
    found, shown = inspected(str(tmp_path), capsys=capsys)
    assert found["kind"] == "adapter" and (found["adapter"]["matrices"], found["adapter"]["rank"]) == (400, 4)
    assert "needs the base" in shown and "dreamzero-droid" in found["adapter"]["base"]
    assert found["parts"][0]["parameters"] == 108_582_944


def test_an_adapter_of_our_own_says_which_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transformer = copy.deepcopy(whole().transformer)
    base = identity(transformer, leave_out=(LoraConfig().whole,))
    save_adapter(transformer, add_lora(transformer, LoraConfig(rank=2, alpha=6)), tmp_path / "adapter")
    found, _ = inspected(str(tmp_path / "adapter"), capsys=capsys)
    assert (found["kind"], found["adapter"]["rank"], found["adapter"]["scale"]) == ("adapter", 2, 3.0)
    assert found["adapter"]["base"] == f"a model (3 blocks of width 24, identity {base[:16]})"


def test_our_own_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_published(whole(), tmp_path / "ours")
    found, shown = inspected(str(tmp_path / "ours"), capsys=capsys)
    assert found["kind"] == "wam" and found["preset"] is None and [fit["ok"] for fit in found["fits"]] == [True] * 4
    assert "tests/tiny" in shown and "licence: mit" in shown and "fits its own configuration" in shown


def test_a_nano_model(capsys: pytest.CaptureFixture[str]) -> None:
    found, shown = inspected("nano-metaworld", capsys=capsys)
    assert found["kind"] == "nano" and list(found["embodiments"]) == ["metaworld-sawyer"]
    weights = [load_file(resolve("nano-metaworld") / part / "model.safetensors") for part in ("", "tokenizer")]
    assert [part["parameters"] for part in found["parts"]] == [sum(x.numel() for x in w.values()) for w in weights]
    assert "licence: apache-2.0" in shown


def test_integers_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = transformer_of("wan2.1-t2v-1.3b", actions=False)
    tensors = {name: x.to(torch.int8) if "ffn" in name and "weight" in name else x for name, x in tensors.items()}
    sparse(tmp_path, tensors, "diffusion_pytorch_model")
    _, shown = inspected(str(tmp_path), capsys=capsys, code=1)
    assert "has dtype int8, expected floating-point numbers" in shown


def test_foreign_weights_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"model.layers.0.q_proj.weight": torch.ones(1)}, tmp_path / "llama.safetensors")
    _, shown = inspected(str(tmp_path), capsys=capsys, code=1)
    assert "none of Wan, DreamZero or this project" in shown
    _, shown = inspected("nothing/anywhere/here", capsys=capsys, code=1)
    assert "no file or folder" in shown
