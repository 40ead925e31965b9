"""Guidance split over two processes: ours computes under the sentence, the partner under the empty one.

The partner has the same weights and a memory of its own, and follows: it is told which pass to run over which sessions,
runs it exactly as we do, and sends the velocity of the video back; nothing else. A pass that carries clean frames is
kept in its memory as in ours, so that one message serves to remember, to denoise, and to do both at once.

    BEGIN   features of the empty sentence: a session begins
    COPY    of a session, with what it remembers
    PASS    the tokens of a pass over some sessions; answered by ANSWER, the velocity, if it has noisy video
    STOP    the end

Transport is torch.distributed: gloo between CPUs, NCCL between GPUs, by the same code. Everything that fails here, or
stays silent for too long, is a `PartnerLost`.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import IntEnum
from multiprocessing.process import BaseProcess
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from wam.engine.memory import Memory, Twin, together
from wam.model.attention import ANCHOR, Kind, Layout
from wam.model.attention import Group as Tokens
from wam.model.kv_cache import KVCache
from wam.model.transformer import Pass
from wam.world_action_model import VelocityOf, WorldActionModel

logger = logging.getLogger(__name__)

LEADER, FOLLOWER = 0, 1
HEADER = 64  # int64 numbers: what it is, how many tensors, then type, dimensions and shape of each
TYPES = (torch.float32, torch.int64, torch.bfloat16, torch.float16, torch.float64, torch.bool)
LAYOUT = tuple(f.name for f in fields(Layout) if f.name != "groups")
PASS = ("sigma", "embodiment", "video", "action", "state")


class PartnerLost(ConnectionError):
    """The other process of a split guidance is gone, or does not answer."""


class Kinds(IntEnum):
    STOP = 0
    BEGIN = 1
    COPY = 2
    PASS = 3
    ANSWER = 4


class Group(Protocol):
    """A process group of two; torch's, made by `split_process.meet`."""

    def rank(self) -> int: ...
    def name(self) -> str: ...
    def send(self, tensors: list[Tensor], to: int, tag: int) -> dist.Work: ...
    def recv(self, tensors: list[Tensor], source: int, tag: int) -> dist.Work: ...


class Wire:
    """Tensors to and from the other rank of a process group of two."""

    def __init__(self, group: Group, device: torch.device, timeout: float) -> None:
        """device: where the tensors live.  timeout: seconds until a silent partner counts as lost."""
        self.group, self.device, self.timeout = group, device, timedelta(seconds=timeout)
        self.rank = group.rank()
        self.lost: PartnerLost | None = None
        self._transport = device if group.name() == "nccl" else torch.device("cpu")

    def send(self, kind: Kinds, tensors: Sequence[Tensor]) -> None:
        """One header and one buffer, however many tensors. Raises PartnerLost."""
        header = [int(kind), len(tensors)]
        for tensor in tensors:
            header += [TYPES.index(tensor.dtype), tensor.dim(), *tensor.shape]
        if len(header) > HEADER:
            raise ValueError(f"a message of {len(tensors)} tensors does not fit a header of {HEADER} numbers")
        self._give(torch.tensor(header + [0] * (HEADER - len(header)), device=self._transport))
        if tensors:
            parts = [tensor.contiguous().flatten().view(torch.uint8) for tensor in tensors if tensor.numel()]
            self._give(torch.cat([part.to(self._transport) for part in parts]))  # layouts are on the CPU

    def receive(self, timeout: float | None = None) -> tuple[Kinds, list[Tensor]]:
        """timeout: seconds for the first word of it, `self.timeout` when left out. Raises PartnerLost."""
        header = self._get(HEADER, torch.int64, None if timeout is None else timedelta(seconds=timeout)).tolist()
        kind, count, place, tensors = Kinds(header[0]), header[1], 2, []
        shapes = []
        for _ in range(count):
            dtype, dims = TYPES[header[place]], header[place + 1]
            shapes.append((dtype, header[place + 2 : place + 2 + dims]))
            place += 2 + dims
        sizes = [dtype.itemsize * torch.Size(shape).numel() for dtype, shape in shapes]
        if shapes:
            parts = self._get(sum(sizes), torch.uint8).split(sizes)
            # a copy each: views into one buffer would not be aligned to their type
            tensors = [
                part.clone().view(dtype).reshape(shape) for part, (dtype, shape) in zip(parts, shapes, strict=True)
            ]
        return kind, [tensor.to(self.device) for tensor in tensors]

    def _give(self, tensor: Tensor) -> None:
        self._finish(lambda: self.group.send([tensor], 1 - self.rank, 0), self.timeout)

    def _get(self, size: int, dtype: torch.dtype, timeout: timedelta | None = None) -> Tensor:
        tensor = torch.empty(size, dtype=dtype, device=self._transport)
        self._finish(lambda: self.group.recv([tensor], 1 - self.rank, 0), timeout or self.timeout)
        return tensor

    def _finish(self, start: Callable[[], dist.Work], timeout: timedelta) -> None:
        """Wait for a transfer. Whatever goes wrong, nothing more will ever arrive in order."""
        if self.lost is None:
            try:
                start().wait(timeout)
                return
            except RuntimeError as error:
                other = "the partner of split guidance"
                self.lost = PartnerLost(
                    f"{other} (rank {1 - self.rank}) is gone or has been silent for {timeout.total_seconds():g} s "
                    f"({str(error).splitlines()[0]}); start both again, or use guidance_mode='batched'"
                )
        raise self.lost


# ---------------------------------------------------------------- the one who leads


class Partner:
    """The other process, seen from the one that leads."""

    def __init__(self, wire: Wire, process: BaseProcess | None = None) -> None:
        """process: if it is ours to end."""
        self.wire, self.process = wire, process
        self._count = 0
        self._gone: list[int] = []
        self._sent: Layout | None = None

    def begin(self, features: Tensor) -> Ticket:
        """A session's empty sentence, as features (1, Lt, text_dim); remembered there as long as the ticket is held."""
        ticket = self._ticket()
        self.wire.send(Kinds.BEGIN, [torch.tensor([ticket.number, *self._forgotten()]), features])
        return ticket

    def copy(self, ticket: Ticket) -> Ticket:
        """Another session that remembers the same."""
        copied = self._ticket()
        self.wire.send(Kinds.COPY, [torch.tensor([copied.number, ticket.number])])
        return copied

    def _ticket(self) -> Ticket:
        self._count += 1
        ticket = Ticket(self._count, self)
        weakref.finalize(ticket, self._gone.append, ticket.number)
        return ticket

    def _forgotten(self) -> list[int]:
        """Sessions that are no longer, told with the next message, since a finalizer may run in the middle of one."""
        gone, self._gone[:] = list(self._gone), []
        return gone

    def run(self, tickets: Sequence[Twin], inputs: Pass) -> None:
        """Run a pass over these sessions' memories, a row for each; clean frames are kept."""
        numbers = torch.tensor([ticket.number for ticket in tickets])
        given = [getattr(inputs, name) for name in PASS]
        there = torch.tensor([tensor is not None for tensor in given])
        tensors = [numbers, there, *(tensor for tensor in given if tensor is not None)]
        if inputs.layout is not self._sent:
            layout, self._sent = inputs.layout, inputs.layout
            groups = torch.tensor([[int(g.kind), g.chunk, g.tokens] for g in layout.groups], dtype=torch.int64)
            tensors += [groups, *(getattr(layout, name) for name in LAYOUT)]
        self.wire.send(Kinds.PASS, tensors)

    def over(self, tickets: Sequence[Twin]) -> PartnerPasses:
        """Passes over these sessions, as `guidance.split` asks for them."""
        return PartnerPasses(self, tickets)

    def close(self) -> None:
        """Let it go. Silent when it is gone already."""
        try:
            self.wire.send(Kinds.STOP, [])
        except PartnerLost:
            logger.info("the partner had gone before")
        if self.process is not None:
            self.process.join(timeout=5.0)
            self.process.kill()


@dataclass(frozen=True, eq=False)
class Ticket:
    """A memory that the partner keeps."""

    number: int
    partner: Partner

    def copy(self) -> Ticket:
        return self.partner.copy(self)


@dataclass(frozen=True)
class PartnerPasses:
    """See `guidance.Elsewhere`."""

    partner: Partner
    tickets: Sequence[Twin]

    def begin(self, inputs: Pass) -> Callable[[], Tensor | None]:
        self.partner.run(self.tickets, inputs)
        noisy = inputs.layout.count(Kind.NOISY)
        return (lambda: self.partner.wire.receive()[1][0]) if noisy else (lambda: None)


# ---------------------------------------------------------------- the one who follows


class Follower:
    """Does what it is told until it is told to stop, or nobody is there to tell."""

    def __init__(self, model: WorldActionModel, wire: Wire, *, joint: bool = True) -> None:
        """joint: as the leader's `EngineConfig.joint_pass`."""
        self.model, self.wire, self.joint = model.eval(), wire, joint
        self._memories: dict[int, Memory] = {}
        self._layout: Layout | None = None
        self._seated: tuple[list[int], Memory] | None = None  # several sessions side by side
        self._velocity: tuple[list[int], VelocityOf] | None = None  # good until something new is remembered

    @torch.inference_mode()
    def follow(self, patience: float = 7 * 86400.0) -> None:
        """patience: seconds between two orders. Raises PartnerLost when the leader is gone."""
        while True:
            kind, tensors = self.wire.receive(patience)
            if kind == Kinds.STOP:
                return
            if kind == Kinds.BEGIN:
                self._begin(*tensors)
            elif kind == Kinds.COPY:
                new, old = tensors[0].tolist()
                self._memories[new] = self._memories[old].copy()
            else:
                self._run(tensors)

    def _begin(self, numbers: Tensor, features: Tensor) -> None:
        number, *gone = numbers.tolist()
        for each in gone:
            self._memories.pop(each, None)
        self._memories[number] = Memory(self.model.context(features), self.model.new_cache(1, joint=self.joint))
        self._seated = self._velocity = None

    def _run(self, tensors: list[Tensor]) -> None:
        numbers, inputs = self._read(tensors)
        memory = self._together(numbers)
        clean = inputs.layout.count(Kind.CLEAN)
        chunks = inputs.layout.chunk[:, 0].expand(len(numbers)).tolist() if clean else []
        if clean and chunks[0] == ANCHOR:
            memory.cache.reset()
        if clean or self._velocity is None or self._velocity[0] != numbers:
            self._velocity = numbers, self.model.velocity(memory.cache, memory.context)
        answer = self._velocity[1](0, inputs)
        if clean:
            self._keep(numbers, memory.cache, chunks)
            self._velocity = None
        if answer.video is not None:
            self.wire.send(Kinds.ANSWER, [answer.video])

    def _keep(self, numbers: list[int], cache: KVCache, chunks: list[int]) -> None:
        cache.commit(chunks[0] if len(set(chunks)) == 1 else chunks)
        for row, (number, chunk) in enumerate(zip(numbers, chunks, strict=True)):
            own = self._memories[number].cache
            if own is not cache:
                own.take(cache.rows(slice(row, row + 1)), chunk)

    def _read(self, tensors: list[Tensor]) -> tuple[list[int], Pass]:
        numbers, there, *rest = tensors
        given = {name: rest.pop(0) for name, is_there in zip(PASS, there.tolist(), strict=True) if is_there}
        if rest:
            groups = tuple(Tokens(Kind(kind), chunk, tokens) for kind, chunk, tokens in rest.pop(0).tolist())
            self._layout = Layout(**dict(zip(LAYOUT, rest, strict=True)), groups=groups)
        if self._layout is None:
            raise ValueError("the leader sent a pass before its layout; start both processes again")
        return numbers.tolist(), Pass(self._layout, **given)

    def _together(self, numbers: list[int]) -> Memory:
        """The sessions' memories as one; side by side they stay until others are asked for."""
        if len(numbers) == 1:
            self._seated = None
            return self._memories[numbers[0]]
        if self._seated is None or self._seated[0] != numbers:
            room = self.model.new_cache(len(numbers), joint=self.joint)
            self._seated = numbers, together([self._memories[number] for number in numbers], room)
        return self._seated[1]
