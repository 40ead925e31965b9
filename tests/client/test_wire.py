"""The wire codec: byte for byte what openpi's format says, and no frame that is not well formed gets through."""

from __future__ import annotations

import os
import random
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest

from wam_client.wire import Limits, WireError, packb, unpackb


def array_map(data: Any, dtype: Any, shape: Any) -> bytes:
    """An array as a peer might claim it."""
    return bytes(msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape}))


# ---------------------------------------------------------------- the format


def test_an_array_is_on_the_wire_what_the_format_says() -> None:
    """Written out by hand from the format: a map of four, keys in binary, the data raw."""
    golden = (
        b"\x84"
        b"\xc4\x0b__ndarray__\xc3"
        b"\xc4\x04data\xc4\x08\x00\x00\x80?\x00\x00\x00\xc0"
        b"\xc4\x05dtype\xa3<f4"
        b"\xc4\x05shape\x92\x02\x01"
    )
    assert packb(np.array([[1.0], [-2.0]], dtype="<f4")) == golden
    back = unpackb(golden)
    assert back.dtype == "<f4" and back.tolist() == [[1.0], [-2.0]]


def test_a_numpy_scalar_is_on_the_wire_what_the_format_says() -> None:
    golden = b"\x83\xc4\x0d__npgeneric__\xc3\xc4\x04data\x05\xc4\x05dtype\xa3|u1"
    assert packb(np.uint8(5)) == golden
    assert unpackb(golden) == 5 and unpackb(golden).dtype == np.uint8


@pytest.mark.parametrize(
    "value",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::2],  # not contiguous
        np.zeros((0, 7), np.float64),
        np.array(3.5),
        np.array([True, False]),
        np.array(["push", "läuft"]),
        np.array([b"ab"]),
        np.array(["2026-01-01"], dtype="<M8[ns]"),
        np.arange(3, dtype=">i4"),
        np.float32(0.25),
        np.bool_(True),
        np.int64(-5),
    ],
)
def test_what_was_packed_comes_back(value: Any) -> None:
    back = unpackb(packb({"a": [value]}))["a"][0]
    assert back.dtype == value.dtype and back.shape == value.shape and np.array_equal(back, value)


def test_plain_values_come_back() -> None:
    value = {
        "prompt": "öffne",
        "n": -(2**40),
        "f": 0.1,
        "none": None,
        "yes": True,
        "raw": b"\x00",
        "deep": {"l": [1, [2]]},
    }
    assert unpackb(packb(value)) == value
    assert unpackb(bytearray(packb(value))) == value and unpackb(memoryview(packb(value))) == value


@pytest.mark.parametrize(
    "value",
    [
        np.array([1j]),
        np.array([object()]),
        np.zeros(2, "i4,f4"),
        np.complex64(1),
        np.datetime64("2026-01-01"),
        object(),
    ],
)
def test_what_has_no_form_on_the_wire_is_refused_by_the_sender(value: Any) -> None:
    with pytest.raises(WireError, match="dtype|cannot be sent"):
        packb({"a": value})


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WireError, match="cannot be sent"):
        packb(loop)


# ---------------------------------------------------------------- bad frames


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", "ends after 0 bytes"),
        (packb({"a": np.zeros(9)})[:-1], "claims more"),
        (packb({"a": 1}) + b"\x00", "goes on for 1 bytes"),
        (b"\xc1", "extension"),
        (bytes(msgpack.packb(msgpack.ExtType(1, b"x"))), "extension"),
        (b"\xdd\xff\xff\xff\xff", "claims more"),
        (b"\xdf\x7f\xff\xff\xff", "claims more"),
        (b"\xc6\xff\xff\xff\xff", "claims more"),
        (b"\xdc\x00", "claims more|ends after"),
        (b"\x91" * 5000 + b"\xc0", "nests deeper"),
        (b"\x81\x91\xc0\xc0", "not msgpack"),  # a list as the key of a map
        (b"\x81\x01\xc0", "not msgpack"),  # a number as the key
        (b"\xa1\xff", "not UTF-8"),
        (bytes(msgpack.packb([0] * 70_000)), "more than 65536 values"),
        (array_map(b"12345678", "|O", [1]), "dtype"),
        (array_map(b"12345678", "<c8", [1]), "dtype"),
        (array_map(b"12345678", "|V8", [1]), "dtype"),
        (array_map(b"12345678", "i4,f4", [1]), "dtype"),
        (array_map(b"12345678", [["a", "O"]], [1]), "dtype"),
        (array_map(b"12345678", "<f8", [2]), "needs 16 bytes, has 8"),
        (array_map(b"12345678", "<f4", [1]), "needs 4 bytes, has 8"),
        (array_map(b"", "<f8", [2**31 - 1] * 16), "needs"),
        (array_map(b"", "<f8", [2**40]), "list of sizes"),
        (array_map(b"", "<f8", [-1]), "list of sizes"),
        (array_map(b"12345678", "<f8", [True]), "list of sizes"),
        (array_map(b"12345678", "<f8", 1), "list of sizes"),
        (array_map(b"12345678", "<f8", [1] * 17), "17 dimensions"),
        (array_map("12345678", "<f8", [1]), "must be bytes"),
        (array_map(None, "<f8", [1]), "must be bytes"),
        (array_map(b"\xff\xff\xff\x7f", "<U1", [1]), "not text"),
        (array_map(b"\x00\xd8\x00\x00", "<U1", [1]), "not text"),
        (bytes(msgpack.packb({b"__ndarray__": True})), "dtype"),
        (bytes(msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"})), "cannot be 300"),
        (bytes(msgpack.packb({b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"})), r"cannot be \[1\]"),
        (bytes(msgpack.packb({b"__npgeneric__": True, b"data": "1", b"dtype": "<f4"})), "cannot be '1'"),
    ],
)
def test_a_bad_frame_is_a_wire_error_that_says_why(frame: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says):
        unpackb(frame)


def test_text_is_not_a_frame() -> None:
    with pytest.raises(WireError, match="found str"):
        unpackb("reset successful")  # type: ignore[arg-type]


def test_limits_are_the_callers() -> None:
    frame = packb({"a": np.zeros(100)})
    assert unpackb(frame, Limits(frame_bytes=len(frame)))["a"].shape == (100,)
    with pytest.raises(WireError, match=f"at most {len(frame) - 1} "):
        unpackb(frame, Limits(frame_bytes=len(frame) - 1))
    assert unpackb(b"\x91\x91\xc0", Limits(depth=2)) == [[None]]
    with pytest.raises(WireError, match="nests deeper than 1"):
        unpackb(b"\x91\x91\xc0", Limits(depth=1))


def test_nothing_is_allocated_for_what_a_frame_merely_claims() -> None:
    """A list that claims a value for each byte of a large frame, then the same again inside it, and so on."""
    size = 4 * 2**20
    level = b"\xdd" + (size // 2).to_bytes(4, "big")
    frame = level * 10 + b"\x00" * size
    tracemalloc.start()
    with pytest.raises(WireError, match="more than"):
        unpackb(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def mutations(count: int, seed: int) -> list[bytes]:
    """Good frames, broken: cut, flipped, stretched, or random bytes."""
    chance = random.Random(seed)
    good = packb(
        {
            "observation/image": np.zeros((4, 4, 3), np.uint8),
            "state": np.arange(7.0),
            "prompt": "push",
            "n": [1, {"x": np.float32(1)}],
        }
    )
    frames = []
    for _ in range(count):
        frame = bytearray(good)
        kind = chance.randrange(4)
        if kind == 0:
            frame = frame[: chance.randrange(len(frame))]
        elif kind == 1:
            for _ in range(chance.randrange(1, 8)):
                frame[chance.randrange(len(frame))] = chance.randrange(256)
        elif kind == 2:
            at = chance.randrange(len(frame))
            frame[at:at] = chance.randbytes(chance.randrange(1, 20))
        else:
            frame = bytearray(chance.randbytes(chance.randrange(200)))
        frames.append(bytes(frame))
    return frames


@pytest.mark.parametrize("count", [3000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_broken_frames_give_a_value_or_a_wire_error_and_nothing_else(count: int) -> None:
    refused = 0
    for frame in mutations(count, seed=0):
        try:
            unpackb(frame)
        except WireError:
            refused += 1
    assert count / 2 < refused < count


def test_random_bytes_of_any_length_are_survived() -> None:
    for size in (1, 10, 1000, 100_000):
        for _ in range(20):
            try:
                unpackb(os.urandom(size))
            except WireError as problem:
                assert str(problem)
