"""The wire format: msgpack with numpy arrays, as openpi's servers and clients speak it.

An array is a map with the keys (bytes) `__ndarray__`: true, `data`: raw C-order bytes, `dtype`: numpy's short name such
as "<f4", `shape`; a numpy scalar is a map of `__npgeneric__`: true, `data`, `dtype`. Nothing is ever pickled.

A frame is measured before it is decoded: nesting, number of elements and every claimed length are compared with the
bytes that are really there, so that nothing is allocated for what a peer merely claims.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Union

import msgpack
import numpy as np

Buffer = Union[bytes, bytearray, memoryview]


class WireError(ValueError):
    """A frame that cannot be read, or a value that cannot be sent; the message says what is wrong with it."""


@dataclass(frozen=True)
class Limits:
    """What a frame may hold.

    frame_bytes: its length.  depth: maps and lists inside one another.  elements: values in all, where an array counts
    for the seven of its map.  dimensions: of one array.
    """

    frame_bytes: int = 64 * 2**20
    depth: int = 16
    elements: int = 65_536
    dimensions: int = 16


DEFAULT_LIMITS = Limits()

# bool, integers, floats, byte strings, text, times; never structures (V), objects (O) or complex numbers (c)
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|[SU][1-9]\d{0,8}|[Mm]8(?:\[\d{0,6}[a-zA-Z]{1,2}\])?)")
_SCALARS: dict[str, tuple[type, ...]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (int, float),
    "S": (bytes,),
    "U": (str,),
}


def packb(value: Any) -> bytes:
    """Maps, lists, text, bytes, numbers, numpy arrays and scalars as one frame. Raises WireError for anything else."""
    try:
        packed = msgpack.packb(value, default=_pack_numpy)
    except WireError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise WireError(f"this value cannot be sent: {problem}") from problem
    return bytes(packed)


def unpackb(data: Buffer, limits: Limits = DEFAULT_LIMITS) -> Any:
    """What a frame holds; arrays are read-only views of it. Raises WireError for a frame that is not well formed."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise WireError(f"a binary frame is expected, found {type(data).__name__}")
    data = bytes(data)
    measure(data, limits)

    def unpack_numpy(fields: dict[Any, Any]) -> Any:
        if b"__ndarray__" in fields:
            return _array(fields, limits)
        return _scalar(fields) if b"__npgeneric__" in fields else fields

    try:
        return msgpack.unpackb(data, object_hook=unpack_numpy, raw=False, strict_map_key=True)
    except WireError:
        raise
    except UnicodeDecodeError as problem:
        raise WireError(f"the frame holds text that is not UTF-8: {problem.reason}") from problem
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as problem:
        raise WireError(f"the frame is not msgpack: {problem}") from problem


# ---------------------------------------------------------------- numpy


def _pack_numpy(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, (np.ndarray, np.generic)):
        raise WireError(f"this value cannot be sent: {type(value).__name__} has no form on the wire")
    _check_dtype(value.dtype.str)
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if value.dtype.kind not in _SCALARS:
        raise WireError(f"a single value of dtype {value.dtype.str!r} cannot be sent; send seconds as a float")
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _array(fields: dict[Any, Any], limits: Limits) -> np.ndarray:
    data, shape = fields.get(b"data"), fields.get(b"shape")
    dtype = _check_dtype(fields.get(b"dtype"))
    if not isinstance(data, bytes):
        raise WireError(f"an array's 'data' must be bytes, found {type(data).__name__}")
    if not isinstance(shape, (list, tuple)) or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise WireError(f"an array's 'shape' must be a list of sizes, found {_brief(shape)}")
    if len(shape) > limits.dimensions:
        raise WireError(f"an array has {len(shape)} dimensions, at most {limits.dimensions} are taken")
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise WireError(
            f"an array of shape {list(shape)} and dtype {dtype.str!r} needs {needed} bytes, has {len(data)}"
        )
    array: np.ndarray = np.ndarray(tuple(shape), dtype, data)
    if dtype.kind == "U":
        _check_text(array)
    return array


def _scalar(fields: dict[Any, Any]) -> np.generic:
    value, dtype = fields.get(b"data"), _check_dtype(fields.get(b"dtype"))
    if type(value) not in _SCALARS.get(dtype.kind, ()):
        raise WireError(f"a scalar of dtype {dtype.str!r} cannot be {_brief(value)}")
    try:
        with np.errstate(over="ignore"):  # a float too large becomes infinite
            scalar: np.generic = dtype.type(value)
    except (ValueError, OverflowError) as problem:
        raise WireError(f"a scalar of dtype {dtype.str!r} cannot be {_brief(value)}: {problem}") from problem
    return scalar


def _check_dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise WireError(
            f"dtype {_brief(name)} is not taken; booleans, integers, floats of up to 8 bytes, text and times are"
        )
    try:
        return np.dtype(name)
    except (TypeError, ValueError) as problem:
        raise WireError(f"dtype {name!r} is unknown: {problem}") from problem


def _check_text(array: np.ndarray) -> None:
    """Code points that no text has would fail later, far from here."""
    codes = np.frombuffer(array.tobytes(), array.dtype.str[0] + "u4")
    if codes.size and (codes.max() > 0x10FFFF or ((codes >= 0xD800) & (codes <= 0xDFFF)).any()):
        raise WireError("an array of text holds code points that are not text")


def _brief(value: Any) -> str:
    text = (
        repr(value)
        if isinstance(value, (str, int, float, bool, bytes, list, tuple, type(None)))
        else type(value).__name__
    )
    return text if len(text) <= 80 else f"{text[:77]}..."


# ---------------------------------------------------------------- the shape of msgpack, measured without decoding

# marker byte -> (what it opens, bytes of its length field); fixed lengths are in _FIXED
_BIN_OR_STR = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_LIST_OR_MAP = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}  # bytes of the length, values per entry
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED.update({0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8})


def measure(data: bytes, limits: Limits) -> None:
    """Raise WireError unless the frame is one complete value within the limits. Allocates nothing of its size."""
    total = len(data)
    if total > limits.frame_bytes:
        raise WireError(f"the frame has {total} bytes, at most {limits.frame_bytes} are taken")
    open_lists = [1]  # values still to come at each level; the frame itself is one value
    position = elements = 0
    while open_lists:
        if open_lists[-1] == 0:
            open_lists.pop()
            continue
        open_lists[-1] -= 1
        elements += 1
        if position >= total:
            raise WireError(f"the frame ends after {total} bytes in the middle of a value")
        marker = data[position]
        position += 1
        skip = inside = 0
        if marker <= 0x7F or marker >= 0xE0:  # small integers
            pass
        elif marker <= 0x8F:
            inside = 2 * (marker & 0x0F)
        elif marker <= 0x9F:
            inside = marker & 0x0F
        elif marker <= 0xBF:
            skip = marker & 0x1F
        elif marker in _FIXED:
            skip = _FIXED[marker]
        elif marker in _BIN_OR_STR:
            width = _BIN_OR_STR[marker]
            skip = int.from_bytes(data[position : position + width], "big")
            position += width
        elif marker in _LIST_OR_MAP:
            width, values = _LIST_OR_MAP[marker]
            inside = values * int.from_bytes(data[position : position + width], "big")
            position += width
        else:
            raise WireError(f"the frame holds a msgpack extension (byte {marker:#04x}), which is not taken")
        position += skip
        if position + inside > total:  # every value has at least one byte
            raise WireError(f"the frame claims more than its {total} bytes hold")
        if inside:
            open_lists.append(inside)
            if len(open_lists) > limits.depth + 1:
                raise WireError(f"the frame nests deeper than {limits.depth} levels")
        if elements + inside > limits.elements:
            raise WireError(f"the frame holds more than {limits.elements} values")
    if position != total:
        raise WireError(f"the frame goes on for {total - position} bytes after its value")
