"""A policy behind a websocket, for a robot's loop that may wait.

    with Client("ws://127.0.0.1:8000/wam") as policy:
        policy.reset(seed=0)
        reply = policy.act([look])                    # later: all looks since, see `metadata["frames_per_request"]`
        for action in reply.actions[: policy.metadata["execute"]]: ...

The client reconnects by itself and its session goes on, as far as the server still knows it. Whoever must not wait
puts it behind an `Executor` (`wam_client.executor`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from wam_client.backoff import DEFAULT_RETRY, Retry
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

DEFAULT_URL = "ws://127.0.0.1:8000/wam"


class Client:
    """A connection to `wam serve`, or to any server that speaks openpi's protocol. For one thread at a time.

    url: `/wam` at its end asks `wam serve` for all that it has to say of itself.  token: the server's, if it wants one.
    session: a name of this robot that outlives the connection; made up when left out, "" where the connection is the
    session.  retry: how long to try a server
    that is not there or not ready.  timeout: seconds to wait for an answer.  limits: of a reply.

    Raises ConnectionLost when nobody answers for as long as `retry` says, PolicyError when the server refuses.
    """

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
        self._hang_up = ExitStack()
        self.metadata: dict[str, Any] = {}
        self._connect(retry.pauses())

    # ---------------------------------------------------------------- what a robot asks for

    def reset(self, seed: int | None = None, env: str | None = None) -> None:
        """A new episode begins with the next request. seed: of its noise. env: one of several on this client."""
        self.conversation.reset(seed, env)

    def act(self, looks: Sequence[Look], executing: Actions | None = None, env: str | None = None) -> Reply:
        """The next actions, after all looks since the last request, the present last; see `observation_of`."""
        return self.infer(observation_of(looks, executing), env)

    def infer(self, observation: Mapping[str, Any], env: str | None = None) -> Reply:
        """Send an observation as it is, and wait for the answer.

        A broken connection is made again and the request repeated; since the server may have taken it already, its
        episode then starts anew from the present frame. A server that is busy or loading its model is asked again.
        Raises SessionLost, another PolicyError, WireError, or ConnectionLost.
        """
        pauses, again = self._retry.pauses(), False
        while True:
            if self._socket is None:
                self._connect(pauses)
                self.reconnects += 1
            frame = self.conversation.request(observation, env, again=again)
            try:
                reply = reply_of(self._exchange(frame), self._limits)
            except PolicyError as problem:
                pause = next(pauses, None) if problem.name in RETRIED else None
                if pause is None:
                    raise
                logger.info("%s; asked again in %.1f s", problem, pause)
                time.sleep(pause)
            except ConnectionLost as problem:
                if not again:
                    pauses = self._retry.pauses()  # patience is counted from the first loss, not from the request
                again, pause = True, next(pauses, None)
                if pause is None:
                    raise
                logger.warning("%s; connecting again, the episode starts anew", problem)
                time.sleep(pause)
            else:
                self.conversation.answered(env)
                return reply

    def say(self, message: Mapping[str, Any]) -> str:
        """Send a message that is answered by text, such as RoboArena's reset. Raises PolicyError for an error."""
        if self._socket is None:
            self._connect(self._retry.pauses())
            self.reconnects += 1
        return text_of(self._exchange(packb(message)))

    def close(self) -> None:
        """Hang up; a later request connects again."""
        self._socket = None
        with suppress(Exception):
            self._hang_up.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---------------------------------------------------------------- the socket

    def _exchange(self, frame: bytes) -> Any:
        """Raises ConnectionLost. Whatever interrupts it hangs up: a late answer must not meet the next request."""
        assert self._socket is not None
        try:
            self._socket.send(frame)
            return self._socket.recv(timeout=self._timeout)
        except TimeoutError as problem:
            self.close()
            raise ConnectionLost(f"{self.url}: no answer within {self._timeout:g} s") from problem
        except (ConnectionClosed, OSError) as problem:
            self.close()
            raise ConnectionLost(f"{self.url}: the connection broke ({problem})") from problem
        except BaseException:
            self.close()
            raise

    def _connect(self, pauses: Iterator[float]) -> None:
        """Raises ConnectionLost when there are no more pauses, PolicyError when the server refuses this client."""
        began, tell = time.monotonic(), logger.warning  # once, for whoever wonders why nothing happens
        while True:
            try:
                context = connect(
                    self.url,
                    compression=None,
                    max_size=self._limits.frame_bytes,
                    additional_headers=self._headers,
                    open_timeout=min(10.0, self._timeout),
                    close_timeout=2.0,
                )
                self._socket = self._hang_up.enter_context(context)
                self.metadata = metadata_of(self._socket.recv(timeout=self._timeout), self._limits)
                return
            except (OSError, ConnectionClosed, InvalidHandshake) as problem:
                self.close()
                refuse_for_good(problem)
                pause = next(pauses, None)
                if pause is None:
                    seconds = time.monotonic() - began
                    raise ConnectionLost(
                        f"{self.url}: nobody answers, tried for {seconds:.1f} s ({problem})"
                    ) from problem
                tell("%s: nobody answers (%s); tried again for up to %g s", self.url, problem, self._retry.patience)
                tell = logger.info
                time.sleep(pause)
            except BaseException:
                self.close()
                raise


def refuse_for_good(problem: Exception) -> None:
    """Raises PolicyError when trying again would not help: a wrong token, or no policy at this address."""
    if isinstance(problem, InvalidStatus) and 400 <= problem.response.status_code < 500:
        code, body = problem.response.status_code, (problem.response.body or b"").decode(errors="replace").strip()
        raise PolicyError("Unauthorized" if code in (401, 403) else "BadRequest", body or f"HTTP {code}") from problem
