"""Messages between the server and its worker: length and content over a local socket, in the wire format, no pickle."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Any

from wam_client.wire import Limits, packb, unpackb

_LENGTH = struct.Struct(">Q")
_LIMITS = Limits(frame_bytes=2**34, elements=10**7)  # both ends are ours; what came from clients has been checked

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    content = packb(message)
    return _LENGTH.pack(len(content)) + content


async def receive(reader: asyncio.StreamReader) -> Message:
    """The next message. Raises asyncio.IncompleteReadError at the end."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    message: Message = unpackb(await reader.readexactly(length), _LIMITS)
    return message


class WorkerEnd:
    """The worker's end: blocking, since it has nothing else to do."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._buffer = link, bytearray()
        link.setblocking(True)

    def send(self, message: Message) -> None:
        self._link.sendall(encode(message))

    def receive(self) -> Message:
        """Waits for the next message. Raises EOFError when the server is gone."""
        head = self._take(_LENGTH.size)
        message: Message = unpackb(self._take(_LENGTH.unpack(head)[0]), _LIMITS)
        return message

    def waiting(self) -> bool:
        """Whether a message has arrived, at least in part."""
        return bool(self._buffer) or bool(select.select([self._link], [], [], 0)[0])

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            received = self._link.recv(max(2**18, count - len(self._buffer)))
            if not received:
                raise EOFError("the server is gone")
            self._buffer += received
        taken = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return taken
