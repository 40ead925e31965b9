"""Mappings of tensors that are computed when asked for: read, renamed, split, merged, cast, one small group at a time.

A chain such as `Translated(open_tensors(folder), from_wan)` is a whole 14B checkpoint under our names that occupies
no memory. Names, shapes and types of the end of a chain (`meta`) come from running the same functions on tensors
without memory, so what is announced and what is computed cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wam.checkpoints.errors import MismatchError, WrongDtypeError
from wam.checkpoints.files import TensorFiles
from wam.checkpoints.names import merge_adapters

Rename = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


class Lazy(Protocol):
    """Tensors by name, computed when asked for, with shapes and types known before."""

    @property
    def meta(self) -> Mapping[str, Tensor]:
        """The same names with tensors on the meta device."""

    def __getitem__(self, name: str, /) -> Tensor: ...


@dataclass(frozen=True)
class Group:
    """Inputs that are translated together (one weight, or q, k and v that become one), and the names that they give."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Translated(Mapping[str, Tensor]):
    """What `rename` makes of another mapping, group by group.

    rename: a function of tensors by name that treats groups independently of each other.
    group: a key per input name; inputs of one key are translated together. Alone by default.
    names: the inputs to use; all of them by default.

    Raises MismatchError when two groups give the same name.
    """

    def __init__(
        self,
        source: Lazy,
        rename: Rename,
        *,
        group: Callable[[str], str] = lambda name: name,
        names: Iterable[str] | None = None,
    ) -> None:
        self._source, self._rename = source, rename
        self.meta: dict[str, Tensor] = {}
        self.groups: dict[str, Group] = {}
        self._latest: tuple[Group, Mapping[str, Tensor]] | None = None
        together: dict[str, list[str]] = {}
        for name in source.meta if names is None else names:
            together.setdefault(group(name), []).append(name)
        for inputs in together.values():
            self._add(tuple(inputs))

    def _add(self, inputs: tuple[str, ...]) -> None:
        results = self._rename({name: self._source.meta[name] for name in inputs})
        group = Group(inputs, tuple(results))
        for name, tensor in results.items():
            if name in self.meta:
                earlier = self.groups[name].inputs[0]
                raise MismatchError(f"{earlier!r} and {inputs[0]!r} both mean {name!r}; keep one of them")
            self.meta[name], self.groups[name] = tensor, group

    def __getitem__(self, name: str) -> Tensor:
        group = self.groups[name]
        if self._latest is None or self._latest[0] is not group:
            self._latest = None
            self._latest = (group, self._rename({key: self._source[key] for key in group.inputs}))
        tensor = self._latest[1][name]
        if name == group.outputs[-1]:
            self._latest = None  # asked for in order, everything is used; hold nothing longer than needed
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.meta)

    def __len__(self) -> int:
        return len(self.meta)


def without_prefix(files: TensorFiles, prefix: str) -> Translated:
    """The tensors of one component of a file that holds several, without the component's prefix."""
    return Translated(
        files,
        lambda tensors: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()},
        names=[name for name in files if name.startswith(prefix)],
    )


def merged(weights: Lazy, scale: float) -> Translated:
    """Weights with LoRA adapters beside them -> plain weights, W + scale B A. Without adapters nothing changes."""
    return Translated(
        weights,
        lambda tensors: merge_adapters(tensors, scale=scale),
        group=lambda name: name.replace(".lora_A.", ".").replace(".lora_B.", "."),
    )


def cast(weights: Lazy, dtype: torch.dtype | None) -> Translated:
    """The same weights in another type; None leaves every weight as it is.

    Raises WrongDtypeError when a value does not fit (float16 ends at 65504).
    """
    return Translated(weights, lambda tensors: {name: _cast(name, x, dtype) for name, x in tensors.items()})


def _cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or dtype == tensor.dtype:
        return tensor
    result = tensor.to(dtype)
    if dtype == torch.float16 and not tensor.is_meta and not torch.isfinite(result).all():
        largest = tensor.float().abs().max().item()
        raise WrongDtypeError(f"{name!r}: its largest value {largest:.3g} does not fit into float16; use bf16")
    return result


def require_floats(weights: Lazy, source: str) -> None:
    """Raises WrongDtypeError naming the first weight that is stored as something else than floating-point numbers."""
    for name, tensor in weights.meta.items():
        if not tensor.is_floating_point():
            raise WrongDtypeError(
                f"{source}: tensor {name!r} has dtype {str(tensor.dtype).removeprefix('torch.')}, expected "
                "floating-point numbers; quantised files of other tools are not supported, take the original weights"
            )
