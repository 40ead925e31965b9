"""Limits that would leave nobody served are refused where they are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wam.serve.server import Record, Where
from wam.serve.service import Limits
from wam.serve.supervisor import Patience
from wam.serve.websocket import Door


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Limits(sessions=0), "--sessions: found 0, expected at least 1"),
        (lambda: Limits(waiting=-1), "--waiting: found -1, expected at least 1"),
        (lambda: Limits(idle_seconds=0), "--idle-seconds: found 0, expected more than 0"),
        (lambda: Limits(batch=0), "--batch: found 0, expected at least 1"),
        (lambda: Patience(start=float("nan")), "--start-seconds: found nan, expected more than 0"),
        (lambda: Patience(step=-1.5), "--step-seconds: found -1.5, expected more than 0"),
        (lambda: Patience(restart=0), "--restart-seconds: found 0"),
        (lambda: Door(frame_bytes=0), "--frame-mb: found 0, expected more than 0"),
        (lambda: Door(connections=0), "--connections: found 0"),
        (lambda: Door(send_seconds=0), "--send-seconds: found 0"),
        (lambda: Where(port=70000), "--port: found 70000, expected a port, 1 to 65535, or 0 for any free one"),
        (lambda: Where(zmq_port=-1), "--zmq-port: found -1"),
        (lambda: Record(Path("served"), 0), "--record-gb: found 0"),
    ],
)
def test_what_would_serve_nobody_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        make()
