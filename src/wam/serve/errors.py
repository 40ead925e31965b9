"""What can go wrong between a robot and its model, by name, so that a client can decide without reading prose."""

from __future__ import annotations

import logging
from typing import Literal

logger = logging.getLogger(__name__)

ErrorName = Literal[
    "BadFrame",  # the bytes are no message of this protocol
    "BadRequest",  # a key is missing, malformed or contradicts another
    "Busy",  # too many requests or sessions at once; ask again later
    "SessionLost",  # what the session remembered is gone; the next request starts anew from the present frame
    "Unavailable",  # no model to ask: it is starting, or the server is shutting down
    "Unauthorized",  # the token is missing or wrong
    "Internal",  # a fault of the server; its log says more
]


class ServeError(ValueError):
    """An answer that says why there are no actions. On the wire it reads "NAME: message"."""

    def __init__(self, name: ErrorName, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


def bad_request(message: str) -> ServeError:
    """A missing or malformed key."""
    return ServeError("BadRequest", message)


def refusal(problem: Exception, connection: str) -> ServeError:
    """What to tell a client. A fault of ours must not take its connection with it, nor show our inside."""
    if isinstance(problem, ServeError):
        return problem
    logger.error("%s: a request failed", connection, exc_info=problem)
    return ServeError("Internal", f"{type(problem).__name__}; the server's log says more")
