"""Acting on a robot's own clock: the current chunk plays while the next one is being thought out.

The files of this room import nothing of wam but each other (`tests/realtime/test_room.py`), so that the robot-side
client, which has neither torch nor models, can carry them.
"""

from .clock import Clock, Pace, Robot, VirtualClock, WallClock, run
from .executor import Executor, Join, Report, Request, Rest, Thought, Timing, Worker, switch
from .phases import Phases, Session
from .workers import SimulatedWorker, ThreadWorker

__all__ = [
    "Clock",
    "Executor",
    "Join",
    "Pace",
    "Phases",
    "Report",
    "Request",
    "Rest",
    "Robot",
    "Session",
    "SimulatedWorker",
    "ThreadWorker",
    "Thought",
    "Timing",
    "VirtualClock",
    "WallClock",
    "Worker",
    "run",
    "switch",
]
