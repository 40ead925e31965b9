"""The same client for programs on asyncio. See `wam_client.client`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from wam_client.backoff import DEFAULT_RETRY, Retry
from wam_client.client import DEFAULT_URL, refuse_for_good
from wam_client.protocol import (
    RETRIED,
    Actions,
    ConnectionLost,
    Conversation,
    Look,
    PolicyError,
    Reply,
    metadata_of,
    observation_of,
    reply_of,
    text_of,
)
from wam_client.wire import DEFAULT_LIMITS, Limits, packb

logger = logging.getLogger(__name__)


class AsyncClient:
    """As `Client`, connected by `async with` or by the first request. Requests of several tasks take turns."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        session: str | None = None,
        retry: Retry = DEFAULT_RETRY,
        timeout: float = 120.0,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.url, self.reconnects = url, 0
        self._headers = {} if token is None else {"Authorization": f"Api-Key {token}"}
        self._retry, self._timeout, self._limits = retry, timeout, limits
        self.conversation = Conversation() if session is None else Conversation(session)
        self._socket: ClientConnection | None = None
        self._was_connected = False
        self._turn: asyncio.Lock | None = None  # made inside the loop: Python 3.9 binds it to one
        self.metadata: dict[str, Any] = {}

    def reset(self, seed: int | None = None, env: str | None = None) -> None:
        """A new episode begins with the next request."""
        self.conversation.reset(seed, env)

    async def act(self, looks: Sequence[Look], executing: Actions | None = None, env: str | None = None) -> Reply:
        """The next actions, after all looks since the last request, the present last."""
        return await self.infer(observation_of(looks, executing), env)

    async def infer(self, observation: Mapping[str, Any], env: str | None = None) -> Reply:
        """Send an observation as it is, and wait for the answer; see `Client.infer`."""
        self._turn = self._turn or asyncio.Lock()
        async with self._turn:
            return await self._infer(observation, env)

    async def _infer(self, observation: Mapping[str, Any], env: str | None) -> Reply:
        pauses, again = self._retry.pauses(), False
        while True:
            if self._socket is None:
                await self._connect(pauses)
            frame = self.conversation.request(observation, env, again=again)
            try:
                reply = reply_of(await self._exchange(frame), self._limits)
            except PolicyError as problem:
                pause = next(pauses, None) if problem.name in RETRIED else None
                if pause is None:
                    raise
                logger.info("%s; asked again in %.1f s", problem, pause)
                await asyncio.sleep(pause)
            except ConnectionLost as problem:
                if not again:
                    pauses = self._retry.pauses()  # patience is counted from the first loss, not from the request
                again, pause = True, next(pauses, None)
                if pause is None:
                    raise
                logger.warning("%s; connecting again, the episode starts anew", problem)
                await asyncio.sleep(pause)
            else:
                self.conversation.answered(env)
                return reply

    async def say(self, message: Mapping[str, Any]) -> str:
        """Send a message that is answered by text; see `Client.say`."""
        self._turn = self._turn or asyncio.Lock()
        async with self._turn:
            if self._socket is None:
                await self._connect(self._retry.pauses())
            return text_of(await self._exchange(packb(message)))

    async def close(self) -> None:
        """Hang up; a later request connects again."""
        socket, self._socket = self._socket, None
        if socket is not None:
            with suppress(Exception):
                await socket.close()

    async def __aenter__(self) -> AsyncClient:
        await self._connect(self._retry.pauses())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # ---------------------------------------------------------------- the socket

    async def _exchange(self, frame: bytes) -> Any:
        assert self._socket is not None
        try:
            await self._socket.send(frame)
            return await asyncio.wait_for(self._socket.recv(), self._timeout)
        except asyncio.TimeoutError as problem:
            await self.close()
            raise ConnectionLost(f"{self.url}: no answer within {self._timeout:g} s") from problem
        except (ConnectionClosed, OSError) as problem:
            await self.close()
            raise ConnectionLost(f"{self.url}: the connection broke ({problem})") from problem
        except BaseException:  # cancelled, say: a late answer must not meet the next request
            await self.close()
            raise

    async def _connect(self, pauses: Iterator[float]) -> None:
        began, tell = time.monotonic(), logger.warning  # once, for whoever wonders why nothing happens
        while True:
            try:
                self._socket = await connect(
                    self.url,
                    compression=None,
                    max_size=self._limits.frame_bytes,
                    additional_headers=self._headers,
                    open_timeout=min(10.0, self._timeout),
                    close_timeout=2.0,
                )
                first = await asyncio.wait_for(self._socket.recv(), self._timeout)
                self.metadata = metadata_of(first, self._limits)
                self.reconnects += self._was_connected
                self._was_connected = True
                return
            except (OSError, asyncio.TimeoutError, ConnectionClosed, InvalidHandshake) as problem:
                await self.close()
                refuse_for_good(problem)
                pause = next(pauses, None)
                if pause is None:
                    seconds = time.monotonic() - began
                    raise ConnectionLost(
                        f"{self.url}: nobody answers, tried for {seconds:.1f} s ({problem})"
                    ) from problem
                tell("%s: nobody answers (%s); tried again for up to %g s", self.url, problem, self._retry.patience)
                tell = logger.info
                await asyncio.sleep(pause)
            except BaseException:
                await self.close()
                raise
