"""Tensors on disk: seen without loading, read exactly, and refused by name when something is wrong."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wam.checkpoints.errors import (
    CheckpointError,
    DiskSpaceError,
    ForeignCheckpointError,
    MismatchError,
    MissingShardError,
    TruncatedFileError,
    UnsafeFileError,
    WrongDtypeError,
)
from wam.checkpoints.files import open_tensors
from wam.checkpoints.lazy import Translated, cast, merged
from wam.checkpoints.shards import layout, missing_bytes, require_space, write
from wam.checkpoints.targets import Held, Joined

TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool]


def tensors() -> dict[str, Tensor]:
    """Every type, an empty and a scalar tensor, one that is not contiguous."""
    torch.manual_seed(0)
    made = {f"x.{str(dtype)}": torch.randn(3, 5).to(dtype) for dtype in TYPES}
    return {**made, "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "turned": torch.randn(4, 6).T}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    def bits(x: Tensor) -> list[int]:
        return x.contiguous().reshape(-1).view(torch.uint8).tolist()

    return a.keys() == b.keys() and all(
        (a[n].dtype, a[n].shape, bits(a[n])) == (b[n].dtype, b[n].shape, bits(b[n])) for n in a
    )


def sharded(folder: Path, shard_bytes: int = 200) -> dict[str, Tensor]:
    content = tensors()
    weights = Held(content)
    write(folder, weights, layout(weights.meta, "model", shard_bytes))
    return content


# ---------------------------------------------------------------- reading and writing


@pytest.mark.parametrize("shard_bytes", [1, 200, 10**9])
def test_what_is_written_is_read(tmp_path: Path, shard_bytes: int) -> None:
    content = sharded(tmp_path, shard_bytes)
    found = open_tensors(tmp_path)
    assert same(dict(found), content)
    assert found.shapes == {name: (tuple(x.shape), x.dtype) for name, x in content.items()}
    assert found.bytes == sum(x.numel() * x.dtype.itemsize for x in content.values())
    assert len(found.shards) == {1: len(content), 200: 3, 10**9: 1}[shard_bytes]
    assert [name for names in found.shards.values() for name in names] == list(found)


def test_files_are_those_of_safetensors(tmp_path: Path) -> None:
    """Written by us, read by their library; written by them, read by us."""
    content = sharded(tmp_path / "ours")
    theirs: dict[str, Tensor] = {}
    for file in sorted((tmp_path / "ours").glob("*.safetensors")):
        theirs |= load_file(file)
    assert same(theirs, content)
    index = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(content)
    save_file({name: x.contiguous() for name, x in content.items()}, tmp_path / "theirs.safetensors")
    assert same(dict(open_tensors(tmp_path / "theirs.safetensors")), content)


def test_pth_is_read_without_executing(tmp_path: Path) -> None:
    content = {name: x for name, x in tensors().items() if name != "turned"}
    torch.save(content, tmp_path / "new.pth")
    torch.save({"state_dict": content}, tmp_path / "nested.pt")
    for name in ("new.pth", "nested.pt"):
        assert same(dict(open_tensors(tmp_path / name)), content)
    del content["x.torch.float8_e4m3fn"]  # younger than this format
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(dict(open_tensors(tmp_path / "old.pth")), content)


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    content = sharded(tmp_path)
    plan = layout(Held(content).meta, "model", 200)
    first, second, third = (tmp_path / shard.file for shard in plan.shards)
    second.unlink()
    third.write_bytes(third.read_bytes()[:-3])
    kept = first.stat().st_mtime_ns
    assert missing_bytes(tmp_path, plan) == plan.shards[1].bytes + plan.shards[2].bytes
    write(tmp_path, Held(content), plan)
    assert same(dict(open_tensors(tmp_path)), content) and first.stat().st_mtime_ns == kept
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_failure_leaves_no_half_shard(tmp_path: Path) -> None:
    def fail(given: dict[str, Tensor]) -> dict[str, Tensor]:
        if not next(iter(given.values())).is_meta:
            raise KeyboardInterrupt
        return dict(given)

    weights = Translated(Held(tensors()), fail)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, weights, layout(weights.meta, "model"))
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_full_disk_is_noticed_before(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "yet" / "there", 1)
    with pytest.raises(DiskSpaceError, match="GB are needed, but only"):
        require_space(tmp_path / "not" / "yet" / "there", 10**18)


# ---------------------------------------------------------------- chains


def test_chains_announce_what_they_compute() -> None:
    """Split, joined and cast: shapes and types beforehand are those of the values."""
    source = Held({"a.q": torch.ones(2, 3), "a.k": torch.zeros(2, 3), "b": torch.randn(6, 2)})

    def rename(given: dict[str, Tensor]) -> dict[str, Tensor]:
        if "b" in given:
            return {f"b{index}": piece for index, piece in enumerate(given["b"].chunk(3))}
        return {"a": torch.cat([given["a.q"], given["a.k"]])}

    chain = cast(Translated(source, rename, group=lambda name: name[0]), torch.bfloat16)  # type: ignore[arg-type]
    assert list(chain) == ["a", "b0", "b1", "b2"]
    assert {n: (x.shape, x.dtype) for n, x in chain.items()} == {n: (x.shape, x.dtype) for n, x in chain.meta.items()}
    assert torch.equal(chain["b1"], source["b"][2:4].bfloat16())
    assert list(Joined(source, chain)) == ["a.q", "a.k", "b", "a", "b0", "b1", "b2"]


def test_two_inputs_of_one_name_are_refused() -> None:
    with pytest.raises(MismatchError, match="'a' and 'b' both mean 'x'"):
        Translated(Held({"a": torch.ones(1), "b": torch.ones(1)}), lambda given: {"x": next(iter(given.values()))})


def test_float16_that_would_overflow_is_refused() -> None:
    weights = cast(Held({"large": torch.tensor([1.0, 7e4])}), torch.float16)
    with pytest.raises(WrongDtypeError, match=r"'large'.*7e\+04.*float16"):
        weights["large"]


def test_adapters_are_merged_one_at_a_time() -> None:
    base, lower, upper = torch.randn(4, 3), torch.randn(2, 3), torch.randn(4, 2)
    held = Held({"q.weight": base, "q.lora_A.weight": lower, "q.lora_B.weight": upper, "q.bias": torch.ones(4)})
    weights = merged(held, 0.5)
    assert list(weights) == ["q.weight", "q.bias"]
    assert torch.allclose(weights["q.weight"], base + 0.5 * upper @ lower)


# ---------------------------------------------------------------- bad files


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return Path.write_text, (self.mark, "executed")  # type: ignore[return-value]


@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_with_code_is_refused_and_not_executed(tmp_path: Path, old: bool) -> None:
    mark, file = tmp_path / "mark", tmp_path / "weights.pth"
    content = {"w": torch.ones(2), "trap": Malicious(mark)}
    if old:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    with pytest.raises(
        UnsafeFileError, match=r"weights\.pth: holds more than tensors.*nothing was executed.*safetensors"
    ):
        open_tensors(file)
    assert not mark.exists()
    torch.load(file, weights_only=False) if not old else pickle.loads(file.read_bytes())
    assert mark.read_text() == "executed"  # the trap works where nobody takes care


def _truncated(folder: Path) -> Path:
    file = next(iter(sorted(folder.glob("*.safetensors"))))
    file.write_bytes(file.read_bytes()[:-1])
    return folder


def _longer(folder: Path) -> Path:
    with next(iter(folder.glob("*.safetensors"))).open("ab") as stream:
        stream.write(b"x")
    return folder


def _git_lfs(folder: Path) -> Path:
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return folder / "pointer.safetensors"


def _nothing(folder: Path) -> Path:
    (folder / "nothing.safetensors").touch()
    return folder / "nothing.safetensors"


def _header_of(folder: Path, entry: dict[str, object], size: int = 8) -> Path:
    text = json.dumps({"w": entry}).encode()
    (folder / "odd.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    return folder / "odd.safetensors"


def _gone(folder: Path) -> Path:
    (folder / "model-00002-of-00003.safetensors").unlink()
    return folder


def _gone_without_index(folder: Path) -> Path:
    (folder / "model.safetensors.index.json").unlink()
    return _gone(folder)


def _reindexed(folder: Path, name: str, shard: str) -> Path:
    file = folder / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"][name] = shard
    file.write_text(json.dumps(index))
    return folder


def _text_pth(folder: Path) -> Path:
    (folder / "text.pth").write_text("not a pickle")
    return folder / "text.pth"


def _cut_pth(folder: Path) -> Path:
    torch.save({"w": torch.ones(1000)}, folder / "cut.pth")
    (folder / "cut.pth").write_bytes((folder / "cut.pth").read_bytes()[:-100])
    return folder / "cut.pth"


def _list_pth(folder: Path) -> Path:
    torch.save([torch.ones(1)], folder / "list.pth")
    return folder / "list.pth"


def _two_sets(folder: Path) -> Path:
    save_file({"w": torch.ones(1)}, folder / "more.safetensors")
    (folder / "model.safetensors.index.json").unlink()
    return folder


CUT = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD = {
    "truncated shard": (_truncated, TruncatedFileError, r"model-00001-of-00003\.safetensors: has .* bytes, its header"),
    "longer shard": (_longer, TruncatedFileError, "its header promises"),
    "git lfs pointer": (_git_lfs, TruncatedFileError, "Git LFS"),
    "empty file": (_nothing, TruncatedFileError, "no safetensors header"),
    "unknown dtype": (lambda f: _header_of(f, {**CUT, "dtype": "F4"}), ForeignCheckpointError, "'w' has dtype F4"),
    "wrong offsets": (lambda f: _header_of(f, {**CUT, "shape": [3]}), TruncatedFileError, "'w' is not where"),
    "no offsets": (lambda f: _header_of(f, {"dtype": "F32"}), TruncatedFileError, "header cannot be read"),
    "negative shape": (lambda f: _header_of(f, {**CUT, "shape": [-2]}), TruncatedFileError, "odd.safetensors"),
    "index names a missing shard": (_gone, MissingShardError, r"model-00002-of-00003\.safetensors: does not exist"),
    "number of a shard is missing": (_gone_without_index, MissingShardError, r"00002-of-00003.*does not exist"),
    "index names a missing tensor": (
        lambda f: _reindexed(f, "ghost", "model-00001-of-00003.safetensors"),
        MissingShardError,
        "'ghost' is not in model-00001",
    ),
    "index leaves the folder": (lambda f: _reindexed(f, "x", "../x.safetensors"), UnsafeFileError, "beside its index"),
    "text as pth": (_text_pth, TruncatedFileError, r"text\.pth: torch did not write this"),
    "cut pth": (_cut_pth, TruncatedFileError, r"cut\.pth"),
    "list in pth": (_list_pth, ForeignCheckpointError, r"list\.pth: holds list"),
    "two sets": (_two_sets, ForeignCheckpointError, "found .*more.safetensors"),
    "no file": (lambda f: f / "nowhere", ForeignCheckpointError, "no such file or folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(tmp_path: Path, case: str) -> None:
    sharded(tmp_path)
    spoil, error, message = BAD[case]
    with pytest.raises(error, match=message) as caught:
        open_tensors(spoil(tmp_path))
    assert isinstance(caught.value, CheckpointError) and str(tmp_path) in str(caught.value)
