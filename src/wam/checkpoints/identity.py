"""Which weights are these? A fingerprint that does not depend on files, shards, dialects or bf16 rounding.

An adapter changes the weights that it was trained on, so it has to know them again. Hashing 33 GB would take minutes;
hashing names and shapes would call every 14B model the same. Between the two:

    identity = sha256 over the sorted lines "name shape digest",  digest = sha256 over 16 runs of 256 neighbours

* Names are ours (`wam.checkpoints.names`), so a Wan, DreamZero, diffusers or LoRA-wrapped file says the same.
* Runs begin at fixed places, spread evenly by the golden ratio, the same for every tensor of one size. Runs of
  neighbours touch few pages of a file: 0.1 GB of a 14B model's 66. Small tensors count in full.
* Values are rounded to bfloat16, so a float32 file and its bfloat16 copy are the same base. Training changes nearly
  every weight, by more than a rounding error somewhere among millions of samples; a change of a single element of a
  large matrix may go unseen: this tells models apart, it is no protection against forgery.
* Other components of a file and adapters do not count; `leave_out` takes out more, such as untrained action modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from wam.checkpoints.names import ADAPTERS, COMPONENTS, Part, dialect, from_diffusers, from_wan

RUNS, RUN = 16, 256  # samples of a large tensor: this many runs of this many neighbouring elements
GOLDEN = (5**0.5 - 1) / 2


def identity(
    tensors: Mapping[str, Tensor] | nn.Module,
    *,
    leave_out: Sequence[Part] = (),
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """64 hexadecimal digits that name the weights of a transformer, in any dialect.

    A mapping may load its tensors when asked: one is held at a time.  leave_out: parts, by our names, that do not
    count.  progress: called with (tensors done, tensors in all).

    Raises ValueError for a weight without values (meta device), for one that is there twice, and when none is left.
    """
    found: Mapping[str, Tensor] = tensors.state_dict() if isinstance(tensors, nn.Module) else tensors
    ignored = (*COMPONENTS, ADAPTERS, *leave_out)
    ours = from_diffusers if dialect(found) == "diffusers" else from_wan
    lines: dict[str, str] = {}
    for done, name in enumerate(found, start=1):
        if not any(part.has(name) for part in COMPONENTS):  # spares loading them
            ((own, tensor),) = ours({name: found[name]}).items()
            if own in lines:
                raise ValueError(f"{name!r}: {own!r} is there twice, under different prefixes; keep one of them")
            if not any(part.has(own) for part in ignored):
                lines[own] = f"{own} {list(tensor.shape)} {_digest(own, tensor)}"
        if progress is not None:
            progress(done, len(found))
    if not lines:
        raise ValueError(f"none of the {len(found)} tensors is a weight of a transformer that counts")
    return hashlib.sha256("\n".join(lines[own] for own in sorted(lines)).encode()).hexdigest()


def _digest(name: str, tensor: Tensor) -> str:
    if tensor.is_meta:
        raise ValueError(f"{name!r} is on the meta device and has no values; load the weights before naming them")
    flat = tensor.detach().reshape(-1)
    samples = flat if flat.numel() <= RUNS * RUN else torch.cat([flat[start : start + RUN] for start in _starts(flat)])
    rounded = samples.to("cpu", torch.bfloat16 if samples.is_floating_point() else samples.dtype).contiguous()
    return hashlib.sha256(rounded.view(torch.uint8).numpy().tobytes()).hexdigest()


def _starts(flat: Tensor) -> list[int]:
    """Where the runs begin in a tensor of more than RUNS x RUN elements."""
    last = flat.numel() - RUN
    return [round((index * GOLDEN) % 1 * last) for index in range(RUNS)]
