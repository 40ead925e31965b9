"""Plain values of YAML and JSON as the fields of dataclasses: what does not fit is named."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parsed(kind: type[T], fields: Mapping[str, Any], source: str) -> T:
    """A dataclass from its fields; what is missing has its default. Raises ValueError naming the field."""
    hints = get_type_hints(kind)
    unknown = sorted(set(fields) - set(hints))
    if unknown:
        raise ValueError(f"{source}: {kind.__name__} has no field {unknown[0]!r}; another version wrote this run")
    return kind(**{name: typed(hints[name], value, f"{source}: field {name!r}") for name, value in fields.items()})


def typed(kind: Any, value: Any, what: str) -> Any:
    """A plain value as a field's type says; what: names the field in the ValueError that it may raise."""
    options, origin = get_args(kind), get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        return typed(next(option for option in options if option is not type(None)), value, what)
    if origin is tuple and isinstance(value, list):
        inner = [options[0]] * len(value) if options[1:] == (Ellipsis,) else list(options)
        if len(inner) == len(value):
            return tuple(typed(one, item, what) for one, item in zip(inner, value, strict=True))
    if origin is Literal and value in options:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
        return parsed(kind, value, what)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    expected = " or ".join(map(repr, options)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise ValueError(f"{what} is {value!r}, expected {expected}")
