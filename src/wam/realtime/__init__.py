"""Acting on a robot's own clock: the current chunk plays while the next one is being thought out.

The code lives in `wam_client`, the robot's side of the wire, which has neither torch nor models; the names are these in
both places.
"""

from wam_client.clock import Clock, Pace, Robot, VirtualClock, WallClock, run
from wam_client.executor import Executor, Join, Report, Request, Rest, Thought, Timing, Worker, switch
from wam_client.phases import Phases, Session
from wam_client.smoothing import SavitzkyGolay, SmoothJoin
from wam_client.workers import SimulatedWorker, ThreadWorker

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
    "SavitzkyGolay",
    "Session",
    "SimulatedWorker",
    "SmoothJoin",
    "ThreadWorker",
    "Thought",
    "Timing",
    "VirtualClock",
    "WallClock",
    "Worker",
    "run",
    "switch",
]
