"""The robot's side of `wam serve`: clients, and what lets a robot act on its own clock while the model thinks."""

from wam_client.async_client import AsyncClient
from wam_client.backoff import Retry
from wam_client.client import Client
from wam_client.clock import Clock, Pace, Robot, VirtualClock, WallClock, run
from wam_client.executor import Executor, Join, Report, Request, Rest, Thought, Timing, Worker, switch
from wam_client.phases import Phases, Session
from wam_client.protocol import ConnectionLost, Look, PolicyError, Reply, SessionLost, observation_of
from wam_client.remote_session import RemoteSession
from wam_client.smoothing import SavitzkyGolay, SmoothJoin
from wam_client.wire import Limits, WireError, packb, unpackb
from wam_client.workers import SimulatedWorker, ThreadWorker

__all__ = [
    "AsyncClient",
    "Client",
    "Clock",
    "ConnectionLost",
    "Executor",
    "Join",
    "Limits",
    "Look",
    "Pace",
    "Phases",
    "PolicyError",
    "RemoteSession",
    "Reply",
    "Report",
    "Request",
    "Rest",
    "Retry",
    "Robot",
    "SavitzkyGolay",
    "Session",
    "SessionLost",
    "SimulatedWorker",
    "SmoothJoin",
    "Thought",
    "ThreadWorker",
    "Timing",
    "VirtualClock",
    "WallClock",
    "WireError",
    "Worker",
    "observation_of",
    "packb",
    "run",
    "switch",
    "unpackb",
]
