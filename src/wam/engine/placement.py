"""Where a model's parts live, for GPUs that cannot hold all of them: wrappers around the parts, which stay as they are.

Three means, from cheap to slow:
    `DroppedTextEncoder`  the text encoder (11 GB) exists only while a new prompt is read, and its features are kept
                          (or leave it on the CPU: it works there, once per prompt);
    `Visiting`            a part rests on the host and visits the device while it works: `OffloadedImageEncoder`,
                          `OffloadedVideoTokenizer`;
    `BlockOffload`        the transformer's blocks rest on the host; a few places on the device take turns, and while
                          one block works the next one is copied into its place (on a stream of its own, on CUDA).
`memory_account` says what everything costs where. The wrappers change no number: on a CPU results are equal bit for
bit. Blocks on CUDA streams of their own gave the same numbers on an H200; no speed has been measured.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from wam.encoders.text import TextEncoder
from wam.encoders.video import VideoTokenizer
from wam.model.transformer import Transformer

Device = torch.device | str
M = TypeVar("M", bound=nn.Module)
State = dict[str, Tensor]

# ---------------------------------------------------------------- parts that come and go


class Visiting(Generic[M]):
    """A module that rests on one device and works on another; its weights go there as copies and need not come back.

    with Visiting(vae, "cuda").working() as network: ...
    """

    def __init__(self, module: M, device: Device, rest: Device = "cpu") -> None:
        self.module = module.to(rest)
        self.device = torch.device(device)

    @contextmanager
    def working(self) -> Iterator[M]:
        """The module on its working device; at rest again afterwards, whatever happens. For inference alone."""
        resting = _state(self.module)
        moved = {id(tensor): _moved(tensor, self.device) for tensor in resting.values()}  # a shared one once
        try:
            _install(self.module, {name: moved[id(tensor)] for name, tensor in resting.items()})
            yield self.module
        finally:
            _install(self.module, resting)


class DroppedTextEncoder:
    """A `TextEncoder` that is built when a new prompt comes and dropped after it; features are kept on the CPU.

    build: makes the encoder, from disk. text_len and text_dim are asked of the first one that is built.
    """

    def __init__(self, build: Callable[[], TextEncoder], text_len: int, text_dim: int) -> None:
        self._build, self._text_len, self._text_dim = build, text_len, text_dim
        self._remembered: dict[str, Tensor] = {}

    @property
    def text_len(self) -> int:
        return self._text_len

    @property
    def text_dim(self) -> int:
        return self._text_dim

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """See `TextEncoder.encode`. Raises ValueError if the encoder that is built has other sizes than promised."""
        unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._remembered]
        if unknown:
            encoder = self._build()
            found, expected = (encoder.text_len, encoder.text_dim), (self._text_len, self._text_dim)
            if found != expected:
                raise ValueError(f"text encoder: (text_len, text_dim) is {found}, expected {expected}")
            for prompt in unknown:
                self._remembered[prompt] = encoder.encode([prompt])[0].cpu()
        return torch.stack([self._remembered[prompt] for prompt in prompts])


class OffloadedImageEncoder:
    """Pictures -> features, by a module with `encode(frames)` whose weights visit the device for each call."""

    def __init__(self, encoder: nn.Module, device: Device, rest: Device = "cpu") -> None:
        self._visiting: Visiting[Any] = Visiting(encoder, device, rest)

    def __call__(self, frames: Any) -> Tensor:
        """uint8 (B, H, W, 3) -> (B, tokens, image_dim)."""
        with self._visiting.working() as encoder:
            return cast(Tensor, encoder.encode(frames))


class OffloadedVideoTokenizer:
    """A `VideoTokenizer` whose weights visit the device for each call. Streams' states stay where the work was done."""

    def __init__(self, tokenizer: VideoTokenizer, device: Device, rest: Device = "cpu") -> None:
        """tokenizer: also a module. Inputs of every call must be on `device`."""
        self._visiting: Visiting[Any] = Visiting(cast(nn.Module, tokenizer), device, rest)
        self._tokenizer = tokenizer

    @property
    def z_channels(self) -> int:
        return self._tokenizer.z_channels

    @property
    def spatial_factor(self) -> int:
        return self._tokenizer.spatial_factor

    def encode(self, video: Tensor) -> Tensor:
        with self._visiting.working() as tokenizer:
            return cast(Tensor, tokenizer.encode(video))

    def decode(self, latents: Tensor) -> Tensor:
        with self._visiting.working() as tokenizer:
            return cast(Tensor, tokenizer.decode(latents))

    def encode_first(self, frame: Tensor) -> tuple[Tensor, Any]:
        with self._visiting.working() as tokenizer:
            return cast(tuple[Tensor, Any], tokenizer.encode_first(frame))

    def encode_next(self, state: Any, frames: Tensor) -> tuple[Tensor, Any]:
        with self._visiting.working() as tokenizer:
            return cast(tuple[Tensor, Any], tokenizer.encode_next(state, frames))

    def decode_first(self, latent: Tensor) -> tuple[Tensor, Any]:
        with self._visiting.working() as tokenizer:
            return cast(tuple[Tensor, Any], tokenizer.decode_first(latent))

    def decode_next(self, state: Any, latents: Tensor) -> tuple[Tensor, Any]:
        with self._visiting.working() as tokenizer:
            return cast(tuple[Tensor, Any], tokenizer.decode_next(state, latents))


# ---------------------------------------------------------------- the transformer, block by block


class BlockOffload:
    """The blocks of a transformer on the host, `resident` places for them on the device; everything else on the device.

    Places are allocated once. With two or more, the next block is copied while the present one works. As blocks are
    needed in a circle, the one that was needed last is needed again latest, and leaves: a pass copies at most
    `blocks - (resident - 2)` of them. Hooks bring a block before anything of it runs, in `forward`
    and in `context` alike; `remove` takes them out and leaves the blocks on the host. For inference: weights are not
    copied back. Quantised weights travel as they are.
    """

    def __init__(self, transformer: Transformer, device: Device, resident: int = 2) -> None:
        count = len(transformer.blocks)
        if not 1 <= resident <= count:
            raise ValueError(f"resident={resident}: expected 1 to {count}, the number of blocks")
        self.device = torch.device(device)
        self.blocks = list(transformer.blocks)
        for name, child in transformer.named_children():
            if name != "blocks":
                child.to(self.device)
        self._host: list[State] = []
        for block in self.blocks:  # one at a time: pinning copies, and the host need not hold the model twice
            self._host.append(_on_host(block, pinned=self.device.type == "cuda"))
            _install(block, self._host[-1])
        first = self._host[0]
        self._places = [{n: _moved(x, self.device, apart=True) for n, x in first.items()} for _ in range(resident)]
        self._held: OrderedDict[int, int] = OrderedDict()  # block -> its place, in the order of their last use
        self.copied = 0  # blocks, since the beginning
        self._copies = _Copies(self.device)
        self._hooks = [
            module.register_forward_pre_hook(partial(self._before, index))
            for index, block in enumerate(self.blocks)
            for module in (block, *block.get_submodule("cross_attn").children())  # those run alone in `context`
        ]

    @property
    def resident(self) -> tuple[int, ...]:
        """Blocks that are on the device, or on their way."""
        return tuple(sorted(self._held))

    @property
    def place_tensors(self) -> list[Tensor]:
        """What the places occupy on the device, whether a block is in them or not."""
        return [tensor for place in self._places for tensor in place.values()]

    @property
    def host_tensors(self) -> list[Tensor]:
        return [tensor for weights in self._host for tensor in weights.values()]

    def bring(self, index: int) -> None:
        """Have this block on the device, and the one after it on its way."""
        if index not in self._held:
            self._start(index)
        self._held.move_to_end(index)
        self._copies.finish(index)
        following = (index + 1) % len(self.blocks)
        if len(self._places) > 1 and following not in self._held:
            self._start(following, present=index)

    def remove(self) -> None:
        """Take the hooks out; blocks are on the host afterwards, the places are given back."""
        for hook in self._hooks:
            hook.remove()
        for index in list(self._held):
            self._evict(index)
        self._places.clear()

    def _before(self, index: int, module: nn.Module, inputs: object) -> None:
        self.bring(index)

    def _start(self, index: int, present: int | None = None) -> None:
        """Begin to copy a block into a free place, or into that of the block used last but for the present one."""
        free = set(range(len(self._places))) - set(self._held.values())
        if not free:
            leaving, place = next((b, p) for b, p in reversed(self._held.items()) if b != present)
            self._evict(leaving)
            free = {place}
        self.copied += 1
        place = free.pop()
        self._held[index] = place
        self._copies.start(index, self._host[index], self._places[place])
        _install(self.blocks[index], self._places[place])

    def _evict(self, index: int) -> None:
        self._held.pop(index, None)
        _install(self.blocks[index], self._host[index])


class _Copies:
    """Host to device: on CUDA beside the work, on a stream of its own; elsewhere at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._arrivals: dict[int, torch.cuda.Event] = {}

    def start(self, index: int, source: State, place: State) -> None:
        if self._stream is None:
            _copy(source, place)
            return
        # Whatever the place held may still be at work: everything launched so far comes first.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            _copy(source, place)
            self._arrivals[index] = self._stream.record_event()

    def finish(self, index: int) -> None:
        """From here on, work on the device waits for the copy."""
        arrival = self._arrivals.pop(index, None)
        if arrival is not None:
            torch.cuda.current_stream(self._device).wait_event(arrival)


def _state(module: nn.Module) -> State:
    """Parameters and buffers by name, shared ones under each of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _moved(tensor: Tensor, device: torch.device, *, apart: bool = False) -> Tensor:
    """The tensor on a device, still a parameter if it was one; apart: in memory of its own even if it is there."""
    inside = (tensor.detach().clone() if apart else tensor.detach()).to(device)
    return nn.Parameter(inside, requires_grad=False) if isinstance(tensor, nn.Parameter) else inside


def _on_host(block: nn.Module, *, pinned: bool) -> State:
    """Weights on the CPU; pinned ones can be copied to a GPU beside its work (quantised ones stay pageable)."""
    state = {name: _moved(tensor, torch.device("cpu")) for name, tensor in _state(block).items()}
    for tensor in state.values():
        if pinned and type(tensor.data) is Tensor:
            tensor.data = tensor.data.pin_memory()
    return state


@torch.no_grad()
def _copy(source: State, place: State) -> None:
    for name, tensor in source.items():
        place[name].copy_(tensor, non_blocking=True)


def _install(module: nn.Module, state: State) -> None:
    """Let the module use these tensors; nothing is copied."""
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, tensor)


# ---------------------------------------------------------------- the account


@dataclass(frozen=True)
class Line:
    """Bytes of one component's tensors on one device."""

    component: str
    device: str
    bytes: int


def memory_account(components: Mapping[str, nn.Module | Iterable[Tensor]]) -> tuple[Line, ...]:
    """What each component holds on each device: its parameters and buffers, or the tensors given (a cache's, say).

    Memory that is shared counts once, for the first component that has it. Tensors on the meta device are counted as
    what they would need ("meta"). Activations, and what an allocator keeps in reserve, are not in it.
    """
    seen: set[int] = set()
    lines: list[Line] = []
    for name, component in components.items():
        bytes_on: dict[str, int] = {}
        for tensor in _tensors(component):
            for part in _parts(tensor):
                device, storage = str(part.device), part.untyped_storage()
                if storage._cdata not in seen:
                    seen.add(storage._cdata)
                    bytes_on[device] = bytes_on.get(device, 0) + storage.nbytes()
        lines += [Line(name, device, count) for device, count in sorted(bytes_on.items())]
    return tuple(lines)


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's values; of a quantised one, of everything that it is made of."""
    return sum(part.nbytes for part in _parts(tensor))


def _tensors(component: nn.Module | Iterable[Tensor]) -> Iterator[Tensor]:
    if isinstance(component, nn.Module):
        yield from component.parameters()
        yield from component.buffers()
    else:
        yield from component


def _parts(tensor: Tensor) -> Iterator[Tensor]:
    """A plain tensor itself; the plain tensors inside a quantised one."""
    inside = tensor.data if type(tensor) is nn.Parameter else tensor
    if type(inside) is Tensor or not hasattr(inside, "__tensor_flatten__"):
        yield inside
        return
    names, _ = inside.__tensor_flatten__()
    for name in names:
        yield from _parts(getattr(inside, name))
