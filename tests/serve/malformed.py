"""Frames that no client should send: an endless supply, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np

from wam_client.wire import packb


def request(width: int = 3, side: int = 32) -> dict[str, Any]:
    """A good request for the tiny robot."""
    return {
        "observation/images/front": np.zeros((side, side, 3), np.uint8),
        "observation/state": np.zeros(width, np.float32),
        "prompt": "push",
    }


def claim(data: Any, dtype: Any, shape: Any) -> dict[bytes, Any]:
    """An array as a liar would describe it."""
    return {b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}


def malformed(seed: int) -> Iterator[bytes]:
    """Frames that are wrong on some level: bytes, msgpack, arrays, keys, values."""
    chance = random.Random(seed)
    kinds = [_noise, _cut, _flipped, _claims, _nested, _wrong_arrays, _wrong_values, _not_maps]
    good = packb(request())
    while True:
        yield chance.choice(kinds)(chance, good)


def _noise(chance: random.Random, good: bytes) -> bytes:
    return chance.randbytes(chance.randrange(300))


def _cut(chance: random.Random, good: bytes) -> bytes:
    return good[: chance.randrange(len(good))]


def _flipped(chance: random.Random, good: bytes) -> bytes:
    """A few bytes of the structure, not of the picture's data, changed."""
    frame = bytearray(good)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(100) if chance.random() < 0.5 else len(frame) - 1 - chance.randrange(100)
        frame[at] = chance.randrange(256)
    return bytes(frame) + b"\xc1"  # whatever the changes did, it is not well formed


def _claims(chance: random.Random, good: bytes) -> bytes:
    """Lists, maps, bytes and texts that claim to be huge."""
    marker = chance.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb"])
    frame = b"\x81\xa1a" + marker + chance.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x10\x00\x00"])
    return frame + chance.randbytes(chance.randrange(50))


def _nested(chance: random.Random, good: bytes) -> bytes:
    depth = chance.choice([20, 1000, 50_000])
    return chance.choice([b"\x91", b"\x81\xa1a"]) * depth + b"\xc0"


def _wrong_arrays(chance: random.Random, good: bytes) -> bytes:
    wrong = [
        claim(b"x" * 8, "|O", [1]),
        claim(b"x" * 8, "<c8", [1]),
        claim(b"x" * 8, "|V8", [1]),
        claim(b"x" * 8, "f4,f4", [1]),
        claim(b"x" * 8, "<f8", [2**31 - 1, 2**31 - 1]),
        claim(b"", "<f8", [10**12]),
        claim(b"x" * 7, "<f8", [1]),
        claim(b"x" * 8, "<f8", [-1]),
        claim(b"x" * 8, "no dtype", [1]),
        claim(b"x" * 8, None, None),
        claim([1, 2], "<f8", [2]),
        claim(b"\xff" * 4, "<U1", [1]),
        {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"},
    ]
    key = chance.choice(["observation/images/front", "observation/state", "prompt", "session_id", "seed"])
    return bytes(msgpack.packb({**_plain(request()), key: chance.choice(wrong)}))


def _wrong_values(chance: random.Random, good: bytes) -> bytes:
    """Well-formed frames whose keys or values no robot has."""
    changed = request()
    key = chance.choice([*changed, "session_id", "env_id", "seed", "endpoint", "timestamp_s", "executing", "reset"])
    values: list[Any] = [
        None if key in changed else [],
        {},
        [[], [1]],
        {"a": {"b": []}},
        b"bytes",
        -1.5,
        np.zeros((2, 2, 2, 2, 2), np.uint8),
        np.full(3, np.nan, np.float32),
        np.array(["text"]),
    ]
    if chance.random() < 0.3 and key in changed:
        del changed[key]
    else:
        changed[key] = chance.choice(values)
        if key == "observation/state" or key == "prompt":
            changed[key] = chance.choice([{}, [[], [1]], b"bytes", np.full(3, np.nan, np.float32)])
        if key in ("session_id", "env_id", "seed", "endpoint", "timestamp_s", "executing", "reset"):
            changed[key] = chance.choice([{}, [[], [1]], {"a": 1}, np.zeros((2, 3)), np.full(3, np.nan, np.float32)])
    return packb(changed)


def _not_maps(chance: random.Random, good: bytes) -> bytes:
    return packb(chance.choice([None, 1, "text", [], [good], b"x", {b"prompt": 1}, np.zeros(3), {}]))


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    arrays = {k: claim(v.tobytes(), v.dtype.str, list(v.shape)) for k, v in value.items() if isinstance(v, np.ndarray)}
    return {**value, **arrays}
